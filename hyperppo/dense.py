"""Policies as padded stacks: the form for a GPU.

Every layer is padded to the widest and every network to the deepest of the space, so that a
meta-batch costs one batched product a level whatever was drawn, and shapes never change. On a CPU
most of that arithmetic would be wasted; a GPU has it to spare and waits for launches instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hyperppo.space import Architecture, SearchSpace


@dataclass(frozen=True)
class Dense:
    """P networks of at most D hidden layers; (weight (P, fan_out, fan_in), bias (P, fan_out))."""

    hidden: list[tuple[Tensor, Tensor]]  # D levels; what is beyond a layer's size is never seen
    output: tuple[Tensor, Tensor]
    units: Tensor  # (D, P, 1, widest) 1.0 where a hidden layer has a unit, else 0.0
    exists: Tensor  # (D, P, 1, 1) bool, whether a network has the hidden layer
    slope: float

    def __call__(self, observation: Tensor) -> Tensor:
        """Mean actions (P, B, act_dim) on normalised observations (P, B, obs_dim)."""
        x = observation
        for level, (weight, bias) in enumerate(self.hidden):
            y = F.leaky_relu(_linear(x, weight, bias), self.slope) * self.units[level]
            # Shallower networks pass on what they have.
            x = torch.where(self.exists[level], y, x) if level else y
        return _linear(x, *self.output)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def units_of(space: SearchSpace, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
    """`Dense.units` and `Dense.exists` of a meta-batch."""
    widths = torch.tensor([[*a, *[0] * (space.max_depth - len(a))] for a in architectures]).t()
    units = torch.arange(max(space.widths)) < widths[..., None]
    return units.float()[:, :, None], (widths > 0)[..., None, None]


def pad(
    space: SearchSpace,
    policies: Sequence[Sequence[tuple[Tensor, Tensor]]],
    units: Tensor,
    exists: Tensor,
    slope: float,
) -> Dense:
    """Networks layer by layer, as `Weights`, in padded form; gradients flow through."""
    widest, depth = max(space.widths), space.max_depth
    like = policies[0][0][0]
    levels = []
    for level in range(depth):
        fan_in = space.obs_dim if level == 0 else widest
        missing = (like.new_zeros((widest, fan_in)), like.new_zeros(widest))
        layers = [w[level] if level < len(w) - 1 else missing for w in policies]
        levels.append(
            (
                torch.stack([_grown(weight, (widest, fan_in)) for weight, _ in layers]),
                torch.stack([_grown(bias, (widest,)) for _, bias in layers]),
            )
        )
    last = [w[-1] for w in policies]
    output = (
        torch.stack([_grown(weight, (space.act_dim, widest)) for weight, _ in last]),
        torch.stack([bias for _, bias in last]),
    )
    return Dense(levels, output, units, exists, slope)


def _grown(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    margins = [m for have, want in zip(x.shape, shape, strict=True) for m in (want - have, 0)]
    return F.pad(x, margins[::-1])
