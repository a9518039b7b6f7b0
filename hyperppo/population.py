"""Many different MLPs evaluated together: one batched product per pair of layer widths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hyperppo.ghn import Weights


@dataclass(frozen=True)
class _Product:
    """The layers at one depth that share (fan_in, fan_out)."""

    source: Tensor  # (n,) int64, rows of the activations of width fan_in
    fan_in: int
    fan_out: int
    weight: Tensor  # (n, fan_in, fan_out): the processor's vectors run along fan_out
    bias: Tensor  # (n, 1, fan_out)


class Population:
    """P policies of any depths and widths, stacked by layer shape.

    Evaluating thousands of small networks one after the other is bound by call overhead; stacked,
    a network costs its arithmetic.
    """

    def __init__(self, policies: Sequence[Weights], slope: float) -> None:
        self._slope = slope
        self._levels: list[list[_Product]] = []
        self._outputs: list[Tensor] = []  # per level: policies that end there
        # Where the activations of a policy are: row `where[p]` among those of its current width.
        where = list(range(len(policies)))
        alive = list(range(len(policies)))
        level = 0
        while alive:
            groups: dict[tuple[int, int], list[int]] = defaultdict(list)
            for p in alive:
                fan_out, fan_in = policies[p][level][0].shape
                last = level == len(policies[p]) - 1
                groups[fan_in, -1 if last else fan_out].append(p)
            products: list[_Product] = []
            ended: list[int] = []
            filled: dict[int, int] = defaultdict(int)
            for (fan_in, fan_out), members in sorted(groups.items()):
                layers = [policies[p][level] for p in members]
                products.append(
                    _Product(
                        torch.tensor([where[p] for p in members]),
                        fan_in,
                        fan_out,
                        torch.stack([weight for weight, _ in layers]).transpose(1, 2).contiguous(),
                        torch.stack([bias for _, bias in layers])[:, None],
                    )
                )
                if fan_out < 0:
                    ended += members
                for p in members:
                    where[p] = filled[fan_out]
                    filled[fan_out] += 1
            self._levels.append(products)
            self._outputs.append(torch.tensor(ended, dtype=torch.int64))
            gone = set(ended)
            alive = [p for p in alive if p not in gone]
            level += 1

    def __call__(self, observation: Tensor) -> Tensor:
        """Mean actions (P, E, act_dim) on normalised observations (P, E, obs_dim)."""
        activations = {observation.shape[2]: observation}
        result: Tensor | None = None
        for products, ended in zip(self._levels, self._outputs, strict=True):
            parts: dict[int, list[Tensor]] = defaultdict(list)
            for product in products:
                x = activations[product.fan_in][product.source]
                y = torch.baddbmm(product.bias, x, product.weight)
                parts[product.fan_out].append(y)
            finished = parts.pop(-1, None)
            if finished:
                means = torch.cat(finished)
                if result is None:
                    result = means.new_empty((len(observation), *means.shape[1:]))
                result[ended] = means
            activations = {
                width: F.leaky_relu_(torch.cat(tensors), self._slope)
                for width, tensors in parts.items()
            }
        assert result is not None
        return result
