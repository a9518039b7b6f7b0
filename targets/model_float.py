"""Terms of the cost of float32 kernels: panels of eight rows, a rest of four.

    cycles = fixed + (dense8 if any layer has eight rows) + sum over layers(layer
             + panels8 * (panel8 + panel8_block * (k div 8) + panel8_input * (k mod 8))
             + panels4 * (panel4 + panel4_block * (k div 4) + panel4_input * (k mod 4)
                          + panel4_loop * (k div 4, where that is a loop)))

with k the layer's inputs: the shape of the kernels' loops, which take eight or four inputs a turn.
"""

from __future__ import annotations

import numpy as np

from targets.shapes import UNROLLED_BELOW, Floats, Integers, Layers

CYCLE_TERMS = (
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
# The eight-row kernel is one function, called by each layer; the four-row kernel is inlined in
# each, with its inputs unrolled where they are few.
CODE_TERMS = (
    "fixed",
    "layer",
    "dense8",
    "dense8_call",
    "dense4_call",
    "dense4_block",
    "dense4_two",
    "dense4_one",
)


def cycle_features(layers: Layers) -> Floats:
    """(n, len(CYCLE_TERMS)): what each constant is multiplied by."""
    k, eight, four = layers.inputs, layers.panels8, layers.panels4
    columns = [
        layers.present,
        eight,
        eight * (k // 8),
        eight * (k % 8),
        four,
        four * (k // 4),
        four * (k % 4),
        four * (k // 4) * (k >= UNROLLED_BELOW),
    ]
    sums = [column.sum(axis=1) for column in columns]
    dense8 = eight.any(axis=1)
    return np.stack([np.ones_like(sums[0]), dense8, *sums], axis=1).astype(np.float64)


def constants(layers: Layers) -> Integers:
    """Bytes of weights and biases, padding included."""
    numbers = (layers.rows * (1 + layers.inputs)).sum(axis=1)
    return np.asarray(4 * numbers, dtype=np.int64)


def buffers(layers: Layers) -> Integers:
    """Bytes of the outputs of the even and of the odd layers, the widest of each."""
    even, odd = layers.rows[:, 0::2].max(axis=1), layers.rows[:, 1::2].max(axis=1, initial=0)
    return np.asarray(4 * (even + odd), dtype=np.int64)


def code_features(layers: Layers) -> Floats:
    """(n, len(CODE_TERMS)): what each constant is multiplied by."""
    k, four = layers.inputs, layers.panels4
    calls8 = (layers.panels8 > 0).sum(axis=1)
    blocks = np.where(k < UNROLLED_BELOW, k // 4, 1)
    columns = [
        np.ones_like(calls8),
        layers.present.sum(axis=1),
        calls8 > 0,
        calls8,
        four.sum(axis=1),
        (four * blocks).sum(axis=1),
        (four * (k % 4 // 2)).sum(axis=1),
        (four * (k % 2)).sum(axis=1),
    ]
    return np.stack(columns, axis=1).astype(np.float64)
