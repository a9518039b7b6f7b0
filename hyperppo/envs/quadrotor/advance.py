"""One control step of all flights, as a function of tensors alone: it can be compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperppo.envs.quadrotor import delays, dynamics, goals, memory
from hyperppo.envs.quadrotor.noise import Draws
from hyperppo.envs.quadrotor.options import QuadrotorOptions
from hyperppo.envs.quadrotor.world import View, World, look

RECOVERY_S = 2.0  # how long a thrown vehicle may be upside down
SETTLED_S = 3.0  # the tracking error counts from here on: before it, the vehicle is on its way
STEADY = 2 / 3  # of an episode: the height counts from here on, of those that still fly
_THROW = goals.SCENARIOS.index("throw")


@dataclass(frozen=True)
class Outcome:
    """What a control step of N flights brings, before episodes that ended start anew."""

    seen: Tensor  # (critic_dim, N): the observation, then what only a critic sees
    reward: Tensor  # (N,)
    crashed: Tensor  # (N,) bool
    truncated: Tensor  # (N,) bool: the time limit
    turning: Tensor  # (N,) bool: the goal's segment is over
    error: Tensor  # (N,) m to the goal; NaN before a flight has settled
    height: Tensor  # (N,) m above the goal; NaN before the last third of an episode


def advance(
    world: World, action: Tensor, draws: Draws, options: QuadrotorOptions, leaning_costs: bool
) -> Outcome:
    """Fly one step with actions (4, N), within -1..1; `world` goes on to what comes of it.

    Episodes end (crashed) beyond the allowed distance, tilt (90 degrees) or spin, and when floor,
    wall or ceiling are hit. Leaning costs what `RewardWeights.tilt` says where gradients are taken.
    """
    w = options.reward
    change = action - world.action
    impact = _move(world, action, draws, options)
    view = look(world, options, draws)
    wx, wy, wz = world.state.angular_velocity.unbind(0)
    spin_xy = torch.addcmul(wx * wx, wy, wy)
    crashed = _crashed(world, view, torch.addcmul(spin_xy, wz, wz), impact, options)
    distance = view.distance
    # Far away the exponent is cut: numbers below 1e-38 make a processor slow.
    near = torch.exp(((distance * distance) * (-1 / w.near_m**2)).clamp(min=-80.0))
    reward = w.alive - distance.clamp(max=4.0) * w.distance
    reward = torch.add(reward, view.speed, alpha=-w.velocity)
    reward = torch.add(reward, dynamics.root(spin_xy) + wz.abs(), alpha=-w.spin)
    reward = torch.add(reward, (change * change).sum(0), alpha=-w.smoothness)
    reward = torch.add(reward, near, alpha=w.near)
    reward = torch.add(reward, view.upright, alpha=w.upright)
    if leaning_costs:
        leaning = 1 - view.upright
        reward = torch.add(reward, leaning * leaning, alpha=-w.tilt)
    reward = torch.add(reward, crashed.to(reward.dtype), alpha=-w.crash)
    unsettled = world.time <= round(SETTLED_S * options.control_hz)
    passing = world.time <= round(STEADY * options.episode_s * options.control_hz)
    return Outcome(
        view.seen,
        reward,
        crashed,
        (world.time >= round(options.episode_s * options.control_hz)) & ~crashed,
        world.segment_time >= world.goal.duration * options.control_hz,
        distance.masked_fill(unsettled, math.nan),
        view.height.masked_fill(passing, math.nan),
    )


def _crashed(
    world: World,
    view: View,
    spin_squared: Tensor,
    impact: Tensor | None,
    options: QuadrotorOptions,
) -> Tensor:
    # Differences and maxima of numbers are faster than comparisons and logic.
    too_fast = spin_squared - options.max_spin_rad_s**2
    excess = torch.maximum(view.distance - options.max_distance_m, too_fast)
    if impact is not None:
        excess = torch.maximum(excess, impact - options.max_impact_m_s)
    tilt = -view.upright
    if options.scenarios.get("throw", 0.0) > 0:
        recovering = world.time < round(RECOVERY_S * options.control_hz)
        tilt = tilt - 2.0 * (recovering & (world.goal.scenario == _THROW))
    return torch.maximum(excess, tilt) > 0


def _move(world: World, action: Tensor, draws: Draws, options: QuadrotorOptions) -> Tensor | None:
    """Physics for one control step, with unsteady thrust.

    Returns how fast the room's bounds were hit, (N,) m/s; None: nobody came near them.

    Thrust is unsteady as in QuadSwarm (`quadrotor_dynamics.py`: `thrust_noise_ratio` 0.05, sigma
    a fifth of it): an Ornstein-Uhlenbeck process a motor, in parts of the commanded thrust, added
    behind the motor's lag.
    """
    command = (action + 1) * 0.5
    if world.command_delay is not None:
        command = delays.send(world.command_delay, command)
    unsteady = None
    if draws.kick is not None:
        kick = draws.kick * options.thrust_noise
        world.disturbance = torch.add(kick, world.disturbance, alpha=0.85)
        unsteady = command * world.disturbance
    dt, count = 1 / options.physics_hz, options.physics_hz // options.control_hz
    wind = goals.wind(world.goal, world.segment_time * (1 / options.control_hz))
    state = dynamics.step(world.state, world.plant, command, dt, count, wind, unsteady)
    world.state = dynamics.keep_in_room(state)
    inside = world.state is state
    impact = None if inside else (world.state.velocity - state.velocity).abs().amax(0)
    world.action = action
    memory.remember(world.memory, action, options)
    world.time = world.time + 1
    world.segment_time = world.segment_time + 1
    return impact
