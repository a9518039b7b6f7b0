"""Figures of an iteration by the kind of architecture that flew: how deep, how large."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperppo.space import Architecture, SearchSpace

SIZES = ("under_1k", "1k_to_10k", "10k_to_100k", "over_100k")
_LIMITS = (1_000, 10_000, 100_000)


def size_group(params: int) -> str:
    """The group of a parameter count, one of `SIZES`."""
    return SIZES[sum(params >= limit for limit in _LIMITS)]


def totals(figure: Tensor, architectures: int) -> Tensor:
    """Sum and count (2, M) of a figure (T, N), N architecture-major; NaN does not count."""
    each = figure.view(len(figure), architectures, -1)
    known = ~each.isnan()
    return torch.stack((torch.where(known, each, 0.0).sum((0, 2)), known.sum((0, 2)).float()))


def by_group(
    figures: dict[str, Tensor], architectures: Sequence[Architecture], space: SearchSpace
) -> dict[str, float]:
    """Mean of each figure over the environments of each group of architectures.

    `figures` are `totals` (2, M). Returns `NAME_by_depth/D` and `NAME_by_size/GROUP` for the
    groups that occur.
    """
    members: dict[str, list[int]] = {}
    for m, architecture in enumerate(architectures):
        size = size_group(space.count_params(architecture))
        for group in (f"depth/{len(architecture)}", f"size/{size}"):
            members.setdefault(group, []).append(m)
    result = {}
    for name, (sums, counts) in figures.items():
        for group, rows in sorted(members.items()):
            result[f"{name}_by_{group}"] = float(sums[rows].sum() / counts[rows].sum())
    return result
