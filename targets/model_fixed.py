"""Terms of the cost of fixed-point kernels: panels of four rows, their inputs unrolled.

A layer's inputs are words of two (i16) or four (i8, i8x) weights a row. The kernel takes four
inputs a step: up to 8 steps are unrolled, more run in turns of 8 steps with the rest unrolled.
Code and the first pass through it grow with the unrolled steps, time with all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.shapes import Floats, Integers, Layers

CYCLE_TERMS = (
    "fixed", "observed", "layer", "loop", "panel", "step", "pair", "turn", "unrolled",
)  # fmt: skip
CODE_TERMS = ("fixed", "observed", "layer", "loop", "turns", "unrolled", "pair")
STEPS_A_TURN = 8
INPUTS_A_WORD = {"i16": 2, "i8": 4, "i8x": 4}


def cycle_features(precision: str, layers: Layers) -> Floats:
    """(n, len(CYCLE_TERMS)): what each constant is multiplied by."""
    panels = layers.rows // 4
    steps, pair, turns, unrolled = _steps(precision, layers)
    return _stack(
        layers,
        [
            _observed(layers),
            layers.present,
            panels > 1,
            panels,
            panels * steps,
            panels * pair,
            panels * turns,
            unrolled,
        ],
    )


def code_features(precision: str, layers: Layers) -> Floats:
    """(n, len(CODE_TERMS)): what each constant is multiplied by."""
    _, pair, turns, unrolled = _steps(precision, layers)
    return _stack(
        layers, [_observed(layers), layers.present, layers.rows > 4, turns > 0, unrolled, pair]
    )


def constants(precision: str, layers: Layers) -> Integers:
    """Bytes of weights and biases, padding included."""
    words = -(-layers.inputs // INPUTS_A_WORD[precision])
    return np.asarray(4 * (layers.rows * (1 + words)).sum(axis=1), dtype=np.int64)


def buffers(precision: str, layers: Layers) -> Integers:
    """Bytes of the observation, of the even and odd layers' outputs, and of the last sums."""
    per_word = INPUTS_A_WORD[precision]
    observation = 2 * per_word * -(-layers.inputs[:, 0] // per_word)
    hidden = np.where(layers.hidden, layers.rows, 0)
    even, odd = hidden[:, 0::2].max(axis=1), hidden[:, 1::2].max(axis=1, initial=0)
    last = np.where(layers.hidden, 0, layers.rows).max(axis=1)
    return np.asarray(observation + 2 * (even + odd) + 4 * last, dtype=np.int64)


def _observed(layers: Layers) -> Integers:
    """Pairs of observations that are converted, in a column."""
    return np.asarray(-(-layers.inputs[:, :1] // 2))


def _steps(precision: str, layers: Layers) -> tuple[Integers, Integers, Integers, Integers]:
    """By layer: steps of four inputs, a rest of two, turns of the loop, steps unrolled."""
    words = -(-layers.inputs // INPUTS_A_WORD[precision])
    steps, pair = (words // 2, words % 2) if precision == "i16" else (words, np.zeros_like(words))
    looped = (words > 2 * STEPS_A_TURN) if precision == "i16" else (words > STEPS_A_TURN)
    turns = np.where(looped, steps // STEPS_A_TURN, 0)
    unrolled = np.where(looped, STEPS_A_TURN + steps % STEPS_A_TURN, steps)
    return steps, pair, turns, unrolled


def _stack(layers: Layers, columns: Sequence[NDArray[Any]]) -> Floats:
    sums = [column.sum(axis=1) for column in columns]
    return np.stack([np.ones(len(layers.inputs)), *sums], axis=1).astype(np.float64)
