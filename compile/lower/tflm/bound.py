"""How far a quantised model may be from its float32 policy: a bound for each observation.

What quantising the weights and the observation changes is known exactly: it is computed in
float64, together with the saturation of every tensor. What the kernels round on the way is
bounded: half a unit for each requantisation and what their fixed-point multipliers are off, then
carried through the later layers by the absolute values of their weights (interval analysis).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.lower.tflm.model import Floats, Model, Operator, Tensor

Codes = NDArray[Any]  # whole numbers

MULTIPLIER_ERROR = {"int8": 2.0**-30, "int16": 2.0**-15}
"""Relative error of a requantisation's multiplier: 31 bits, but 16 for sums of 64 bits
(MultiplyByQuantizedMultiplier in TFLite's kernels/internal/common)."""

FUNCTION_ERROR = {
    ("TANH", "int8"): 2.0**-8 + 2.0**-12,
    ("TANH", "int16"): 2.0**-13,
    ("LOGISTIC", "int8"): 2.0**-9 + 2.0**-12,
    ("LOGISTIC", "int16"): 2.0**-14,
}
"""Largest error of TFLM's kernels as a real number: int8 is gemmlowp's fixed-point function rounded
to 1/128 or 1/256, int16 a table with straight lines between its entries. Measured over all codes
in tests/compile/test_tflm_bound.py."""


@dataclass(frozen=True)
class Bounded:
    """(n, act_dim) results of a model in exact arithmetic, and how far its kernels may be off."""

    actions: Floats
    rounding: Floats


def exact(model: Model, source: Codes) -> Bounded:
    """Evaluate a quantised model on (n, obs_dim) input codes."""
    values = {model.source: _real(model.tensors[model.source], source)}
    errors = {model.source: np.zeros_like(values[model.source])}
    for operator in model.operators:
        first, result = operator.inputs[0], operator.outputs[0]
        value, error = _apply(operator, model, values, errors)
        low, high = _range(model.tensors[result], operator.fused)
        values[result], errors[result] = np.clip(value, low, high), error
        del values[first], errors[first]
    return Bounded(values[model.result], errors[model.result])


def kernel_errors(model: Model, codes: Mapping[int, Codes]) -> dict[str, float]:
    """By kind of operator: its largest error on the inputs it really got, as a share of its bound.

    ``codes``: (n, units) that every tensor held. Above 1 a kernel does not compute what the model
    says. Each operator by itself: nothing is carried on, so this is as strict for a deep policy.
    """
    worst: dict[str, float] = {}
    for operator in model.operators:
        first, index = operator.inputs[0], operator.outputs[0]
        values = {first: _real(model.tensors[first], codes[first])}
        value, bound = _apply(operator, model, values, {first: np.zeros_like(values[first])})
        result = model.tensors[index]
        off = np.abs(np.clip(value, *_range(result, operator.fused)) - _real(result, codes[index]))
        share = np.divide(off, bound, out=np.where(off > 0, np.inf, 0.0), where=bound > 0)
        worst[operator.kind] = max(worst.get(operator.kind, 0.0), float(share.max()))
    return worst


def _real(tensor: Tensor, codes: Codes) -> Floats:
    assert tensor.scale is not None
    return tensor.scale * (codes.astype(np.float64) - tensor.zero_point)


def _apply(
    operator: Operator, model: Model, values: dict[int, Floats], errors: dict[int, Floats]
) -> tuple[Floats, Floats]:
    """Value and error of an operator's output before it saturates."""
    x, error = values[operator.inputs[0]], errors[operator.inputs[0]]
    result = model.tensors[operator.outputs[0]]
    assert result.scale is not None
    if operator.kind == "FULLY_CONNECTED":
        weight = model.tensors[operator.inputs[1]]
        value = x @ weight.real.T
        for bias in operator.inputs[2:]:
            value = value + model.tensors[bias].real
        carried = error @ np.abs(weight.real).T
        assert weight.scale is not None
        unit = model.tensors[operator.inputs[0]].scale or 0.0
        return value, carried + _rounding(value, carried, result, unit * weight.scale)
    if operator.kind == "LEAKY_RELU":
        value = np.where(x > 0, x, operator.alpha * x)
        carried = np.where(x + error < 0, operator.alpha, 1.0) * error
        unit = model.tensors[operator.inputs[0]].scale or 0.0
        return value, carried + _rounding(value, carried, result, unit * operator.alpha)
    if operator.kind == "TANH":
        return np.tanh(x), error + FUNCTION_ERROR["TANH", result.dtype]
    if operator.kind == "LOGISTIC":  # its steepest slope is 1/4
        return 1 / (1 + np.exp(-x)), error / 4 + FUNCTION_ERROR["LOGISTIC", result.dtype]
    if operator.kind == "RELU":
        unit = model.tensors[operator.inputs[0]].scale or 0.0
        return np.maximum(x, 0), error + _rounding(x, error, result, unit)
    other = model.tensors[operator.inputs[1]].real  # MINIMUM, MAXIMUM: codes are only compared
    return (np.minimum if operator.kind == "MINIMUM" else np.maximum)(x, other), error


def _rounding(value: Floats, carried: Floats, result: Tensor, unit: float) -> Floats:
    """What turning a sum of `unit` into the result's codes may be off.

    The product with the multiplier is rounded to a whole number, then shifted down and rounded
    once more: half a unit, and half of one 2^shift smaller.
    """
    assert result.scale is not None
    shift = max(0, -math.frexp(unit / result.scale)[1])
    rounded = result.scale * (0.5 + 0.5 * 2.0**-shift)
    error: Floats = rounded + MULTIPLIER_ERROR[result.dtype] * (np.abs(value) + carried)
    return error


def _range(tensor: Tensor, fused: str) -> tuple[float, float]:
    """The smallest and largest real number that a tensor holds behind a fused activation."""
    assert tensor.scale is not None
    limits = np.iinfo(tensor.dtype)
    low, high = limits.min, limits.max
    ends = {"RELU": (0.0, None), "RELU_N1_TO_1": (-1.0, 1.0)}.get(fused, (None, None))
    if ends[0] is not None:
        low = max(low, tensor.zero_point + round(ends[0] / tensor.scale))
    if ends[1] is not None:
        high = min(high, tensor.zero_point + round(ends[1] / tensor.scale))
    return tensor.scale * (low - tensor.zero_point), tensor.scale * (high - tensor.zero_point)
