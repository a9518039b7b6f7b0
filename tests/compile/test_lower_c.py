from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compile.device import run_emulated, run_host
from compile.lower.c import (
    CoreKernels,
    core_kernels,
    golden_header,
    policy_header,
    policy_source,
    rejected_action,
)
from compile.network import ACTIVATIONS, Layer, Network
from compile.onnx_graph import export_onnx
from compile.onnx_import import network_from_onnx
from compile.verify import bad_observations, run_onnx
from targets.target import Target
from targets.toolchain import compile_host_library, link_image

MakeNetwork = Callable[..., Network]
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
ARM = ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]


def write_c(
    network: Network, folder: Path, weights_in: str = "flash", kernels: CoreKernels | None = None
) -> Path:
    title, lines = "Policy for a test", ["Network: random"]
    (folder / "policy.h").write_text(policy_header(network, title, lines))
    source = folder / "policy.c"
    source.write_text(policy_source(network, title, lines, weights_in, kernels or CoreKernels()))
    return source


def host(network: Network, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_c(network, folder)
        library = compile_host_library([source], folder / "policy.so", include=[folder])
        return run_host(library, x, network.act_dim)


def observations(n: int, obs_dim: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, obs_dim)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(
    obs_dim=st.integers(1, 40),
    hidden=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    act_dim=st.integers(1, 13),
    activation=st.sampled_from(ACTIVATIONS),
    output=st.sampled_from(ACTIVATIONS),
    slope=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    alpha=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_any_network_against_float64(
    make_network: MakeNetwork,
    obs_dim: int,
    hidden: list[int],
    act_dim: int,
    activation: str,
    output: str,
    slope: float,
    alpha: float,
) -> None:
    network = make_network(
        hidden, obs_dim, act_dim, activation, output, negative_slope=slope, elu_alpha=alpha
    )
    x = observations(20, obs_dim)
    expected = network.forward(x)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(host(network, x) - expected).max() < 4e-6 * scale


@pytest.mark.parametrize("width", [*range(1, 18), 255, 256])
def test_every_residue_of_the_width(make_network: MakeNetwork, width: int, tmp_path: Path) -> None:
    network = make_network((width, width), 18, 4, "leaky_relu", "clip")
    model = tmp_path / "policy.onnx"
    export_onnx(network, model, {})
    x = observations(20, 18)
    lowered = network_from_onnx(model)
    assert np.abs(host(lowered, x) - run_onnx(model, x)).max() < 4e-6


def scalar(activation: str, output: str, alpha: float) -> Network:
    """output(activation(x)) of a single number."""
    one, zero = np.eye(1, dtype=np.float32), np.zeros(1, np.float32)
    return Network(
        (Layer("first", one, zero, activation), Layer("last", one, zero, output)), elu_alpha=alpha
    )


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu"])
def test_functions_are_within_5e_7(activation: str, alpha: float) -> None:
    x = np.linspace(-40, 40, 400_001, dtype=np.float32)[:, None]
    for network in (scalar(activation, "identity", alpha), scalar("identity", activation, alpha)):
        exact = network.forward(x)
        # Above 0 an ELU is x itself, and rounds as x does.
        bound = 5e-7 * max(1.0, alpha if activation == "elu" else 1.0)
        assert np.abs(host(network, x) - exact).max() < bound


@pytest.mark.parametrize(
    ("output", "rejected"),
    [("clip", -1.0), ("tanh", -1.0), ("sigmoid", 0.0), ("identity", 0.0), ("elu", 0.0)],
)
def test_bad_observations_are_rejected(
    make_network: MakeNetwork, output: str, rejected: float
) -> None:
    network = make_network((8, 5), output=output)
    bad = bad_observations(observations(1, 18)[0])
    assert rejected_action(network) == rejected
    assert (host(network, bad) == rejected).all()
    huge = np.full((1, 18), 3e38, np.float32)  # finite, but its sum is not
    assert (host(network, huge) == rejected).all()
    large = observations(50, 18) * np.float32(1e37)  # overflows inside
    assert np.isfinite(host(network, large)).all()


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
@pytest.mark.parametrize("weights_in", ["flash", "ram"])
def test_no_warning_and_no_library(
    make_network: MakeNetwork, compiler: str, weights_in: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    machine = ARM if compiler.startswith("arm") else []
    user = tmp_path / "user.c"
    user.write_text('#include "policy_golden.h"\nint main(void) { return policy_self_test(); }\n')
    x = observations(3, 18)
    for activation, output in zip(ACTIVATIONS, reversed(ACTIVATIONS), strict=True):
        network = make_network((13, 8), activation=activation, output=output)
        source = write_c(network, tmp_path, weights_in, core_kernels("cortex_m4f"))
        actions = network.forward(x).astype(np.float32)
        (tmp_path / "policy_golden.h").write_text(golden_header(x, actions, 1e-5))
        for level in ("-O0", "-O2"):
            for file in (source, user):
                built = tmp_path / f"{file.stem}.o"
                command = [compiler, *machine, *WARNINGS, level, "-c", str(file), "-o", str(built)]
                result = subprocess.run(command, capture_output=True, text=True, check=False)
                assert result.returncode == 0, result.stderr
            symbols = subprocess.run(
                ["nm", "-u", str(tmp_path / "policy.o")], capture_output=True, text=True, check=True
            )
            outside = {line.split()[-1] for line in symbols.stdout.splitlines()}
            assert outside <= {"_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="cppcheck is not installed")
def test_cppcheck_is_content(make_network: MakeNetwork, tmp_path: Path) -> None:
    for activation, output in zip(ACTIVATIONS, reversed(ACTIVATIONS), strict=True):
        network = make_network((13, 8), activation=activation, output=output)
        source = write_c(network, tmp_path, kernels=core_kernels("cortex_m4f"))
        checks = ["--enable=warning,performance,portability", "--error-exitcode=1", "-U__ARM_FP"]
        command = ["cppcheck", "-q", *checks, str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_self_test_sees_a_wrong_vector(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network((8,))
    x = observations(16, 18)
    actions = host(network, x)
    source = write_c(network, tmp_path)
    user = tmp_path / "user.c"
    user.write_text('#include "policy_golden.h"\n')

    def mismatches(golden: NDArray[np.float32]) -> int:
        (tmp_path / "policy_golden.h").write_text(golden_header(x, golden, 1e-5))
        with tempfile.TemporaryDirectory(dir=tmp_path) as temporary:
            library = Path(temporary) / "golden.so"
            compile_host_library([source, user], library, include=[tmp_path])
            return int(ctypes.CDLL(str(library)).policy_self_test())

    assert mismatches(actions) == 0
    wrong = actions.copy()
    wrong[3, 0] += 2e-5
    wrong[9, 2] -= 2e-5
    assert mismatches(wrong) == 2


def test_fast_math_is_refused(make_network: MakeNetwork, tmp_path: Path) -> None:
    source = write_c(make_network((4,)), tmp_path)
    command = ["gcc", "-ffast-math", "-fsyntax-only", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "-ffast-math" in result.stderr


def test_text_names_layers_and_cannot_break_out_of_comments(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    network = make_network((8, 12))
    text = policy_source(network, "Title", ["Run: x"], "flash", CoreKernels())
    assert "/* layer_1: Gemm 8 -> 12, leaky_relu */" in text
    assert text.startswith("/*\n * Title\n *\n * Run: x\n")
    assert max(map(len, text.splitlines())) < 130


# Every depth and every residue of the width; the wide ones have a loop in each kernel.
SHAPES = [(4,), (8, 1), (2, 3, 12), (5, 6, 7, 16), (64, 31)]


@pytest.mark.parametrize("weights_in", ["flash", "ram"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.usefixtures("cross")
def test_machine_code_gives_the_host_s_bits(
    make_network: MakeNetwork,
    hidden: tuple[int, ...],
    activation: str,
    weights_in: str,
    target: Target,
    tmp_path: Path,
) -> None:
    output = ACTIVATIONS[(ACTIVATIONS.index(activation) + len(hidden)) % len(ACTIVATIONS)]
    act_dim = 4 + len(hidden) * (weights_in == "ram")
    network = make_network(hidden, act_dim=act_dim, activation=activation, output=output)
    source = write_c(network, tmp_path, weights_in, core_kernels(target.core))
    main = tmp_path / "main.c"
    main.write_text(
        '#include "policy.h"\nstatic float o[POLICY_OBS_DIM], a[POLICY_ACT_DIM];\n'
        "int main(void) { policy_step(o, a); return 0; }\n"
    )
    elf = tmp_path / "policy.elf"
    link_image(target, [main], elf, policy_source=source, include=[tmp_path], weights_in=weights_in)
    x = np.concatenate([observations(20, 18), bad_observations(observations(1, 18)[0])])
    assert np.array_equal(run_emulated(elf, target, x, act_dim), host(network, x))
