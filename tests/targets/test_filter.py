import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.cycles import fit_cycles, predict_cycles
from targets.errors import TargetError
from targets.memory import fit_memory, predict_memory
from targets.model_float import code_terms, cycle_terms
from targets.shapes import ACTIVATIONS, PRECISIONS, Layers, layers
from targets.target import Target
from targets.terms import model_of
from targets.toolchain import PolicySizes

WIDTHS = (4, 8, 16, 32, 64, 128, 256)
SPACE = [a for depth in range(1, 5) for a in itertools.product(WIDTHS, repeat=depth)]
TABLE = np.array([(*a, 0, 0, 0)[:4] for a in SPACE])
# Only architectures of width 4 tell the eight-row kernel from what is always there.
NARROW = [SPACE.index((4,) * depth) for depth in (1, 2, 3)]
CYCLE_TERMS = (
    "fixed", "dense8", "layer", "panel8", "panel8_block", "panel8_input", "panel4", "panel4_block",
    "panel4_input", "panel4_loop",
)  # fmt: skip
CODE_TERMS = (
    "fixed", "layer", "dense8", "dense8_call", "dense4_call", "dense4_block", "dense4_two",
    "dense4_one",
)  # fmt: skip
CYCLES = (300.0, 90.0, 25.0, 60.0, 209.0, 31.0, 20.0, 58.0, 17.0, 4.0)


