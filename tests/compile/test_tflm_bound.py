"""The error bound's constants, over every code that a kernel can get."""

from __future__ import annotations

import numpy as np
import pytest

from compile.candidate_tflm import make_policy
from compile.lower.tflm.bound import FUNCTION_ERROR, kernel_errors
from compile.lower.tflm.interpret import Interpreter
from compile.network import Layer, Network
from tests.compile.tflm import installed

FUNCTION = {"TANH": "tanh", "LOGISTIC": "sigmoid"}


@installed
@pytest.mark.parametrize("reach", [2.0, 9.0])
@pytest.mark.parametrize(("kind", "dtype"), FUNCTION_ERROR)
def test_functions_over_all_codes(kind: str, dtype: str, reach: float) -> None:
    """Units that pass the observation on, then the function."""
    on = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    add = np.full((1, 6), 0.1, np.float32)
    layers = (
        Layer("layer_0", on, np.zeros(6, np.float32), FUNCTION[kind]),
        Layer("layer_1", add, np.zeros(1, np.float32), "identity"),
    )
    count = {"int8": 256, "int16": 65536}[dtype]
    x = np.linspace(-reach, reach, count, dtype=np.float32).reshape(-1, 4)
    policy = make_policy(Network(layers), x, {"int8": "i8", "int16": "i16"}[dtype])
    codes = Interpreter(policy).tensors(policy.encode(x))
    worst = kernel_errors(policy.model, codes)[kind]
    assert 0.2 < worst <= 1
