from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compile.errors import CompileError
from compile.network import ACTIVATIONS, Layer, Network, network_from_torch
from compile.onnx_graph import export_onnx
from compile.onnx_import import network_from_onnx
from compile.verify import run_onnx, run_torch

MakeNetwork = Callable[..., Network]
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize(
    ("activation", "output"),
    [
        (nn.LeakyReLU(0.2), nn.Hardtanh(-1.0, 1.0)),
        (nn.ELU(0.7), nn.Sigmoid()),
        (nn.Sigmoid(), nn.ELU(0.7)),
        (nn.ReLU(), nn.Tanh()),
    ],
)
def test_forward_is_torch_s(activation: nn.Module, output: nn.Module) -> None:
    policy = nn.Sequential(nn.Linear(18, 7), activation, nn.Linear(7, 4), output)
    x = np.random.default_rng(0).standard_normal((50, 18)).astype(np.float32)
    network = network_from_torch(policy)
    assert network.hidden == (7,)
    assert (network.obs_dim, network.act_dim, network.params) == (18, 4, 18 * 7 + 7 + 7 * 4 + 4)
    assert np.abs(network.forward(x) - run_torch(policy, x)).max() < 1e-6


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Linear(3, 2), nn.GELU()], "GELU"),
        ([nn.ReLU(), nn.Linear(3, 2)], "where a Linear layer is expected"),
        ([nn.Linear(3, 2), nn.ReLU(), nn.Tanh()], "where a Linear layer is expected"),
        (
            [nn.Linear(3, 2), nn.LeakyReLU(0.1), nn.Linear(2, 2), nn.LeakyReLU(0.2)],
            "more than one leaky ReLU slope",
        ),
        ([], "no layer"),
    ],
)
def test_unsupported_modules(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        network_from_torch(nn.Sequential(*modules))


def test_network_checks_its_layers(make_network: MakeNetwork) -> None:
    good = make_network((3,)).layers
    with pytest.raises(CompileError, match="not a finite number"):
        Network((Layer("a", np.full((2, 2), np.nan, np.float32), np.zeros(2, np.float32), "relu"),))
    with pytest.raises(CompileError, match="ELU alpha is not a finite number"):
        make_network((3,), elu_alpha=np.inf)
    with pytest.raises(CompileError, match="takes 18 inputs"):
        Network((good[1], good[0]))
    with pytest.raises(CompileError, match="supported: leaky_relu"):
        Network((Layer("a", np.zeros((2, 2), np.float32), np.zeros(2, np.float32), "gelu"),))


@SETTINGS
@given(
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    activation=st.sampled_from(ACTIVATIONS),
    output=st.sampled_from(ACTIVATIONS),
    slope=st.sampled_from([0.01, 0.2, 0.5]),
    alpha=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_onnx_round_trip(
    make_network: MakeNetwork,
    tmp_path: Path,
    hidden: list[int],
    activation: str,
    output: str,
    slope: float,
    alpha: float,
) -> None:
    network = make_network(
        hidden, activation=activation, output=output, negative_slope=slope, elu_alpha=alpha
    )
    path = tmp_path / "policy.onnx"
    export_onnx(network, path, {"task": "quadrotor"})
    back = network_from_onnx(path)
    if activation == "identity" and hidden:  # products without anything between become one
        assert len(back.layers) <= len(network.layers)
    else:
        assert [layer.name for layer in back.layers] == [layer.name for layer in network.layers]
    for layer, other in zip(network.layers, back.layers, strict=activation != "identity"):
        if activation == "identity":
            continue
        assert np.array_equal(layer.weight, other.weight)
        assert np.array_equal(layer.bias, other.bias)
        assert layer.activation == other.activation
    if activation == "leaky_relu":
        assert back.negative_slope == slope
    if activation == "elu":
        assert back.elu_alpha == alpha
    x = np.random.default_rng(1).standard_normal((9, 18)).astype(np.float32)
    assert np.abs(run_onnx(path, x) - network.forward(x)).max() < 2e-6


def test_onnx_says_what_it_is(make_network: MakeNetwork, tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    export_onnx(make_network((8,)), path, {"architecture": "8"})
    model = onnx.load(path)
    assert [node.name for node in model.graph.node] == [
        "layer_0",
        "layer_0_leaky_relu",
        "layer_1",
        "layer_1_clip",
    ]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {p.key: p.value for p in model.metadata_props} == {"architecture": "8"}
