"""Gated recurrent message passing along many short chains at once, in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Recurrence(torch.autograd.Function):
    """D gated recurrent networks (Cho et al. 2014) over T steps as one node of autograd's graph.

    A chain has five nodes of 32 numbers: by hand, a step costs nine operations instead of the
    forty of a GRU cell's graph, and there is one product for the gradient of the weights.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, exists: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """States (D, T, M, H) after each step.

        `x` (D, T, M, 3 H) is each step's input to the reset, update and new gates, `exists`
        (D, T, M, 1) is 0 where a chain has no node: the state is 0 there. `weight` (D, 3 H, H),
        `bias` (D, 3 H).
        """
        hidden = weight.shape[2]
        states = x.new_zeros((len(x), x.shape[1] + 1, x.shape[2], hidden))  # states[t + 1] after t
        transposed, bias = weight.transpose(1, 2), bias[:, None]
        saved = []
        for t in range(x.shape[1]):
            h = states[:, t]
            passed = torch.baddbmm(bias, h, transposed)
            gates = torch.sigmoid(x[:, t, :, : 2 * hidden] + passed[..., : 2 * hidden])
            reset, update = gates.chunk(2, -1)
            message = passed[..., 2 * hidden :]
            new = torch.tanh(torch.addcmul(x[:, t, :, 2 * hidden :], reset, message))
            torch.mul(torch.lerp(new, h, update), exists[:, t], out=states[:, t + 1])
            saved += [gates, message, new]
        ctx.save_for_backward(exists, weight, states, *saved)
        return states[:, 1:].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of the inputs, the weights and the biases."""
        exists, weight, states, *saved = ctx.saved_tensors
        D, T, M, hidden = gradient.shape
        to_x = gradient.new_empty((D, T, M, 3 * hidden))
        to_passed = torch.empty_like(to_x)
        to_h = torch.zeros_like(gradient[:, 0])
        for t in reversed(range(T)):
            gates, message, new = saved[3 * t : 3 * t + 3]
            reset, update = gates.chunk(2, -1)
            g = (gradient[:, t] + to_h) * exists[:, t]
            to_new = torch.ops.aten.tanh_backward(g - g * update, new)
            to_gates = torch.cat((to_new * message, g * (states[:, t] - new)), dim=-1)
            to_gates = torch.ops.aten.sigmoid_backward(to_gates, gates)
            torch.cat((to_gates, to_new), dim=-1, out=to_x[:, t])
            torch.cat((to_gates, to_new * reset), dim=-1, out=to_passed[:, t])
            to_h = torch.baddbmm(g * update, to_passed[:, t], weight)
        flat = to_passed.flatten(1, 2)
        to_weight = flat.transpose(1, 2) @ states[:, :-1].flatten(1, 2)
        return to_x, None, to_weight, flat.sum(1)


def pass_messages(
    towards_output: nn.GRUCell, towards_input: nn.GRUCell, nodes: Tensor, exists: Tensor
) -> Tensor:
    """Node states (M, L, 2 hidden) after one pass in each direction along M chains of nodes.

    `nodes` (M, L, hidden), of which those where `exists` (M, L) is False are padding at the end.
    """
    cells = (towards_output, towards_input)
    # One leading axis for the direction, then steps in the order of that direction.
    inputs = [nn.functional.linear(nodes, c.weight_ih, c.bias_ih).transpose(0, 1) for c in cells]
    there = exists.t()[..., None].to(nodes.dtype)
    states: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        torch.stack((inputs[0], inputs[1].flip(0))),
        torch.stack((there, there.flip(0))),
        torch.stack([c.weight_hh for c in cells]),
        torch.stack([c.bias_hh for c in cells]),
    )
    ahead, back = states
    return torch.cat((ahead, back.flip(0)), dim=-1).transpose(0, 1)
