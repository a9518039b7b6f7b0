"""The graph hypernetwork: an architecture in, the weights of its policy out.

An MLP is a chain of linear layers; each is a node whose features are its fan-in, fan-out, kind and
place. One forward and one backward pass of gated recurrent message passing along the chain (a GRU
cell in each direction, all architectures of a batch at once) give every node a state; a decoder
turns it into coefficients over shared bases, cut to the layer's size (after HyperPPO;
GHN-2, Knyazev et al. 2021, for the passes and the cutting of one largest weight).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperppo.chain_gru import pass_messages
from hyperppo.config import GHNConfig
from hyperppo.dense import Dense, units_of
from hyperppo.space import Architecture, SearchSpace

Weights = list[tuple[Tensor, Tensor]]
"""One policy: (weight (fan_out, fan_in), bias (fan_out,)) of each linear layer."""

KINDS = ("input", "hidden", "output")
_FEATURES = 2 + len(KINDS) + 2


Sizes = tuple[tuple[int, int], ...]
"""(fan_in, fan_out) of linear layers."""


class _Mix(torch.autograd.Function):
    """Layers from shared bases: each its coefficients times the bases, cut to its size.

    All cuts start at the same corner. With the tallest layer first, the rows between two
    neighbouring heights are needed by the first few layers only: one product for those layers
    and rows, straight from the bases, and the gradient of each row of the bases is written once.
    """

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, scales: Tensor, weight: Tensor, bias: Tensor, sizes: Sizes
    ) -> tuple[Tensor, ...]:
        """Scaled weights (fan_out, fan_in) of n layers, then their biases (fan_out,).

        Coefficients (n, K), scales (n, 1), bases (K, fan_out, fan_in) and (K, fan_out).
        """
        tallest, widest = sizes[0][1], max(fan_in for fan_in, _ in sizes)
        cut = weight[:, :tallest, :widest].flatten(1)  # no copy when it is everything
        scaled = coefficients * scales
        mixed = cut.new_empty((len(sizes), cut.shape[1]))
        for n, cells in _strips(sizes, widest):
            torch.mm(scaled[:n], cut[:, cells], out=mixed[:n, cells])
        biases = coefficients @ bias
        ctx.save_for_backward(coefficients, scales, cut, bias)
        ctx.sizes, ctx.shape = sizes, weight.shape
        return (
            *(_corner(mixed, row, widest, size) for row, size in enumerate(sizes)),
            *(biases[row, :fan_out] for row, (_, fan_out) in enumerate(sizes)),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the coefficients and of the bases."""
        coefficients, scales, cut, bias = ctx.saved_tensors
        sizes, (count, fan_out, fan_in) = ctx.sizes, ctx.shape
        tallest, widest = sizes[0][1], max(fan_in for fan_in, _ in sizes)
        to_mixed = cut.new_empty((len(sizes), cut.shape[1]))
        to_biases = bias.new_zeros((len(sizes), fan_out))
        for row, size in enumerate(sizes):
            rows = _corner(to_mixed, row, widest, (widest, size[1]))
            rows[:, : size[0]].copy_(gradients[row])
            if size[0] < widest:
                rows[:, size[0] :].zero_()
            to_biases[row, : size[1]].copy_(gradients[row + len(sizes)])
        scaled = coefficients * scales
        to_cut = torch.empty_like(cut)
        to_scaled = torch.zeros_like(coefficients)
        for n, cells in _strips(sizes, widest):
            strip = to_mixed[:n, cells]
            torch.mm(scaled[:n].t(), strip, out=to_cut[:, cells])
            to_scaled[:n].addmm_(strip, cut[:, cells].t())
        to_weight = to_cut.view(count, tallest, widest)
        if (tallest, widest) != (fan_out, fan_in):
            to_weight = F.pad(to_weight, (0, fan_in - widest, 0, fan_out - tallest))
        to_coefficients = to_scaled * scales + to_biases @ bias.t()
        return to_coefficients, None, to_weight, coefficients.t() @ to_biases, None


@lru_cache(maxsize=32)
def _strips(sizes: Sizes, widest: int) -> list[tuple[int, slice]]:
    """How many layers, tallest first, reach into each strip of rows, and the strip's cells."""
    ends = sorted({fan_out for _, fan_out in sizes})
    return [
        (sum(fan_out >= end for _, fan_out in sizes), slice(start * widest, end * widest))
        for start, end in itertools.pairwise([0, *ends])
    ]


def _corner(flat: Tensor, row: int, widest: int, size: tuple[int, int]) -> Tensor:
    """The corner (fan_out, fan_in) of row `row` of `flat`, seen as a matrix `widest` wide."""
    fan_in, fan_out = size
    return flat.as_strided((fan_out, fan_in), (widest, 1), row * flat.shape[1])


