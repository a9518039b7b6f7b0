"""Fixed point: numpy, the host's C and the emulated core give the same bits; nothing overflows."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compile.device import run_emulated, run_host
from compile.errors import CompileError
from compile.fixed_point import PRECISIONS, SUM_LIMIT, FixedNetwork
from compile.lower.c import core_kernels, fixed_source, policy_header, rejected_action
from compile.network import ACTIVATIONS, Layer, Network
from compile.quantize import pack_i8, quantize
from compile.verify import bad_observations, fixed_tolerance
from targets.target import Target
from targets.toolchain import compile_host_library, link_image

MakeNetwork = Callable[..., Network]
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"]
MAIN = (
    '#include "policy.h"\nstatic float o[POLICY_OBS_DIM], a[POLICY_ACT_DIM];\n'
    "int main(void) { policy_step(o, a); return 0; }\n"
)


def observations(n: int, obs_dim: int = 18, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, obs_dim)).astype(np.float32)


def adversarial(fixed: FixedNetwork) -> NDArray[np.float32]:
    """Inputs at the ends of the range and far beyond, in the signs that drive each first unit."""
    signs = np.sign(fixed.layers[0].weight).astype(np.float32)
    signs[signs == 0] = 1.0
    ends = signs * fixed.input_range.astype(np.float32)
    return np.concatenate([ends, -ends, 1e6 * ends, -1e6 * ends])


def write_c(network: Network, fixed: FixedNetwork, folder: Path, weights_in: str = "flash") -> Path:
    (folder / "policy.h").write_text(policy_header(network, "T", ["x"]))
    source = folder / "policy.c"
    kernels = core_kernels("cortex_m4f")
    source.write_text(fixed_source(fixed, "T", ["x"], weights_in, kernels))
    return source


def host(network: Network, fixed: FixedNetwork, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_c(network, fixed, folder)
        library = compile_host_library([source], folder / "policy.so", include=[folder])
        return run_host(library, x, network.act_dim)


def emulated(
    network: Network,
    fixed: FixedNetwork,
    x: NDArray[np.float32],
    target: Target,
    folder: Path,
    weights_in: str = "flash",
) -> NDArray[np.float32]:
    source = write_c(network, fixed, folder, weights_in)
    (folder / "main.c").write_text(MAIN)
    elf = folder / "policy.elf"
    link_image(
        target,
        [folder / "main.c"],
        elf,
        policy_source=source,
        include=[folder],
        weights_in=weights_in,
    )
    return run_emulated(elf, target, x, network.act_dim)


# Every depth and every residue of the width; the wide ones have a loop.
SHAPES = [(4,), (8, 1), (2, 3, 12), (5, 6, 7, 16)]
CASES = [
    *itertools.product(SHAPES, ACTIVATIONS),
    ((16, 17, 23, 25), "tanh"),
    ((64, 31), "leaky_relu"),
    ((33, 256), "leaky_relu"),
    ((256, 8), "relu"),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("hidden", "activation"), CASES)
@pytest.mark.usefixtures("cross")
def test_three_forms_give_the_same_bits(
    make_network: MakeNetwork,
    hidden: tuple[int, ...],
    activation: str,
    precision: str,
    target: Target,
    tmp_path: Path,
) -> None:
    slope = 0.2 if len(hidden) % 2 else 0.07  # a sum of two shifts; one with a product
    network = make_network(hidden, activation=activation, negative_slope=slope)
    seen = observations(300)
    fixed = quantize(network, seen, precision)
    assert max(fixed.worst_sums) < SUM_LIMIT
    x = np.concatenate([seen[:20], adversarial(fixed)[:40]])
    expected = fixed.forward(x)
    assert np.array_equal(host(network, fixed, x), expected)
    weights_in = ("flash", "ram")[len(hidden) % 2]
    assert np.array_equal(emulated(network, fixed, x, target, tmp_path, weights_in), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("obs_dim", [1, 2, 3, 4, 5, 6, 7, 8, 40])
@pytest.mark.usefixtures("cross")
def test_every_number_of_inputs_and_outputs(
    make_network: MakeNetwork, obs_dim: int, precision: str, target: Target, tmp_path: Path
) -> None:
    network = make_network((6,), obs_dim=obs_dim, act_dim=obs_dim % 7 + 1)
    seen = observations(100, obs_dim)
    fixed = quantize(network, seen, precision)
    assert np.array_equal(emulated(network, fixed, seen, target, tmp_path), fixed.forward(seen))
    assert np.array_equal(host(network, fixed, seen), fixed.forward(seen))


@pytest.mark.parametrize(("precision", "error"), [("i16", 2e-3), ("i8", 8e-2), ("i8x", 8e-2)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_error_of_the_action(
    make_network: MakeNetwork, activation: str, precision: str, error: float
) -> None:
    network = make_network((64, 64), activation=activation)
    seen = observations(1000)
    fixed = quantize(network, seen, precision)
    assert np.abs(fixed.forward(seen) - network.forward(seen)).max() < error


def test_units_of_very_different_size(make_network: MakeNetwork) -> None:
    """Observations in radians a second beside millimetres; a unit that is never active."""
    network = make_network((32, 32))
    first, *rest = network.layers
    units = np.geomspace(1e-2, 1e2, 18).astype(np.float32)
    weight = first.weight / units
    weight[3] = 0.0
    bias = first.bias.copy()
    bias[3] = 0.0
    changed = dataclasses.replace(first, weight=weight, bias=bias)
    network = dataclasses.replace(network, layers=(changed, *rest))
    seen = observations(1000) * units
    fixed = quantize(network, seen, "i16")
    assert np.abs(fixed.forward(seen) - network.forward(seen)).max() < 2e-3
    assert np.array_equal(host(network, fixed, seen[:50]), fixed.forward(seen[:50]))


def test_an_overflow_is_refused(make_network: MakeNetwork) -> None:
    fixed = quantize(make_network((8,)), observations(100), "i16")
    heavy = dataclasses.replace(fixed.layers[0], weight=fixed.layers[0].weight * 8)
    with pytest.raises(CompileError, match="can reach"):
        dataclasses.replace(fixed, layers=(heavy, *fixed.layers[1:]))


@pytest.mark.parametrize("act_dim", [1, 4, 6, 11])
@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.usefixtures("cross")
def test_outputs(
    make_network: MakeNetwork, output: str, act_dim: int, target: Target, tmp_path: Path
) -> None:
    network = make_network((8,), act_dim=act_dim, output=output, elu_alpha=1.5)
    seen = observations(60)
    fixed = quantize(network, seen, "i16")
    expected = fixed.forward(seen)
    by_host = host(network, fixed, seen)
    assert np.abs(by_host - expected).max() <= fixed_tolerance(fixed)
    assert np.abs(by_host - network.forward(seen)).max() < 2e-3
    assert np.array_equal(emulated(network, fixed, seen, target, tmp_path), by_host)


def test_two_tables_are_refused(make_network: MakeNetwork) -> None:
    network = make_network((8, 8), activation="tanh")
    second = dataclasses.replace(network.layers[1], activation="elu")
    mixed = dataclasses.replace(network, layers=(network.layers[0], second, network.layers[2]))
    with pytest.raises(CompileError, match="one table, for elu or tanh: use --precision f32"):
        quantize(mixed, observations(50), "i16")


def test_elu_reaches_as_far_as_was_seen(make_network: MakeNetwork) -> None:
    network = make_network((16, 16), activation="elu", elu_alpha=3.0)
    seen = 10 * observations(500)
    fixed = quantize(network, seen, "i16")
    assert np.abs(fixed.forward(seen) - network.forward(seen)).max() < 1.5e-2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bad_observations_are_rejected(make_network: MakeNetwork, precision: str) -> None:
    network = make_network((8, 5))
    fixed = quantize(network, observations(100), precision)
    bad = bad_observations(observations(1)[0])
    assert (host(network, fixed, bad) == rejected_action(network)).all()


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> tuple[FixedNetwork, Path]:
    """A small fixed-point network and its C, compiled for this machine."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 6)), rng.standard_normal((2, 4))
    layers = tuple(
        Layer(f"l{i}", w.astype(np.float32), np.zeros(len(w), np.float32), activation)
        for i, (w, activation) in enumerate(zip(weights, ("leaky_relu", "identity"), strict=True))
    )
    network = Network(layers)
    fixed = quantize(network, observations(100, 6), "i16")
    folder = tmp_path_factory.mktemp("portable")
    source = write_c(network, fixed, folder)
    return fixed, compile_host_library([source], folder / "policy.so", include=[folder])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=6, max_size=6))
