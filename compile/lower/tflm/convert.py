"""Network -> TensorFlow function -> .tflite: the only file that imports TensorFlow."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.network import Network

DTYPE = {"f32": "float32", "i16": "int16", "i8": "int8"}  # of input, output and activations


def import_tensorflow() -> ModuleType:
    """TensorFlow, on the CPU and without its log; the first time takes seconds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with quiet():
        import tensorflow

        logging.getLogger("absl").setLevel(logging.ERROR)
        tensorflow.get_logger().setLevel(logging.ERROR)
    module: ModuleType = tensorflow
    return module


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Catch what is written to standard error, by C++ code too; the list holds it afterwards."""
    caught: list[str] = []
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(file.fileno(), 2)
        try:
            yield caught
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            caught.append(file.read().decode(errors="replace"))


def convert(network: Network, observations: NDArray[np.float32], precision: str) -> bytes:
    """The .tflite file of a network; (n, obs_dim) observations calibrate i8 and i16.

    Input and output are tensors (1, n) of DTYPE[precision]. A dense layer's weights share one
    scale: versions of TFLM differ in whether they take a scale for each row, and it would cost
    12 bytes of model and 8 of arena a row. CompileError for an ELU with another alpha than 1,
    which TFLite's operator does not have.
    """
    activations = {layer.activation for layer in network.layers}
    if "elu" in activations and network.elu_alpha != 1:
        raise CompileError(
            f"TFLite's ELU has the alpha 1, this policy's has {network.elu_alpha:g}: take "
            "--backend c"
        )
    tensorflow = import_tensorflow()
    with quiet():
        function = _function(tensorflow, network)
        converter = tensorflow.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()], function
        )
        if precision != "f32":
            _quantize(tensorflow, converter, observations, precision)
        content: bytes = converter.convert()
    return content


def _function(tensorflow: Any, network: Network) -> Any:
    """(1, obs_dim) -> (1, act_dim), float32."""
    low, high = network.clip

    def policy(x: Any) -> Any:
        for layer in network.layers:
            x = tensorflow.matmul(x, np.ascontiguousarray(layer.weight.T)) + layer.bias
            if layer.activation == "leaky_relu":
                x = tensorflow.nn.leaky_relu(x, network.negative_slope)
            elif layer.activation == "relu":
                x = tensorflow.nn.relu(x)
            elif layer.activation == "elu":
                x = tensorflow.nn.elu(x)
            elif layer.activation == "tanh":
                x = tensorflow.tanh(x)
            elif layer.activation == "sigmoid":
                x = tensorflow.sigmoid(x)
            elif layer.activation == "clip":
                # In this order the converter fuses [-1, 1] into the layer.
                x = tensorflow.minimum(tensorflow.maximum(x, low), high)
        return x

    shape = tensorflow.TensorSpec([1, network.obs_dim], tensorflow.float32, name="observation")
    return tensorflow.function(policy, input_signature=[shape], autograph=False)


def _quantize(
    tensorflow: Any, converter: Any, observations: NDArray[np.float32], precision: str
) -> None:
    lite = tensorflow.lite
    operators = {
        "i8": lite.OpsSet.TFLITE_BUILTINS_INT8,
        "i16": lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    converter.optimizations = [lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in observations)
    converter.target_spec.supported_ops = [operators[precision]]
    converter.inference_input_type = tensorflow.as_dtype(DTYPE[precision])
    converter.inference_output_type = tensorflow.as_dtype(DTYPE[precision])
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
