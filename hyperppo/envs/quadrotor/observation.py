"""The observation, block by block: the one builder in Python (docs/conventions.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from hyperppo.envs.quadrotor.dynamics import norm, to_body
from hyperppo.envs.quadrotor.memory import ACT_DIM, Memory
from hyperppo.envs.quadrotor.options import QuadrotorOptions


def blocks(options: QuadrotorOptions) -> dict[str, int]:
    """The observation's blocks in order, and how many numbers each has."""
    sizes = {
        "position_error_body": 3,
        "velocity_error_body": 3,
        "rotation": 9,
        "angular_velocity": 3,
        "position_error_integral_body": 3 * (options.integral_clip_m_s > 0),
        "previous_action": ACT_DIM * options.previous_actions,
        "action_average": ACT_DIM * len(options.action_average_s),
    }
    return {name: size for name, size in sizes.items() if size}


def measured_dim(options: QuadrotorOptions) -> int:
    """How many of the numbers come from sensors: past actions are known."""
    known = ("previous_action", "action_average")
    return sum(size for name, size in blocks(options).items() if name not in known)


def clip(position_error: Tensor, limit_m: float) -> Tensor:
    """Position errors (3, N) m, shortened to at most `limit_m`: a far goal keeps its direction."""
    return position_error * (limit_m / norm(position_error).clamp(min=limit_m))


def compress(velocity_error: Tensor, limit_m_s: float) -> Tensor:
    """Velocity errors (3, N) m/s, shortened to less than `limit_m_s`, small ones hardly; 0: as is.

    v / sqrt(1 + |v|^2 / limit^2): where a goal jumps, a small network does not ask for all that the
    motors have.
    """
    if limit_m_s <= 0:
        return velocity_error
    squared = (velocity_error * velocity_error).sum(0)
    return velocity_error * torch.rsqrt(1 + squared * (1 / limit_m_s**2))


def measured(
    clipped_position_error: Tensor,
    compressed_velocity_error: Tensor,
    rotation: Tensor,
    angular_velocity: Tensor,
    memory: Memory,
) -> list[Tensor]:
    """The measured blocks, in order.

    `clipped_position_error` p - p_goal (3, N) m and `compressed_velocity_error` v - v_goal (3, N)
    m/s in the world frame, `rotation` (9, N) body -> world row-major, `angular_velocity` (3, N)
    rad/s body.
    """
    parts = [
        to_body(rotation, clipped_position_error),
        to_body(rotation, compressed_velocity_error),
        rotation,
        angular_velocity,
    ]
    if memory.integral is not None:
        parts.append(to_body(rotation, memory.integral))
    return parts


def known(memory: Memory) -> list[Tensor]:
    """The blocks that follow: the policy's own past."""
    return [memory.history] if memory.average is None else [memory.history, memory.average]


def observation_dim(options: QuadrotorOptions) -> int:
    """Number of observations."""
    return sum(blocks(options).values())
