"""Bytes of a policy, without compiling it: exact for constants and buffers, fitted for code.

Constants are the panels' streams (a bias and the weights of each row, padding included) and the
table; buffers are those that layers write in turn; both are known to the byte. Code, stack and the
coefficients of functions come from compiled samples: a part for each kernel in use, one for each
layer, and a margin: the most by which a fit was short of samples that it had not seen, and the
standard deviation of that. What a compiler makes of a layer varies by tens of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from targets import shapes
from targets.cycles import fitted, least_squares, leverage, weighted
from targets.errors import TargetError
from targets.model_activation import Terms
from targets.shapes import Floats, Integers
from targets.target import Target
from targets.terms import model_for

DECISIVE = 0.5  # leverage of a sample that has a constant nearly to itself


class Sizes(Protocol):
    """Compiled bytes of one policy, as `targets.toolchain.PolicySizes` has them."""

    @property
    def text(self) -> int: ...  # noqa: D102
    @property
    def rodata(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> int: ...  # noqa: D102
    @property
    def bss(self) -> int: ...  # noqa: D102
    @property
    def stack(self) -> int: ...  # noqa: D102


def predict_memory(
    target: Target,
    precision: str,
    table: Integers,
    obs_dim: int | Integers,
    act_dim: int | Integers,
    weights_in: str,
    activation: str | Sequence[str] = "leaky_relu",
    output: str | Sequence[str] = "clip",
) -> dict[str, Integers]:
    """Bytes (n,) under flash_bytes, ram_bytes (stack included), stack_bytes and total_bytes.

    `table` (n, depth) holds hidden widths, zero padded; the activations are of
    `targets.shapes.ACTIVATIONS`. TargetError when the target has no fit.
    """
    fit = fitted(target, precision, weights_in)
    layers = shapes.layers(precision, table, obs_dim, act_dim, activation, output)
    model = model_for(target, precision)

    def whole(terms: Terms, what: str) -> Integers:
        return np.ceil(weighted(terms, fit, what, target.name) - 1e-3).astype(np.int64)

    code = whole(model.code(layers), "code")
    stack = whole(model.stack(layers), "stack")
    constants = model.constants(layers) + whole(
        _with_fixed(model.coefficients(layers)), "constants"
    )
    buffers = model.buffers(layers) + whole({"fixed": np.ones(len(code))}, "buffers")
    in_ram = constants if weights_in == "ram" else np.zeros_like(constants)
    return {
        "flash_bytes": code + constants,
        "ram_bytes": buffers + stack + in_ram,
        "stack_bytes": stack,
        "total_bytes": code + constants + buffers + stack,
    }


def fit_memory(
    target: Target, layers: shapes.Layers, measured: Sequence[Sizes], precision: str
) -> dict[str, float]:
    """The constants of `predict_memory` from the compiled sizes of each architecture."""
    if len(measured) != len(layers.inputs) or not measured:
        raise TargetError("a fit needs the compiled sizes of each architecture")
    model = model_for(target, precision)

    def never_under(terms: Terms, sizes: list[int], what: str) -> dict[str, float]:
        wanted = np.array(sizes, dtype=np.float64)
        fit = least_squares(terms, wanted, np.ones_like(wanted), what)
        short = wanted - weighted(terms, fit, what, target.name)
        unseen = _short_of_unseen(terms, short)
        fit[f"{what}_fixed"] += max(0.0, float(short.max()), float(unseen.max())) + unseen.std()
        return fit

    known = model.constants(layers), model.buffers(layers)
    constants = [s.rodata + s.data - int(k) for s, k in zip(measured, known[0], strict=True)]
    buffers = [s.bss - int(k) for s, k in zip(measured, known[1], strict=True)]
    coefficients = _with_fixed(model.coefficients(layers))
    return {
        **never_under(model.code(layers), [s.text for s in measured], "code"),
        **never_under(coefficients, constants, "constants"),
        "buffers_fixed": float(max(buffers)),
        **never_under(model.stack(layers), [s.stack for s in measured], "stack"),
    }


def _short_of_unseen(terms: Terms, short: Floats) -> Floats:
    """By how much fits without it are below each sample, from how much the fit to all is (n,).

    Leave-one-out residuals, r / (1 - leverage); 0 for samples by which a constant stands or falls,
    which say nothing of others.
    """
    own = leverage(terms, np.ones_like(short))
    return np.where(own < DECISIVE, short / (1 - own), 0.0)


def _with_fixed(terms: Terms) -> Terms:
    return {"fixed": np.ones(1), **terms}
