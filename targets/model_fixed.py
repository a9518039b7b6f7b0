"""Terms of the cost of fixed-point kernels: panels of four rows, their inputs unrolled.

A layer's inputs are words of two (i16) or four (i8, i8x) weights a row. The kernel takes four
inputs a step: up to 8 steps are unrolled, more run in turns of 8 steps with the rest unrolled.
Code and the first pass through it grow with the unrolled steps, time with all steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from targets import model_activation
from targets.model_activation import Terms
from targets.shapes import Integers, Layers

FUNCTIONS = ("tanh", "sigmoid", "elu")  # behind the last layer, on floats

STEPS_A_TURN = 8
INPUTS_A_WORD = {"i16": 2, "i8": 4, "i8x": 4}
REFETCHED = {"i16": 16, "i8": 16, "i8x": 12}
"""Unrolled steps (at most 15) with which a panel's code leaves the flash accelerator's 64 lines of
16 B, so that each panel fetches it again: a step is 52 B, 58 B and 82 B (fitted: code_unrolled)."""
KIND = {
    "leaky_relu": "shift", "leaky_relu_any": "product", "identity": "product", "relu": "relu",
    "elu": "table", "tanh": "table", "sigmoid": "table", "clip": "table",
}  # fmt: skip
"""What makes whole numbers of a hidden layer's sums, by activation."""
TABLE_BYTES = 2048


def cycle_terms(precision: str, layers: Layers) -> Terms:
    """What each fitted constant is multiplied by, (n,)."""
    panels = layers.rows // 4
    steps, pair, turns, unrolled = _steps(precision, layers)
    kinds = {f"panel_{kind}": panels * mask for kind, mask in hidden_kinds(layers).items()}
    columns = {
        "layer": layers.present,
        "loop": panels > 1,
        "panel": panels,
        **kinds,
        "step": panels * steps,
        "pair": panels * pair,
        "turn": panels * turns,
        "unrolled": unrolled,
        "refetched": panels * unrolled * (unrolled >= REFETCHED[precision]),
    }
    return {
        "fixed": np.ones(len(panels)),
        "observed": _observed(layers),
        "tabled": hidden_kinds(layers)["table"].any(axis=1),
        **{name: column.sum(axis=1) for name, column in columns.items()},
        **model_activation.cycle_terms(layers, layers.last),
        **_output_terms(layers),
    }


def code_terms(precision: str, layers: Layers) -> Terms:
    """Likewise, for bytes of code."""
    _, pair, turns, unrolled = _steps(precision, layers)
    columns = {
        "layer": layers.present,
        "loop": layers.rows > 4,
        "turns": turns > 0,
        "unrolled": unrolled,
        "pair": pair,
        **{f"layer_{kind}": mask for kind, mask in hidden_kinds(layers).items()},
    }
    return {
        "fixed": np.ones(len(pair)),
        "observed": _observed(layers),
        **{name: column.sum(axis=1) for name, column in columns.items()},
        **model_activation.code_terms(layers, layers.last),
        **_output_terms(layers),
    }


def constants(precision: str, layers: Layers) -> Integers:
    """Bytes of weights and biases, padding included, and of the table."""
    words = -(-layers.inputs // INPUTS_A_WORD[precision])
    table = TABLE_BYTES * hidden_kinds(layers)["table"].any(axis=1)
    return np.asarray(4 * (layers.rows * (1 + words)).sum(axis=1) + table, dtype=np.int64)


def buffers(precision: str, layers: Layers) -> Integers:
    """Bytes of the observation, of the even and odd layers' outputs, and of the last sums.

    A function behind the last layer has those once more, as floats.
    """
    per_word = INPUTS_A_WORD[precision]
    observation = 2 * per_word * -(-layers.inputs[:, 0] // per_word)
    hidden = np.where(layers.hidden, layers.rows, 0)
    even, odd = hidden[:, 0::2].max(axis=1), hidden[:, 1::2].max(axis=1, initial=0)
    last = np.where(layers.last, layers.rows, 0).max(axis=1)
    copies = 1 + np.isin(layers.output, FUNCTIONS)[:, 0]
    return np.asarray(observation + 2 * (even + odd) + 4 * last * copies, dtype=np.int64)


def stack_terms(layers: Layers) -> Terms:
    """What each constant of the stack is multiplied by."""
    return {
        "fixed": np.ones(len(layers.inputs)),
        "layer": layers.present.sum(axis=1),
        "loop": (layers.rows > 4).any(axis=1),
        **model_activation.called(layers, layers.last),
    }


def hidden_kinds(layers: Layers) -> dict[str, NDArray[np.bool_]]:
    """By kind: (n, depth+1) the hidden layers whose activation is of it."""
    kinds = ("shift", "product", "relu", "table")
    names = {kind: [name for name, k in KIND.items() if k == kind] for kind in kinds}
    return {kind: layers.hidden & np.isin(layers.activation, names[kind]) for kind in kinds}


def _output_terms(layers: Layers) -> Terms:
    """What makes floats of the last sums: conversion in fours, a rest one by one, and a loop."""
    exact = layers.last & ~np.isin(layers.output, FUNCTIONS)  # functions work on padded rows
    converted = np.where(exact, layers.outputs, np.where(layers.last, layers.rows, 0))
    return {
        "convert_group": (converted // 4).sum(axis=1),
        "convert_rest": (converted % 4).sum(axis=1),
        **model_activation.by_unit("leak", layers, model_activation.LEAKY),
        **model_activation.by_unit("copy", layers, ("elu",)),
    }


def _observed(layers: Layers) -> Integers:
    """Pairs of observations that are converted."""
    return np.asarray(-(-layers.inputs[:, 0] // 2))


def _steps(precision: str, layers: Layers) -> tuple[Integers, Integers, Integers, Integers]:
    """By layer: steps of four inputs, a rest of two, turns of the loop, steps unrolled."""
    words = -(-layers.inputs // INPUTS_A_WORD[precision])
    steps, pair = (words // 2, words % 2) if precision == "i16" else (words, np.zeros_like(words))
    looped = (words > 2 * STEPS_A_TURN) if precision == "i16" else (words > STEPS_A_TURN)
    turns = np.where(looped, steps // STEPS_A_TURN, 0)
    unrolled = np.where(looped, STEPS_A_TURN + steps % STEPS_A_TURN, steps)
    return steps, pair, turns, unrolled
