"""A .tflite file as plain data: tensors and operators in the order of execution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError

Floats = NDArray[np.float64]

RESOLVER_CALL = {
    "FULLY_CONNECTED": "AddFullyConnected",
    "LEAKY_RELU": "AddLeakyRelu",
    "RELU": "AddRelu",
    "ELU": "AddElu",
    "TANH": "AddTanh",
    "LOGISTIC": "AddLogistic",
    "MINIMUM": "AddMinimum",
    "MAXIMUM": "AddMaximum",
}
"""Operators that a policy may become, and the call of MicroMutableOpResolver that brings each."""

BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``value`` is None where it is computed."""

    shape: tuple[int, ...]
    dtype: str  # a key of BYTES
    scale: float | None = None  # real = scale * (code - zero_point); None for float32
    zero_point: int = 0
    value: NDArray[Any] | None = None
    constant: bool = False  # lies in the file: needs no place in the arena

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * BYTES[self.dtype]

    @property
    def real(self) -> Floats:
        """What a constant's codes stand for."""
        assert self.value is not None
        value = self.value.astype(np.float64)
        return value if self.scale is None else self.scale * (value - self.zero_point)


@dataclass(frozen=True)
class Operator:
    """One operator: indices of tensors, and the activation fused into it."""

    kind: str  # a key of RESOLVER_CALL
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fused: str = "NONE"
    alpha: float = 0.0  # of a LEAKY_RELU


@dataclass(frozen=True)
class Model:
    """One graph with one input and one output."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    source: int  # index of the input tensor
    result: int  # index of the output tensor

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of operators, each once, in the order of first use."""
        return tuple(dict.fromkeys(operator.kind for operator in self.operators))


def read_model(content: bytes) -> Model:
    """Read a .tflite file. CompileError on an operator that is not in RESOLVER_CALL."""
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    names = _names(schema.BuiltinOperator)
    activations = _names(schema.ActivationFunctionType)
    file = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = file.subgraphs
    operators = []
    for entry in graph.operators:
        code = file.operatorCodes[entry.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind not in RESOLVER_CALL:
            raise CompileError(
                f"TensorFlow's converter made a {kind} operator of the policy; supported: "
                f"{', '.join(RESOLVER_CALL)}"
            )
        options = entry.builtinOptions
        operators.append(
            Operator(
                kind,
                # Without -1: a bias of zeros is left out.
                tuple(int(index) for index in entry.inputs if index >= 0),
                tuple(map(int, entry.outputs)),
                activations[getattr(options, "fusedActivationFunction", 0)],
                float(getattr(options, "alpha", 0.0)),
            )
        )
    tensors = tuple(_tensor(entry, file.buffers, schema) for entry in graph.tensors)
    return Model(tensors, tuple(operators), int(graph.inputs[0]), int(graph.outputs[0]))


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def _tensor(entry: Any, buffers: Any, schema: Any) -> Tensor:
    dtype = _names(schema.TensorType)[entry.type].lower()
    shape = tuple(map(int, entry.shape)) if entry.shape is not None else ()
    data = buffers[entry.buffer].data
    value = None
    if data is not None and len(data):
        value = np.frombuffer(bytes(data), dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape)
    known = entry.quantization
    scales = [] if known is None or known.scale is None else list(known.scale)
    if not scales:
        return Tensor(shape, dtype, value=value, constant=value is not None)
    if len(scales) > 1:
        raise CompileError("TensorFlow's converter gave a tensor more than one scale")
    zero = int(known.zeroPoint[0])
    return Tensor(shape, dtype, float(scales[0]), zero, value, value is not None)
