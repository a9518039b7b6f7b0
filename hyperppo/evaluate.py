"""What policies are worth: whole episodes, every architecture with its own environments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperppo.checkpoint import Run
from hyperppo.envs.registry import make_env
from hyperppo.errors import HyperPPOError
from hyperppo.leaderboard import Leaderboard
from hyperppo.population import Population
from hyperppo.space import Architecture, SearchSpace

_CHUNK_ENVS = 8192  # environments stepped together: the simulator's best size


def evaluate(
    run: Run,
    architectures: Sequence[Architecture],
    episodes: int,
    seed: int,
    *,
    deterministic: bool = True,
    env_options: dict[str, Any] | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Leaderboard:
    """Fly `episodes` whole episodes with each architecture; row i belongs to `architectures[i]`.

    Returns sums of rewards, crash_rate (episodes that ended early) and the task's own metrics, each
    the mean over an episode of the steps where it is defined (not NaN), then over episodes.
    `env_options` override the run's own, for example {"scenarios": {"bezier": 1}}.
    """
    if episodes < 1:
        raise HyperPPOError("episodes must be at least 1")
    options = {**run.config.env, **(env_options or {})}
    per_chunk = max(1, _CHUNK_ENVS // episodes)
    parts: list[dict[str, NDArray[np.float64]]] = []
    for start in range(0, len(architectures), per_chunk):
        chunk = architectures[start : start + per_chunk]
        done, share = start / len(architectures), len(chunk) / len(architectures)
        parts.append(
            _fly(
                run,
                chunk,
                episodes,
                _chunk_seed(seed, start),
                deterministic,
                options,
                lambda f, done=done, share=share: progress(done + f * share),  # type: ignore[misc]
            )
        )
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    count = np.full(len(architectures), episodes, dtype=np.int64)
    return Leaderboard(
        params=np.array([run.space.count_params(a) for a in architectures], dtype=np.int64),
        macs=np.array([_macs(run.space, a) for a in architectures], dtype=np.int64),
        return_mean=joined.pop("return_mean"),
        return_stderr=joined.pop("return_stderr"),
        episodes=count,
        metrics=joined,
    )


def _chunk_seed(seed: int, start: int) -> int:
    return int(np.random.SeedSequence((seed, start)).generate_state(1)[0])


def _macs(space: SearchSpace, architecture: Architecture) -> int:
    return sum(i * o for i, o in space.layer_sizes(architecture))


@torch.inference_mode()
def _fly(
    run: Run,
    architectures: Sequence[Architecture],
    episodes: int,
    seed: int,
    deterministic: bool,
    options: dict[str, Any],
    progress: Callable[[float], None],
) -> dict[str, NDArray[np.float64]]:
    P, E = len(architectures), episodes
    env = make_env(run.task, options, P * E, seed)
    policies, log_std = run.hyper_policy(architectures)
    population = Population(policies, run.negative_slope)
    mean = run.observation_norm.mean.float()[:, None]
    scale = (1 / run.observation_norm.std).float()[:, None]
    noise = torch.Generator().manual_seed(seed + 1)

    observation, _ = env.reset()
    alive = torch.ones(P * E, dtype=torch.bool)
    total = torch.zeros(P * E)
    crashed = torch.zeros(P * E)
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    steps = 0
    while bool(alive.any()):
        x = ((observation - mean) * scale).t().reshape(P, E, -1)
        action = population(x)
        if not deterministic:
            normal = torch.randn(action.shape, generator=noise)
            action = action + log_std.exp()[:, None] * normal
        step = env.step(action.reshape(P * E, -1).t())
        observation = step.observation
        total += step.reward * alive
        crashed += step.terminated & alive
        for name, values in step.metrics.items():
            counted = alive & ~values.isnan()
            sums[name] = sums.get(name, 0) + torch.where(counted, values, 0.0)
            counts[name] = counts.get(name, 0) + counted
        alive &= ~(step.terminated | step.truncated)
        steps += 1
        if steps % 50 == 0:
            progress(min(1.0, steps / env.episode_steps))
    returns = total.view(P, E).double()
    stderr = returns.std(1) / math.sqrt(E) if E > 1 else torch.full((P,), math.nan)
    result = {
        "return_mean": returns.mean(1),
        "return_stderr": stderr,
        "crash_rate": crashed.view(P, E).double().mean(1),
    }
    for name in sums:
        per_episode = (sums[name] / counts[name]).view(P, E).double()
        result[name] = per_episode.nanmean(1)
    progress(1.0)
    return {key: value.numpy() for key, value in result.items()}


@torch.inference_mode()
def record_observations(
    run: Run, architecture: Architecture, count: int, seed: int
) -> NDArray[np.float32]:
    """Observations (count, obs_dim) that a policy sees in closed loop, spread over episodes."""
    policy = run.policy(architecture)
    envs = 64
    env = make_env(run.task, run.config.env, envs, seed)
    observation, _ = env.reset()
    stride = max(1, (env.episode_steps // 2) // math.ceil(count / envs))
    rows: list[Tensor] = []
    while len(rows) * envs < count:
        rows.append(observation.t().clone())
        for _ in range(stride):
            observation = env.step(policy(observation.t()).t()).observation
    recorded: NDArray[np.float32] = torch.cat(rows)[:count].contiguous().numpy()
    return recorded
