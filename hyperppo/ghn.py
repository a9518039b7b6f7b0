"""The graph hypernetwork: an architecture in, the weights of its policy out.

An MLP is a chain of linear layers; each is a node whose features are its fan-in, fan-out, kind and
place. One forward and one backward pass of gated recurrent message passing along the chain (a GRU
cell in each direction, all architectures of a batch at once) give every node a state; a decoder
turns it into coefficients over shared bases, cut to the layer's size (after HyperPPO;
GHN-2, Knyazev et al. 2021, for the passes and the cutting of one largest weight).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hyperppo.config import GHNConfig
from hyperppo.space import Architecture, SearchSpace

Weights = list[tuple[Tensor, Tensor]]
"""One policy: (weight (fan_out, fan_in), bias (fan_out,)) of each linear layer."""

KINDS = ("input", "hidden", "output")
_FEATURES = 2 + len(KINDS) + 2


Shape = tuple[int, int, int]
"""(fan_in, fan_out, n): n layers of one shape, neighbours in a list of layers."""


class _Mix(torch.autograd.Function):
    """Layers from shared bases: each its coefficients times the bases, cut to its shape.

    Written by hand because autograd would build a full-size gradient for every cut.
    """

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, bases: Tensor, shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...]:
        """Coefficients (sum n, K), bases (K, fan_out, fan_in) -> sum n weights."""
        layers: list[Tensor] = []
        cuts = []
        start = 0
        for fan_in, fan_out, n in shapes:
            cut = bases[:, :fan_out, :fan_in].reshape(len(bases), -1)
            mixed = coefficients[start : start + n] @ cut
            layers += mixed.view(n, fan_out, fan_in).unbind()
            cuts.append(cut)
            start += n
        ctx.save_for_backward(coefficients, *cuts)
        ctx.shapes, ctx.bases_shape = shapes, bases.shape
        return tuple(layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of the coefficients and, summed over all cuts in place, of the bases."""
        coefficients, *cuts = ctx.saved_tensors
        to_coefficients = torch.empty_like(coefficients)
        to_bases = coefficients.new_zeros(ctx.bases_shape)
        start = 0
        for (fan_in, fan_out, n), cut in zip(ctx.shapes, cuts, strict=True):
            rows = slice(start, start + n)
            gradient = torch.stack(gradients[rows]).view(n, -1)
            torch.mm(gradient, cut.t(), out=to_coefficients[rows])
            summed = (coefficients[rows].t() @ gradient).view(-1, fan_out, fan_in)
            to_bases[:, :fan_out, :fan_in] += summed
            start += n
        return to_coefficients, to_bases, None


class Bases(nn.Module):
    """The shared bases of one layer kind: `count` weights and biases of its largest shape."""

    def __init__(self, count: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, fan_out, fan_in))
        self.bias = nn.Parameter(torch.zeros(count, fan_out))

    def forward(
        self, coefficients: Tensor, scales: Tensor, shapes: Sequence[Shape]
    ) -> list[tuple[Tensor, Tensor]]:
        """Mix layers: coefficients (sum n, K) and weight scales (sum n,), grouped by shape."""
        scaled = coefficients * scales[:, None]
        weights = _Mix.apply(scaled, self.weight, shapes)  # type: ignore[no-untyped-call]
        biases = (coefficients @ self.bias).unbind()
        fan_outs = [fan_out for _, fan_out, n in shapes for _ in range(n)]
        return [(w, b[:o]) for w, b, o in zip(weights, biases, fan_outs, strict=True)]


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

    def _nodes(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """Node features (M, L, F) and which nodes exist (M, L), L the deepest chain."""
        longest = max(len(a) for a in architectures) + 1
        rows, exists = [], []
        for architecture in architectures:
            sizes = self.space.layer_sizes(architecture)
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
        like = self.std_head.weight
        features = torch.tensor(rows, dtype=like.dtype, device=like.device)
        return features, torch.tensor(exists, device=like.device)

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """Weights of each policy, and log-std offsets (M, act_dim)."""
        features, exists = self._nodes(architectures)
        state = self._pass_messages(self.embed(features), exists)
        coefficients = self.decoder(state)
        mean_state = (state * exists[..., None]).sum(1) / exists.sum(1, keepdim=True)
        return self._decode(architectures, coefficients), self.std_head(mean_state)

    def _pass_messages(self, nodes: Tensor, exists: Tensor) -> Tensor:
        """Node states (M, L, 2 hidden) after one pass in each direction along the chain."""
        count, longest, hidden = nodes.shape
        ahead, back = [], []
        h = nodes.new_zeros((count, hidden))
        for place in range(longest):
            h = self.towards_output(nodes[:, place], h)
            ahead.append(h)
        h = nodes.new_zeros((count, hidden))
        for place in reversed(range(longest)):
            # Padding comes first in this direction: it must not stir the state.
            h = torch.where(exists[:, place, None], self.towards_input(nodes[:, place], h), h)
            back.append(h)
        both = torch.cat((torch.stack(ahead, 1), torch.stack(back[::-1], 1)), dim=-1)
        normalised: Tensor = self.norm(both)
        return normalised

    def _decode(self, architectures: Sequence[Architecture], coefficients: Tensor) -> list[Weights]:
        """Mix the bases: all layers of a kind together, one product for those of equal shape."""
        gain, output_scale = self.config.gain, self.config.output_scale
        policies: list[Weights] = [[None] * (len(a) + 1) for a in architectures]  # type: ignore[list-item]
        for kind in KINDS:
            layers, shapes = group_by_shape(self.space, architectures, kind)
            if not layers:
                continue
            rows = [m * coefficients.shape[1] + place for _, _, m, place in layers]
            scale = [math.sqrt(gain / fan_in) for fan_in, _, _, _ in layers]
            scales = coefficients.new_tensor(scale) * (output_scale if kind == "output" else 1.0)
            mixed = self.bases[kind](coefficients.flatten(0, 1)[rows], scales, shapes)
            for (_, _, m, place), layer in zip(layers, mixed, strict=True):
                policies[m][place] = layer
        return policies


def group_by_shape(
    space: SearchSpace, architectures: Sequence[Architecture], kind: str | None = None
) -> tuple[list[tuple[int, int, int, int]], list[Shape]]:
    """Layers (fan_in, fan_out, policy, place), of one kind or all, those of equal shape together.

    Also how many there are of each shape, in the same order.
    """
    layers = [
        (fan_in, fan_out, m, place)
        for m, architecture in enumerate(architectures)
        for place, (fan_in, fan_out) in enumerate(space.layer_sizes(architecture))
        if kind is None or kind == _kind(place, len(architecture) + 1)
    ]
    layers.sort()
    counts = Counter((fan_in, fan_out) for fan_in, fan_out, _, _ in layers)
    return layers, [(fan_in, fan_out, n) for (fan_in, fan_out), n in counts.items()]


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
