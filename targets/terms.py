"""Which terms the cost of a precision's kernels is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from targets import model_fixed, model_float
from targets.shapes import Floats, Integers, Layers


@dataclasses.dataclass(frozen=True)
class Terms:
    """Names of the fitted constants, and what each is multiplied by for given layers."""

    cycles: tuple[str, ...]
    cycle_features: Callable[[Layers], Floats]  # (n, len(cycles))
    code: tuple[str, ...]
    code_features: Callable[[Layers], Floats]  # (n, len(code))
    constants: Callable[[Layers], Integers]  # (n,) bytes, exact but for a fitted remainder
    buffers: Callable[[Layers], Integers]  # (n,) bytes, likewise


def terms_of(precision: str) -> Terms:
    """The terms for `f32`, `i16`, `i8` or `i8x`."""
    if precision == "f32":
        return Terms(
            model_float.CYCLE_TERMS,
            model_float.cycle_features,
            model_float.CODE_TERMS,
            model_float.code_features,
            model_float.constants,
            model_float.buffers,
        )
    return Terms(
        model_fixed.CYCLE_TERMS,
        partial(model_fixed.cycle_features, precision),
        model_fixed.CODE_TERMS,
        partial(model_fixed.code_features, precision),
        partial(model_fixed.constants, precision),
        partial(model_fixed.buffers, precision),
    )
