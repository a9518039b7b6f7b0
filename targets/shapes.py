"""Layer shapes of many architectures at once, in the terms that memory and cycles depend on.

The C kernels compute a layer in panels of eight rows; a rest of at most four rows makes a panel
of four (compile/lower/c/layout.py lays the weights out so). Everything here is numpy over all
architectures: `table` is (n, depth) hidden widths, zero padded; arrays by layer are (n, depth+1).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from targets.errors import TargetError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

PRECISIONS = ("f32", "i16", "i8", "i8x")
UNROLLED_BELOW = 24  # inputs: a shorter panel of four rows has no loop (dense4_f32.c)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Layers of n architectures; an absent layer has no inputs, no outputs and no panels."""

    inputs: Integers  # (n, depth+1)
    panels8: Integers  # (n, depth+1) panels of eight rows
    panels4: Integers  # (n, depth+1) panels of four rows, 0 or 1
    hidden: NDArray[np.bool_]  # (n, depth+1) followed by an activation
    present: NDArray[np.bool_]  # (n, depth+1)

    @property
    def rows(self) -> Integers:
        """Rows computed, padding included."""
        return 8 * self.panels8 + 4 * self.panels4


def layers(precision: str, table: Integers, obs_dim: int | Integers, act_dim: int) -> Layers:
    """Shapes of every layer; `obs_dim` may be one for each of the n architectures.

    TargetError for a precision without kernels or a malformed table.
    """
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
    outputs = np.where(hidden, np.hstack([widths, column]), np.where(present, act_dim, 0))
    rest = outputs % 8
    panels4 = ((rest > 0) & (rest <= 4)).astype(np.int64)
    return Layers(inputs, outputs // 8 + (rest > 4), panels4, hidden, present)
