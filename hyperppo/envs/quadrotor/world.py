"""N flights as plain data: the vehicles, their goals, and what is seen of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from hyperppo.envs.quadrotor import delays, dynamics, goals, memory, observation
from hyperppo.envs.quadrotor.delays import Delay
from hyperppo.envs.quadrotor.dynamics import Plant, State
from hyperppo.envs.quadrotor.goals import Goal
from hyperppo.envs.quadrotor.memory import ACT_DIM, Memory
from hyperppo.envs.quadrotor.noise import Draws
from hyperppo.envs.quadrotor.options import QuadrotorOptions


@dataclass
class Sensors:
    """What is particular about the sensors of N vehicles; None: nothing."""

    scale: Tensor | None  # (N,) of the noise of position and velocity
    gyro_bias: Tensor | None  # (3, N) rad/s
    delay: Delay | None
    held: Tensor | None  # (measured, N) the last measurement, where updates may be dropped


@dataclass
class World:
    """Everything about N flights that changes."""

    state: State
    plant: Plant
    goal: Goal
    time: Tensor  # (N,) control steps since the episode began
    segment_time: Tensor  # (N,) control steps since the goal's segment began
    action: Tensor  # (4, N) the last one, in [-1, 1]
    disturbance: Tensor  # (4, N) of the thrust, as a share of the commanded
    memory: Memory
    sensors: Sensors
    command_delay: Delay | None  # between an action and the motors


@dataclass(frozen=True)
class View:
    """What is seen of N flights at one moment."""

    seen: Tensor  # (critic_dim, N): the observation with sensor noise, then what only a critic sees
    distance: Tensor  # (N,) m to the goal, true
    height: Tensor  # (N,) m above the goal, true
    speed: Tensor  # (N,) m/s relative to the goal, true
    upright: Tensor  # (N,) cosine of the tilt, R33


def begin(
    state: State,
    plant: Plant,
    goal: Goal,
    options: QuadrotorOptions,
    sensors: Sensors,
    command_delay: Delay | None,
) -> World:
    """Flights that start now."""
    time = torch.zeros_like(plant.mass)
    action = torch.zeros_like(state.motor)
    return World(
        state,
        plant,
        goal,
        time,
        segment_time=time.clone(),
        action=action,
        disturbance=torch.zeros_like(action),
        memory=memory.blank(options, len(time), time.device),
        sensors=sensors,
        command_delay=command_delay,
    )


def goal_now(world: World, control_hz: int) -> tuple[Tensor, Tensor]:
    """Goal position (3, N) m and velocity (3, N) m/s, world frame."""
    return goals.evaluate(world.goal, world.segment_time * (1 / control_hz))


def look(world: World, options: QuadrotorOptions, draws: Draws, first: bool = False) -> View:
    """Observe through the sensors: attitude noise is a small rotation of the body frame.

    `seen` is the observation, and on top of it the distance, plant, goal velocity and motors.
    Measurements that come late or not at all are kept in `world.sensors`; at the `first` look of
    an episode all that is on its way is what is there.
    """
    std, state, plant, sensors = options.noise, world.state, world.plant, world.sensors
    goal_position, goal_velocity = goal_now(world, options.control_hz)
    position_error = state.position - goal_position
    velocity_error = state.velocity - goal_velocity
    n_position, n_velocity, n_attitude, n_gyro = draws.sensors.view(4, 3, -1).unbind(0)
    if sensors.scale is not None:
        n_position, n_velocity = n_position * sensors.scale, n_velocity * sensors.scale
    spin = torch.add(state.angular_velocity, n_gyro, alpha=std.gyro_rad_s)
    seen_attitude = dynamics.rotate(state.attitude, n_attitude * std.attitude_rad)
    seen_error = torch.add(position_error, n_position, alpha=std.position_m)
    clipped = observation.clip(seen_error, options.position_clip_m)
    seen_velocity = torch.add(velocity_error, n_velocity, alpha=std.velocity_m_s)
    measured = observation.measured(
        clipped,
        observation.compress(seen_velocity, options.velocity_limit_m_s),
        dynamics.rotation_matrix(seen_attitude),
        spin if sensors.gyro_bias is None else spin + sensors.gyro_bias,
        world.memory,
    )
    memory.integrate(world.memory, clipped, options)
    if sensors.delay is not None or sensors.held is not None:
        measured = [_late(sensors, torch.cat(measured), draws.dropped, first)]
    distance = dynamics.norm(position_error)
    rows = [
        distance,
        plant.max_thrust / plant.mass,
        plant.motor_time_constant.log(),
        plant.drag,
        plant.torque_to_thrust,
    ]
    privileged = [goal_velocity, state.motor, world.disturbance, world.action, plant.inertia]
    known = observation.known(world.memory)
    seen = torch.cat([*measured, *known, *(row[None] for row in rows), *privileged])
    _, x, y, _ = state.attitude.unbind(0)
    upright = 1 - 2 * torch.addcmul(x * x, y, y)
    return View(seen, distance, position_error[2], dynamics.norm(velocity_error), upright)


def _late(sensors: Sensors, measured: Tensor, dropped: Tensor | None, first: bool) -> Tensor:
    """What the policy gets to see of measurements (m, N)."""
    if sensors.delay is not None:
        if first:
            delays.fill(sensors.delay, measured)
        measured = delays.send(sensors.delay, measured)
    if sensors.held is not None:
        if dropped is not None:
            measured = torch.where(dropped, sensors.held, measured)
        sensors.held = measured
    return measured


def critic_dim(options: QuadrotorOptions) -> int:
    """Number of rows of `View.seen`."""
    return observation.observation_dim(options) + 1 + 3 + 3 * ACT_DIM + 7


def tensors(world: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a World, or of a part of it, by its dotted name."""
    for f in fields(world):
        value = getattr(world, f.name)
        if isinstance(value, Tensor):
            yield prefix + f.name, value
        elif value is not None:
            yield from tensors(value, f"{prefix}{f.name}.")


