"""PPO's equations, as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    last_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    final_value: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates (T, N) (Schulman et al. 2016, eq. 16).

    All (T, N) but `last_value` (N,), the value after the last step. Where an episode was
    truncated its value goes on with `final_value`, that of the state before the reset; where it
    terminated, with 0. Environments are columns: estimates never mix them, nor the architectures
    that act in them.
    """
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(last_value)
    next_value = last_value
    for t in reversed(range(reward.shape[0])):
        follow = torch.where(truncated[t], final_value[t], next_value * ~terminated[t])
        delta = reward[t] + gamma * follow - value[t]
        goes_on = ~(terminated[t] | truncated[t])
        running = delta + gamma * lam * running * goes_on
        advantage[t] = running
        next_value = value[t]
    return advantage


def policy_loss(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Clipped surrogate objective, negated (Schulman et al. 2017, eq. 7)."""
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the mean squared error, clipped around the old value when `clip` is given."""
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error.mean()


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean KL divergence of the new diagonal Gaussians (..., act_dim) from the old ones."""
    scaled = (old_mean - mean).square() + torch.exp(2 * old_log_std)
    kl = log_std - old_log_std + 0.5 * scaled * torch.exp(-2 * log_std) - 0.5
    return kl.sum(-1).mean()


def adapted_rate(rate: Tensor, kl: Tensor, target: float, limits: tuple[float, float]) -> Tensor:
    """The learning rate that keeps the KL divergence near its target (rsl_rl's rule, and the
    original's): all 0-dimensional, no question asked of the device.
    """
    low, high = limits
    slower, faster = (rate / 1.5).clamp(min=low), (rate * 1.5).clamp(max=high)
    near = torch.where((kl > 0) & (kl < target / 2), faster, rate)
    return torch.where(kl > 2 * target, slower, near)


def too_far(kl: Tensor, target: float | None) -> Tensor:
    """Whether the policy has left the data so far behind that more steps would be blind."""
    return kl > (math.inf if target is None else 4 * target)
