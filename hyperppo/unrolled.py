"""Policies that act many times in one graph, as gradients through a simulator need it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hyperppo.ghn import Weights
from hyperppo.policy import act


class Unrolled:
    """M policies, layer by layer: called once a step, in one backward pass.

    Autograd would add up the gradient of every weight step by step. Here the backward pass of a
    step only leaves behind what belongs to each layer, and one product a layer makes of it the
    gradient over all steps. Calls are for one backward pass; it frees what they kept.
    """

    def __init__(self, policies: Sequence[Weights], slope: float) -> None:
        self.slope = slope
        self.networks = [[(w.detach(), b.detach()) for w, b in policy] for policy in policies]
        layers = [layer for policy in policies for layer in policy]
        self.left: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
        parameters = itertools.chain.from_iterable(layers)
        self._after_all: Tensor = _Parameters.apply(self.left, *parameters)  # type: ignore[no-untyped-call]

    def __call__(self, observation: Tensor) -> Tensor:
        """Mean actions (M, B, act_dim) on normalised observations (M, B, obs_dim)."""
        means: Tensor = _Act.apply(observation, self._after_all, self)  # type: ignore[no-untyped-call]
        return means


class _Parameters(torch.autograd.Function):
    """The weights, as a 0 that every step takes in: its gradient comes when all steps' have."""

    @staticmethod
    def forward(ctx: Any, left: list[list[tuple[Tensor, Tensor]]], *parameters: Tensor) -> Tensor:
        """0; `left` is where steps leave (input, gradient of the output) of each layer."""
        ctx.left = left
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of weight, bias of every layer."""
        gradients = []
        for layer in ctx.left:
            inputs, outputs = (torch.cat(parts) for parts in zip(*layer, strict=True))
            grows = outputs.shape[1] > inputs.shape[1]
            # A short, long product is faster the other way around.
            weight = (inputs.t() @ outputs).t() if grows else outputs.t() @ inputs
            gradients += [weight, outputs.sum(0)]
            layer.clear()
        return None, *gradients


class _Act(torch.autograd.Function):
    """One step of all networks."""

    @staticmethod
    def forward(ctx: Any, observation: Tensor, after_all: Tensor, owner: Unrolled) -> Tensor:
        """Means (M, B, act_dim)."""
        means, inputs = act(owner.networks, observation, owner.slope)
        ctx.save_for_backward(*inputs)
        ctx.owner = owner
        return means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the observations; that of the weights is left to `_Parameters`."""
        owner, inputs = ctx.owner, ctx.saved_tensors
        to_observations = []
        end = 0
        for g, network in zip(gradient, owner.networks, strict=True):
            start, end = end, end + len(network)
            for i in range(end - 1, start - 1, -1):
                owner.left[i].append((inputs[i], g))
                g = g @ network[i - start][0]
                if i > start:
                    g = torch.ops.aten.leaky_relu_backward(g, inputs[i], owner.slope, True)
            to_observations.append(g)
        return torch.stack(to_observations), gradient.new_zeros(()), None
