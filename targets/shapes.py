"""Layer shapes of many architectures at once, in the terms that memory and cycles depend on.

The C kernels compute a layer in panels of eight rows; a rest of at most four rows makes a panel
of four (compile/lower/c/layout.py lays the weights out so). Everything here is numpy over all
architectures: `table` is (n, depth) hidden widths, zero padded; arrays by layer are (n, depth+1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from targets.errors import TargetError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

PRECISIONS = ("f32", "i16", "i8", "i8x")
ACTIVATIONS = (
    "leaky_relu", "leaky_relu_any", "relu", "elu", "tanh", "sigmoid", "clip", "identity",
)  # fmt: skip
"""`leaky_relu`: with a slope that fixed point computes by two shifts, 1 / (1 + 2^n)."""
UNROLLED_BELOW = 24  # inputs: a shorter panel of four rows has no loop (dense4_f32.c)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Layers of n architectures; an absent layer has no inputs, no outputs and no panels."""

    inputs: Integers  # (n, depth+1)
    panels8: Integers  # (n, depth+1) panels of eight rows
    panels4: Integers  # (n, depth+1) panels of four rows, 0 or 1
    outputs: Integers  # (n, depth+1) rows that are real
    hidden: NDArray[np.bool_]  # (n, depth+1)
    present: NDArray[np.bool_]  # (n, depth+1)
    activation: NDArray[np.str_]  # (n, 1) or (1, 1), one of ACTIVATIONS, of the hidden layers
    output: NDArray[np.str_]  # likewise, of the last layer

    @cached_property
    def rows(self) -> Integers:
        """Rows computed, padding included."""
        return 8 * self.panels8 + 4 * self.panels4

    @cached_property
    def last(self) -> NDArray[np.bool_]:
        """(n, depth+1) the output layer."""
        return self.present & ~self.hidden


def layers(
    precision: str,
    table: Integers,
    obs_dim: int | Integers,
    act_dim: int | Integers,
    activation: str | Sequence[str] = "leaky_relu",
    output: str | Sequence[str] = "clip",
) -> Layers:
    """Shapes of every layer; all but `precision` may be one for each of the n architectures.

    TargetError for a precision without kernels, an unknown activation or a malformed table.
    """
    names = [np.reshape(np.asarray(given), (-1, 1)) for given in (activation, output)]
    for name in {*map(str, names[0].flat), *map(str, names[1].flat)} - {*ACTIVATIONS}:
        raise TargetError(f"no kernels for activation {name!r}: {', '.join(ACTIVATIONS)}")
    if precision not in PRECISIONS:
        raise TargetError(f"no kernels for precision {precision!r}: {', '.join(PRECISIONS)}")
    widths = np.atleast_2d(np.asarray(table, dtype=np.int64))
    gap = (widths[:, 1:] > 0) & (widths[:, :-1] == 0)
    if widths.ndim != 2 or (widths < 0).any() or gap.any():
        raise TargetError("an architecture table holds widths, then zeros")
    depth = (widths > 0).sum(axis=1)
    n, most = widths.shape
    position = np.arange(most + 1)
    present = position <= depth[:, None]
    hidden = position < depth[:, None]
    column = np.zeros((n, 1), np.int64)
    inputs = np.where(present, np.hstack([column + np.reshape(obs_dim, (-1, 1)), widths]), 0)
    outputs = np.where(
        hidden, np.hstack([widths, column]), np.where(present, np.reshape(act_dim, (-1, 1)), 0)
    )
    rest = outputs % 8
    panels4 = ((rest > 0) & (rest <= 4)).astype(np.int64)
    panels8 = outputs // 8 + (rest > 4)
    return Layers(inputs, panels8, panels4, outputs, hidden, present, *names)
