"""How an episode starts: a vehicle, where it is, and where it should be."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from hyperppo.envs.quadrotor import delays, dynamics, goals
from hyperppo.envs.quadrotor.dynamics import Plant, State
from hyperppo.envs.quadrotor.memory import ACT_DIM
from hyperppo.envs.quadrotor.observation import measured_dim
from hyperppo.envs.quadrotor.options import EASY, PlantRanges, QuadrotorOptions, Range
from hyperppo.envs.quadrotor.world import Sensors, World, begin

THROW_RAD_S = 10.0


def spawn(
    options: QuadrotorOptions, num: int, generator: torch.Generator, hardness: float = 1.0
) -> World:
    """Draw `num` starts: most nearly level and slow, a share of them tilted and tumbling.

    `hardness` 0: vehicles of `EASY`, without delays; 1: of the options' plant; between: between.
    """
    plant = sample_plant(options.plant, num, generator, hardness)
    goal = goals.start(options.scenarios, num, generator)
    first, _ = goals.evaluate(goal, torch.zeros(num, device=generator.device))
    hard = torch.rand(num, generator=generator, device=generator.device) < options.spawn_hard
    heading = _uniform((-math.pi, math.pi), (num,), generator)
    towards = _uniform((-math.pi, math.pi), (num,), generator)
    tilt = _uniform((0.0, 1.0), (num,), generator) * torch.where(hard, 1.2, 0.2)  # rad
    zero = torch.zeros_like(heading)
    level = torch.stack((torch.cos(heading / 2), zero, zero, torch.sin(heading / 2)))
    direction = torch.stack((torch.cos(towards), torch.sin(towards), zero))
    hover = plant.mass * (dynamics.GRAVITY / 4) / plant.max_thrust
    state = State(
        position=first + _uniform((-options.spawn_m, options.spawn_m), (3, num), generator),
        velocity=torch.where(hard, 1.0, 0.3) * _uniform((-1.0, 1.0), (3, num), generator),
        attitude=_turn(level, direction, tilt),
        angular_velocity=torch.where(hard, 4.0, 0.5) * _uniform((-1.0, 1.0), (3, num), generator),
        motor=(hover * _uniform((0.0, 1.0), (num,), generator)).repeat(4, 1),
    )
    for name, prepare in (("takeoff", _on_the_floor), ("throw", _thrown)):
        if options.scenarios.get(name, 0.0) > 0:
            chosen = goal.scenario == goals.SCENARIOS.index(name)
            prepared = prepare(state, first, generator)
            pairs = [(getattr(prepared, f.name), getattr(state, f.name)) for f in fields(State)]
            state = State(*(torch.where(chosen, new, old) for new, old in pairs))
    sensors = draw_sensors(options, num, generator, hardness)
    lag = delays.draw(options.plant.action_delay_steps, ACT_DIM, num, generator, hardness)
    if lag is not None:
        delays.fill(lag, state.motor)
    return begin(state, plant, goal, options, sensors, lag)


def _on_the_floor(state: State, goal: Tensor, generator: torch.Generator) -> State:
    """Below the goal (3, N) but for half a metre, level, at rest, motors off."""
    beside = _uniform((-0.5, 0.5), (3, goal.shape[1]), generator)
    position = torch.cat(((goal + beside)[:2], torch.zeros_like(goal[2:])))
    heading = state.attitude * torch.tensor([1.0, 0.0, 0.0, 1.0], device=goal.device)[:, None]
    still = torch.zeros_like(position)
    return State(
        position, still, heading / heading.norm(dim=0), still, torch.zeros_like(state.motor)
    )


def _thrown(state: State, goal: Tensor, generator: torch.Generator) -> State:
    """Any attitude, turning at up to `THROW_RAD_S` about any axis."""
    device = goal.device
    attitude = torch.randn(state.attitude.shape, generator=generator, device=device)
    axis = torch.randn(goal.shape, generator=generator, device=device)
    spin = _uniform((0.0, THROW_RAD_S), (goal.shape[1],), generator)
    return State(
        state.position,
        _uniform((-1.0, 1.0), tuple(goal.shape), generator),
        attitude / attitude.norm(dim=0),
        axis / axis.norm(dim=0) * spin,
        state.motor,
    )


def sample_plant(
    ranges: PlantRanges, num: int, generator: torch.Generator, hardness: float = 1.0
) -> Plant:
    """Draw `num` vehicles; see `spawn` for `hardness`."""

    def eased(name: str) -> Range:
        return _between(getattr(EASY, name), getattr(ranges, name), hardness)

    mass = _uniform(ranges.mass_kg, (num,), generator)
    thrust_to_weight = _uniform(eased("thrust_to_weight"), (num,), generator)
    low, high = eased("motor_time_constant_s")
    log_lag = _uniform((math.log(low), math.log(high)), (num,), generator)
    nominal = torch.tensor(dynamics.INERTIA, device=generator.device)[:, None]
    fall = spread = offset = None
    if ranges.motor_fall_ratio != (1.0, 1.0):
        fall = _uniform(eased("motor_fall_ratio"), (num,), generator)
    if ranges.motor_spread > 0:
        most = ranges.motor_spread * hardness
        spread = 1 + _uniform((-most, most), (4, num), generator)
    if ranges.centre_of_mass_m > 0:
        most = ranges.centre_of_mass_m * hardness
        offset = _uniform((-most, most), (2, num), generator)
    return Plant(
        mass=mass,
        max_thrust=thrust_to_weight * mass * (dynamics.GRAVITY / 4),
        motor_time_constant=log_lag.exp(),
        inertia=nominal * _uniform(ranges.inertia_scale, (3, num), generator),
        drag=_uniform(ranges.drag_per_s, (num,), generator),
        torque_to_thrust=_uniform(ranges.torque_to_thrust_m, (num,), generator),
        motor_fall_ratio=fall,
        motor_gain=spread,
        centre_of_mass=offset,
    )


def draw_sensors(
    options: QuadrotorOptions, num: int, generator: torch.Generator, hardness: float = 1.0
) -> Sensors:
    """Draw what is constant about the sensors of `num` vehicles."""
    noise, numbers = options.noise, measured_dim(options)
    scale = bias = held = None
    if noise.scale != (1.0, 1.0):
        scale = _uniform(noise.scale, (num,), generator)
    if noise.gyro_bias_rad_s > 0:
        standard = torch.randn((3, num), generator=generator, device=generator.device)
        bias = standard * noise.gyro_bias_rad_s
    if noise.dropped > 0:
        held = torch.zeros((numbers, num), device=generator.device)
    late = delays.draw(noise.delay_steps, numbers, num, generator, hardness)
    return Sensors(scale, bias, late, held)


def _between(easy: Range, full: Range, hardness: float) -> Range:
    low, high = (e + (f - e) * hardness for e, f in zip(easy, full, strict=True))
    return low, high


def _uniform(low_high: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    low, high = low_high
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _turn(attitude: Tensor, axis: Tensor, angle: Tensor) -> Tensor:
    """Attitudes (4, N) turned about body axes (3, N) of unit length by angles (N,) rad."""
    w, v = attitude[0], attitude[1:]
    c, s = torch.cos(angle / 2), axis * torch.sin(angle / 2)
    scalar = w * c - (v * s).sum(0)
    return torch.cat((scalar[None], w * s + c * v + dynamics.cross(v, s)))
