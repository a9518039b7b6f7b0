"""The graph hypernetwork: an architecture in, the weights of its policy out.

An MLP is a chain of linear layers; each is a node whose features are its fan-in, fan-out, kind and
place. One forward and one backward pass of gated recurrent message passing along the chain (a GRU
cell in each direction, all architectures of a batch at once) give every node a state; a decoder
turns it into coefficients over shared bases, cut to the layer's size (HyperPPO, section IV-B;
GHN-2, Knyazev et al. 2021, for the passes and the cutting of one largest weight).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperppo.config import GHNConfig
from hyperppo.space import Architecture, SearchSpace

Weights = list[tuple[Tensor, Tensor]]
"""One policy: (weight (fan_out, fan_in), bias (fan_out,)) of each linear layer."""

KINDS = ("input", "hidden", "output")
_FEATURES = 2 + len(KINDS) + 2


class Bases(nn.Module):
    """The shared bases of one layer kind: `count` weights and biases of its largest shape."""

    def __init__(self, count: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, fan_out, fan_in))
        self.bias = nn.Parameter(torch.zeros(count, fan_out))

    def forward(
        self, coefficients: Tensor, fan_in: int, fan_out: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Mix for n layers of one shape: (n, fan_out, fan_in) and (n, fan_out)."""
        count = coefficients.shape[1]
        weight = self.weight[:, :fan_out, :fan_in].reshape(count, -1)
        mixed = (coefficients * scale) @ weight
        return mixed.view(-1, fan_out, fan_in), coefficients @ self.bias[:, :fan_out]


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
        device = self.std_head.weight.device
        return torch.tensor(rows, device=device), torch.tensor(exists, device=device)

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

    def _decode(
        self, architectures: Sequence[Architecture], coefficients: Tensor
    ) -> list[Weights]:
        """Mix the bases, one product for all layers of the same kind and shape."""
        shapes: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
        for m, architecture in enumerate(architectures):
            sizes = self.space.layer_sizes(architecture)
            for place, (fan_in, fan_out) in enumerate(sizes):
                shapes[_kind(place, len(sizes)), fan_in, fan_out].append((m, place))
        policies: list[Weights] = [[None] * (len(a) + 1) for a in architectures]  # type: ignore[list-item]
        for (kind, fan_in, fan_out), members in shapes.items():
            which, places = zip(*members, strict=True)
            scale = math.sqrt(self.config.gain / fan_in)
            if kind == "output":
                scale *= self.config.output_scale
            weight, bias = self.bases[kind](coefficients[which, places], fan_in, fan_out, scale)
            for i, (m, place) in enumerate(members):
                policies[m][place] = (weight[i], bias[i])
        return policies


def _kind(place: int, depth: int) -> str:
    return "input" if place == 0 else "output" if place == depth - 1 else "hidden"


class DirectWeights(nn.Module):
    """Plain PPO's weights: the parameters of one architecture, behind the GHN's interface."""

    def __init__(self, space: SearchSpace, output_scale: float) -> None:
        super().__init__()
        (architecture,) = space.architectures
        self.space = space
        sizes = space.layer_sizes(architecture)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in sizes)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            last = self.layers[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(output_scale / math.sqrt(2))

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """The same weights for each entry; no std head."""
        weights = [(layer.weight, layer.bias) for layer in self.layers]
        zeros = self.layers[0].weight.new_zeros((len(architectures), self.space.act_dim))
        return [weights for _ in architectures], zeros  # type: ignore[misc]
