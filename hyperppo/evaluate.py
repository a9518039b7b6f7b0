"""What policies are worth: whole episodes, every architecture with its own environments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from hyperppo import parallel
from hyperppo.checkpoint import LEADERBOARD, Run, load_run
from hyperppo.envs.registry import find_task, make_env
from hyperppo.episodes import fly_episodes
from hyperppo.errors import HyperPPOError
from hyperppo.leaderboard import Leaderboard, write_leaderboard
from hyperppo.population import Population
from hyperppo.processor import side_by_side
from hyperppo.ranking import halve, undecided
from hyperppo.space import Architecture, SearchSpace

_ON_A_GPU = 65_536  # environments that one steps together
MOST_EPISODES = 1024  # an architecture, however close a decision is
LEADERBOARD_SAMPLED = "leaderboard_sampled.csv"


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
    n = len(architectures)
    options = {**run.config.env, **(env_options or {})}
    # Strided, so that every chunk has small and large ones; even, so that two cores share them.
    # The numbers of threads and of processes play no part: the result does not depend on them.
    on_cpu = run.device.type == "cpu"
    together = find_task(run.task).side_by_side if on_cpu else _ON_A_GPU
    count = (
        min(n, 2 * math.ceil(n * episodes / (2 * together)))
        if on_cpu
        else math.ceil(n * episodes / together)
    )
    chunks = [range(start, n, count) for start in range(count)]
    done = [0.0] * count

    def fly(k: int) -> dict[str, NDArray[np.float64]]:
        def report(fraction: float) -> None:
            done[k] = fraction
            progress(sum(done) / len(mine))

        chosen = [architectures[i] for i in chunks[k]]
        return _fly(run, chosen, episodes, _chunk_seed(seed, k), deterministic, options, report)

    mine = range(parallel.number(), count, parallel.processes())
    tasks = [partial(fly, k) for k in mine]
    flown = side_by_side(tasks) if on_cpu else [task() for task in tasks]
    parts = parallel.union(dict(zip(mine, flown, strict=True)))
    joined = {key: np.empty(n) for key in parts[0]}
    for k, part in parts.items():
        for key, values in part.items():
            joined[key][chunks[k]] = values
    return Leaderboard(
        params=np.array([run.space.count_params(a) for a in architectures], dtype=np.int64),
        macs=np.array([_macs(run.space, a) for a in architectures], dtype=np.int64),
        return_mean=joined.pop("return_mean"),
        return_stderr=joined.pop("return_stderr"),
        episodes=np.full(n, episodes, dtype=np.int64),
        metrics=joined,
    )


def _chunk_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


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
    env = make_env(run.task, options, P * E, seed, str(run.device))
    population: Callable[[Tensor], Tensor]
    if run.device.type == "cpu":
        policies, log_std = run.hyper_policy(architectures)
        population = Population(policies, run.negative_slope)
    else:
        told = run.hyper_policy.tell(architectures)
        population, log_std = run.hyper_policy.dense(told, architectures)
    mean = run.observation_norm.mean.float()[:, None]
    scale = (1 / run.observation_norm.std).float()[:, None]
    noise = torch.Generator(run.device).manual_seed(seed + 1)

    def act(observation: Tensor) -> Tensor:
        action = population(((observation - mean) * scale).t().reshape(P, E, -1))
        if not deterministic:
            normal = torch.randn(action.shape, generator=noise, device=run.device)
            action = action + log_std.exp()[:, None] * normal
        return action.reshape(P * E, -1).t()

    flown = fly_episodes(env, act, progress)
    returns = flown.returns.reshape(P, E)
    spread = returns.std(1, ddof=1) if E > 1 else np.full(P, math.nan)
    return {
        "return_mean": returns.mean(1),
        "return_stderr": spread / math.sqrt(E),
        "crash_rate": flown.crashed.reshape(P, E).mean(1),
        **{name: _nanmean(values.reshape(P, E)) for name, values in flown.metrics.items()},
    }


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of the rows of (P, E); NaN where nothing is defined."""
    means: NDArray[np.float64] = torch.from_numpy(values).nanmean(1).numpy()
    return means


def rank(
    out: Path,
    episodes: int,
    seed: int,
    console: Console,
    *,
    deterministic: bool = True,
    halving: bool = False,
    device: str = "cpu",
) -> Leaderboard:
    """Evaluate every architecture of the run at `out` and write its leaderboard.

    With `halving`, architectures that may be on the Pareto front get up to `MOST_EPISODES`. Sampled
    actions have a leaderboard of their own: what is deployed takes the mean.
    """
    parallel.wait()  # until the run is there for all
    run = load_run(out, device)
    space = run.space
    with Progress(console=console, transient=True) as bar:

        def fly(rows: Sequence[int], episodes: int, number: int) -> Leaderboard:
            text = f"{len(rows)} architectures x {episodes} episodes"
            task = bar.add_task(text, total=1.0)
            return evaluate(
                run,
                [space.architectures[i] for i in rows],
                episodes,
                _chunk_seed(seed, number) if number else seed,
                deterministic=deterministic,
                progress=lambda fraction: bar.update(task, completed=fraction),
            )

        board = fly(range(len(space)), episodes, 0)
        if halving:
            board = halve(board, fly, MOST_EPISODES)
            console.print(
                f"{board.episodes.sum()} episodes; {undecided(board).sum()} architectures are "
                f"still too close to say whether they are on the front"
            )
    if parallel.is_first():
        name = LEADERBOARD if deterministic else LEADERBOARD_SAMPLED
        write_leaderboard(out / name, board, space)
    return board


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
