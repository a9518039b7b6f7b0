"""The critic: sees the state and the architecture that acts in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperppo.space import Architecture, SearchSpace

_ROWS = 4096  # at a time on a CPU: what a layer makes of more leaves the cache before it is read


def architecture_features(space: SearchSpace, architectures: Sequence[Architecture]) -> Tensor:
    """What the critic is told about each architecture, (M, max_depth + 2) float32.

    log2 of each width (0 where there is no layer), the depth, and log2 of the parameter count.
    """
    rows = []
    for a in architectures:
        widths = [math.log2(w) / 8 for w in a] + [0.0] * (space.max_depth - len(a))
        rows.append([*widths, len(a) / space.max_depth, math.log2(space.count_params(a)) / 16])
    return torch.tensor(rows)


class Critic(nn.Module):
    """Value of (normalised critic input, architecture features)."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.Tanh()]
            inputs = width
        layers.append(nn.Linear(inputs, 1))
        self.net = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Values (...,) of inputs (..., inputs)."""
        rows = x.flatten(0, -2)
        if x.is_cpu and len(rows) > _ROWS:
            values = torch.cat([self.net(part) for part in torch.split(rows, _ROWS)])
        else:
            values = self.net(rows)
        return values.view(x.shape[:-1])
