"""Whole episodes in a simulator, of any policy: a function from observations to actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperppo.envs.base import VectorEnv

Floats = NDArray[np.float32]
_ASK_EVERY = 50  # steps


@dataclass(frozen=True)
class Episodes:
    """Whole episodes, one entry each."""

    returns: NDArray[np.float64]  # (n,) sum of rewards
    crashed: NDArray[np.bool_]  # (n,) ended early
    metrics: dict[str, NDArray[np.float64]]  # (n,) means over steps; NaN: never defined


@torch.inference_mode()
def fly_episodes(
    env: VectorEnv,
    policy: Callable[[Tensor], Tensor],
    progress: Callable[[float], None] = lambda fraction: None,
) -> Episodes:
    """One whole episode in each of n environments.

    `policy` turns observations (obs_dim, n) into actions (act_dim, n). A metric's mean is over the
    steps where it is defined (not NaN).
    """
    n, device = env.num_envs, env.device
    observation, _ = env.reset()
    alive = torch.ones(n, dtype=torch.bool, device=device)
    crashed = torch.zeros(n, dtype=torch.bool, device=device)
    total = torch.zeros(n, dtype=torch.float64, device=device)
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    steps = 0
    # A GPU is asked only now and then: it would have to come to rest first.
    while (device.type != "cpu" and steps % _ASK_EVERY) or bool(alive.any()):
        step = env.step(policy(observation))
        observation = step.observation
        total += step.reward * alive
        crashed |= step.terminated & alive
        for name, values in step.metrics.items():
            counted = alive & ~values.isnan()
            sums[name] = sums.get(name, 0.0) + torch.where(counted, values, 0.0)
            counts[name] = counts.get(name, 0) + counted
        alive &= ~(step.terminated | step.truncated)
        steps += 1
        if steps % _ASK_EVERY == 0:
            progress(min(1.0, steps / env.episode_steps))
    progress(1.0)
    means = {name: (sums[name] / counts[name]).double().cpu().numpy() for name in sums}
    return Episodes(total.cpu().numpy(), crashed.cpu().numpy(), means)


def on_rows(policy: Callable[[Floats], Floats]) -> Callable[[Tensor], Tensor]:
    """A policy of arrays, (n, obs_dim) -> (n, act_dim) float32, as `fly_episodes` takes it."""

    def act(observation: Tensor) -> Tensor:
        actions = policy(np.ascontiguousarray(observation.t().numpy()))
        return torch.from_numpy(np.ascontiguousarray(actions.T))

    return act
