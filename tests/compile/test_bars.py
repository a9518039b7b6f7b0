"""Cycles that the kernels must not exceed (model, P = 2, cold caches), whatever the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compile.device import count_cycles, cycles_by_data
from compile.lower.c import core_kernels, fixed_source, policy_header, policy_source
from compile.network import ACTIVATIONS, Network
from compile.quantize import quantize
from targets.target import Target
from targets.toolchain import link_image

MAIN = (
    '#include "policy.h"\nstatic float o[POLICY_OBS_DIM], a[POLICY_ACT_DIM];\n'
    "int main(void) { policy_step(o, a); return 0; }\n"
)
OBSERVATIONS = np.random.default_rng(1).standard_normal((300, 22)).astype(np.float32)


def build(network: Network, precision: str, weights_in: str, target: Target, folder: Path) -> Path:
    kernels = core_kernels(target.core)
    source = folder / "policy.c"
    (folder / "policy.h").write_text(policy_header(network, "T", []))
    (folder / "main.c").write_text(MAIN)
    if precision == "f32":
        text = policy_source(network, "T", [], weights_in, kernels)
    else:
        fixed = quantize(network, OBSERVATIONS[:, : network.obs_dim], precision)
        text = fixed_source(fixed, "T", [], weights_in, kernels)
    source.write_text(text)
    elf = folder / "policy.elf"
    main = [folder / "main.c"]
    link_image(target, main, elf, policy_source=source, include=[folder], weights_in=weights_in)
    return elf


@pytest.mark.parametrize(
    ("hidden", "activation", "precision", "obs_dim", "flash", "sram"),
    [
        ((4,), "leaky_relu", "f32", 18, 600, 410),
        ((4,), "leaky_relu", "i16", 18, 505, 350),
        ((4,), "leaky_relu", "i16", 22, 505, 380),
        ((64, 64), "leaky_relu", "f32", 18, 27_000, 19_600),
        ((64, 64), "leaky_relu", "i16", 22, 12_600, 8_600),
        ((64, 64), "leaky_relu", "i8", 22, 11_200, 8_800),
        ((4,), "tanh", "f32", 18, 740, 500),
        ((4,), "sigmoid", "f32", 18, 740, 500),
        ((64, 64), "tanh", "f32", 18, 29_600, 22_300),
        ((64, 64), "tanh", "i16", 22, 13_200, 8_900),
        ((64, 64), "tanh", "i8", 22, 11_800, 9_100),
        ((4,), "tanh", "i16", 18, 515, 355),
    ],
)
@pytest.mark.usefixtures("cross")
def test_cycles(
    make_network: Callable[..., Network],
    hidden: tuple[int, ...],
    activation: str,
    precision: str,
    obs_dim: int,
    flash: int,
    sram: int,
    target: Target,
    tmp_path: Path,
) -> None:
    network = make_network(hidden, obs_dim=obs_dim, activation=activation)
    elf = build(network, precision, "flash", target, tmp_path)
    x = OBSERVATIONS[0, :obs_dim]
    assert count_cycles(elf, target, x, 4).p2 <= flash
    assert count_cycles(elf, target.with_flash_wait_states(0), x, 4).p2 <= sram


@pytest.mark.parametrize("precision", ["f32", "i16", "i8", "i8x"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.usefixtures("cross")
def test_weights_in_ram_make_cycles_independent_of_the_data(
    make_network: Callable[..., Network],
    activation: str,
    precision: str,
    target: Target,
    tmp_path: Path,
) -> None:
    output = ACTIVATIONS[-1 - ACTIVATIONS.index(activation)]
    network = make_network((9, 6), obs_dim=22, activation=activation, output=output)
    elf = build(network, precision, "ram", target, tmp_path)
    found = cycles_by_data(elf, target, OBSERVATIONS, 4)
    assert found.independent, found


@pytest.mark.usefixtures("cross")
def test_a_table_in_flash_depends_on_the_data(
    make_network: Callable[..., Network], target: Target, tmp_path: Path
) -> None:
    elf = build(make_network((9, 6), 22, activation="tanh"), "i16", "flash", target, tmp_path)
    found = cycles_by_data(elf, target, OBSERVATIONS, 4)
    assert not found.independent
    assert found.most - found.least <= 16 * 5, "at most one miss of 5 cycles for each unit"
