"""What a policy is worth in the simulator, given as any function from observations to actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hyperppo.checkpoint import Run

EPISODES = 64
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def mean_return(run: Run, policy: Policy, seed: int, episodes: int = EPISODES) -> float:
    """Mean sum of rewards of whole episodes; (n, obs_dim) -> (n, act_dim) float32 at each step.

    The same seed gives every policy the same starts and disturbances.
    """
    import torch

    from hyperppo.envs.registry import make_env

    with torch.inference_mode():
        env = make_env(run.task, run.config.env, episodes, seed)
        observation, _ = env.reset()
        alive = torch.ones(episodes, dtype=torch.bool)
        total = torch.zeros(episodes)
        while bool(alive.any()):
            action = policy(np.ascontiguousarray(observation.t().numpy()))
            step = env.step(torch.from_numpy(action).t().contiguous())
            total += step.reward * alive
            alive &= ~(step.terminated | step.truncated)
            observation = step.observation
        return float(total.double().mean())
