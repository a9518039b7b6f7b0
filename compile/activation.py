"""Activations: what each computes, and the form in which the kernels compute it.

    activation(x) = scale * function(before * x + leak |before * x|) + offset

`before` goes into the layer's own weights, `scale` and `offset` into those of the next layer, so
only the bracket and the function cost time. Behind the output layer there is no next layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError

Floats = NDArray[np.float64]


class Parameters(Protocol):
    """What shapes a network's activations: one number each, for all of its layers."""

    @property
    def negative_slope(self) -> float: ...  # noqa: D102
    @property
    def elu_alpha(self) -> float: ...  # noqa: D102
    @property
    def clip(self) -> tuple[float, float]: ...  # noqa: D102


def activate(activation: str, x: Floats, of: Parameters) -> Floats:
    """The activation in float64, any shape."""
    if activation == "leaky_relu":
        return np.where(x > 0, x, of.negative_slope * x)
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "elu":
        return np.where(x > 0, x, of.elu_alpha * np.expm1(np.minimum(x, 0)))
    if activation == "tanh":
        return np.tanh(x)
    if activation == "sigmoid":
        return 0.5 + 0.5 * np.tanh(0.5 * x)  # exp(-x) would overflow
    if activation == "clip":
        return np.clip(x, *of.clip)
    return x


@dataclass(frozen=True)
class Form:
    """One activation in the terms above; `function` is a kernel's name, or empty."""

    before: float = 1.0
    leak: float = 0.0
    function: str = ""
    scale: float = 1.0
    offset: float = 0.0


def hidden_form(activation: str, of: Parameters) -> Form:
    """The form of a hidden layer's activation. CompileError for a slope outside 0..1."""
    if activation in ("relu", "leaky_relu"):
        slope = of.negative_slope if activation == "leaky_relu" else 0.0
        if not 0.0 <= slope <= 1.0:
            raise CompileError(f"the leaky ReLU slope {slope} is outside 0..1")
        return Form(leak=(1 - slope) / (1 + slope), scale=(1 + slope) / 2)
    return {
        "identity": Form(),
        "clip": Form(function="clip_f32"),
        "tanh": Form(function="tanh_f32"),
        "sigmoid": Form(before=0.5, function="tanh_f32", scale=0.5, offset=0.5),
        "elu": Form(before=-0.5, function="elu_f32"),
    }[activation]


def output_form(activation: str, of: Parameters) -> Form:
    """The form of the last layer's activation: scale 1, offset 0. A clip comes by itself."""
    if activation == "clip":
        return Form()
    if activation == "sigmoid":
        return Form(before=0.5, function="sigmoid_f32")
    form = hidden_form(activation, of)
    return Form(form.before * form.scale, form.leak, form.function)


def action_range(activation: str, of: Parameters) -> tuple[float, float] | None:
    """What the last layer's activation bounds the action to; None where it does not."""
    return {"clip": of.clip, "tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}.get(activation)
