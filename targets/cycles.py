"""Cycles of a policy, without compiling it: a linear model of layer shapes, fitted to emulation.

Its terms are in model_float.py and model_fixed.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targets import shapes
from targets.errors import TargetError
from targets.shapes import Floats, Integers
from targets.target import Target
from targets.terms import terms_of


def predict_cycles(
    target: Target,
    precision: str,
    table: Integers,
    obs_dim: int | Integers,
    act_dim: int,
    weights_in: str,
) -> Floats:
    """Model cycles (n,) of one inference, caches cold, P at its maximum.

    `table` (n, depth) holds hidden widths, zero padded. TargetError when the target has no fit.
    """
    constants = fitted(target, precision, weights_in)
    terms = terms_of(precision)
    weights = constants_of(constants, [f"cycles_{term}" for term in terms.cycles], target.name)
    features = terms.cycle_features(shapes.layers(precision, table, obs_dim, act_dim))
    return np.asarray(features @ weights, dtype=np.float64)


def fit_cycles(
    table: Integers, obs_dim: int | Integers, act_dim: int, measured: Floats, precision: str = "f32"
) -> dict[str, float]:
    """The model's constants for (n,) measured cycles: least squares on the relative error."""
    terms = terms_of(precision)
    features = terms.cycle_features(shapes.layers(precision, table, obs_dim, act_dim))
    cycles = np.asarray(measured, dtype=np.float64)
    if cycles.shape != features.shape[:1] or not (cycles > 0).all():
        raise TargetError("a fit needs one positive cycle count for each architecture")
    scaled = features / cycles[:, None]
    size = np.maximum(np.abs(scaled).max(axis=0), 1e-12)  # columns of like size: a stable solution
    solution, *_ = np.linalg.lstsq(scaled / size, np.ones_like(cycles), rcond=None)
    return {
        f"cycles_{term}": float(value)
        for term, value in zip(terms.cycles, solution / size, strict=True)
    }


def fitted(target: Target, precision: str, weights_in: str) -> dict[str, float]:
    """A target's fitted constants, memory and cycles. TargetError says how to get them."""
    key = f"{precision}.{weights_in}"
    if key not in target.fit:
        raise TargetError(
            f"{target.name} has no fitted constants for {precision} with weights in {weights_in}: "
            f"run `python -m compile.fit --target {target.name}`"
        )
    return dict(target.fit[key])


def constants_of(fit: dict[str, float], names: Sequence[str], target: str) -> Floats:
    """The named constants of a fit. TargetError when it was made for another form of the model."""
    missing = [name for name in names if name not in fit]
    if missing:
        raise TargetError(
            f"the fitted constants of {target} have no {missing[0]}: "
            f"run `python -m compile.fit --target {target}`"
        )
    return np.array([fit[name] for name in names])