class Bases(nn.Module):
    """The shared bases of one layer kind: `count` weights and biases of its largest size."""

    def __init__(self, count: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, fan_out, fan_in))
        self.bias = nn.Parameter(torch.zeros(count, fan_out))

    def forward(
        self, coefficients: Tensor, scales: Tensor, sizes: Sizes
    ) -> list[tuple[Tensor, Tensor]]:
        """Mix layers: coefficients (n, K) and weight scales (n,) of layers, tallest first."""
        mixed = _Mix.apply(coefficients, scales[:, None], self.weight, self.bias, sizes)  # type: ignore[no-untyped-call]
        return list(zip(mixed[: len(sizes)], mixed[len(sizes) :], strict=True))

    def whole(self, scaled: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Layers of the largest size: weights (..., fan_out, fan_in), biases (..., fan_out).

        `scaled` coefficients (..., K) mix the weights, `coefficients` (..., K) the biases.
        """
        weights = torch.unflatten(scaled @ self.weight.flatten(1), -1, self.weight.shape[1:])
        return weights, coefficients @ self.bias


class GHN(nn.Module):
    """Graph hypernetwork over a search space.

    `forward(architectures)` estimates the weights of a batch of policies, and the action's
    log-standard-deviation offsets (M, act_dim) that its std head predicts.
    """

    def __init__(self, space: SearchSpace, config: GHNConfig) -> None:
        super().__init__()
        self.space = space
        self.config = config
        hidden = config.hidden
        self.embed = nn.Sequential(nn.Linear(_FEATURES, hidden), nn.LeakyReLU(0.2))
        self.towards_output = nn.GRUCell(hidden, hidden)
        self.towards_input = nn.GRUCell(hidden, hidden)
        self.norm = nn.LayerNorm(2 * hidden)
        layers: list[nn.Module] = []
        width = 2 * hidden
        for next_width in config.decoder:
            layers += [nn.Linear(width, next_width), nn.LeakyReLU(0.2)]
            width = next_width
        self.decoder = nn.Sequential(*layers, nn.Linear(width, config.bases))
        self.std_head = nn.Linear(2 * hidden, space.act_dim)
        widest = max(space.widths)
        self.bases = nn.ModuleDict(
            {
                "input": Bases(config.bases, space.obs_dim, widest),
                "hidden": Bases(config.bases, widest, widest),
                "output": Bases(config.bases, widest, space.act_dim),
            }
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start every layer near He initialisation: coefficients of unit norm over unit bases."""
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.1 / math.sqrt(last.in_features))
        nn.init.normal_(last.bias, std=1 / math.sqrt(self.config.bases))
        nn.init.zeros_(self.std_head.weight)
        nn.init.zeros_(self.std_head.bias)

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """Weights of each policy, and log-std offsets (M, act_dim)."""
        longest = max(len(a) for a in architectures) + 1
        features, exists = nodes_of(self.space, tuple(architectures), longest)
        like = self.std_head.weight
        coefficients, offsets = self._coefficients(features.to(like), exists.to(like.device))
        return self._decode(architectures, coefficients), offsets

    def _coefficients(self, features: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (M, L, K) of each node's bases, and log-std offsets (M, act_dim)."""
        nodes = self.embed(features)
        state = self.norm(pass_messages(self.towards_output, self.towards_input, nodes, exists))
        mean_state = (state * exists[..., None]).sum(1) / exists.sum(1, keepdim=True)
        return self.decoder(state), self.std_head(mean_state)

    def dense(self, told: Told, slope: float) -> tuple[Dense, Tensor]:
        """As `forward`, with the policies in the form for a GPU."""
        coefficients, offsets = self._coefficients(told.features, told.nodes)
        scaled = coefficients * told.scales
        last = told.depths[:, None, None].expand(-1, 1, scaled.shape[2])
        input_, hidden, output = (self._bases(kind) for kind in KINDS)
        levels = [input_.whole(scaled[:, 0], coefficients[:, 0])]
        if (deepest := self.space.max_depth) > 1:
            weights, biases = hidden.whole(
                scaled[:, 1:deepest].transpose(0, 1), coefficients[:, 1:deepest].transpose(0, 1)
            )
            levels += zip(weights.unbind(), biases.unbind(), strict=True)
        end = output.whole(scaled.gather(1, last)[:, 0], coefficients.gather(1, last)[:, 0])
        return Dense(levels, end, told.units, told.exists, slope), offsets

    def _bases(self, kind: str) -> Bases:
        bases = self.bases[kind]
        assert isinstance(bases, Bases)
        return bases

    def _decode(self, architectures: Sequence[Architecture], coefficients: Tensor) -> list[Weights]:
        """Mix the bases, all layers of a kind together."""
        gain, output_scale = self.config.gain, self.config.output_scale
        policies: list[Weights] = [[None] * (len(a) + 1) for a in architectures]  # type: ignore[list-item]
        for kind in KINDS:
            layers = layers_of(self.space, tuple(architectures), kind)
            if not layers:
                continue
            rows = [m * coefficients.shape[1] + place for _, m, place in layers]
            scale = [math.sqrt(gain / fan_in) for (fan_in, _), _, _ in layers]
            scales = coefficients.new_tensor(scale) * (output_scale if kind == "output" else 1.0)
            sizes = tuple(size for size, _, _ in layers)
            mixed = self.bases[kind](coefficients.flatten(0, 1)[rows], scales, sizes)
            for (_, m, place), layer in zip(layers, mixed, strict=True):
                policies[m][place] = layer
        return policies


@lru_cache(maxsize=8)
def nodes_of(
    space: SearchSpace, architectures: tuple[Architecture, ...], longest: int
) -> tuple[Tensor, Tensor]:
    """Node features (M, longest, F) and which nodes exist (M, longest)."""
    rows, exists = [], []
    for architecture in architectures:
        sizes = space.layer_sizes(architecture)
        depth = len(sizes)
        nodes = []
        for place, (fan_in, fan_out) in enumerate(sizes):
            kind = _kind(place, depth)
            one_hot = [float(kind == k) for k in KINDS]
            width_in = math.log2(fan_in) / 4 - 1
            width_out = math.log2(fan_out) / 4 - 1
            nodes.append([width_in, width_out, *one_hot, place / 4, depth / 4])
        padding = longest - depth
        rows.append(nodes + [[0.0] * _FEATURES] * padding)
        exists.append([True] * depth + [False] * padding)
    return torch.tensor(rows), torch.tensor(exists)


@dataclass(frozen=True)
class Told:
    """A meta-batch of architectures in tensors whose shapes do not depend on what was drawn."""

    features: Tensor  # (M, D + 1, F) of the nodes
    nodes: Tensor  # (M, D + 1) bool, whether there is one
    scales: Tensor  # (M, D + 1, 1) of the nodes' weights
    depths: Tensor  # (M,) int64, the output layer's place
    rows: Tensor  # (M,) int64, index in the space
    units: Tensor  # (D, M, 1, widest), see Dense
    exists: Tensor  # (D, M, 1, 1), see Dense


TOLD = len(fields(Told))


def tell(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    config: GHNConfig,
    device: torch.device,
) -> Told:
    """Describe a meta-batch to a device."""
    scales = []
    for architecture in architectures:
        own = [math.sqrt(config.gain / fan_in) for fan_in, _ in space.layer_sizes(architecture)]
        own[-1] *= config.output_scale
        scales.append(own + [0.0] * (space.max_depth + 1 - len(own)))
    tensors = (
        *nodes_of(space, tuple(architectures), space.max_depth + 1),
        torch.tensor(scales)[..., None],
        torch.tensor([len(a) for a in architectures]),
        torch.tensor([space.index(a) for a in architectures]),
        *units_of(space, architectures),
    )
    return Told(*(tensor.to(device) for tensor in tensors))


@lru_cache(maxsize=32)
def layers_of(
    space: SearchSpace, architectures: tuple[Architecture, ...], kind: str | None = None
) -> list[tuple[tuple[int, int], int, int]]:
    """Layers of one kind, or all: (size, policy, place), tallest (most outputs) first."""
    layers = [
        (size, m, place)
        for m, architecture in enumerate(architectures)
        for place, size in enumerate(space.layer_sizes(architecture))
        if kind is None or kind == _kind(place, len(architecture) + 1)
    ]
    return sorted(layers, key=lambda layer: -layer[0][1])


def _kind(place: int, depth: int) -> str:
    return "input" if place == 0 else "output" if place == depth - 1 else "hidden"


class DirectWeights(nn.Module):
    """Plain PPO's weights: the parameters of one architecture, behind the GHN's interface."""

    def __init__(self, space: SearchSpace, output_scale: float) -> None:
        super().__init__()
        (architecture,) = space.architectures
        self.space = space
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in space.layer_sizes(architecture):
            weight = torch.empty(fan_out, fan_in)
            self.weights.append(nn.init.orthogonal_(weight, gain=math.sqrt(2)))
            self.biases.append(torch.zeros(fan_out))
        with torch.no_grad():
            self.weights[-1].mul_(output_scale / math.sqrt(2))

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """The same weights for each entry; no std offsets."""
        weights = list(zip(self.weights, self.biases, strict=True))
        zeros = self.biases[-1].new_zeros((len(architectures), self.space.act_dim))
        return [weights for _ in architectures], zeros
