"""What a policy is told of the past, beside the present measurements.

Actions averaged over about the motors' lag tell what the motors do now, which no sensor does: a
policy that sees only the present cannot stop the swing of a vehicle with slow motors. The integral
of the position error tells how much thrust is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperppo.envs.quadrotor.dynamics import norm
from hyperppo.envs.quadrotor.options import QuadrotorOptions

ACT_DIM = 4


@dataclass
class Memory:
    """The past of N flights; None where a run does not observe it. Zeros after a reset."""

    history: Tensor  # (4 k, N) actions, newest first
    average: Tensor | None  # (4 m, N) actions, exponentially averaged over m time constants
    integral: Tensor | None  # (3, N) m s, world frame, of the position error that was measured


def blank(options: QuadrotorOptions, num: int, device: torch.device) -> Memory:
    """No past."""
    average = integral = None
    if options.action_average_s:
        average = torch.zeros((ACT_DIM * len(options.action_average_s), num), device=device)
    if options.integral_clip_m_s > 0:
        integral = torch.zeros((3, num), device=device)
    history = torch.zeros((ACT_DIM * options.previous_actions, num), device=device)
    return Memory(history, average, integral)


def remember(memory: Memory, action: Tensor, options: QuadrotorOptions) -> None:
    """Take in the latest action (4, N): after it, average += (action - average) (1 - e^(-dt/T))."""
    if options.previous_actions:
        memory.history = torch.cat((action, memory.history[:-ACT_DIM]))
    if memory.average is not None:
        moves = [-math.expm1(-1 / (options.control_hz * T)) for T in options.action_average_s]
        pairs = zip(memory.average.view(-1, *action.shape), moves, strict=True)
        memory.average = torch.cat([torch.lerp(each, action, move) for each, move in pairs])


def integrate(memory: Memory, clipped_error: Tensor, options: QuadrotorOptions) -> None:
    """Add one control step of the position error (3, N) m, clipped, world frame.

    What is observed at a step is the sum over the steps before it; its norm is clipped.
    """
    if memory.integral is not None:
        dt = 1 / options.control_hz
        kept = memory.integral * (1 - options.integral_leak_per_s * dt)
        total = torch.add(kept, clipped_error, alpha=dt)
        limit = options.integral_clip_m_s
        memory.integral = total * (limit / norm(total).clamp(min=limit))
