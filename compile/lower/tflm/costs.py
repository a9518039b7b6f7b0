"""Bytes of a policy in TFLM, without converting it: model and arena, for every architecture.

Constants are known to the byte; what the file format adds was read from conversions (TensorFlow
2.21), and is never less than theirs and at most 96 bytes more: tests/compile/test_tflm.py. The
arena is that of the same operators and tensors, by the same rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.lower.tflm.arena import others_than_tensors, target_arena
from compile.lower.tflm.model import BYTES, Model, Operator, Tensor

Integers = NDArray[np.int64]

DTYPES = {  # of activations, weights and biases
    "f32": ("float32", "float32", "float32"),
    "i16": ("int16", "int8", "int64"),
    "i8": ("int8", "int8", "int32"),
}
OVERHEAD = {  # of the file: fixed, and for each hidden layer
    ("f32", "leaky_relu"): (888, 392),
    ("f32", "relu"): (844, 288),
    ("f32", "tanh"): (876, 368),
    ("i8", "leaky_relu"): (1056, 524),
    ("i8", "relu"): (1008, 388),
    ("i8", "tanh"): (1048, 504),
    ("i16", "leaky_relu"): (1144, 604),
    ("i16", "relu"): (1108, 436),
    ("i16", "tanh"): (1136, 560),
}
TANH_OUTPUT = {"f32": 160, "i8": 176, "i16": 208}  # on top, for an output layer with a tanh
OPERATOR = {"leaky_relu": "LEAKY_RELU", "tanh": "TANH"}  # the others are fused into the layer


def predict_memory(
    precision: str, table: Integers, obs_dim: int, act_dim: int, activation: str, output: str
) -> dict[str, Integers]:
    """Bytes (n,) under flash_bytes (model and input table), ram_bytes (arena) and total_bytes.

    ``table`` (n, depth) holds hidden widths, zero padded. Not in it: TFLM's code, the
    interpreter's object and the stack.
    """
    if (precision, activation) not in OVERHEAD:
        raise CompileError(f"--backend tflm has no size model for hidden {activation} layers")
    shapes = [(obs_dim, *(int(width) for width in row if width), act_dim) for row in table]
    flash = [model_bytes(precision, sizes, activation, output) for sizes in shapes]
    outlines = [outline(precision, sizes, activation, output) for sizes in shapes]
    # All but the tensors is the same for all networks of a depth.
    depths = {len(model.operators): model for model in outlines}
    others = {depth: others_than_tensors(model) for depth, model in depths.items()}
    ram = [target_arena(model, others[len(model.operators)]) for model in outlines]
    totals = {
        "flash_bytes": np.array(flash) + table_bytes(precision, obs_dim),
        "ram_bytes": np.array(ram),
    }
    return {**totals, "total_bytes": totals["flash_bytes"] + totals["ram_bytes"]}


def table_bytes(precision: str, obs_dim: int) -> int:
    """Bytes of the table by which policy_tflm.cc turns the observation into codes."""
    return 0 if precision == "f32" else 4 * obs_dim


def model_bytes(precision: str, sizes: Sequence[int], activation: str, output: str) -> int:
    """Bytes of the .tflite file of layers sizes[0] -> sizes[1] -> ..."""
    _, weight, bias = DTYPES[precision]
    fixed, layer = OVERHEAD[precision, activation]
    constants = sum(
        -(-a * b * BYTES[weight] // 16) * 16 + -(-b * BYTES[bias] // 16) * 16
        for a, b in itertools.pairwise(sizes)
    )
    last = TANH_OUTPUT[precision] if output == "tanh" else 0
    return constants + fixed + layer * (len(sizes) - 2) + last


def outline(precision: str, sizes: Sequence[int], activation: str, output: str) -> Model:
    """The operators and tensors that the converter makes, without values."""
    dtype, weight, bias = DTYPES[precision]
    scale = None if precision == "f32" else 1.0
    tensors = [Tensor((1, sizes[0]), dtype, scale)]
    for a, b in itertools.pairwise(sizes):
        tensors += [Tensor((b, a), weight, scale, constant=True)]
        tensors += [Tensor((b,), bias, scale, constant=True)]
    operators = []
    value = 0
    for layer, width in enumerate(sizes[1:]):
        last = layer == len(sizes) - 2
        steps = ["FULLY_CONNECTED", OPERATOR.get(output if last else activation)]
        for kind in filter(None, steps):
            constants = (1 + 2 * layer, 2 + 2 * layer) if kind == "FULLY_CONNECTED" else ()
            operators.append(Operator(kind, (value, *constants), (len(tensors),)))
            value = len(tensors)
            tensors.append(Tensor((1, width), dtype, scale))
    return Model(tuple(tensors), tuple(operators), 0, value)
