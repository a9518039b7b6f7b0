"""The search space: every MLP architecture a run can be asked for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyperppo.errors import HyperPPOError

Architecture = tuple[int, ...]
"""Hidden layer widths, input side first: `(64, 64)`."""

DEFAULT_WIDTHS = (4, 8, 16, 32, 64, 128, 256)


def parse_architecture(text: str) -> Architecture:
    """Read `"64,64"` as `(64, 64)`. Raises HyperPPOError when it is not a list of widths."""
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise HyperPPOError(f"'{text}' is not an architecture: write hidden widths as 64,64")
    return widths


def format_architecture(architecture: Architecture) -> str:
    """Write `(64, 64)` as `"64,64"`."""
    return ",".join(str(width) for width in architecture)


@dataclass(frozen=True)
class SearchSpace:
    """All MLPs of 1..max_depth hidden layers over a set of widths (HyperPPO).

    Architectures have a stable index 0..len-1: sorted by parameter count, then depth, then widths.
    """

    obs_dim: int
    act_dim: int
    widths: tuple[int, ...] = DEFAULT_WIDTHS
    max_depth: int = 4
    only: Architecture | None = None  # a space of one architecture: plain PPO's

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or self.max_depth < 1:
            raise HyperPPOError("a search space needs positive widths and a depth of at least 1")

    def __len__(self) -> int:
        return len(self.architectures)

    @cached_property
    def architectures(self) -> tuple[Architecture, ...]:
        """Every architecture, in index order."""
        if self.only is not None:
            return (self.only,)
        every = itertools.chain.from_iterable(
            itertools.product(sorted(set(self.widths)), repeat=depth)
            for depth in range(1, self.max_depth + 1)
        )
        return tuple(sorted(every, key=lambda a: (self.count_params(a), len(a), a)))

    @cached_property
    def _index(self) -> dict[Architecture, int]:
        return {architecture: i for i, architecture in enumerate(self.architectures)}

    def index(self, architecture: Architecture) -> int:
        """Index of an architecture; raises HyperPPOError when it is outside the space."""
        try:
            return self._index[architecture]
        except KeyError:
            if self.only is not None:
                raise HyperPPOError(
                    f"this run holds only the architecture {format_architecture(self.only)}"
                ) from None
            widths = ", ".join(str(w) for w in sorted(set(self.widths)))
            raise HyperPPOError(
                f"architecture {format_architecture(architecture)} is outside the search space: "
                f"use 1 to {self.max_depth} hidden layers of widths {widths}"
            ) from None

    def layer_sizes(self, architecture: Architecture) -> list[tuple[int, int]]:
        """`(fan_in, fan_out)` of every linear layer, input side first."""
        sizes = (self.obs_dim, *architecture, self.act_dim)
        return list(itertools.pairwise(sizes))

    def count_params(self, architecture: Architecture) -> int:
        """Number of weights and biases."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in self.layer_sizes(architecture))

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """Hidden widths, (n, max_depth) int64, zero padded on the right, in index order."""
        rows = [a + (0,) * (self.max_depth - len(a)) for a in self.architectures]
        return np.array(rows, dtype=np.int64)

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """Number of hidden layers, (n,) int64."""
        return np.array([len(a) for a in self.architectures], dtype=np.int64)

    @cached_property
    def params(self) -> NDArray[np.int64]:
        """Number of weights and biases, (n,) int64."""
        return np.array([self.count_params(a) for a in self.architectures], dtype=np.int64)

    @cached_property
    def macs(self) -> NDArray[np.int64]:
        """Multiply-accumulates of one inference, (n,) int64."""
        macs = [sum(i * o for i, o in self.layer_sizes(a)) for a in self.architectures]
        return np.array(macs, dtype=np.int64)
