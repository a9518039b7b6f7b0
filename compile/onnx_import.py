"""ONNX -> Network: feed-forward policies as this project and other exporters write them.

The graph is walked in its order, for one observation. A value is constant, or it is a chain of
layers on the observation. Nodes of constants are evaluated; nodes that only move values about
(reshape, slice, ...) are evaluated on the values' places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile import chain as chains
from compile.chain import LARGEST, Activation, Chain
from compile.errors import CompileError
from compile.network import Network

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Floats = NDArray[np.float64]

LAYER_OPS = ("Gemm", "MatMul")
AFFINE_OPS = ("Add", "Sub", "Mul", "Div", "Neg")
ACTIVATION_OPS = ("Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "Clip")
MOVING_OPS = (
    "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose",
    "Slice", "Split", "Gather", "Expand",
)  # fmt: skip
CASTING_OPS = ("Cast", "CastLike")
SUPPORTED = ", ".join(
    (*LAYER_OPS, *AFFINE_OPS, *ACTIVATION_OPS, "Min", "Max", *MOVING_OPS, *CASTING_OPS)
)


@dataclass(frozen=True)
class Value:
    """What a tensor of one call holds: row-major, `chain.size` values for each observation."""

    chain: Chain
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Imported:
    """A policy read from a file, and how the file wants to be called."""

    network: Network
    input: str
    output: str
    input_shape: tuple[int, ...]  # of one call; 1 for a batch of any size
    batch: int  # observations in one call
    producer: str
    scale: Floats  # (obs_dim,) the file turns an observation into scale * x + shift first
    shift: Floats


def network_from_onnx(path: Path) -> Network:
    """The network in a file; errors as `read_policy`."""
    return read_policy(path).network


def read_policy(path: Path, output: str | None = None) -> Imported:
    """Read the feed-forward policy that computes ``output``, the only output by default.

    Raises CompileError when the file is no ONNX model, when it has several outputs or none of
    that name, and naming the node and what is supported when the graph is no chain of layers.
    """
    try:
        return _read(_load(path), path, output)
    except CompileError:
        raise
    except Exception as error:  # whatever protobuf and numpy make of a damaged file
        raise CompileError(f"the ONNX model {path} is damaged: {error}") from None


def _load(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import inliner

    try:
        model = onnx.load(str(path), format="protobuf")  # with its external data
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise CompileError(f"cannot read the ONNX model {path}: {error}") from None
    return inliner.inline_local_functions(model) if model.functions else model


def _read(model: onnx.ModelProto, path: Path, output: str | None) -> Imported:
    from onnx import numpy_helper

    graph = model.graph
    result = _choose([value.name for value in graph.output], path, output)
    nodes = _needed(graph.node, result)
    constants: dict[str, Array] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
    }
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise CompileError(f"{path.name} has {len(inputs)} inputs ({names}); a policy has one")
    shape, batch = _input_shape(inputs[0], path)
    start = Value(chains.start(math.prod(shape) // batch), shape)
    walk = _Walk(batch, list(model.opset_import), constants, {inputs[0].name: start})
    for node in nodes:
        walk.step(node)
    if result in walk.constants:
        raise CompileError(f"{path.name}: output '{result}' does not depend on the observation")
    if result not in walk.values:
        raise CompileError(f"{path.name}: no node computes the output '{result}'")
    chain = walk.values[result].chain
    scale, shift = walk.normaliser(start.chain)
    return Imported(
        network=chains.finished(chain),
        input=inputs[0].name,
        output=result,
        input_shape=shape,
        batch=batch,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        scale=scale,
        shift=shift,
    )


def _choose(names: Sequence[str], path: Path, wanted: str | None) -> str:
    listed = ", ".join(names)
    if wanted is not None and wanted not in names:
        raise CompileError(f"{path.name} has no output '{wanted}'; it has: {listed}")
    if wanted is None and len(names) != 1:
        raise CompileError(
            f"{path.name} has {len(names)} outputs ({listed}); choose the action with --output NAME"
        )
    return wanted if wanted is not None else names[0]


def _needed(nodes: Iterable[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that the output depends on, in the graph's order."""
    wanted, kept = {output}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _input_shape(value: onnx.ValueInfoProto, path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of one call, and the observations in it: the first of several axes."""
    from onnx import TensorProto

    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise CompileError(f"{path.name}: input '{value.name}' is {kind}; export it in float32")
    sizes = [axis.dim_value if axis.HasField("dim_value") else 0 for axis in tensor.shape.dim]
    batch = (sizes[0] or 1) if len(sizes) > 1 else 1
    if len(sizes) > 1:
        sizes[0] = batch
    if not sizes or min(sizes) < 1:
        raise CompileError(
            f"{path.name}: input '{value.name}' has no fixed length; export it with a fixed "
            "number of values an observation"
        )
    return tuple(sizes), batch


@dataclass
class _Walk:
    """The tensors known so far, by name."""

    batch: int
    opsets: list[Any]
    constants: dict[str, Array]
    values: dict[str, Value]

    def step(self, node: onnx.NodeProto) -> None:
        """Add the outputs of one node, whose inputs are known."""
        for name in node.input:
            if name and name not in self.constants and name not in self.values:
                raise unsupported(node, f" with input '{name}', which nothing before it computes,")
        data = [name for name in node.input if name in self.values]
        if node.domain not in ("", "ai.onnx"):
            raise unsupported(node, f" of domain {node.domain}")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise unsupported(node, " with a graph inside")
        if not data:
            self.constants.update(self._evaluate(node, self.constants))
        elif node.op_type == "Shape" or (node.op_type == "CastLike" and node.input[0] != data[0]):
            like = {data[0]: np.zeros(self.values[data[0]].shape, np.float32)}
            self.constants.update(self._evaluate(node, {**self.constants, **like}))
        elif len(data) > 1 or list(node.input).count(data[0]) > 1:
            swish = " (such as a swish)" if node.op_type == "Mul" else ""
            raise unsupported(node, f" of two values that both depend on the observation{swish}")
        else:
            self.values.update(self._apply(node, self.values[data[0]]))

    def normaliser(self, observation: Chain) -> tuple[Floats, Floats]:
        """Scale and shift (obs_dim,) of the last value that is a scaled observation."""
        last = observation
        for value in self.values.values():
            chain = value.chain
            if not chain.stages and chain.weight.ndim == 1 and chain.size == observation.size:
                last = chain
        return last.weight, last.bias

    def _apply(self, node: onnx.NodeProto, value: Value) -> dict[str, Value]:
        name, operator = node.name or node.output[0], node.op_type
        if operator in MOVING_OPS:
            return self._move(node, value, name)
        if operator == "Gemm":
            result = self._gemm(node, value, name)
        elif operator == "MatMul":
            result = self._matmul(node, value, name)
        elif operator in AFFINE_OPS:
            result = self._affine(node, value, name)
        elif operator in ("Min", "Max"):
            result = self._limit(node, value, name)
        elif operator in ACTIVATION_OPS:
            found = self._activation(node)
            result = Value(chains.activated(value.chain, found, name), value.shape)
        elif operator in CASTING_OPS:
            result = self._cast(node, value)
        else:
            raise unsupported(node, "")
        return {node.output[0]: result}

    def _cast(self, node: onnx.NodeProto, value: Value) -> Value:
        to = _attribute(node, "to", 0)
        if node.op_type == "CastLike":
            to = {"float32": 1, "float64": 11}.get(self.constants[node.input[1]].dtype.name, 0)
        if to not in (1, 11):  # TensorProto.FLOAT and DOUBLE
            raise unsupported(node, " to another type than float")
        return value

    def _gemm(self, node: onnx.NodeProto, value: Value, name: str) -> Value:
        """Y = alpha A' B' + beta C, with either A or B constant."""
        data_first = node.input[0] in self.values
        constant = self.constants.get(node.input[int(data_first)])
        if constant is None or any(n in self.values for n in node.input[2:]):
            raise unsupported(node, " with weights that are not constants")
        matrix = _numbers(constant)
        turns = [_attribute(node, key, 0) for key in ("transA", "transB")]
        turn_data, turn_matrix = turns if data_first else turns[::-1]
        if matrix.ndim != 2 or len(value.shape) != 2:
            raise unsupported(node, f" of shapes {value.shape} and {matrix.shape}")
        shape = value.shape[::-1] if turn_data else value.shape
        if turn_data and self.batch > 1:
            raise unsupported(node, " that turns a batch")
        if turn_matrix:
            matrix = matrix.T
        result = self._product(node, name, Value(value.chain, shape), matrix, data_first)
        scale = np.full(result.chain.size, _attribute(node, "alpha", 1.0))
        shift = np.zeros(result.chain.size)
        if len(node.input) == 3 and node.input[2]:
            term = self._spread(node, self.constants[node.input[2]], result.shape, result.shape)
            shift = term * _attribute(node, "beta", 1.0)
        return Value(chains.scaled(result.chain, scale, shift, name), result.shape)

    def _matmul(self, node: onnx.NodeProto, value: Value, name: str) -> Value:
        data_first = node.input[0] in self.values
        matrix = _numbers(self.constants[node.input[int(data_first)]])
        while matrix.ndim > 2 and matrix.shape[0] == 1:
            matrix = matrix[0]
        if matrix.ndim != 2:
            raise unsupported(node, f" with weights of shape {matrix.shape}")
        return self._product(node, name, value, matrix, data_first)

    def _product(
        self, node: onnx.NodeProto, name: str, value: Value, matrix: Floats, data_first: bool
    ) -> Value:
        """One row of numbers times a matrix, or a matrix times one column."""
        shape = value.shape
        if data_first:
            fits = shape[-1] == matrix.shape[0] == value.chain.size
            result = (*shape[:-1], matrix.shape[1])
            weight = matrix.T
        else:
            column = len(shape) > 1
            fits = self.batch == 1 and shape[-1 - column] == matrix.shape[1] == value.chain.size
            result = (*shape[:-2], matrix.shape[0], 1) if column else (matrix.shape[0],)
            weight = matrix
        if not fits or weight.size == 0:
            raise unsupported(node, f" of shapes {shape} and {matrix.shape}")
        return Value(chains.multiplied(value.chain, weight, name), result)

    def _affine(self, node: onnx.NodeProto, value: Value, name: str) -> Value:
        ones, zeros = np.ones(value.chain.size), np.zeros(value.chain.size)
        if node.op_type == "Neg":
            return Value(chains.scaled(value.chain, -ones, zeros, name), value.shape)
        data_first = node.input[0] in self.values
        constant = self.constants[node.input[int(data_first)]]
        shape = np.broadcast_shapes(value.shape, constant.shape)
        number = self._spread(node, constant, shape, value.shape)
        if node.op_type == "Div" and not data_first:
            raise unsupported(node, " by a value that depends on the observation")
        if node.op_type == "Div" and not number.all():
            raise unsupported(node, " by zero")
        scale, shift = {
            "Add": (ones, number),
            "Sub": (ones if data_first else -ones, -number if data_first else number),
            "Mul": (number, zeros),
            "Div": (1 / number if node.op_type == "Div" else ones, zeros),
        }[node.op_type]
        return Value(chains.scaled(value.chain, scale, shift, name), shape)

    def _spread(
        self, node: onnx.NodeProto, constant: Array, shape: tuple[int, ...], was: tuple[int, ...]
    ) -> Floats:
        """(n,) a constant broadcast to a tensor's shape, the same for each observation."""
        if math.prod(shape) != math.prod(was):
            raise unsupported(node, f" that spreads {was} to {shape}")
        full = np.broadcast_to(_numbers(constant), shape).reshape(self.batch, -1)
        if (full != full[0]).any():
            raise unsupported(node, " with other numbers for each observation of a batch")
        return np.array(full[0])

    def _activation(self, node: onnx.NodeProto) -> Activation:
        if node.op_type == "LeakyRelu":
            slope = _attribute(node, "alpha", 0.01)
            return Activation("leaky_relu", slope) if slope else Activation("relu")
        if node.op_type == "Elu":
            return Activation("elu", _attribute(node, "alpha", 1.0))
        if node.op_type != "Clip":
            return Activation(node.op_type.lower())
        low, high = (self._bound(node, place) for place in (0, 1))
        if not low < high:
            raise unsupported(node, f" with the empty range {low:g} to {high:g}")
        return Activation("clip", low=low, high=high)

    def _limit(self, node: onnx.NodeProto, value: Value, name: str) -> Value:
        """The maximum or minimum with a number: a clip with one bound."""
        (constant,) = (self.constants[i] for i in node.input if i in self.constants)
        shape = np.broadcast_shapes(value.shape, constant.shape)
        bounds = self._spread(node, constant, shape, value.shape)
        if len(node.input) != 2 or (bounds != bounds[0]).any():
            raise unsupported(node, " with other bounds for each value")
        low, high = (-math.inf, bounds[0]) if node.op_type == "Min" else (bounds[0], math.inf)
        found = Activation("clip", low=float(low), high=float(high))
        return Value(chains.activated(value.chain, found, name), shape)

    def _bound(self, node: onnx.NodeProto, place: int) -> float:
        """A clip's bound, an input since opset 11, before an attribute; infinite where none is."""
        sign = (-1, 1)[place]
        bound = float(_attribute(node, ("min", "max")[place], sign * math.inf))
        if len(node.input) > 1 + place and node.input[1 + place]:
            bound = float(self.constants[node.input[1 + place]].item())
        return bound if abs(bound) < LARGEST else sign * math.inf

    def _move(self, node: onnx.NodeProto, value: Value, name: str) -> dict[str, Value]:
        """Let the node move the places of the values, and see where they went."""
        n = value.chain.size
        data = next(i for i in node.input if i in self.values)
        if data != node.input[0]:
            raise unsupported(node, " with a shape or an index that depends on the observation")
        places = np.arange(self.batch * n, dtype=np.float64).reshape(value.shape)
        moved = self._evaluate(node, {**self.constants, data: places})
        results = {}
        for output, where in moved.items():
            if where.dtype != np.float64:  # the mask of a Dropout
                continue
            rows = where.reshape(self.batch, -1).astype(np.int64)
            first = rows[0]
            stays = (rows == first + n * np.arange(self.batch)[:, None]).all()
            if first.size == 0 or not stays:
                raise unsupported(node, " that mixes the observations of a batch")
            chain = value.chain
            if not np.array_equal(first, np.arange(n)):
                chain = chains.multiplied(chain, np.eye(n)[first], chain.name or name)
            results[output] = Value(chain, where.shape)
        return results

    def _evaluate(self, node: onnx.NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
        """A node's outputs by ONNX's own reference, its inputs being known."""
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        inputs = {name: known[name] for name in node.input if name}
        undefined = TensorProto.UNDEFINED
        outputs = [name for name in node.output if name]
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(name, undefined, None) for name in inputs],
            [helper.make_tensor_value_info(name, undefined, None) for name in outputs],
        )
        model = helper.make_model(graph, opset_imports=self.opsets)
        try:
            found: Any = ReferenceEvaluator(model).run(None, inputs)
            return dict(zip(outputs, map(np.asarray, found), strict=True))
        except Exception as error:  # an operator that it lacks, arguments that do not fit
            raise unsupported(node, f" as it is here ({error})") from None


def _numbers(constant: Array) -> Floats:
    return np.asarray(constant).astype(np.float64)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A numeric attribute, floats rounded to the shortest decimal that float32 stores."""
    for attribute in node.attribute:
        if attribute.name == name:
            return float(str(np.float32(attribute.f))) if attribute.type == 1 else attribute.i
    return default


def unsupported(node: onnx.NodeProto, detail: str) -> CompileError:
    """The error that names a node, its operator, and what there is instead."""
    name = node.name or next(iter(node.output), "")
    return CompileError(
        f"ONNX node '{name}' ({node.op_type}){detail} is not supported; "
        f"supported: one chain of {SUPPORTED}"
    )
