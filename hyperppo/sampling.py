"""Which architectures train next."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperppo.space import Architecture, SearchSpace

_MEMORY = 0.9  # decay of a group's reward a visit
_NOISE_MEMORY = 0.99  # of how much a visit's reward differs from the group's
_SHARPNESS = 1.0  # how much more often a group one standard deviation below the mean is drawn: e


class ArchitectureSampler:
    """Draws meta-batches.

    `uniform` over the space; `biased` uniform over depth, then within a depth (HyperPPO:
    most architectures are deep, and would drown the shallow ones), or a depth d in proportion to
    d^-depth_bias; `adaptive` as biased, with each group of equal depth and narrowest layer weighted
    by how far its reward falls short, in units of how much rewards differ: between groups, and by
    chance from visit to visit.
    """

    def __init__(
        self,
        space: SearchSpace,
        kind: Literal["biased", "uniform", "adaptive"],
        seed: int,
        depth_bias: float = 0.0,
    ) -> None:
        self.space, self.kind = space, kind
        self.generator = np.random.default_rng((seed, 1))
        narrowest = np.array([min(a) for a in space.architectures])
        depths, widths = space.depths, np.unique(narrowest)
        self.group = depths * len(widths) + np.searchsorted(widths, narrowest)
        self.group = np.unique(self.group, return_inverse=True)[1].astype(np.int64)
        groups = int(self.group.max()) + 1
        # By depth, then uniform within: a group's share is its share of its depth.
        prior = np.zeros(len(space))
        for depth in np.unique(depths):
            prior[depths == depth] = depth**-depth_bias / (depths == depth).sum()
        self.prior: NDArray[np.float64] = prior / prior.sum()
        if kind == "uniform":
            self.prior = np.full(len(space), 1 / len(space))
        self.reward = np.full(groups, np.nan)  # of each group, running mean
        self.noise = np.zeros(())  # variance of a visit's reward, running mean

    def draw(self, count: int) -> list[Architecture]:
        """A meta-batch of `count` architectures."""
        chosen = self.generator.choice(len(self.space), size=count, p=self.probabilities())
        return [self.space.architectures[i] for i in chosen]

    def probabilities(self) -> NDArray[np.float64]:
        """Chance of each architecture, (n,)."""
        if self.kind != "adaptive" or np.isnan(self.reward).all():
            return self.prior
        mean = np.nanmean(self.reward)
        spread = np.sqrt(np.nanvar(self.reward) + self.noise) + 1e-6
        shortfall = np.clip(np.nan_to_num((mean - self.reward) / spread), -3, 3)
        weights = self.prior * np.exp(_SHARPNESS * shortfall)[self.group]
        return np.asarray(weights / weights.sum())

    def learn(self, architectures: list[Architecture], reward: NDArray[np.float64]) -> None:
        """Take note of the mean reward (M,) that each of a meta-batch has just had."""
        for architecture, value in zip(architectures, reward, strict=True):
            g = self.group[self.space.index(architecture)]
            old = self.reward[g]
            if np.isnan(old):
                self.reward[g] = value
                continue
            self.reward[g] = _MEMORY * old + (1 - _MEMORY) * value
            self.noise = _NOISE_MEMORY * self.noise + (1 - _NOISE_MEMORY) * (value - old) ** 2

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {
            "generator": _packed(self.generator),
            "reward": torch.from_numpy(self.reward),
            "noise": torch.tensor(self.noise),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        _unpack(self.generator, state["generator"])
        self.reward = state["reward"].cpu().numpy().copy()
        self.noise = state["noise"].cpu().numpy().copy()


def _packed(generator: np.random.Generator) -> Tensor:
    """PCG64's state as bytes: two 128-bit integers and the buffered half word."""
    state = generator.bit_generator.state
    words = [state["state"]["state"], state["state"]["inc"], state["has_uint32"], state["uinteger"]]
    raw = b"".join(int(word).to_bytes(16, "little") for word in words)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _unpack(generator: np.random.Generator, packed: Tensor) -> None:
    raw = packed.cpu().numpy().tobytes()
    words = [int.from_bytes(raw[i : i + 16], "little") for i in range(0, 64, 16)]
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": words[0], "inc": words[1]},
        "has_uint32": words[2],
        "uinteger": words[3],
    }