@example([0.0, -0.0, 2.0**-149, -(2.0**-126), 2.0**-30, -(2.0**-13)])
@example([4.0, -4.0, 3.9999998, -3.9999998, 3.9998779, -4.0000005])
@example([2.0**97, -(2.0**97), 2.0**96, 2.0**31, -(2.0**24), 2.0**23 - 0.5])
def test_any_number_is_read_from_its_bits(
    portable: tuple[FixedNetwork, Path], observation: list[float]
) -> None:
    """Denormal, huge or a step beside where it saturates: numpy's float64 says the same."""
    fixed, library = portable
    x = np.array([observation], np.float32)
    assert np.array_equal(run_host(library, x, 2), fixed.forward(x))


def test_packed_weights_are_within_half_a_code() -> None:
    ideal = np.random.default_rng(0).uniform(-127 * 256, 127 * 256, (9, 30))
    actual, codes = pack_i8(ideal)
    assert np.abs(actual - ideal).max() <= 128
    assert np.abs(codes).max() <= 128


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc", "cppcheck"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_warning(
    make_network: MakeNetwork, compiler: str, precision: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    for activation, output in zip(ACTIVATIONS, reversed(ACTIVATIONS), strict=True):
        network = make_network((13, 8), activation=activation, output=output)
        source = write_c(network, quantize(network, observations(50), precision), tmp_path)
        commands = [
            [compiler, *machine, *WARNINGS, level, "-c", str(source), "-o", str(tmp_path / "p.o")]
            for level in ("-O0", "-O2")
            for machine in (
                (["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
                 ["-mcpu=cortex-m0plus", "-mthumb"])
                if compiler.startswith("arm")
                else ([],)
            )
        ]  # fmt: skip
        if compiler == "cppcheck":
            checks = "--enable=warning,performance,portability"
            commands = [[compiler, "-q", checks, "--error-exitcode=1", "-U__ARM_FP", str(source)]]
        for command in commands:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
        if compiler == "gcc":
            undefined = ["nm", "-u", str(tmp_path / "p.o")]
            result = subprocess.run(undefined, capture_output=True, text=True, check=True)
            outside = {line.split()[-1] for line in result.stdout.splitlines()}
            assert outside <= {"_GLOBAL_OFFSET_TABLE_"}
