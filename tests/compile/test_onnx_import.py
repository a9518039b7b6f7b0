"""Graphs built node by node: random chains beside onnxruntime, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compile.errors import CompileError
from compile.onnx_graph import export_onnx
from compile.onnx_import import read_policy
from compile.source_onnx import run_original
from compile.verify import run_onnx

SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclasses.dataclass
class Graph:
    """A chain under construction: each step appends nodes behind the value ``last``."""

    rng: np.random.Generator
    shape: list[int]  # of `last` for one call
    as_nodes: bool = False  # constants by Constant nodes, not initialisers
    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    initializers: list[onnx.TensorProto] = dataclasses.field(default_factory=list)
    last: str = "observation"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.nodes)}_{len(self.initializers)}"
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        if self.as_nodes:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def add(self, op: str, *more: str, first: str | None = None, **attributes: Any) -> None:
        inputs = [self.last, *more] if first is None else [first, self.last]
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", **attributes))
        self.last = name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape) / np.sqrt(max(shape, default=1))

    def model(self, batch: int | str, obs_dim: int, output: Sequence[Any]) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [value("observation", TensorProto.FLOAT, [batch, obs_dim])],
            [value(self.last, TensorProto.FLOAT, output)],
            self.initializers,
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def gemm(g: Graph, choice: int) -> None:
    rows, n = g.shape
    out = 1 + choice % 7
    turn = choice % 2
    more = [g.constant(g.normal(*((out, n) if turn else (n, out))))]
    if choice % 3:
        more.append(g.constant(g.normal(*[(out,), (1, out), (1,)][choice % 3])))
    scales = {"alpha": 0.5, "beta": -1.5} if choice % 5 == 0 else {}
    if rows == 1 and choice % 4 == 0:
        g.add("Transpose", perm=[1, 0])
        g.add("Gemm", *more, transA=1, transB=turn, **scales)
    else:
        g.add("Gemm", *more, transB=turn, **scales)
    g.shape = [rows, out]


def matmul(g: Graph, choice: int) -> None:
    rows, n = g.shape
    out = 1 + choice % 7
    if rows == 1 and choice % 3 == 0:  # a matrix times a column
        g.add("Reshape", g.constant([n, 1], np.int64))
        g.add("MatMul", first=g.constant(g.normal(out, n)))
        g.add("Reshape", g.constant([1, out], np.int64))
    else:
        g.add("MatMul", g.constant(g.normal(n, out)))
    g.add("Add", g.constant(g.normal(out)))
    g.shape = [rows, out]


def affine(g: Graph, choice: int) -> None:
    op = ("Add", "Sub", "Mul", "Div", "Neg")[choice % 5]
    if op == "Neg":
        g.add("Neg")
        return
    sign = g.rng.choice([-1, 1], [(), (1,), (g.shape[1],), (1, g.shape[1])][choice % 4])
    number = g.constant(sign * g.rng.uniform(0.5, 2, sign.shape))
    g.add(op, first=number) if choice % 3 == 0 and op != "Div" else g.add(op, number)


def activation(g: Graph, choice: int) -> None:
    op = ("Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid")[choice % 5]
    g.add(op, **{"LeakyRelu": {"alpha": 0.125}, "Elu": {"alpha": 0.7}}.get(op, {}))


def clip(g: Graph, choice: int) -> None:
    low, high = g.constant(-0.1 * (choice % 9)), g.constant(0.1 + 0.1 * (choice % 11))
    form = choice % 5
    if form == 0:
        g.add("Clip", low, high)
    elif form == 1:
        g.add("Clip", low)
    elif form == 2:
        g.add("Clip", "", high)
    elif form == 3:
        g.add("Max", low)
    else:
        g.add("Min", first=high)


def move(g: Graph, choice: int) -> None:
    rows, n = g.shape
    form = choice % 7
    if form == 0:
        g.add(("Identity", "Flatten")[choice % 2])
    elif form == 1:
        g.add("Cast", to=TensorProto.FLOAT)
    elif form == 2:
        g.add("Unsqueeze", g.constant([1], np.int64))
        g.add("Squeeze", g.constant([1], np.int64))
    elif form == 3:
        g.add("Reshape", g.constant([[-1, n], [0, -1]][choice % 2], np.int64))
    elif form == 4 and n > 1:
        ends = [g.constant([value], np.int64) for value in (1, n, 1)]
        g.add("Slice", *ends)
        g.shape = [rows, n - 1]
    elif form == 5:
        index = g.rng.integers(0, n, 1 + choice % 4)
        g.add("Gather", g.constant(index, np.int64), axis=1)
        g.shape = [rows, len(index)]
    elif form == 6 and n % 2 == 0:
        names = [f"s{len(g.nodes)}_{half}" for half in range(2)]
        g.nodes.append(helper.make_node("Split", [g.last], names, axis=-1))
        g.last, g.shape = names[choice % 2], [rows, n // 2]


STEPS = (gemm, matmul, affine, activation, clip, move)
LAYERED = (gemm, activation, matmul, clip)  # so that most chains look like policies


@SETTINGS
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS + LAYERED), st.integers(0, 1000)), max_size=12),
    obs_dim=st.integers(1, 9),
    batch=st.sampled_from(["batch", 1, 3]),
    as_nodes=st.booleans(),
    seed=st.integers(0, 100),
)
def test_random_chains(
    tmp_path: Path,
    steps: list[tuple[Any, int]],
    obs_dim: int,
    batch: int | str,
    as_nodes: bool,
    seed: int,
) -> None:
    rows = 1 if batch == "batch" else int(batch)
    graph = Graph(np.random.default_rng(seed), [rows, obs_dim], as_nodes)
    for step, choice in [*steps, (gemm, 1)]:
        step(graph, choice)
    path = tmp_path / "chain.onnx"
    onnx.save(graph.model(batch, obs_dim, [None, None]), str(path))
    try:
        imported = read_policy(path)
    except CompileError as error:
        assert "is clipped to one number" in str(error)  # noqa: PT017
        return
    observations = 2 * np.random.default_rng(1).standard_normal((20, obs_dim)).astype(np.float32)
    expected = run_original(path, imported, observations)
    accepted = 1e-5 * max(1, np.abs(expected).max())
    assert np.abs(imported.network.forward(observations) - expected).max() < accepted
    export_onnx(imported.network, tmp_path / "ours.onnx", {})
    ours = run_onnx(tmp_path / "ours.onnx", observations)
    assert np.abs(ours - expected).max() < accepted
    again = read_policy(tmp_path / "ours.onnx").network  # what the C is made of
    assert np.abs(again.forward(observations) - expected).max() < accepted


def write(
    path: Path, nodes: list[onnx.NodeProto], output: Sequence[str] = ("y",), **more: Any
) -> Path:
    """A model of the nodes on ``x`` (n, 3), with weights w (2, 3), v (2, 2) and b (2,)."""
    value = helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((2, 3)), "v": rng.standard_normal((2, 2)), "b": [1, 2]}
    constants |= {"five": 5.0, "mean": [30.0, -4.0, 0.5], "scale": [2.0, 0.1, 10.0]}
    constants |= {"minus_five": -5.0, **more.pop("constants", {})}
    graph = helper.make_graph(
        nodes,
        "g",
        more.pop("inputs", [value("x", TensorProto.FLOAT, ["n", 3])]),
        [value(name, TensorProto.FLOAT, ["n", 2]) for name in output],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8, **more), str(path))
    return path


def node(op: str, inputs: str, output: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), name=name, **attributes)


GEMM = node("Gemm", "x w b", "h", "first", transB=1)


def test_sample_factory_s_way(tmp_path: Path) -> None:
    """Its normaliser: shift, scale, clip; its head: location and log of the scale, of one Gemm."""
    path = write(
        tmp_path / "m.onnx",
        [
            node("Sub", "x mean", "a"),
            node("Mul", "a scale", "c"),
            node("Clip", "c minus_five five", "d"),
            node("Gemm", "d w b", "e", transB=1),
            node("Elu", "e", "f"),
            node("Gemm", "f head", "g", transB=1),
            node("Split", "g", "y z", axis=1),
        ],
        constants={"head": np.random.default_rng(1).standard_normal((4, 2))},
    )
    imported = read_policy(path)
    network = imported.network
    assert [(layer.n_out, layer.activation) for layer in network.layers] == [
        (3, "clip"), (2, "elu"), (2, "identity"),
    ]  # fmt: skip
    assert network.clip == (-5.0, 5.0)
    assert np.allclose(imported.scale, [2, 0.1, 10])
    assert np.allclose(-imported.shift / imported.scale, [30, -4, 0.5])
    x = (np.random.default_rng(2).standard_normal((99, 3)) * 10 + [30, -4, 0]).astype(np.float32)
    assert np.abs(network.forward(x) - run_original(path, imported, x)).max() < 1e-5


def test_brax_s_way(tmp_path: Path) -> None:
    """Its tanh policies as tf2onnx writes them; those with a swish are refused by name."""
    nodes = [
        node("Sub", "x mean", "a"),
        node("Div", "a scale", "c"),
        node("MatMul", "c kernel", "d"),
        node("Add", "d b", "e"),
        node("Relu", "e", "f"),
        node("MatMul", "f v", "g"),
        node("Add", "g b", "h"),
        node("Tanh", "h", "y"),
    ]
    kernel = {"kernel": np.random.default_rng(1).standard_normal((3, 2))}
    path = write(tmp_path / "m.onnx", nodes, constants=kernel)
    imported = read_policy(path)
    assert [layer.activation for layer in imported.network.layers] == ["relu", "tanh"]
    x = np.random.default_rng(2).standard_normal((99, 3)).astype(np.float32)
    expected = run_original(path, imported, x)
    assert np.abs(imported.network.forward(x) - expected).max() < 2e-5
    nodes[4:5] = [node("Sigmoid", "e", "s"), node("Mul", "e s", "f", "swish")]
    with pytest.raises(CompileError, match=r"'swish' \(Mul\) of two values .*swish.* supported:"):
        read_policy(write(path, nodes, constants=kernel))


def test_a_bottleneck_stays_one(tmp_path: Path) -> None:
    """Two products without an activation between become one only where that is not larger."""
    graph = Graph(np.random.default_rng(0), [1, 9])
    for out in (2, 8, 8):
        graph.add("MatMul", graph.constant(graph.normal(graph.shape[1], out)))
        graph.shape = [1, out]
    path = tmp_path / "m.onnx"
    onnx.save(graph.model(1, 9, [1, 8]), str(path))
    network = read_policy(path).network
    assert [layer.weight.shape for layer in network.layers] == [(2, 9), (8, 2)]


def test_a_tanh_that_is_clipped_costs_nothing(tmp_path: Path) -> None:
    nodes = [GEMM, node("Tanh", "h", "t"), node("Clip", "t minus_five five", "y")]
    network = read_policy(write(tmp_path / "m.onnx", nodes)).network
    assert [layer.activation for layer in network.layers] == ["tanh"]


REFUSED = [
    ([GEMM, node("Softmax", "h", "y", "odd")], r"'odd' \(Softmax\) is not supported; supported: "),
    ([GEMM, node("Softmax", "h", "y")], r"'y' \(Softmax\)"),
    ([GEMM, node("Add", "h h", "y", "twice")], r"'twice' \(Add\) of two values"),
    ([node("Gemm", "x w x", "y", "data", transB=1)], r"'data' \(Gemm\) of two values"),
    ([node("Gemm", "x w b", "y", "wide")], r"'wide' \(Gemm\) of shapes"),
    ([node("MatMul", "x b", "y", "flat")], r"'flat' \(MatMul\) with weights of shape"),
    ([GEMM, node("Clip", "h five minus_five", "y", "none")], r"'none' \(Clip\) with the empty"),
    ([GEMM, node("Div", "five h", "y", "under")], r"'under' \(Div\) by a value that depends"),
    ([GEMM, node("Div", "h zero", "y", "zero")], r"'zero' \(Div\) by zero"),
    ([GEMM, node("Cast", "h", "y", "whole", to=7)], r"'whole' \(Cast\) to another type"),
    ([GEMM, node("Relu", "lost", "y", "loose")], r"'loose' \(Relu\) with input 'lost'"),
    ([GEMM, node("Relu", "h", "y", "own", domain="mine")], r"'own' \(Relu\) of domain mine"),
    ([GEMM, node("ReduceMax", "h", "y", "top")], r"'top' \(ReduceMax\)"),
    ([GEMM, node("Gather", "w h", "y", "chosen")], r"'chosen' \(Gather\) with a shape or an index"),
    ([GEMM, node("Reshape", "h b", "y", "bent")], r"'bent' \(Reshape\) as it is here"),
    ([GEMM, node("LeakyRelu", "h", "k", alpha=0.1), node("LeakyRelu", "k", "y", alpha=0.2)],
     "more than one leaky ReLU slope"),
    ([node("Identity", "b", "y")], "'y' does not depend on the observation"),
    ([GEMM], "no node computes the output 'y'"),
    ([GEMM, node("Mul", "h huge", "y")], "a weight is not a finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refused_nodes_are_named(nodes: list[onnx.NodeProto], message: str, tmp_path: Path) -> None:
    constants = {"zero": 0.0, "huge": 3e38 * np.ones(2)}
    with pytest.raises(CompileError, match=message):
        read_policy(write(tmp_path / "m.onnx", nodes, constants=constants))


def inputs(*values: tuple[str, int, list[Any] | None]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(*value) for value in values]


@pytest.mark.parametrize(
    ("given_inputs", "message"),
    [
        (inputs(), "has 0 inputs"),
        (inputs(("x", 1, ["n", 3]), ("h_in", 1, ["n", 8])), r"has 2 inputs \(x, h_in\)"),
        (inputs(("x", 11, ["n", 3])), "input 'x' is DOUBLE; export it in float32"),
        (inputs(("x", 1, ["n", "m"])), "input 'x' has no fixed length"),
        (inputs(("x", 1, None)), "input 'x' has no fixed length"),
        (inputs(("x", 1, [])), "input 'x' has no fixed length"),
    ],
)
def test_refused_inputs(
    given_inputs: list[onnx.ValueInfoProto], message: str, tmp_path: Path
) -> None:
    nodes = [GEMM, node("Tanh", "h", "y")]
    with pytest.raises(CompileError, match=message):
        read_policy(write(tmp_path / "m.onnx", nodes, inputs=given_inputs))


def test_an_observation_without_a_batch(tmp_path: Path) -> None:
    nodes = [node("MatMul", "w x", "m"), node("Add", "m b", "y")]
    path = write(tmp_path / "m.onnx", nodes, inputs=inputs(("x", 1, [3])))
    imported = read_policy(path)
    x = np.random.default_rng(2).standard_normal((9, 3)).astype(np.float32)
    assert np.abs(imported.network.forward(x) - run_original(path, imported, x)).max() < 1e-6


def test_outputs_are_chosen_by_name(tmp_path: Path) -> None:
    nodes = [GEMM, node("Tanh", "h", "loc"), node("Softplus", "h", "std")]
    path = write(tmp_path / "m.onnx", nodes, ("loc", "std"))
    assert read_policy(path, "loc").network.layers[-1].activation == "tanh"
    with pytest.raises(CompileError, match=r"2 outputs \(loc, std\); choose .* --output NAME"):
        read_policy(path)
    with pytest.raises(CompileError, match="no output 'action'; it has: loc, std"):
        read_policy(path, "action")
    with pytest.raises(CompileError, match=r"\(Softplus\)"):
        read_policy(path, "std")


def test_a_function_is_looked_into(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine", "Twice", ["a"], ["c"], [node("Add", "a a", "c")], [helper.make_opsetid("", 17)]
    )
    half = helper.make_function(
        "mine", "Squash", ["a"], ["c"], [node("Tanh", "a", "c")], [helper.make_opsetid("", 17)]
    )
    nodes = [GEMM, helper.make_node("Squash", ["h"], ["y"], domain="mine")]
    path = write(tmp_path / "m.onnx", nodes, functions=[function, half])
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, str(path))
    assert read_policy(path).network.layers[-1].activation == "tanh"


def test_not_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xffnot a model")
    for missing in (path, tmp_path / "none.onnx", tmp_path):
        with pytest.raises(CompileError, match="cannot read"):
            read_policy(missing)
    path.write_bytes(b"")
    with pytest.raises(CompileError, match="0 outputs"):
        read_policy(path)


@settings(max_examples=150, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4), st.integers(0, 9))),
    end=st.integers(0, 10_000),
)
def test_damaged_files_end_in_one_error(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bytes, int]], end: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    nodes = [node("Sub", "x mean", "a"), node("Gemm", "a w b", "h", transB=1)]
    path = write(folder / "m.onnx", [*nodes, node("Clip", "h minus_five five", "y")])
    data = bytearray(path.read_bytes())
    for place, new, removed in cuts:
        place %= len(data) + 1
        data[place : place + removed] = new
    path.write_bytes(bytes(data) if end > len(data) else bytes(data)[:end])
    try:
        imported = read_policy(path)
        run_original(path, imported, np.zeros((1, imported.network.obs_dim), np.float32))
    except CompileError as error:
        assert str(error)  # noqa: PT017
