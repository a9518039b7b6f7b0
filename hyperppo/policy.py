"""Gaussian policies of a meta-batch of architectures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperppo.chain_ghn import ChainGHN
from hyperppo.config import RunConfig
from hyperppo.dense import Dense, pad
from hyperppo.ghn import GHN, DirectWeights, Told, Weights, tell
from hyperppo.processor import spread
from hyperppo.space import Architecture, SearchSpace

_OVERHEAD = 500  # what calling a network costs, in weights: it only has to share them out evenly


class _Forward(torch.autograd.Function):
    """All networks of a meta-batch as one node of the autograd graph.

    Small networks are bound by the bookkeeping of each operation: by hand, a layer costs one
    product forward and two back, and nothing else.
    """

    @staticmethod
    def forward(
        ctx: Any, observation: Tensor, slope: float, depths: Sequence[int], *parameters: Tensor
    ) -> Tensor:
        """Means (M, B, act_dim); `parameters` are weight, bias of each layer, policy by policy."""
        layers = zip(parameters[::2], parameters[1::2], strict=True)
        networks = [list(itertools.islice(layers, depth)) for depth in depths]
        ctx.costs = [_OVERHEAD + sum(weight.numel() for weight, _ in n) for n in networks]
        done = spread(lambda m: act_one(networks[m], observation[m], slope), ctx.costs)
        inputs = itertools.chain.from_iterable(own for _, own in done)
        ctx.save_for_backward(*inputs, *parameters[::2])
        ctx.slope, ctx.depths = slope, depths
        return torch.stack([mean for mean, _ in done])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the parameters; observations get none."""
        count = sum(ctx.depths)
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        starts = [0, *itertools.accumulate(ctx.depths)]

        def of_one(m: int) -> list[Tensor]:
            gradients: list[Tensor] = []  # last layer first, bias before weight
            start, g = starts[m], gradient[m]
            for i in range(starts[m + 1] - 1, start - 1, -1):
                fan_out, fan_in = weights[i].shape
                grows = fan_out > fan_in
                # A short, long product is up to six times slower the other way around.
                weight = (inputs[i].t() @ g).t() if grows else g.t() @ inputs[i]
                gradients += [g.sum(0), weight]
                if i > start:
                    g = g @ (weights[i].t().contiguous().t() if grows else weights[i])
                    # The sign of a leaky ReLU's result is that of its input.
                    g = torch.ops.aten.leaky_relu_backward(g, inputs[i], ctx.slope, True)
            return gradients[::-1]

        return None, None, None, *itertools.chain.from_iterable(spread(of_one, ctx.costs))


def act_one(weights: Weights, x: Tensor, slope: float) -> tuple[Tensor, list[Tensor]]:
    """Means (B, act_dim) of one policy, and the inputs of its layers."""
    inputs = []
    for weight, bias in weights[:-1]:
        inputs.append(x)
        x = F.leaky_relu_(F.linear(x, weight, bias), slope)
    inputs.append(x)
    return F.linear(x, *weights[-1]), inputs


def act(
    policies: Sequence[Weights], observation: Tensor, slope: float
) -> tuple[Tensor, list[Tensor]]:
    """Means (M, B, act_dim), and the inputs of every layer, policy by policy."""
    pairs = zip(policies, observation, strict=True)
    done = [act_one(weights, x, slope) for weights, x in pairs]
    return torch.stack([mean for mean, _ in done]), [x for _, own in done for x in own]


Policies = list[Weights] | Dense
"""M policies: layer by layer for a CPU, padded for a GPU."""


