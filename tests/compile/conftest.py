from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from compile.network import Layer, Network
from compile.source import Flown
from compile.source_run import RunSource
from hyperppo.leaderboard import Leaderboard
from hyperppo.space import Architecture, SearchSpace
from targets.target import Target, load_target
from targets.toolchain import cross_prefix

if TYPE_CHECKING:
    from hyperppo.checkpoint import Run

MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="session")
def target() -> Target:
    return load_target("crazyflie21")


@pytest.fixture(scope="session")
def cross(target: Target) -> None:
    if shutil.which(cross_prefix(target) + "gcc") is None:
        pytest.skip(f"{cross_prefix(target)}gcc is not installed")


def random_network(
    hidden: Sequence[int],
    obs_dim: int = 18,
    act_dim: int = 4,
    activation: str = "leaky_relu",
    output: str = "clip",
    seed: int = 0,
    **more: Any,
) -> Network:
    rng = np.random.default_rng(seed)
    sizes = (obs_dim, *hidden, act_dim)
    layers = [
        Layer(
            name=f"layer_{i}",
            weight=(rng.standard_normal((b, a)) / np.sqrt(a)).astype(np.float32),
            bias=(0.2 * rng.standard_normal(b)).astype(np.float32),
            activation=output if i == len(hidden) else activation,
        )
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    return Network(tuple(layers), **more)


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    return random_network


@dataclasses.dataclass(frozen=True)
class FakeRun:
    """What the pipeline uses of a run, with random weights; its return grows with size."""

    space: SearchSpace = dataclasses.field(default_factory=lambda: SearchSpace(18, 4))
    path: Path = Path("fake")
    task: str = "quadrotor"
    activation: str = "leaky_relu"
    negative_slope: float = 0.2
    output: str = "clip"
    checkpoint_sha256: str = "ab" * 32
    conventions: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "observation": [
                "position_error_body",
                "velocity_error_body",
                "rotation",
                "angular_velocity",
            ],
            "position_clip_m": 1.0,
            "control_hz": 100,
        }
    )

    def policy(self, architecture: Architecture) -> Any:
        import torch
        from torch import nn

        modules: list[nn.Module] = []
        network = random_network(architecture)
        for layer in network.layers:
            linear = nn.Linear(layer.n_in, layer.n_out)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer.weight))
                linear.bias.copy_(torch.from_numpy(layer.bias))
            modules += [linear, nn.LeakyReLU(0.2)]
        modules[-1] = nn.Hardtanh(-1.0, 1.0)
        return nn.Sequential(*modules)

    def leaderboard(self) -> Leaderboard:
        n = len(self.space)
        rising = np.linspace(0.0, 100.0, n)
        return Leaderboard(
            params=self.space.params,
            macs=self.space.macs,
            return_mean=rising,
            return_stderr=np.full(n, 0.5),
            episodes=np.full(n, 8),
            metrics={"crash_rate": np.full(n, 0.01), "tracking_error_m": np.full(n, np.nan)},
        )


def fake_record(run: FakeRun, architecture: Architecture, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, run.space.obs_dim)).astype(np.float32)


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run that the pipeline loads instead of one from disk."""
    run = FakeRun()
    monkeypatch.setattr("compile.source_run.open_run", lambda *_: RunSource(cast("Run", run)))
    monkeypatch.setattr("compile.source_run.record", fake_record)
    monkeypatch.setattr("compile.source_run.fly", flies(lambda: 99.5))
    return run


def flies(deployed: Callable[[], float]) -> Callable[..., Flown]:
    """Flights that return 100 by torch, and what `deployed` says by the code that is deployed."""

    def fly(run: FakeRun, answer: Any, seed: int) -> Flown:
        by_torch = isinstance(answer, partial)  # `RunSource.original`
        return Flown(64, 100.0 if by_torch else deployed(), 0.5, 0.25, 0.16, 0.37)

    return fly


@pytest.fixture
def no_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the cross-compiler."""
    monkeypatch.setenv("HYPERPPO_CROSS", "no-such-prefix-")
