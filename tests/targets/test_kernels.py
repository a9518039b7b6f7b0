"""Cortex-M4F kernels against float32 arithmetic in numpy, bit for bit, over every kind of shape."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from targets.emulator import Emulator
from targets.target import Target, targets_folder
from targets.toolchain import link_image

KERNELS = targets_folder() / "cores" / "cortex_m4f" / "kernels"
LEAKS = (0.0, 2.0 / 3.0, 1.0)
# (inputs, panels of eight): every remainder, and as many inputs as panels (equal operands).
NAMES = ("dense8", "dense4", "clip")
EIGHT = [(k, 1 + k % 3) for k in range(1, 26)] + [(k, k) for k in (2, 4, 8, 16)] + [(256, 2)]
FOUR = [*range(1, 34), 64, 255, 256]
CLIPPED = range(1, 10)

Floats = NDArray[np.float32]


def dense(stream: Floats, x: Floats, rows: int, leak: float) -> Floats:
    """One panel's (1 + k, rows) stream in the kernels' order of operations, each one rounded."""
    sums = stream[0].copy()
    for weights, value in zip(stream[1:], x, strict=True):
        sums = (sums + weights * value).astype(np.float32)
    slope = np.float32(leak)
    return sums if leak == 0 else (sums + slope * np.abs(sums)).astype(np.float32)


def calls() -> list[str]:
    """Every case, a call of a kernel with constants as the generator writes them."""
    literals = [f"{leak:.9f}f" for leak in LEAKS]
    eights = [
        f"dense8_f32(stream, input, output, {k}, {panels}, {leak})"
        for (k, panels), leak in itertools.product(EIGHT, literals)
    ]
    fours = [
        f"dense4_f32(stream, input, output, {k}, {leak})"
        for k, leak in itertools.product(FOUR, literals)
    ]
    return eights + fours + [f"clip_f32(input, output, {n}, -1.0f, 0.5f)" for n in CLIPPED]


def source(cases: list[str]) -> str:
    """A policy that runs one case a call: run(case), on the arrays that the test fills."""
    kernels = "".join(
        (KERNELS / f"{n}_f32.c").read_text() for n in NAMES if any(n in c for c in cases)
    )
    numbered = "\n".join(f"    case {i}: {call}; break;" for i, call in enumerate(cases))
    return f"""#include <stddef.h>
float stream[8192], input[260], output[160];
int run(int which);
{kernels}
int run(int which)
{{
    switch (which) {{
{numbered}
    default: return 1;
    }}
    return 0;
}}
"""


def build(target: Target, folder: Path, cases: list[str]) -> Emulator:
    (folder / "policy.c").write_text(source(cases))
    (folder / "main.c").write_text("int run(int which); int main(void) { return run(0); }\n")
    policy, elf = folder / "policy.c", folder / "kernels.elf"
    link_image(target, [folder / "main.c"], elf, policy_source=policy, entry="run")
    return Emulator(elf, target, timed=False)


@pytest.fixture(scope="module", params=["-O2", "-Os", "-O3"])
def core(
    request: pytest.FixtureRequest,
    target: Target,
    cross: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Emulator:
    flags = (request.param, *(flag for flag in target.optimise if not flag.startswith("-O")))
    changed = dataclasses.replace(target, optimise=flags)
    return build(changed, tmp_path_factory.mktemp("kernels"), calls())


def run(core: Emulator, case: int, weights: Floats, x: Floats, n_out: int) -> Floats:
    canary = np.full(160, 77.0, np.float32)
    for name, values in (("stream", weights.ravel()), ("input", x), ("output", canary)):
        core.write(core.symbols[name], values.astype("<f4").tobytes())
    assert core.call("run", case) == 0
    out = np.frombuffer(core.read(core.symbols["output"], 640), "<f4")
    assert (out[n_out:] == 77.0).all(), "written beyond the end"
    return out[:n_out]


def test_dense8(core: Emulator) -> None:
    rng = np.random.default_rng(8)
    for case, ((k, panels), leak) in enumerate(itertools.product(EIGHT, LEAKS)):
        streams = rng.standard_normal((panels, 1 + k, 8)).astype(np.float32)
        x = rng.standard_normal(k).astype(np.float32)
        expected = np.concatenate([dense(stream, x, 8, leak) for stream in streams])
        assert (run(core, case, streams, x, 8 * panels) == expected).all(), (k, panels, leak)


def test_dense4(core: Emulator) -> None:
    rng = np.random.default_rng(4)
    first = len(EIGHT) * len(LEAKS)
    for case, (k, leak) in enumerate(itertools.product(FOUR, LEAKS), first):
        stream = rng.standard_normal((1 + k, 4)).astype(np.float32)
        x = rng.standard_normal(k).astype(np.float32)
        assert (run(core, case, stream, x, 4) == dense(stream, x, 4, leak)).all(), (k, leak)


def test_clip(core: Emulator) -> None:
    first = (len(EIGHT) + len(FOUR)) * len(LEAKS)
    values = [-2.0, np.nan, 0.5, 0.25, -1.0, 0.75, np.inf, -np.inf, -0.5]
    for n in CLIPPED:
        for turn in range(len(values)):
            x = np.roll(np.array(values, np.float32), turn)[:n]
            expected = np.where(np.isnan(x), -1.0, np.clip(x, -1.0, 0.5))
            assert (run(core, first + n - 1, np.zeros(1, np.float32), x, n) == expected).all()


@pytest.mark.parametrize(("k", "panels"), [(4, 4), (8, 8), (18, 2), (3, 1)])
def test_a_single_call(target: Target, cross: str, tmp_path: Path, k: int, panels: int) -> None:
    """The compiler sees all arguments, and may put equal ones into one register."""
    core = build(target, tmp_path, [f"dense8_f32(stream, input, output, {k}, {panels}, 1.0f)"])
    rng = np.random.default_rng(k)
    streams = rng.standard_normal((panels, 1 + k, 8)).astype(np.float32)
    x = rng.standard_normal(k).astype(np.float32)
    expected = np.concatenate([dense(stream, x, 8, 1.0) for stream in streams])
    assert (run(core, 0, streams, x, 8 * panels) == expected).all()
