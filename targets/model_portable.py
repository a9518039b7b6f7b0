"""Terms of the size of portable C: kernels that are functions of their own, whatever the widths.

Code is what of them is in use and a call of one for each layer; so is the stack, but for the calls.
Where no FPU is, kernels bring what they need of the compiler's arithmetic, functions all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from targets.model_activation import BOUNDED, LEAKY, Terms, acting
from targets.model_fixed import hidden_kinds
from targets.shapes import Integers, Layers


def code_terms(precision: str, layers: Layers) -> Terms:
    """What each fitted constant is multiplied by, (n,), for bytes of code."""
    calls = _calls(precision, layers)
    return {
        **_used(calls),
        **{f"{name}_call": layer.sum(axis=1) for name, layer in calls.items()},
    }


def stack_terms(precision: str, layers: Layers) -> Terms:
    """Likewise, for bytes of stack: functions are deeper than layers of float32."""
    used = _used(_calls(precision, layers))
    if precision == "f32":
        used["dense8"] = used["dense8"] & ~used["function"]
    return {**used, "layer": layers.present.sum(axis=1)}


def constants(precision: str, layers: Layers) -> Integers:
    """Bytes of constants that kernels of a core have in their code: a byte for each observation."""
    return 4 * -(-layers.inputs[:, 0] // 4) * (precision != "f32")


def _used(calls: dict[str, NDArray[np.bool_]]) -> Terms:
    used: Terms = {name: layer.any(axis=1) for name, layer in calls.items()}
    function = used["tanh"] | used["elu"]
    return {
        "fixed": np.ones(len(function)),
        **used,
        "function": function,  # divides and converts
        "compare": function | used["clip"],
    }


def _calls(precision: str, layers: Layers) -> dict[str, NDArray[np.bool_]]:
    """By kernel: (n, depth+1) the layers that call it."""
    last = layers.last
    behind = layers.present if precision == "f32" else last
    bounded = last & np.isin(layers.output, BOUNDED)
    shared = {
        "tanh": behind & acting(layers, ("tanh", "sigmoid")),
        "elu": behind & acting(layers, ("elu",)),
        "sigmoid": last & (layers.output == "sigmoid"),
        "clip": bounded | behind & acting(layers, ("clip",)),
    }
    if precision == "f32":
        dense = {"dense8": layers.panels8 > 0, "dense4": layers.panels4 > 0}
        return {**dense, **shared, "finite": last & ~bounded}
    rectify = last & (layers.output == "relu")  # without a multiplication
    leak = last & acting(layers, LEAKY) & ~rectify
    return {**hidden_kinds(layers), **shared, "rectify": rectify, "leak": leak}
