"""Cycles of a policy, without compiling it: a linear model of layer shapes, fitted to emulation.

Its terms are in model_float.py, model_fixed.py and model_activation.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from targets import shapes
from targets.errors import TargetError
from targets.model_activation import Terms
from targets.shapes import Floats, Integers
from targets.target import Target
from targets.terms import model_of

RIDGE = 0.01  # pulls constants that few samples tell apart towards 0, where columns reach 1


def predict_cycles(
    target: Target,
    precision: str,
    table: Integers,
    obs_dim: int | Integers,
    act_dim: int | Integers,
    weights_in: str,
    activation: str | Sequence[str] = "leaky_relu",
    output: str | Sequence[str] = "clip",
) -> Floats:
    """Model cycles (n,) of one inference, caches cold, P at its maximum.

    `table` (n, depth) holds hidden widths, zero padded; the activations are of
    `targets.shapes.ACTIVATIONS`. TargetError when the target has no fit.
    """
    constants = fitted(target, precision, weights_in)
    layers = shapes.layers(precision, table, obs_dim, act_dim, activation, output)
    return weighted(model_of(precision).cycles(layers), constants, "cycles", target.name)


def fit_cycles(layers: shapes.Layers, measured: Floats, precision: str) -> dict[str, float]:
    """The model's constants for (n,) measured cycles: least squares on the relative error."""
    cycles = np.asarray(measured, dtype=np.float64)
    if cycles.shape != (len(layers.inputs),) or not (cycles > 0).all():
        raise TargetError("a fit needs one positive cycle count for each architecture")
    return least_squares(model_of(precision).cycles(layers), cycles, 1 / cycles, "cycles")


def least_squares(terms: Terms, measured: Floats, weight: Floats, what: str) -> dict[str, float]:
    """Constants, named `what`_term, whose terms add up to what was measured (n,)."""
    rows, size = _scaled(terms, weight)
    wanted = np.concatenate([measured * weight, np.zeros(len(size))])
    solution, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    return {
        f"{what}_{term}": float(value) for term, value in zip(terms, solution / size, strict=True)
    }


def leverage(terms: Terms, weight: Floats) -> Floats:
    """(n,) how much of each sample's own value is in what `least_squares` predicts for it, 0..1."""
    rows, _ = _scaled(terms, weight)
    orthogonal, _ = np.linalg.qr(rows)
    return np.asarray((orthogonal[: len(weight)] ** 2).sum(axis=1))


def _scaled(terms: Terms, weight: Floats) -> tuple[Floats, Floats]:
    """The equations (n, terms) with columns of like size, those of the ridge below; the sizes."""
    columns = [np.broadcast_to(column, weight.shape) for column in terms.values()]
    scaled = np.stack(columns, axis=1).astype(np.float64) * weight[:, None]
    size = np.maximum(np.abs(scaled).max(axis=0), 1e-12)  # a stable solution
    return np.vstack([scaled / size, RIDGE * np.eye(len(size))]), size


def weighted(terms: Terms, constants: Mapping[str, float], what: str, target: str) -> Floats:
    """(n,) sum of the terms, each times its constant.

    TargetError when the constants were fitted for another form of the model.
    """
    missing = [term for term in terms if f"{what}_{term}" not in constants]
    if missing:
        raise TargetError(
            f"the fitted constants of {target} have no {what}_{missing[0]}: "
            f"run `python -m compile.fit --target {target}`"
        )
    total = np.zeros(max(map(len, terms.values())))
    for term, column in terms.items():
        total += column * constants[f"{what}_{term}"]
    return total


def fitted(target: Target, precision: str, weights_in: str) -> Mapping[str, float]:
    """A target's fitted constants, memory and cycles. TargetError says how to get them."""
    key = f"{precision}.{weights_in}"
    if key not in target.fit:
        raise TargetError(
            f"{target.name} has no fitted constants for {precision} with weights in {weights_in}: "
            f"run `python -m compile.fit --target {target.name}`"
        )
    return target.fit[key]
