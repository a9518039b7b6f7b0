"""Which terms the cost of a precision's kernels is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from targets import model_activation, model_fixed, model_float, model_portable
from targets.shapes import Integers, Layers
from targets.target import Target


@dataclasses.dataclass(frozen=True)
class Model:
    """By what the fitted constants are multiplied, and the bytes that are known exactly."""

    cycles: Callable[[Layers], model_activation.Terms]
    code: Callable[[Layers], model_activation.Terms]
    stack: Callable[[Layers], model_activation.Terms]
    coefficients: Callable[[Layers], model_activation.Terms]  # constants besides those below
    constants: Callable[[Layers], Integers]  # (n,) bytes
    buffers: Callable[[Layers], Integers]  # (n,) bytes, exact but for a fitted remainder


def model_for(target: Target, precision: str) -> Model:
    """The model for a target: `model_of`, but for the memory of C for cores without own kernels."""
    model = model_of(precision)
    if not target.portable:
        return model
    return dataclasses.replace(
        model,
        code=partial(model_portable.code_terms, precision),
        stack=partial(model_portable.stack_terms, precision),
        coefficients=lambda layers: {},
        constants=lambda layers: (
            model.constants(layers) + model_portable.constants(precision, layers)
        ),
    )


def model_of(precision: str) -> Model:
    """The model for `f32`, `i16`, `i8` or `i8x`."""
    if precision == "f32":
        return Model(
            model_float.cycle_terms,
            model_float.code_terms,
            model_float.stack_terms,
            lambda layers: model_activation.constant_terms(layers, layers.present),
            model_float.constants,
            model_float.buffers,
        )
    return Model(
        partial(model_fixed.cycle_terms, precision),
        partial(model_fixed.code_terms, precision),
        model_fixed.stack_terms,
        lambda layers: model_activation.constant_terms(layers, layers.last),
        partial(model_fixed.constants, precision),
        partial(model_fixed.buffers, precision),
    )
