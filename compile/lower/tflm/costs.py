"""Bytes of a policy in TFLM, without converting it: model and arena, for every architecture.

Constants are known to the byte; what the file format adds was read from conversions (TensorFlow
2.21), and is never less than theirs and at most 128 bytes more: tests/compile/test_tflm.py. The
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
    ("f32", "elu"): (872, 368),
    ("f32", "tanh"): (876, 368),
    ("f32", "sigmoid"): (872, 372),
    ("f32", "clip"): (844, 292),
    ("f32", "identity"): (792, 268),
    ("i8", "leaky_relu"): (1056, 524),
    ("i8", "relu"): (1008, 388),
    ("i8", "tanh"): (1048, 504),
    ("i8", "sigmoid"): (1048, 504),
    ("i8", "clip"): (1008, 388),
    ("i8", "identity"): (920, 360),
    ("i16", "leaky_relu"): (1144, 604),
    ("i16", "relu"): (1108, 436),
    ("i16", "tanh"): (1136, 560),
    ("i16", "sigmoid"): (1136, 560),
    ("i16", "clip"): (1108, 436),
    ("i16", "identity"): (968, 424),
}
OUTPUT = {"f32": 160, "i8": 208, "i16": 240}  # on top, for an operator behind the last layer
OTHER_OUTPUT = 16  # on top, for one that is fused into it
OPERATOR = {"leaky_relu": "LEAKY_RELU", "elu": "ELU", "tanh": "TANH", "sigmoid": "LOGISTIC"}


def predict_memory(
    precision: str, table: Integers, obs_dim: int, act_dim: int, activation: str, output: str
) -> dict[str, Integers]:
    """Bytes (n,) under flash_bytes (model and input table), ram_bytes (arena) and total_bytes.

    ``table`` (n, depth) holds hidden widths, zero padded; the activations are named as in
    `targets.shapes.ACTIVATIONS`. Not in it: TFLM's code, the interpreter's object and the stack.
    CompileError for an activation that TensorFlow's converter does not quantise.
    """
    activation, output = (name.removesuffix("_any") for name in (activation, output))
    for name in (activation, output):
        if (precision, name) not in OVERHEAD:
            raise CompileError(
                f"TensorFlow's converter has no {precision} form of {name}: take --precision f32, "
                "or --backend c"
            )
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
    last = OUTPUT[precision] if output in OPERATOR else OTHER_OUTPUT if output != "clip" else 0
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
