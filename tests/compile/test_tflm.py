"""policy.tflite in TFLM's own kernels, and the C++ around it, against onnxruntime."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compile.candidate_tflm import error_bound, make_policy
from compile.device import run_host
from compile.errors import CompileError
from compile.lower.c import golden_header, rejected_action
from compile.lower.tflm.arena import target_arena
from compile.lower.tflm.bound import kernel_errors
from compile.lower.tflm.costs import model_bytes, outline, predict_memory
from compile.lower.tflm.generate import sources
from compile.lower.tflm.interpret import Interpreter, Policy
from compile.network import Network
from compile.onnx_graph import export_onnx
from compile.verify import bad_observations, run_onnx
from tests.compile.tflm import NETWORKS, cases, installed, observations

pytestmark = installed
MakeNetwork = Callable[..., Network]
STANDIN = Path(__file__).parent / "tflm_standin"
PRECISIONS = ("f32", "i16", "i8")


def by_onnx(network: Network, x: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    export_onnx(network, folder / "policy.onnx", {})
    return run_onnx(folder / "policy.onnx", x)


@pytest.mark.parametrize(("activation", "output", "hidden"), NETWORKS)
def test_float32_equals_onnxruntime(
    activation: str, output: str, hidden: tuple[int, ...], make_network: MakeNetwork, tmp_path: Path
) -> None:
    network = make_network(hidden, activation=activation, output=output)
    x = observations(network)
    policy = make_policy(network, x, "f32")
    np.testing.assert_allclose(
        Interpreter(policy).forward(x), by_onnx(network, x, tmp_path), rtol=1e-6, atol=2e-6
    )


@pytest.mark.parametrize(("activation", "output", "hidden", "precision"), cases("i16", "i8"))
def test_quantised_within_its_bound_of_onnxruntime(
    activation: str,
    output: str,
    hidden: tuple[int, ...],
    precision: str,
    make_network: MakeNetwork,
    tmp_path: Path,
) -> None:
    network = make_network(hidden, activation=activation, output=output)
    x, unseen = observations(network), 1.5 * observations(network, seed=2)  # it saturates
    policy = make_policy(network, x, precision)
    interpreter = Interpreter(policy)
    for given in (x, unseen):
        expected = by_onnx(network, given, tmp_path)
        codes = policy.encode(given)
        off = np.abs(interpreter.forward(given) - expected)
        assert (off <= error_bound(policy, codes, expected)).all()
        kernels = kernel_errors(policy.model, interpreter.tensors(codes))
        assert set(kernels) == set(policy.model.kinds)
        assert 0 < max(kernels.values()) <= 1
    spread = by_onnx(network, x, tmp_path).std()
    rms = np.sqrt((np.abs(interpreter.forward(x) - by_onnx(network, x, tmp_path)) ** 2).mean())
    assert rms < {"i16": 0.03, "i8": 0.08}[precision] * spread


@pytest.mark.parametrize("precision", ["i16", "i8"])
def test_a_code_that_is_off_is_seen(precision: str, make_network: MakeNetwork) -> None:
    network = make_network((8, 8), activation="tanh")
    x = observations(network, 50)
    policy = make_policy(network, x, precision)
    codes = Interpreter(policy).tensors(policy.encode(x))
    assert max(kernel_errors(policy.model, codes).values()) <= 1
    for index in (operator.outputs[0] for operator in policy.model.operators):
        wrong = codes[index].copy()
        middle = np.argmin(np.abs(wrong))  # not saturated
        wrong.ravel()[middle] += {"i16": 8, "i8": 2}[precision]
        changed = kernel_errors(policy.model, {**codes, index: wrong})
        assert max(changed.values()) > 1


def test_the_bound_says_something(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network((4,))
    x = observations(network)
    policy = make_policy(network, x, "i8")
    expected = by_onnx(network, x, tmp_path)
    bound = error_bound(policy, policy.encode(x), expected)
    assert bound.max() < 0.5  # the range is 2 wide
    assert (bound > 0).all()


def test_int8_scales_each_observation(make_network: MakeNetwork) -> None:
    network = make_network((16,))
    x = observations(network)
    policy = make_policy(network, x, "i8")
    codes = policy.encode(x).astype(int)
    assert (codes.max(axis=0) - codes.min(axis=0) > 180).all()  # of 255, for all ranges


@pytest.mark.parametrize("precision", ["i16", "i8"])
def test_elu_is_not_quantised(precision: str) -> None:
    table = np.array([[16, 8]])
    with pytest.raises(CompileError, match=f"no {precision} form of elu: take --precision f32"):
        predict_memory(precision, table, 18, 4, "elu", "clip")
    with pytest.raises(CompileError, match=f"no {precision} form of elu"):
        predict_memory(precision, table, 18, 4, "relu", "elu")


def test_elu_with_another_alpha(make_network: MakeNetwork) -> None:
    network = make_network((4,), activation="elu", elu_alpha=0.5)
    with pytest.raises(CompileError, match=r"ELU has the alpha 1, this policy's has 0\.5"):
        make_policy(network, observations(network), "f32")


def test_an_operator_that_tflm_need_not_have(make_network: MakeNetwork) -> None:
    network = make_network((4,), clip=(-0.5, 0.75))
    with pytest.raises(CompileError, match=r"made a QUANTIZE operator.*supported: FULLY_CONNECTED"):
        make_policy(network, observations(network), "i16")


@pytest.mark.parametrize("clip", [(-0.5, 0.75), (0.0, 1.0)])
def test_other_ranges(clip: tuple[float, float], make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network((8,), clip=clip)
    x = observations(network)
    policy = make_policy(network, x, "f32")
    assert "MINIMUM" in policy.model.kinds
    expected = by_onnx(network, x, tmp_path)
    assert np.abs(Interpreter(policy).forward(x) - expected).max() < 2e-6


@pytest.mark.parametrize(
    ("activation", "output", "hidden", "precision"),
    [
        *cases(*PRECISIONS),
        *(("leaky_relu", "tanh", (8, 4), precision) for precision in PRECISIONS),
        *(("relu", "tanh", (4, 4, 4, 4), precision) for precision in PRECISIONS),
    ],
)
def test_predicted_bytes(
    activation: str,
    output: str,
    hidden: tuple[int, ...],
    precision: str,
    make_network: MakeNetwork,
) -> None:
    network = make_network(hidden, obs_dim=22, activation=activation, output=output)
    policy = make_policy(network, observations(network, 20), precision)
    sizes = (22, *hidden, 4)
    predicted = model_bytes(precision, sizes, activation, output)
    assert len(policy.content) <= predicted <= len(policy.content) + 128
    model = outline(precision, sizes, activation, output)
    assert target_arena(model) == target_arena(policy.model)
    assert model.operators == tuple(
        type(real)(real.kind, expected.inputs, expected.outputs)
        for real, expected in zip(policy.model.operators, model.operators, strict=True)
    )
    table = np.array([[*hidden, *[0] * (4 - len(hidden))]])
    memory = predict_memory(precision, table, 22, 4, activation, output)
    assert memory["ram_bytes"][0] == target_arena(policy.model)
    assert memory["flash_bytes"][0] == predicted + (0 if precision == "f32" else 88)


# The C++, compiled against a stand-in for TFLM's API with TFLM's real kernels behind it.

CXX = shutil.which("g++")
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-fPIC", "-shared"]
needs_cxx = pytest.mark.skipif(CXX is None, reason="no g++")


class Standin(ctypes.Structure):
    _fields_ = (
        ("invoke", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
        ("fail_allocation", ctypes.c_int),
        ("arena_bytes", ctypes.c_size_t),
        ("misaligned", ctypes.c_uint),
        ("operators", ctypes.c_uint),
        ("capacity", ctypes.c_uint),
    )


def write_cxx(network: Network, policy: Policy, folder: Path) -> None:
    for name, text in sources(network, policy, "Policy for a test", ["Network: random"]).items():
        (folder / name).write_text(text)


def build(folder: Path, *extra: str) -> Path:
    library = folder / "policy.so"
    command = [str(CXX), *FLAGS, *extra, f"-I{STANDIN}", str(folder / "policy_tflm.cc")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library


def plug_in(library: Path, policy: Policy) -> tuple[Standin, list[object]]:
    """Put the interpreter behind the stand-in; keep the list as long as it is used."""
    interpreter = Interpreter(policy)
    obs_dim, act_dim = policy.source.shape[1], policy.result.shape[1]
    dtype = np.dtype(policy.source.dtype)

    def invoke(source: int, result: int) -> int:
        raw = ctypes.string_at(source, obs_dim * dtype.itemsize)
        codes = interpreter.codes(np.frombuffer(raw, dtype)[None])[0]
        assert codes.shape == (act_dim,)
        ctypes.memmove(result, codes.tobytes(), codes.nbytes)
        return 0

    standin = Standin.in_dll(ctypes.CDLL(str(library)), "standin")
    hook = type(standin.invoke)(invoke)
    standin.invoke = hook
    return standin, [hook, interpreter]


@needs_cxx
@pytest.mark.parametrize(("activation", "output", "hidden", "precision"), cases(*PRECISIONS)[::2])
def test_policy_step(
    activation: str,
    output: str,
    hidden: tuple[int, ...],
    precision: str,
    make_network: MakeNetwork,
    tmp_path: Path,
) -> None:
    network = make_network(hidden, activation=activation, output=output)
    x = observations(network)
    policy = make_policy(network, x, precision)
    write_cxx(network, policy, tmp_path)
    library = build(tmp_path, *(["-DSTANDIN_NAMESPACE_MICRO"] if precision == "i8" else []))
    standin, kept = plug_in(library, policy)
    given = np.concatenate([x, 3 * x])  # beyond the range of the codes, too
    actions = run_host(library, given, network.act_dim)
    np.testing.assert_array_equal(actions, Interpreter(policy).forward(given))
    assert standin.misaligned == 0
    assert standin.operators == standin.capacity == len(policy.model.kinds)
    assert standin.arena_bytes == target_arena(policy.model)
    bad = run_host(library, bad_observations(x[0]), network.act_dim)
    assert (bad == np.float32(rejected_action(network))).all()
    huge = run_host(library, np.full_like(x[:1], 3e38), network.act_dim)
    assert np.isfinite(huge).all()
    assert kept


@needs_cxx
def test_policy_step_when_tflm_fails(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network((4,))
    x = observations(network, 3)
    policy = make_policy(network, x, "i8")
    write_cxx(network, policy, tmp_path)
    library = build(tmp_path)
    loaded = ctypes.CDLL(str(library))
    standin, kept = plug_in(library, policy)
    standin.fail_allocation = 1
    assert loaded.policy_tflm_init() == 1
    assert (run_host(library, x, 4) == -1).all()
    standin.fail_allocation = 0
    assert loaded.policy_tflm_init() == 1  # TFLM can be set up once only
    assert loaded.policy_tflm_arena_used() == 0
    (tmp_path / "again").mkdir()
    fresh = Path(shutil.copy(library, tmp_path / "again" / "policy.so"))
    standin, more = plug_in(fresh, policy)
    assert not (run_host(fresh, x, 4) == -1).all()
    failing = type(standin.invoke)(lambda *_: 1)
    standin.invoke = failing
    assert (run_host(fresh, x, 4) == -1).all()
    assert kept
    assert more


@needs_cxx
def test_the_self_test_is_c(make_network: MakeNetwork, tmp_path: Path) -> None:
    """C code includes policy.h and policy_golden.h as with the C backend."""
    network = make_network((4,))
    x = observations(network, 8)
    policy = make_policy(network, x, "i16")
    write_cxx(network, policy, tmp_path)
    actions = Interpreter(policy).forward(x)
    actions[3] += np.float32(1e-3)
    (tmp_path / "policy_golden.h").write_text(golden_header(x, actions, 1e-6, "TFLM gave"))
    (tmp_path / "test.c").write_text('#include "policy_golden.h"\n')
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-fPIC", "-c"]
    unit = str(tmp_path / "test.o")
    subprocess.run(
        ["gcc", *strict, f"-I{tmp_path}", str(tmp_path / "test.c"), "-o", unit], check=True
    )
    library = build(tmp_path, unit)
    _, kept = plug_in(library, policy)
    assert ctypes.CDLL(str(library)).policy_self_test() == 1
    assert kept
