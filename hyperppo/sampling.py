"""Which architectures train next."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyperppo.space import Architecture, SearchSpace

_MEMORY = 0.9  # decay of a group's reward a visit
_SHARPNESS = 1.0  # how much more often a group one standard deviation below the mean is drawn: e


class ArchitectureSampler:
    """Draws meta-batches.

    `uniform` over the space; `biased` uniform over depth, then within a depth (HyperPPO:
    most architectures are deep, and would drown the shallow ones); `adaptive` as biased, with
    each group of equal depth and narrowest layer weighted by how far its reward falls short.
    """

    def __init__(
        self, space: SearchSpace, kind: Literal["biased", "uniform", "adaptive"], seed: int
    ) -> None:
        self.space, self.kind = space, kind
        self.generator = np.random.default_rng((seed, 1))
        narrowest = np.array([min(a) for a in space.architectures])
        depths, widths = space.depths, np.unique(narrowest)
        self.group = depths * len(widths) + np.searchsorted(widths, narrowest)
        self.group = np.unique(self.group, return_inverse=True)[1].astype(np.int64)
        groups = int(self.group.max()) + 1
        # Uniform over depths, then within: a group's share is its share of its depth.
        prior = np.zeros(len(space))
        for depth in np.unique(depths):
            prior[depths == depth] = 1 / (depths == depth).sum()
        self.prior: NDArray[np.float64] = prior / prior.sum()
        if kind == "uniform":
            self.prior = np.full(len(space), 1 / len(space))
        self.reward = np.full(groups, np.nan)  # of each group, running mean

    def draw(self, count: int) -> list[Architecture]:
        """A meta-batch of `count` architectures."""
        chosen = self.generator.choice(len(self.space), size=count, p=self.probabilities())
        return [self.space.architectures[i] for i in chosen]

    def probabilities(self) -> NDArray[np.float64]:
        """Chance of each architecture, (n,)."""
        if self.kind != "adaptive" or np.isnan(self.reward).all():
            return self.prior
        mean, spread = np.nanmean(self.reward), np.nanstd(self.reward) + 1e-6
        shortfall = np.clip(np.nan_to_num((mean - self.reward) / spread), -3, 3)
        weights = self.prior * np.exp(_SHARPNESS * shortfall)[self.group]
        return np.asarray(weights / weights.sum())

    def learn(self, architectures: list[Architecture], reward: NDArray[np.float64]) -> None:
        """Take note of the mean reward (M,) that each of a meta-batch has just had."""
        for architecture, value in zip(architectures, reward, strict=True):
            g = self.group[self.space.index(architecture)]
            old = self.reward[g]
            self.reward[g] = value if np.isnan(old) else _MEMORY * old + (1 - _MEMORY) * value
