"""Network -> ONNX and back: the C lowering reads the very file that is exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.network import Layer, Network, the_one

if TYPE_CHECKING:
    import onnx

OPSET = 17  # read by every onnxruntime since 1.12 and by the TensorFlow and TensorRT importers
IR_VERSION = 8  # the one that came with opset 17
_OPERATOR = {
    "leaky_relu": "LeakyRelu",
    "relu": "Relu",
    "elu": "Elu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "clip": "Clip",
}
SUPPORTED = ", ".join(["Gemm", *_OPERATOR.values()])


def export_onnx(network: Network, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the network with input ``observation`` and output ``action``, any batch size."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.float32]) -> str:
        initializers.append(numpy_helper.from_array(value, name))
        return name

    value = "observation"
    for position, layer in enumerate(network.layers):
        steps: list[tuple[str, str, list[str], dict[str, Any]]] = [
            (
                "Gemm",
                layer.name,
                [
                    constant(f"{layer.name}.weight", layer.weight),
                    constant(f"{layer.name}.bias", layer.bias),
                ],
                {"transB": 1},
            )
        ]
        if layer.activation != "identity":
            extra: list[str] = []
            attributes: dict[str, Any] = {}
            name = f"{layer.name}_{layer.activation}"
            if layer.activation == "leaky_relu":
                attributes["alpha"] = network.negative_slope
            if layer.activation == "elu":
                attributes["alpha"] = network.elu_alpha
            if layer.activation == "clip":
                extra = [
                    constant(f"{name}.{end}", np.array(bound, dtype=np.float32))
                    for end, bound in zip(("min", "max"), network.clip, strict=True)
                ]
            steps.append((_OPERATOR[layer.activation], name, extra, attributes))
        for step, (operator, name, inputs, attributes) in enumerate(steps):
            last = position == len(network.layers) - 1 and step == len(steps) - 1
            result = "action" if last else f"{name}.out"
            nodes.append(
                helper.make_node(operator, [value, *inputs], [result], name=name, **attributes)
            )
            value = result

    graph = helper.make_graph(
        nodes,
        "policy",
        [
            helper.make_tensor_value_info(
                "observation", TensorProto.FLOAT, ["batch", network.obs_dim]
            )
        ],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", network.act_dim])],
        initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="hyperppo",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def network_from_onnx(path: Path) -> Network:
    """Read a chain of Gemm layers and activations.

    Raises CompileError when the file is no ONNX model, or naming the node that is not supported.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError) as error:
        raise CompileError(f"cannot read the ONNX model {path}: {error}") from None
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise CompileError(
            f"{path.name} has {len(inputs)} inputs and {len(graph.output)} outputs; "
            "a policy has one of each"
        )

    value = inputs[0]
    gemms: list[onnx.NodeProto] = []
    activations: list[str] = []
    slopes: set[float] = set()
    alphas: set[float] = set()
    clips: set[tuple[float, float]] = set()
    for node in graph.node:
        if node.op_type not in ("Gemm", *_OPERATOR.values()):
            raise _unsupported(node, "")
        if node.input[0] != value:
            raise _unsupported(node, f" with input '{node.input[0]}' (the graph is not a chain)")
        value = node.output[0]
        if node.op_type == "Gemm":
            gemms.append(node)
            activations.append("identity")
            continue
        if not gemms or activations[-1] != "identity":
            raise _unsupported(node, " before a Gemm")
        activations[-1] = next(k for k, v in _OPERATOR.items() if v == node.op_type)
        if node.op_type == "LeakyRelu":
            slopes.add(_attribute(node, "alpha", 0.01))
        if node.op_type == "Elu":
            alphas.add(_attribute(node, "alpha", 1.0))
        if node.op_type == "Clip":
            clips.add(_clip_range(node, constants))
    if value != graph.output[0].name:
        raise CompileError(f"{path.name}: output '{graph.output[0].name}' is not the chain's end")
    layers = tuple(
        _layer(node, activation, constants)
        for node, activation in zip(gemms, activations, strict=True)
    )
    return Network(
        layers,
        negative_slope=the_one(slopes, "leaky ReLU slope", 0.2),
        clip=the_one(clips, "clip range", (-1.0, 1.0)),
        elu_alpha=the_one(alphas, "ELU alpha", 1.0),
    )


def _layer(node: onnx.NodeProto, activation: str, constants: Mapping[str, NDArray[Any]]) -> Layer:
    if _attribute(node, "alpha", 1.0) != 1 or _attribute(node, "beta", 1.0) != 1:
        raise _unsupported(node, " with alpha or beta other than 1")
    if _attribute(node, "transA", 0):
        raise _unsupported(node, " with transA")
    if any(name not in constants for name in node.input[1:]):
        raise _unsupported(node, " with weights that are not constants")
    weight = constants[node.input[1]].astype(np.float32)
    if weight.ndim != 2:
        raise _unsupported(node, f" with weights of shape {weight.shape}")
    if not _attribute(node, "transB", 0):
        weight = np.ascontiguousarray(weight.T)
    bias = np.zeros(weight.shape[0], np.float32)
    if len(node.input) == 3:
        try:
            bias = bias + constants[node.input[2]].astype(np.float32).reshape(-1)
        except ValueError:
            raise _unsupported(node, " with a bias of another length") from None
    return Layer(node.name or node.output[0], weight, bias, activation)


def _clip_range(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    names = list(node.input[1:])
    if len(names) != 2 or any(name not in constants for name in names):
        raise _unsupported(node, " without constant bounds")
    low, high = (float(constants[name].item()) for name in names)
    return low, high


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A numeric attribute, floats rounded to the shortest decimal that float32 stores."""
    for attribute in node.attribute:
        if attribute.name == name:
            return float(str(np.float32(attribute.f))) if attribute.type == 1 else attribute.i
    return default


def _unsupported(node: onnx.NodeProto, detail: str) -> CompileError:
    return CompileError(
        f"ONNX node '{node.name or node.output[0]}' ({node.op_type}){detail} is not supported; "
        f"supported: one chain of {SUPPORTED}"
    )
