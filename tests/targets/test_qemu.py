"""The same image in QEMU: an independent emulator agrees on outputs and instruction counts."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from targets.emulator import Emulator
from targets.target import Target
from targets.toolchain import link_image

PROGRAMS = Path(__file__).parent / "programs"
# netduinoplus2 is an STM32F405 that starts at the beginning of flash, without CCM.
COMMAND = "qemu-system-arm -M netduinoplus2 -nographic -monitor none -serial none -icount shift=0"


def test_qemu_agrees(target: Target, cross: str, tmp_path: Path) -> None:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    flash = dataclasses.replace(target.memories["flash"], origin=0x0800_0000)
    board = dataclasses.replace(target, memories={**target.memories, "flash": flash})
    image = link_image(
        board,
        [PROGRAMS / "qemu_main.c"],
        tmp_path / "image.elf",
        policy_source=PROGRAMS / "mixed.c",
        entry="run",
    )
    command = [*COMMAND.split(), "-semihosting-config", "enable=on,target=native"]
    reply = subprocess.run(
        [*command, "-kernel", image.elf], capture_output=True, text=True, timeout=60, check=False
    )
    words = [int(word, 16) for word in (reply.stdout + reply.stderr).split()]
    assert len(words) == 8 * 8

    core = Emulator(image.elf, board)

    def instructions(function: str, seed: int) -> int:
        before = core.instructions
        core.call(function, seed)
        return core.instructions - before

    for seed in range(1, 9):
        counted, *left = words[8 * (seed - 1) : 8 * seed]
        empty = instructions("nothing", seed)
        assert instructions("run", seed) - empty == counted
        found = np.frombuffer(core.read(core.symbols["results"], 28), "<u4")
        assert list(found) == left
