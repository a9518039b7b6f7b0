"""Terms of the cost of float32 kernels: panels of eight rows, a rest of four.

    cycles = fixed + (dense8 if any layer has eight rows) + sum over layers(layer
             + panels8 * (panel8 + panel8_block * (k div 8) + panel8_input * (k mod 8) + leak8)
             + panels4 * (panel4 + panel4_block * (k div 4) + panel4_input * (k mod 4)
                          + panel4_loop * (k div 4, where that is a loop) + leak4))
             + activations

with k the layer's inputs: the shape of the kernels' loops, which take eight or four inputs a turn.
leak8 and leak4 only behind layers with a (leaky) ReLU.
"""

from __future__ import annotations

import numpy as np

from targets import model_activation
from targets.model_activation import Terms
from targets.shapes import UNROLLED_BELOW, Integers, Layers


def cycle_terms(layers: Layers) -> Terms:
    """What each fitted constant is multiplied by, (n,)."""
    k, eight, four = layers.inputs, layers.panels8, layers.panels4
    leaky = model_activation.acting(layers, model_activation.LEAKY)
    columns = {
        "layer": layers.present,
        "panel8": eight,
        "panel8_block": eight * (k // 8),
        "panel8_input": eight * (k % 8),
        "panel4": four,
        "panel4_block": four * (k // 4),
        "panel4_input": four * (k % 4),
        "panel4_loop": four * (k // 4) * (k >= UNROLLED_BELOW),
        "leak8": eight * leaky,
        "leak4": four * leaky,
    }
    return {
        "fixed": np.ones(len(k)),
        "dense8": eight.any(axis=1),
        **{name: column.sum(axis=1) for name, column in columns.items()},
        **model_activation.cycle_terms(layers, layers.present),
        **model_activation.by_unit("free", layers, model_activation.UNBOUNDED),
    }


def code_terms(layers: Layers) -> Terms:
    """Likewise, for bytes of code.

    The eight-row kernel is one function, called by each layer; the four-row kernel is inlined in
    each, with its inputs unrolled where they are few.
    """
    k, four = layers.inputs, layers.panels4
    columns = {
        "layer": layers.present,
        "dense8_call": layers.panels8 > 0,
        "dense4_call": four,
        "dense4_block": four * np.where(k < UNROLLED_BELOW, k // 4, 1),
        "dense4_two": four * (k % 4 // 2),
        "dense4_one": four * (k % 2),
        "leak4": four * model_activation.acting(layers, model_activation.LEAKY),
    }
    return {
        "fixed": np.ones(len(k)),
        "dense8": (layers.panels8 > 0).any(axis=1),
        **{name: column.sum(axis=1) for name, column in columns.items()},
        **model_activation.code_terms(layers, layers.present),
        **model_activation.by_unit("free", layers, model_activation.UNBOUNDED),
    }


def constants(layers: Layers) -> Integers:
    """Bytes of weights and biases, padding included."""
    numbers = (layers.rows * (1 + layers.inputs)).sum(axis=1)
    return np.asarray(4 * numbers, dtype=np.int64)


def buffers(layers: Layers) -> Integers:
    """Bytes of the outputs of the even and of the odd layers, the widest of each."""
    even, odd = layers.rows[:, 0::2].max(axis=1), layers.rows[:, 1::2].max(axis=1, initial=0)
    return np.asarray(4 * (even + odd), dtype=np.int64)


def stack_terms(layers: Layers) -> Terms:
    """What each constant of the stack is multiplied by: functions with registers to save."""
    return {
        "fixed": np.ones(len(layers.inputs)),
        "dense8": (layers.panels8 > 0).any(axis=1),
        "layer": layers.present.sum(axis=1),
        **model_activation.called(layers, layers.present),
    }