def same(world: Any) -> Any:
    """The same tensors in a World, or a part of one, of its own."""
    parts = {f.name: getattr(world, f.name) for f in fields(world)}
    return type(world)(
        **{n: x if x is None or isinstance(x, Tensor) else same(x) for n, x in parts.items()}
    )


def copy_over(world: Any, fresh: Any) -> None:
    """Put what `fresh` holds into the tensors of `world`."""
    for (_, old), (_, new) in zip(tensors(world), tensors(fresh), strict=True):
        if old is not new:
            old.copy_(new)


def replace_where(world: Any, chosen: Tensor, fresh: Any) -> None:
    """Put the columns of `fresh` where `chosen` (N,) in place of those of `world`.

    Both are a World, or the same part of one, of N columns.
    """
    _renew(world, fresh, lambda old, new: torch.where(chosen, new, old))


def overwrite(world: Any, index: Tensor, fresh: Any, first: int) -> None:
    """Put columns first, first + 1, ... of `fresh` in place of the columns `index` of `world`.

    Both are a World, or the same part of one.
    """
    taken = slice(first, first + len(index))
    # What a graph holds on to stays as it is; without one, in place is faster.
    copy = Tensor.index_copy if torch.is_grad_enabled() else Tensor.index_copy_
    _renew(world, fresh, lambda old, new: copy(old, -1, index, new[..., taken]))


def cut(world: Any) -> None:
    """Put copies in place of the tensors of `world`, without the graph that led to them.

    Contiguous ones: what comes of them would else be rounded as their strides have it, and those of
    a resumed run are others than of one that went on.
    """
    contiguous = torch.contiguous_format
    _renew(world, world, lambda old, _: old.detach().clone(memory_format=contiguous))


def _renew(world: Any, fresh: Any, renewed: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Let every tensor of `world` be what `renewed` makes of it and of that of `fresh`."""
    for f in fields(world):
        old, new = getattr(world, f.name), getattr(fresh, f.name)
        if isinstance(old, Tensor):
            setattr(world, f.name, renewed(old, new))
        elif old is not None:
            _renew(old, new, renewed)
