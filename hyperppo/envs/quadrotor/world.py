"""N flights as plain data: the vehicles, their goals, and what is seen of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from hyperppo.envs.quadrotor import dynamics, goals, observation
from hyperppo.envs.quadrotor.dynamics import Plant, State
from hyperppo.envs.quadrotor.goals import Goal
from hyperppo.envs.quadrotor.noise import NoisePool
from hyperppo.envs.quadrotor.options import QuadrotorOptions

ACT_DIM = 4


@dataclass
class World:
    """Everything about N flights that changes."""

    state: State
    plant: Plant
    goal: Goal
    time: Tensor  # (N,) control steps since the episode began
    segment_time: Tensor  # (N,) control steps since the goal's segment began
    action: Tensor  # (4, N) the last one, in [-1, 1]
    disturbance: Tensor  # (4, N) of the motor commands
    history: Tensor  # (4 k, N) actions, newest first


@dataclass(frozen=True)
class View:
    """What is seen of N flights at one moment."""

    seen: Tensor  # (critic_dim, N): the observation with sensor noise, then what only a critic sees
    distance: Tensor  # (N,) m to the goal, true
    speed: Tensor  # (N,) m/s relative to the goal, true
    upright: Tensor  # (N,) cosine of the tilt, R33


def begin(state: State, plant: Plant, goal: Goal, previous_actions: int) -> World:
    """Flights that start now."""
    time = torch.zeros_like(plant.mass)
    action = torch.zeros_like(state.motor)
    history = action.repeat(previous_actions, 1)
    return World(state, plant, goal, time, time.clone(), action, torch.zeros_like(action), history)


def goal_now(world: World, control_hz: int) -> tuple[Tensor, Tensor]:
    """Goal position (3, N) m and velocity (3, N) m/s, world frame."""
    return goals.evaluate(world.goal, world.segment_time * (1 / control_hz))


def look(world: World, options: QuadrotorOptions, noise: NoisePool) -> View:
    """Observe through noisy sensors: attitude noise is a small rotation of the body frame.

    `seen` is the observation, and on top of it the distance, plant, goal velocity and motors.
    """
    std, state, plant = options.noise, world.state, world.plant
    goal_position, goal_velocity = goal_now(world, options.control_hz)
    position_error = state.position - goal_position
    velocity_error = state.velocity - goal_velocity
    n = noise.draw(12, state.position.shape[1])
    seen_attitude = dynamics.rotate(state.attitude, n[6:9] * std.attitude_rad)
    observed = observation.build(
        torch.add(position_error, n[0:3], alpha=std.position_m),
        torch.add(velocity_error, n[3:6], alpha=std.velocity_m_s),
        dynamics.rotation_matrix(seen_attitude),
        torch.add(state.angular_velocity, n[9:12], alpha=std.gyro_rad_s),
        options.position_clip_m,
        world.history,
    )
    distance = dynamics.norm(position_error)
    rows = [
        distance,
        plant.max_thrust / plant.mass,
        plant.motor_time_constant.log(),
        plant.drag,
        plant.torque_to_thrust,
    ]
    privileged = [goal_velocity, state.motor, world.disturbance, world.action, plant.inertia]
    seen = torch.cat([*observed, *(row[None] for row in rows), *privileged])
    _, x, y, _ = state.attitude.unbind(0)
    upright = 1 - 2 * torch.addcmul(x * x, y, y)
    return View(seen, distance, dynamics.norm(velocity_error), upright)


def critic_dim(previous_actions: int) -> int:
    """Number of rows of `View.seen`."""
    return observation.observation_dim(previous_actions) + 1 + 3 + 3 * ACT_DIM + 7


def tensors(world: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a World, or of a part of it, by its dotted name."""
    for f in fields(world):
        value = getattr(world, f.name)
        if isinstance(value, Tensor):
            yield prefix + f.name, value
        elif value is not None:
            yield from tensors(value, f"{prefix}{f.name}.")


def overwrite(world: Any, index: Tensor, fresh: Any, first: int) -> None:
    """Put columns first, first + 1, ... of `fresh` in place of the columns `index` of `world`.

    Both are a World, or the same part of one.
    """
    taken = slice(first, first + len(index))
    for (_, old), (_, new) in zip(tensors(world), tensors(fresh), strict=True):
        old.index_copy_(-1, index, new[..., taken])
