from __future__ import annotations

import dataclasses
import itertools
import tomllib
from pathlib import Path

import numpy as np
import pytest

from compile.fit import (
    Sample,
    Shape,
    build,
    draw,
    evaluate,
    fit_constants,
    largest,
    measure,
    random_network,
    write_fit,
)
from compile.lower.c import core_kernels, fixed_source
from compile.quantize import quantize, quantize_plainly
from targets.target import Target, load_target
from targets.toolchain import PolicySizes

HIDDEN = [(4,), (16,), (4, 4, 8), (32, 4, 16), (64, 8), (8, 32, 4, 64)]


@pytest.mark.parametrize("precision", ["f32", "i16", "i8", "i8x"])
@pytest.mark.usefixtures("cross")
def test_the_shipped_constants_predict_the_compiled_code(target: Target, precision: str) -> None:
    """Fails when kernels changed and nobody ran `python -m compile.fit` again."""
    shapes = [Shape(hidden) for hidden in HIDDEN]
    shapes += [
        Shape((16, 4), activation=activation, output=output)
        for activation, output in (("tanh", "tanh"), ("elu", "sigmoid"), ("relu", "elu"))
    ]
    samples = [measure(shape, target, precision, seed) for seed, shape in enumerate(shapes)]
    for weights_in in ("flash", "ram"):
        constants = target.fit[f"{precision}.{weights_in}"]
        taken = [sample[weights_in] for sample in samples]
        errors = evaluate(constants, taken, target, weights_in, precision)
        assert max(errors.flash_under, errors.ram_under) == 0
        assert max(errors.flash_over, errors.ram_over) <= 120
        assert errors.cycles_mean < 0.02
        assert errors.cycles_max < 0.06


@pytest.mark.parametrize("precision", ["f32", "i16", "i8", "i8x"])
@pytest.mark.parametrize("name", ["rp2040", "stm32h743"])
@pytest.mark.usefixtures("cross")
def test_portable_code_is_predicted_to_64_bytes(name: str, precision: str) -> None:
    """Whatever the widths; and without an FPU, functions cost their arithmetic once."""
    target = load_target(name)
    names = ("leaky_relu", "tanh", "elu")
    activations = itertools.product(names, (*names, "clip"))
    shapes = [
        Shape(hidden, activation=activation, output=output)
        for hidden, (activation, output) in zip(itertools.cycle(HIDDEN), activations, strict=False)
    ]
    samples = [
        measure(shape, target, precision, seed)["flash"] for seed, shape in enumerate(shapes)
    ]
    errors = evaluate(target.fit[f"{precision}.flash"], samples, target, "flash", precision)
    assert max(errors.flash_under, errors.ram_under) == 0
    assert max(errors.flash_over, errors.ram_over) <= 64


def test_errors_are_seen(target: Target) -> None:
    drawn = draw(80, 10_000, np.random.default_rng(0))
    samples = [
        Sample(shape, PolicySizes(900, 4 * sum(shape.hidden), 0, 64, 100), 50 * (i + 1))
        for i, shape in enumerate(drawn)
    ]
    constants = fit_constants(target, samples)
    under = {**constants, "stack_fixed": constants["stack_fixed"] - 50}
    before, after = (evaluate(c, samples, target, "flash") for c in (constants, under))
    assert before.ram_under == before.flash_under == 0
    assert after.ram_under + after.ram_over == pytest.approx(before.ram_over, abs=50)
    assert (after.flash_under, after.flash_over) == (0, before.flash_over)
    slow = {name: value * (1.5 if "cycles" in name else 1) for name, value in constants.items()}
    assert evaluate(slow, samples, target, "flash").cycles_mean > before.cycles_mean


def test_draw_is_different_small_and_repeatable(target: Target) -> None:
    drawn = draw(50, largest(target, "ram"), np.random.default_rng(3))
    assert len({shape.hidden for shape in drawn}) == 50
    assert {shape.activation for shape in drawn} | {shape.output for shape in drawn} > {"elu"}
    assert drawn == draw(50, largest(target, "ram"), np.random.default_rng(3))
    for shape in drawn:
        sizes = (18, *shape.hidden, 4)
        weights = sum(a * b for a, b in itertools.pairwise(sizes))
        assert 4 * weights < target.memories["ram"].size_bytes
    roomy = dataclasses.replace(target.memories["ram"], size_bytes=1 << 30)
    assert largest(dataclasses.replace(target, memories={"ram": roomy}), "ram") == 20_000


def test_write_fit_replaces_only_the_fit(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text('name = "board" # why\n\n[timing]\nload = 2\n')
    write_fit(path, {"f32.flash": {"a": 1.5}}, "Fitted once.")
    once = path.read_text()
    assert once.startswith('name = "board" # why\n\n[timing]\nload = 2\n\n# Fitted once.\n')
    write_fit(path, {"f32.flash": {"a": 2.5}, "f32.ram": {"b": -1e-7}}, "Fitted twice.")
    twice = tomllib.loads(path.read_text())
    assert twice["fit"] == {"f32": {"flash": {"a": 2.5}, "ram": {"b": -1e-7}}}
    assert "once" not in path.read_text()
    assert twice["timing"] == {"load": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["board.toml"]


@pytest.mark.parametrize("precision", ["i16", "i8"])
@pytest.mark.usefixtures("cross")
def test_bits_that_were_not_searched_for_cost_the_same(target: Target, precision: str) -> None:
    """The fit leaves out the search, which takes most of the time."""
    shape = Shape((12, 8), activation="tanh", output="elu")
    rng = np.random.default_rng(0)
    network = random_network(shape, rng)
    seen = rng.standard_normal((64, shape.obs_dim)).astype(np.float32)
    costs = []
    for how in (quantize, quantize_plainly):
        fixed = how(network, seen, precision)
        source = fixed_source(fixed, "Fit", [], "ram", core_kernels(target.core))
        costs.append(build(network, source, target, "ram", seen[0]))
    assert costs[0] == costs[1]
