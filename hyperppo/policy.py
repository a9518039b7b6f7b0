"""Gaussian policies of a meta-batch of architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperppo.config import RunConfig
from hyperppo.ghn import GHN, DirectWeights, Weights
from hyperppo.space import Architecture, SearchSpace


def forward_mean(policies: Sequence[Weights], observation: Tensor, slope: float) -> Tensor:
    """Mean actions (M, B, act_dim) of M policies on normalised observations (M, B, obs_dim).

    A loop over the networks beats padded batched products about nine times on a CPU, because most
    of a padded product is padding.
    """
    means = []
    for weights, x in zip(policies, observation.unbind(0), strict=True):
        for weight, bias in weights[:-1]:
            x = F.leaky_relu(F.linear(x, weight, bias), slope)
        means.append(F.linear(x, *weights[-1]))
    return torch.stack(means)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density (...,) of diagonal Gaussians at actions (..., act_dim)."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum(-1) - 0.5 * math.log(2 * math.pi) * mean.shape[-1]


class HyperPolicy(nn.Module):
    """Policies for any architecture of the space: estimated weights and standard deviations.

    The standard deviation is one vector (CSD), one vector per architecture (VSD), or one vector
    plus what the GHN predicts for the architecture (HyperPPO, section IV-C).
    """

    def __init__(self, space: SearchSpace, config: RunConfig) -> None:
        super().__init__()
        self.space = space
        self.slope = config.policy.negative_slope
        self.min_log_std = math.log(config.policy.min_std)
        self.std = config.std
        self.weights: nn.Module
        if config.algo == "ppo":
            self.weights = DirectWeights(space, config.ghn.output_scale)
        else:
            self.weights = GHN(space, config.ghn)
        rows = len(space) if self.std == "table" else 1
        start = torch.full((rows, space.act_dim), math.log(config.policy.init_std))
        self.log_std = nn.Parameter(start)

    def forward(self, architectures: Sequence[Architecture]) -> tuple[list[Weights], Tensor]:
        """Weights of M policies, and their log standard deviations (M, act_dim)."""
        policies, offsets = self.weights(architectures)
        if self.std == "table":
            log_std = self.log_std[[self.space.index(a) for a in architectures]]
        elif self.std == "ghn":
            log_std = self.log_std + offsets
        else:
            log_std = self.log_std.expand(len(architectures), -1)
        return policies, log_std.clamp(min=self.min_log_std)


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
