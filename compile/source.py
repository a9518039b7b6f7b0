"""Where policies come from: a trained run, or an ONNX file. The stages see no difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compile.network import Network

if TYPE_CHECKING:
    from hyperppo.leaderboard import Leaderboard

Floats = NDArray[np.float32]


Answer = Callable[[Floats], Floats]
"""A policy: observations (n, obs_dim) -> actions (n, act_dim)."""


@dataclass(frozen=True)
class Flown:
    """Whole episodes that a policy flew in the simulator of its run."""

    episodes: int
    return_mean: float
    return_stderr: float
    crash_rate: float  # episodes that ended early
    crash_low: float  # of its 95 % interval (Wilson)
    crash_high: float

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"return {self.return_mean:.4g} +- {self.return_stderr:.2g}, "
            f"{self.crash_rate:.1%} crashes ({self.crash_low:.1%} to {self.crash_high:.1%}) in "
            f"{self.episodes} episodes"
        )


@dataclass(frozen=True)
class Original:
    """A policy as it came, before anything was done to it."""

    network: Network
    answer: Answer  # by the source's own means


class Source(Protocol):
    """One or more policies, by index, and what is known about them."""

    @property
    def form(self) -> str:
        """What computes `Original.answer`, as messages call it."""

    @property
    def summary(self) -> str:
        """One line for the progress."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the n architectures."""

    @property
    def table(self) -> NDArray[np.int64]:
        """(n, depth) hidden widths, zero padded."""

    @property
    def dims(self) -> tuple[int, int]:
        """Lengths of the observation and of the action."""

    @property
    def activations(self) -> tuple[str, str]:
        """Of the hidden layers and of the last, as the cost model names them."""

    @property
    def conventions(self) -> Mapping[str, Any]:
        """What observation and action mean; empty where nobody knows."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What the manifest says about the source, by its key: ``run`` or ``onnx``."""

    @property
    def essentials(self) -> str:
        """The same in one line, for the C files."""

    @property
    def observed(self) -> str:
        """Where the observations come from."""

    def leaderboard(self) -> Leaderboard | None:
        """What the architectures are worth; None where there is nothing to choose from."""

    def index(self, architecture: tuple[int, ...]) -> int:
        """The index of an architecture. An error meant for the user when there is none."""

    def original(self, index: int) -> Original:
        """One policy."""

    def observations(self, index: int, count: int, seed: int) -> Floats:
        """(at most count, obs_dim) observations to calibrate and verify on."""

    def fly(self, answer: Answer, seed: int) -> Flown | None:
        """Fly a policy; equal seeds, equal flights. None without a simulator."""
