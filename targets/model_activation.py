"""Terms of the cost of activations on floats.

They stand behind any layer of a float32 policy, and behind the last one of a fixed-point policy.
Functions work on rows in fours: tanh_f32 and elu_f32 are called, but four values of tanh and every
clip are inlined. Behind the last layer comes a clip where the activation has bounds, and otherwise
a loop that passes the actions on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.shapes import Integers, Layers

Terms = dict[str, Any]  # term -> array (n,): what the term's constant is multiplied by
BOUNDED = ("clip", "tanh", "sigmoid")
LEAKY = ("leaky_relu", "leaky_relu_any", "relu")
UNBOUNDED = ("identity", "elu", *LEAKY)


def cycle_terms(layers: Layers, behind: NDArray[np.bool_]) -> Terms:
    """Of the layers (n, depth+1) that float activations stand behind."""
    tanh, elu, clip = (_rows(layers, behind, name) for name in ("tanh", "elu", "clip"))
    last = layers.last & behind
    sigmoid = layers.output == "sigmoid"
    half = last & sigmoid if sigmoid.any() else sigmoid
    return {
        "tanh_call": _sum(tanh > 4),
        "tanh_group": _sum(np.where(tanh > 4, tanh // 4, 0)),
        "tanh_four": _sum(tanh == 4),
        "elu_call": _sum(elu > 0),
        "elu_group": _sum(elu // 4),
        "clip_call": _sum(clip > 0),
        "clip_group": _sum(clip // 4),
        "clip_rest": _sum(clip % 4),
        "half_group": _sum(half * layers.rows // 4),
    }


def code_terms(layers: Layers, behind: NDArray[np.bool_]) -> Terms:
    """Likewise, for bytes of code."""
    tanh, elu, clip = (_rows(layers, behind, name) for name in ("tanh", "elu", "clip"))
    last = layers.last & behind
    sigmoid = layers.output == "sigmoid"
    half = last & sigmoid if sigmoid.any() else sigmoid
    return {
        "tanh_function": np.any(tanh > 4, axis=1),
        "tanh_call": _sum(tanh > 4),
        "tanh_four": _sum(tanh == 4),
        "elu_function": np.any(elu > 0, axis=1),
        "elu_call": _sum(elu > 0),
        "clip_call": _sum(clip > 0),
        "clip_fours": _sum(clip >= 4),
        "clip_loop": _sum(clip >= 8),
        "clip_rest": _sum(clip % 4 > 0),
        "clip_rest_loop": _sum(clip % 4 > 1),
        "half": _sum(half),
        "half_loop": _sum(half & (layers.rows > 4)),
    }


def by_unit(name: str, layers: Layers, outputs: tuple[str, ...]) -> Terms:
    """A loop over the actions, for some of the last layer's activations: so much, and by unit.

    The compiler unrolls it where it is short, so code grows with the units as time does.
    """
    chosen = np.isin(layers.output, outputs)
    loop = layers.last & chosen if chosen.any() else chosen
    units = np.where(loop, layers.outputs, 0)
    return {name: _sum(loop), f"{name}_unit": _sum(units)}


def constant_terms(layers: Layers, behind: NDArray[np.bool_]) -> Terms:
    """Whether coefficients of a function are there."""
    return {
        "tanh": np.any(_rows(layers, behind, "tanh") > 0, axis=1),
        "elu": np.any(_rows(layers, behind, "elu") > 0, axis=1),
    }


def called(layers: Layers, behind: NDArray[np.bool_]) -> Terms:
    """Whether functions that save registers are there, for the stack."""
    tanh, elu = (_rows(layers, behind, name) for name in ("tanh", "elu"))
    return {"tanh": np.any(tanh > 4, axis=1), "elu": np.any(elu > 0, axis=1)}


def acting(layers: Layers, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """(n, depth+1) layers, hidden and last, whose activation is one of `names`."""
    return (layers.hidden & np.isin(layers.activation, names)) | (
        layers.last & np.isin(layers.output, names)
    )


def _rows(layers: Layers, behind: NDArray[np.bool_], function: str) -> Integers:
    """(n, depth+1) values that a function works on; 0 where a layer does not call it.

    Terms of what no architecture has are of length 1, which adds nothing and costs no time.
    """
    names = {"tanh": ("tanh", "sigmoid"), "elu": ("elu",), "clip": ("clip",)}[function]
    outputs = BOUNDED if function == "clip" else names
    within, behind_last = np.isin(layers.activation, names), np.isin(layers.output, outputs)
    if not (within.any() or behind_last.any()):
        return np.zeros((1, 1), np.int64)
    hidden, last = layers.hidden & within, layers.last & behind_last
    if function == "clip":
        values = np.where(last, layers.outputs, np.where(hidden, layers.rows, 0))
    else:
        values = np.where(last | hidden, layers.rows, 0)
    return np.where(behind, values, 0)


def _sum(values: NDArray[np.bool_] | Integers) -> Integers:
    return np.asarray(values.sum(axis=1), dtype=np.int64)
