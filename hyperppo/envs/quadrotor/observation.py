"""The observation, block by block: the one builder in Python (docs/conventions.md)."""

from __future__ import annotations

from torch import Tensor

from hyperppo.envs.quadrotor.dynamics import norm, to_body


def block_names(previous_actions: int) -> list[str]:
    """Names of the observation's blocks, in order."""
    names = ["position_error_body", "velocity_error_body", "rotation", "angular_velocity"]
    return names + (["previous_action"] if previous_actions else [])


def observation_dim(previous_actions: int) -> int:
    """Number of observations: 18, and 4 per past action."""
    return 18 + 4 * previous_actions


def build(
    position_error: Tensor,
    velocity_error: Tensor,
    rotation: Tensor,
    angular_velocity: Tensor,
    position_clip_m: float,
    history: Tensor,
) -> list[Tensor]:
    """Observation (18 + 4 k, N), block by block.

    `position_error` p - p_goal (3, N) m and `velocity_error` v - v_goal (3, N) m/s in the world
    frame, `rotation` (9, N) body -> world row-major, `angular_velocity` (3, N) rad/s body,
    `history` (4 k, N) the last k actions, newest first. The norm of the position error is clipped.
    """
    scale = position_clip_m / norm(position_error).clamp(min=position_clip_m)
    return [
        to_body(rotation, position_error) * scale,
        to_body(rotation, velocity_error),
        rotation,
        angular_velocity,
        history,
    ]
