"""How the C kernels compute an activation: what they do to a sum, what the weights take over.

    activation(x) = scale * function(before * x + leak |before * x|) + offset

`before` goes into the layer's own weights, `scale` and `offset` into those of the next layer, so
only the bracket and the function cost time. Behind the output layer there is no next layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compile.errors import CompileError
from compile.network import Layer, Network


@dataclass(frozen=True)
class Form:
    """One activation in the terms above; `function` is a kernel's name, or empty."""

    before: float = 1.0
    leak: float = 0.0
    function: str = ""
    scale: float = 1.0
    offset: float = 0.0


def hidden_form(activation: str, network: Network) -> Form:
    """The form of a hidden layer's activation. CompileError for a slope outside 0..1."""
    if activation in ("relu", "leaky_relu"):
        slope = network.negative_slope if activation == "leaky_relu" else 0.0
        if not 0.0 <= slope <= 1.0:
            raise CompileError(f"the leaky ReLU slope {slope} is outside 0..1")
        return Form(leak=(1 - slope) / (1 + slope), scale=(1 + slope) / 2)
    return {
        "identity": Form(),
        "clip": Form(function="clip_f32"),
        "tanh": Form(function="tanh_f32"),
        "sigmoid": Form(before=0.5, function="tanh_f32", scale=0.5, offset=0.5),
        "elu": Form(before=0.5, function="elu_f32"),
    }[activation]


def output_form(activation: str, network: Network) -> Form:
    """The form of the last layer's activation: scale 1 and offset 0. A clip comes by itself."""
    if activation == "sigmoid":
        return Form(before=0.5, function="sigmoid_f32")
    form = hidden_form(activation, network)
    if activation == "clip":
        return Form()
    return Form(form.before * form.scale, form.leak, form.function)


def folded(layer: Layer, form: Form, previous: Form) -> Layer:
    """The layer with what its own form and the previous layer's ask of the weights."""
    weight = layer.weight.astype(np.float64)
    bias = layer.bias.astype(np.float64) + weight.sum(axis=1) * previous.offset
    return Layer(
        layer.name,
        (weight * (previous.scale * form.before)).astype(np.float32),
        (bias * form.before).astype(np.float32),
        layer.activation,
    )


def action_range(network: Network) -> tuple[float, float] | None:
    """What the output layer's activation bounds the action to; None where it does not."""
    ranges = {"clip": network.clip, "tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
    return ranges.get(network.layers[-1].activation)
