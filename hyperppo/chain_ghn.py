"""The paper's own graph hypernetwork (HyperPPO; after GHN-2, Knyazev et al. 2021).

The graph of an MLP is the chain input, W1, b1, W2, b2, ... A node's feature is its width. A gated
graph network passes messages once forward and once backward along the chain; a weight decoder
(16-64-128-65536) and a bias decoder (16-32-512) turn each node's state into the largest possible
parameter, of which the layer's part is cut out. Kept for comparison: it has seven times the
parameters of `hyperppo.ghn.GHN` and learns more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hyperppo.ghn import Bases, Weights, layers_of
from hyperppo.space import Architecture, SearchSpace

HIDDEN = 16
WEIGHT_DECODER = (64, 128)
BIAS_DECODER = 32
INPUT, WEIGHT, BIAS = 0, 1, 2


class ChainGHN(nn.Module):
    """Graph hypernetwork with the paper's graph, message passing and decoders."""

    def __init__(self, space: SearchSpace, output_scale: float) -> None:
        super().__init__()
        self.space, self.output_scale = space, output_scale
        widest = max(*space.widths, space.obs_dim, space.act_dim)
        self.embed = nn.Linear(4, HIDDEN)  # width, and which of the three kinds the node is
        self.message = nn.Sequential(
            nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN)
        )
        self.cell = nn.GRUCell(HIDDEN, HIDDEN)
        first, second = WEIGHT_DECODER
        self.weight_decoder = nn.Sequential(
            nn.Linear(HIDDEN, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
        )
        self.weights = Bases(second, widest, widest)  # the decoder's last layer: 128 -> 65536
        self.bias_decoder = nn.Sequential(
            nn.Linear(HIDDEN, BIAS_DECODER), nn.ReLU(), nn.Linear(BIAS_DECODER, widest)
        )
        self.std_head = nn.Linear(HIDDEN, space.act_dim)
        self.norm = nn.LayerNorm(HIDDEN)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Unit variance for weights before scaling, so that sqrt(2 / fan_in) is He's."""
        for layer in self.weight_decoder:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.weights.weight.mul_(math.sqrt(1 / WEIGHT_DECODER[1]))
        for head in (self.bias_decoder[-1], self.std_head):
            assert isinstance(head, nn.Linear)
            head.weight.mul_(0.01)
            head.bias.zero_()

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """Weights of each policy, and log-std offsets (M, act_dim)."""
        state, exists = self._pass_messages(architectures)
        weight_states = self.weight_decoder(state[:, 1::2])  # (M, L, 128)
        biases = self.bias_decoder(state[:, 2::2])
        layers = layers_of(self.space, tuple(architectures))
        rows = [m * weight_states.shape[1] + place for _, m, place in layers]
        scales = [
            math.sqrt(2 / fan_in) * (self.output_scale if place == len(architectures[m]) else 1.0)
            for (fan_in, _), m, place in layers
        ]
        sizes = tuple(size for size, _, _ in layers)
        mixed = self.weights(
            weight_states.flatten(0, 1)[rows], weight_states.new_tensor(scales), sizes
        )
        policies: list[Weights] = [[None] * (len(a) + 1) for a in architectures]  # type: ignore[list-item]
        for ((_, fan_out), m, place), (weight, _) in zip(layers, mixed, strict=True):
            policies[m][place] = (weight, biases[m, place, :fan_out])
        mean_state = (state * exists[..., None]).sum(1) / exists.sum(1, keepdim=True)
        return policies, self.std_head(mean_state)

    def _pass_messages(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """Node states (M, 1 + 2 L, HIDDEN), and which nodes exist (M, 1 + 2 L)."""
        longest = 1 + 2 * (max(len(a) for a in architectures) + 1)
        like = self.embed.weight
        features = like.new_zeros((len(architectures), longest, 4))
        exists = torch.zeros(features.shape[:2], dtype=torch.bool, device=like.device)
        for m, architecture in enumerate(architectures):
            nodes = [(self.space.obs_dim, INPUT)]
            for _, fan_out in self.space.layer_sizes(architecture):
                nodes += [(fan_out, WEIGHT), (fan_out, BIAS)]
            for i, (width, kind) in enumerate(nodes):
                features[m, i, 0] = math.log2(width) / 8
                features[m, i, 1 + kind] = 1.0
            exists[m, : len(nodes)] = True
        states = list(self.embed(features).unbind(1))
        for order in (range(1, longest), range(longest - 2, -1, -1)):
            forward = order.step > 0
            for i in order:
                before = i - 1 if forward else i + 1
                passed = self.cell(self.message(states[before]), states[i])
                both = exists[:, i] & exists[:, before]
                states[i] = torch.where(both[:, None], passed, states[i])
        normalised: Tensor = self.norm(torch.stack(states, 1))
        return normalised, exists