def forward_mean(policies: Policies, observation: Tensor, slope: float) -> Tensor:
    """Mean actions (M, B, act_dim) of M policies on normalised observations (M, B, obs_dim).

    A loop over the networks beats padded batched products about nine times on a CPU, because most
    of a padded product is padding.
    """
    if isinstance(policies, Dense):
        return policies(observation)
    if not torch.is_grad_enabled():
        return act(policies, observation, slope)[0]
    parameters = [tensor for weights in policies for layer in weights for tensor in layer]
    depths = [len(weights) for weights in policies]
    means: Tensor = _Forward.apply(observation, slope, depths, *parameters)  # type: ignore[no-untyped-call]
    return means


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density (...,) of diagonal Gaussians at actions (..., act_dim)."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum(-1) - 0.5 * math.log(2 * math.pi) * mean.shape[-1]


class HyperPolicy(nn.Module):
    """Policies for any architecture of the space: estimated weights and standard deviations.

    The standard deviation is one vector (CSD), one vector per architecture (VSD), or one vector
    plus what the GHN predicts for the architecture (HyperPPO: VSD and CSD).
    """

    def __init__(self, space: SearchSpace, config: RunConfig) -> None:
        super().__init__()
        self.space = space
        self.slope = config.policy.negative_slope
        self.min_log_std: Tensor
        # A buffer that the trainer fills: a captured graph looks there.
        floor = torch.tensor(math.log(config.policy.min_std))
        self.register_buffer("min_log_std", floor, persistent=False)
        self.std = config.std
        self.config = config.ghn
        self.weights: GHN | ChainGHN | DirectWeights
        if config.algo == "ppo":
            self.weights = DirectWeights(space, config.ghn.output_scale)
        elif config.ghn.kind == "original":
            self.weights = ChainGHN(space, config.ghn.output_scale)
        else:
            self.weights = GHN(space, config.ghn)
        rows = len(space) if self.std == "table" else 1
        start = torch.full((rows, space.act_dim), math.log(config.policy.init_std))
        self.log_std = nn.Parameter(start)

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """Weights of M policies, and their log standard deviations (M, act_dim)."""
        policies, offsets = self.weights(architectures)
        rows = torch.tensor([self.space.index(a) for a in architectures])
        return policies, self._log_std(rows.to(offsets.device), offsets)

    def tell(self, architectures: Sequence[Architecture]) -> Told:
        """What `dense` is told about a meta-batch."""
        return tell(self.space, architectures, self.config, self.log_std.device)

    def dense(self, told: Told, architectures: Sequence[Architecture] = ()) -> tuple[Dense, Tensor]:
        """As `forward`, with the policies in the form for a GPU; the same operations every time.

        But not by weights that only know single layers (the original GHN): they need to know the
        `architectures`.
        """
        if isinstance(self.weights, GHN):
            policies, offsets = self.weights.dense(told, self.slope)
        else:
            layers, offsets = self.weights(architectures)
            policies = pad(self.space, layers, told.units, told.exists, self.slope)
        return policies, self._log_std(told.rows, offsets)

    def _log_std(self, rows: Tensor, offsets: Tensor) -> Tensor:
        if self.std == "table":
            log_std = self.log_std.index_select(0, rows)
        elif self.std == "ghn":
            log_std = self.log_std + offsets
        else:
            log_std = self.log_std.expand(len(offsets), -1)
        return log_std.clamp(min=self.min_log_std)


def as_module(weights: Weights, slope: float, mean: Tensor, std: Tensor) -> nn.Sequential:
    """One policy as an ordinary module: raw observation (n, obs_dim) -> action in [-1, 1].

    The observation normaliser (x - mean) / std is folded into the first layer in float64.
    """
    layers: list[nn.Module] = []
    for place, (weight, bias) in enumerate(weights):
        w, b = weight.detach().double().cpu(), bias.detach().double().cpu()
        if place == 0:
            w = w / std.double().cpu()
            b = b - w @ mean.double().cpu()
        linear = nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            linear.weight.copy_(w)
            linear.bias.copy_(b)
        layers += [linear, nn.LeakyReLU(slope)]
    return nn.Sequential(*layers[:-1], nn.Hardtanh(-1.0, 1.0)).requires_grad_(False)
