"""Cycles of a policy, without compiling it: a linear model of layer shapes, fitted to emulation.

    cycles = fixed + (dense8 if any layer has eight rows) + sum over layers(layer
             + panels8 * (panel8 + panel8_block * (k div 8) + panel8_input * (k mod 8))
             + panels4 * (panel4 + panel4_block * (k div 4) + panel4_input * (k mod 4)
                          + panel4_loop * (k div 4, where that is a loop)))

with k the layer's inputs: the shape of the kernels' loops, which take eight or four inputs a turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from targets import shapes
from targets.errors import TargetError
from targets.shapes import Integers
from targets.target import Target

Floats = NDArray[np.float64]

TERMS = (
    "fixed",
    "dense8",
    "layer",
    "panel8",
    "panel8_block",
    "panel8_input",
    "panel4",
    "panel4_block",
    "panel4_input",
    "panel4_loop",
)


def predict_cycles(
    target: Target,
    precision: str,
    table: Integers,
    obs_dim: int,
    act_dim: int,
    weights_in: str,
) -> Floats:
    """Model cycles (n,) of one inference, caches cold, P at its maximum.

    `table` (n, depth) holds hidden widths, zero padded. TargetError when the target has no fit.
    """
    constants = fitted(target, precision, weights_in)
    weights = constants_of(constants, [f"cycles_{term}" for term in TERMS], target.name)
    features = _features(shapes.layers(precision, table, obs_dim, act_dim))
    return np.asarray(features @ weights, dtype=np.float64)


def fit_cycles(
    table: Integers, obs_dim: int, act_dim: int, measured: Floats, precision: str = "f32"
) -> dict[str, float]:
    """The model's constants for (n,) measured cycles: least squares on the relative error."""
    features = _features(shapes.layers(precision, table, obs_dim, act_dim))
    cycles = np.asarray(measured, dtype=np.float64)
    if cycles.shape != features.shape[:1] or not (cycles > 0).all():
        raise TargetError("a fit needs one positive cycle count for each architecture")
    scaled = features / cycles[:, None]
    size = np.maximum(np.abs(scaled).max(axis=0), 1e-12)  # columns of like size: a stable solution
    solution, *_ = np.linalg.lstsq(scaled / size, np.ones_like(cycles), rcond=None)
    return {
        f"cycles_{term}": float(value) for term, value in zip(TERMS, solution / size, strict=True)
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


def _features(layers: shapes.Layers) -> Floats:
    """(n, len(TERMS)): what each constant is multiplied by."""
    k, eight, four = layers.inputs, layers.panels8, layers.panels4
    columns = [
        layers.present,
        eight,
        eight * (k // 8),
        eight * (k % 8),
        four,
        four * (k // 4),
        four * (k % 4),
        four * (k // 4) * (k >= shapes.UNROLLED_BELOW),
    ]
    sums = [column.sum(axis=1) for column in columns]
    dense8 = eight.any(axis=1)
    return np.stack([np.ones_like(sums[0]), dense8, *sums], axis=1).astype(np.float64)