def slow_cycles(hidden: tuple[int, ...], c: dict[str, float]) -> float:
    """The formula of targets/cycles.py, written out for one architecture."""
    sizes = (18, *hidden, 4)
    total = c["fixed"] + (c["dense8"] if max(sizes[1:]) > 4 else 0.0)
    for k, o in itertools.pairwise(sizes):
        total += c["layer"]
        while o > 0:
            kind, turn = ("panel4", 4) if o <= 4 else ("panel8", 8)
            total += c[kind] + c[f"{kind}_block"] * (k // turn) + c[f"{kind}_input"] * (k % turn)
            if kind == "panel4" and k >= 24:
                total += c["panel4_loop"] * (k // 4)
            o -= 8
    return total


def slow_memory(hidden: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of constants and buffers of one architecture."""
    sizes = (18, *hidden, 4)
    padded = [4 * -(-o // 4) for o in sizes[1:]]
    constants = sum(4 * rows * (1 + k) for rows, k in zip(padded, sizes[:-1], strict=True))
    return constants, 4 * (max(padded[0::2]) + max(padded[1::2], default=0))


def with_fit(target: Target, constants: dict[str, float]) -> Target:
    """Terms that are not named cost nothing."""
    shape = layers("f32", TABLE[:1], 18, 4)
    nothing = {f"cycles_{term}": 0.0 for term in cycle_terms(shape)}
    nothing |= {f"code_{term}": 0.0 for term in code_terms(shape)}
    nothing |= {f"stack_{term}": 0.0 for term in model_of("f32").stack(shape)}
    nothing |= {f"constants_{term}": 0.0 for term in ("fixed", "tanh", "elu")}
    fit = nothing | constants
    return dataclasses.replace(target, fit={"f32.flash": fit, "f32.ram": fit})


def shapes_of(seen: object) -> Layers:
    return layers("f32", TABLE[seen], 18, 4)


CODE = (120, 40, 700, 30, 60, 136, 76, 40)
MEMORY_FIT = {
    **{f"code_{t}": float(v) for t, v in zip(CODE_TERMS, CODE, strict=True)},
    "constants_fixed": 0.0,
    "buffers_fixed": 8.0,
    "stack_fixed": 96.0,
}


def test_cycles_of_the_whole_space(target: Target) -> None:
    named = dict(zip(CYCLE_TERMS, CYCLES, strict=True))
    fitted = with_fit(target, {f"cycles_{name}": value for name, value in named.items()})
    predicted = predict_cycles(fitted, "f32", TABLE, 18, 4, "flash")
    assert predicted.shape == (2800,)
    assert np.allclose(predicted, [slow_cycles(hidden, named) for hidden in SPACE])


@pytest.mark.parametrize("weights_in", ["flash", "ram"])
def test_memory_of_the_whole_space(target: Target, weights_in: str) -> None:
    memory = predict_memory(with_fit(target, MEMORY_FIT), "f32", TABLE, 18, 4, weights_in)
    constants, buffers = np.array([slow_memory(hidden) for hidden in SPACE]).T
    assert (memory["stack_bytes"] == 96).all()
    code = memory["flash_bytes"] - constants
    assert (memory["total_bytes"] == code + constants + buffers + 8 + 96).all()
    in_ram = constants if weights_in == "ram" else 0
    assert (memory["ram_bytes"] == buffers + 8 + 96 + in_ram).all()
    # [4]: rows 4 and 4, of 18 and of 4 inputs; [8]: one layer of eight rows, one of four.
    assert code[SPACE.index((4,))] == 120 + 2 * 40 + 2 * 60 + (4 + 1) * 136 + 76
    assert code[SPACE.index((8,))] == 120 + 2 * 40 + 700 + 30 + 60 + 2 * 136
    assert code[SPACE.index((64, 64))] == 120 + 3 * 40 + 700 + 2 * 30 + 60 + 136


def test_the_filter_takes_milliseconds(target: Target) -> None:
    constants = {f"cycles_{n}": v for n, v in zip(CYCLE_TERMS, CYCLES, strict=True)} | MEMORY_FIT
    fitted = with_fit(target, constants)
    start = time.process_time()
    predict_memory(fitted, "f32", TABLE, 18, 4, "flash")
    predict_cycles(fitted, "f32", TABLE, 18, 4, "flash")
    assert time.process_time() - start < 0.05


def test_three_precisions_in_two_placements_take_milliseconds(target: Target) -> None:
    start = time.process_time()
    for precision, weights_in in itertools.product(("f32", "i16", "i8"), ("flash", "ram")):
        memory = predict_memory(target, precision, TABLE, 22, 4, weights_in)
        cycles = predict_cycles(target, precision, TABLE, 22, 4, weights_in)
        assert (memory["total_bytes"] > 0).all()
        assert (cycles > 0).all()
    assert time.process_time() - start < 0.1  # 0.04 s alone on one core


@settings(max_examples=25, deadline=None)
@given(
    constants=st.lists(st.floats(1.0, 400.0), min_size=len(CYCLE_TERMS), max_size=len(CYCLE_TERMS)),
    seed=st.integers(0, 2**16),
)
def test_a_fit_recovers_cycles(target: Target, constants: list[float], seed: int) -> None:
    """From 100 architectures' cycles the other 2700 are known."""
    named = dict(zip(CYCLE_TERMS, constants, strict=True))
    truth = np.array([slow_cycles(hidden, named) for hidden in SPACE])
    seen = np.array([*NARROW, *np.random.default_rng(seed).permutation(2800)[:100]])
    fit = fit_cycles(shapes_of(seen), truth[seen], "f32")
    predicted = predict_cycles(with_fit(target, fit), "f32", TABLE, 18, 4, "ram")
    assert np.abs(predicted / truth - 1).max() < 1e-2  # what the ridge costs at most


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(10, 900), min_size=len(CODE_TERMS), max_size=len(CODE_TERMS)))
def test_a_fit_recovers_memory(target: Target, constants: list[int]) -> None:
    code = {f"code_{name}": float(v) for name, v in zip(CODE_TERMS, constants, strict=True)}
    truth = predict_memory(with_fit(target, MEMORY_FIT | code), "f32", TABLE, 18, 4, "flash")
    seen = np.array([*NARROW, *np.random.default_rng(0).permutation(2800)[:100]])
    measured = []
    for i in seen:
        rodata, bss = slow_memory(SPACE[i])
        text = int(truth["flash_bytes"][i]) - rodata
        measured.append(PolicySizes(text, rodata, 0, bss + 8, 96))
    fit = fit_memory(target, shapes_of(seen), measured, "f32")
    predicted = predict_memory(with_fit(target, fit), "f32", TABLE, 18, 4, "flash")
    for name, values in truth.items():
        assert np.abs(predicted[name] - values).max() <= 8  # bytes that the ridge costs


def test_a_fit_never_under_estimates_its_samples(target: Target) -> None:
    rng = np.random.default_rng(1)
    seen = rng.permutation(2800)[:60]
    measured = []
    for i in seen:
        rodata, bss = slow_memory(SPACE[i])
        measured.append(PolicySizes(int(900 + rng.integers(60)), rodata, 0, bss, 90))
    fit = with_fit(target, fit_memory(target, shapes_of(seen), measured, "f32"))
    predicted = predict_memory(fit, "f32", TABLE[seen], 18, 4, "flash")["total_bytes"]
    excess = predicted - np.array([sizes.total for sizes in measured])
    assert excess.min() >= 0
    assert excess.max() < 120


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_many_at_once(target: Target, activation: str, precision: str) -> None:
    """Names for all architectures or one for each: the same figures, in either position."""
    each = [activation] * 50
    for names in ((activation, "clip"), ("leaky_relu", activation)):
        many = tuple(each if name == activation else name for name in names)
        arguments = (target, precision, TABLE[:50], 22, 4, "flash")
        assert (predict_cycles(*arguments, *names) == predict_cycles(*arguments, *many)).all()
        memory, same = predict_memory(*arguments, *names), predict_memory(*arguments, *many)
        assert all((memory[key] == same[key]).all() for key in memory)


@pytest.mark.parametrize("rows", range(1, 18))
def test_panels_of_any_width(rows: int) -> None:
    shape = layers("f32", np.array([[rows]]), 3, rows)
    assert (shape.rows == 4 * -(-rows // 4)).all()
    assert (shape.panels4 <= 1).all()


def test_bad_requests(target: Target) -> None:
    bare = dataclasses.replace(target, fit={})
    with pytest.raises(TargetError, match=r"no fitted constants for f32 .* `python -m compile.fit"):
        predict_cycles(bare, "f32", TABLE, 18, 4, "flash")
    with pytest.raises(TargetError, match="no fitted constants"):
        predict_memory(bare, "f32", TABLE, 18, 4, "ram")
    constants = {"cycles_fixed": 1.0, "code_fixed": 1.0}
    old = dataclasses.replace(target, fit={"f32.flash": constants})
    with pytest.raises(TargetError, match=r"have no cycles_dense8: run `python"):
        predict_cycles(old, "f32", TABLE, 18, 4, "flash")
    with pytest.raises(TargetError, match=r"have no code_dense8: run `python"):
        predict_memory(old, "f32", TABLE, 18, 4, "flash")
    with pytest.raises(TargetError, match="no kernels for precision 'f8'"):
        layers("f8", TABLE, 18, 4)
    with pytest.raises(TargetError, match="no kernels for activation 'gelu': leaky_relu, "):
        layers("f32", TABLE, 18, 4, "gelu")
    with pytest.raises(TargetError, match="widths, then zeros"):
        layers("f32", np.array([[4, 0, 8, 0]]), 18, 4)
    with pytest.raises(TargetError, match="one positive cycle count"):
        fit_cycles(shapes_of(slice(None)), np.zeros(2800), "f32")
    with pytest.raises(TargetError, match="compiled sizes"):
        fit_memory(target, shapes_of(slice(None)), [], "f32")
