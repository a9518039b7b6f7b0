"""The policy on the machines it runs on: a host library, and an image for the emulated core."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from targets.emulator import Emulator
    from targets.target import Target


@dataclass(frozen=True)
class Cycles:
    """Modelled cycles of one inference with cold caches, at pipeline refill P = 1 and P = 2."""

    p1: int
    p2: int


def run_host(library: Path, observations: NDArray[np.float32], act_dim: int) -> NDArray[np.float32]:
    """Actions (n, act_dim) of policy_step in a shared library, for (n, obs_dim) observations."""
    step = ctypes.CDLL(str(library.resolve())).policy_step
    pointer = np.ctypeslib.ndpointer(np.float32, ndim=1, flags="C_CONTIGUOUS")
    step.argtypes, step.restype = [pointer, pointer], None
    actions = np.full((len(observations), act_dim), np.nan, np.float32)
    for observation, action in zip(np.ascontiguousarray(observations), actions, strict=True):
        step(observation, action)
    return actions


def run_emulated(
    elf: Path, target: Target, observations: NDArray[np.float32], act_dim: int
) -> NDArray[np.float32]:
    """Actions (n, act_dim) of the image's policy_step on the emulated core."""
    from targets.emulator import Emulator

    core = Emulator(elf, target, timed=False)
    return np.stack([_step(core, observation, act_dim)[0] for observation in observations])


def count_cycles(
    elf: Path, target: Target, observation: NDArray[np.float32], act_dim: int, before: int = 0
) -> Cycles:
    """Modelled cycles of policy_step, flash caches empty at its start, after so many ``before``."""
    from targets.emulator import Emulator

    counts = []
    for refill in (1, 2):
        core = Emulator(elf, target, timed=True, taken_branch=refill)
        steps = [_step(core, observation, act_dim)[1] for _ in range(before + 1)]
        counts.append(steps[-1])
    return Cycles(*counts)


def _step(
    core: Emulator, observation: NDArray[np.float32], act_dim: int
) -> tuple[NDArray[np.float32], int]:
    """One inference: its action and cycles. Input and output lie in the RAM behind all data."""
    source = -(-core.symbols["_bss_end"] // 16) * 16
    result = source + 4 * -(-observation.size // 4) * 4
    core.write(source, observation.astype("<f4").tobytes())
    core.write(result, b"\xff" * 4 * act_dim)  # NaN: an action that is not written shows
    before = core.cycles
    core.call("policy_step", source, result, cold=True)
    cycles = core.cycles - before
    return np.frombuffer(core.read(result, 4 * act_dim), dtype="<f4").astype(np.float32), cycles
