"""Network -> ONNX. The C lowering reads the very file that is exported (onnx_import.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.network import Network

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
