"""The same image in QEMU: an independent emulator agrees on outputs and instruction counts."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compile.lower.c import core_kernels, fixed_source, policy_header, policy_source
from compile.network import Layer, Network
from compile.quantize import quantize
from targets.emulator import Emulator
from targets.target import Target
from targets.toolchain import link_image

PROGRAMS = Path(__file__).parent / "programs"
# netduinoplus2 is an STM32F405 that starts at the beginning of flash, without CCM.
COMMAND = "qemu-system-arm -M netduinoplus2 -nographic -monitor none -serial none -icount shift=0"
RESULTS = 7  # words that a program leaves

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed"
)


def check(target: Target, folder: Path, policy: Path, *more: Path, entry: str = "run") -> None:
    """Runs `run(1)` .. `run(8)` in QEMU and on the emulated core, and compares."""
    flash = dataclasses.replace(target.memories["flash"], origin=0x0800_0000)
    board = dataclasses.replace(target, memories={**target.memories, "flash": flash})
    image = link_image(
        board,
        [PROGRAMS / "qemu_main.c", *more],
        folder / "image.elf",
        policy_source=policy,
        include=[policy.parent],
        entry=entry,
    )
    command = [*COMMAND.split(), "-semihosting-config", "enable=on,target=native"]
    reply = subprocess.run(
        [*command, "-kernel", image.elf], capture_output=True, text=True, timeout=60, check=False
    )
    words = [int(word, 16) for word in (reply.stdout + reply.stderr).split()]
    assert len(words) == 8 * (1 + RESULTS)

    core = Emulator(image.elf, board)

    def instructions(function: str, seed: int) -> int:
        before = core.instructions
        core.call(function, seed)
        return core.instructions - before

    for seed in range(1, 9):
        counted, *left = words[(1 + RESULTS) * (seed - 1) : (1 + RESULTS) * seed]
        empty = instructions("nothing", seed)
        assert instructions("run", seed) - empty == counted
        found = np.frombuffer(core.read(core.symbols["results"], 4 * RESULTS), "<u4")
        assert list(found) == left


def test_qemu_agrees_on_jobs_of_every_kind(target: Target, cross: str, tmp_path: Path) -> None:
    check(target, tmp_path, PROGRAMS / "mixed.c")


@pytest.mark.parametrize("precision", ["f32", "i16", "i8", "i8x"])
@pytest.mark.usefixtures("cross")
def test_qemu_agrees_on_a_policy(target: Target, tmp_path: Path, precision: str) -> None:
    """Generated code with this core's kernels; 20 and 13 units: whole and broken panels."""
    rng = np.random.default_rng(1)
    sizes = [(18, 20, "leaky_relu"), (20, 13, "leaky_relu"), (13, 4, "clip")]
    layers = [
        Layer(f"layer_{i}", weight.astype(np.float32), np.zeros(b, np.float32), activation)
        for i, (a, b, activation) in enumerate(sizes)
        for weight in [rng.standard_normal((b, a)) / np.sqrt(a)]
    ]
    network = Network(tuple(layers), negative_slope=0.2)
    kernels = core_kernels(target.core)
    if precision == "f32":
        source = policy_source(network, "T", ["x"], "flash", kernels)
    else:
        seen = rng.standard_normal((100, 18)).astype(np.float32)
        source = fixed_source(quantize(network, seen, precision), "T", ["x"], "flash", kernels)
    (tmp_path / "policy.h").write_text(policy_header(network, "T", ["x"]))
    (tmp_path / "policy.c").write_text(source)
    run = PROGRAMS / "policy_run.c"
    check(target, tmp_path, tmp_path / "policy.c", run, entry="policy_step")
