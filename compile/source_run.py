"""A trained run as a source: any architecture of its space, and a simulator to fly in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile import verify
from compile.activation import cost_name
from compile.network import network_from_torch
from compile.source import Answer, Floats, Flown, Original

if TYPE_CHECKING:
    from hyperppo.checkpoint import Run
    from hyperppo.leaderboard import Leaderboard
    from hyperppo.space import Architecture


EPISODES = 64  # flown by the compiled policy, and by float32 where it is another


@dataclass(frozen=True)
class RunSource:
    """See `compile.source.Source`."""

    run: Run

    form = "torch"
    observed = "rollouts of this very policy"

    @property
    def summary(self) -> str:  # noqa: D102
        run = self.run
        return f"run {run.path.name} ({run.task}), checkpoint {run.checkpoint_sha256[:12]}"

    @property
    def names(self) -> tuple[str, ...]:  # noqa: D102
        from hyperppo.space import format_architecture

        return tuple(format_architecture(a) for a in self.run.space.architectures)

    @property
    def table(self) -> NDArray[np.int64]:  # noqa: D102
        return self.run.space.table

    @property
    def dims(self) -> tuple[int, int]:  # noqa: D102
        return self.run.space.obs_dim, self.run.space.act_dim

    @property
    def activations(self) -> tuple[str, str]:  # noqa: D102
        return cost_name(self.run.activation, self.run.negative_slope), self.run.output

    @property
    def conventions(self) -> Mapping[str, Any]:  # noqa: D102
        return self.run.conventions

    @property
    def provenance(self) -> dict[str, Any]:  # noqa: D102
        facts = {
            "name": self.run.path.resolve().name,
            "task": self.run.task,
            "checkpoint_sha256": self.run.checkpoint_sha256,
        }
        return {"run": facts}

    @property
    def essentials(self) -> str:  # noqa: D102
        return f"Run: {self.run.task}, checkpoint sha256 {self.run.checkpoint_sha256[:16]}"

    def leaderboard(self) -> Leaderboard:  # noqa: D102
        return self.run.leaderboard()

    def index(self, architecture: tuple[int, ...]) -> int:  # noqa: D102
        return self.run.space.index(architecture)

    def original(self, index: int) -> Original:  # noqa: D102
        policy = self.run.policy(self.run.space.architectures[index])
        return Original(network_from_torch(policy), partial(verify.run_torch, policy))

    def observations(self, index: int, count: int, seed: int) -> Floats:  # noqa: D102
        return record(self.run, self.run.space.architectures[index], count, seed)

    def fly(self, answer: Answer, seed: int) -> Flown:  # noqa: D102
        return fly(self.run, answer, seed)


def open_run(path: Path | None, target: str) -> RunSource:
    """The run at a path, by default the one that comes with the project for the target."""
    from hyperppo.checkpoint import load_run
    from hyperppo.pretrained import path as shipped

    return RunSource(load_run(path if path is not None else shipped(target)))


def record(run: Run, architecture: Architecture, count: int, seed: int) -> Floats:
    """Observations (count, obs_dim) from closed-loop rollouts of that very policy."""
    from hyperppo.evaluate import record_observations

    with one_thread():
        return record_observations(run, architecture, count, seed)


def fly(run: Run, answer: Answer, seed: int) -> Flown:
    """Whole episodes of the run's own task; equal seeds give equal starts and disturbances."""
    from hyperppo.envs.registry import make_env
    from hyperppo.episodes import fly_episodes, on_rows
    from hyperppo.ranking import wilson

    with one_thread():
        env = make_env(run.task, run.config.env, EPISODES, seed)
        flown = fly_episodes(env, on_rows(answer))
    crashes = flown.crashed.mean()
    low, high = wilson(np.array([crashes]), np.array([EPISODES]))
    return Flown(
        EPISODES,
        float(flown.returns.mean()),
        float(flown.returns.std(ddof=1) / math.sqrt(EPISODES)),
        float(crashes),
        float(low[0]),
        float(high[0]),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Some 64 drones keep no second core busy, and on a busy machine torch's threads wait for it.

    Measured with the shipped run on two cores, 15 other processes: 117 s with two threads, 4 s with
    one; it takes half a second of processor time.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
