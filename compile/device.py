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


STACK_OBSERVATIONS = 64


@dataclass(frozen=True)
class Cycles:
    """Modelled cycles of one inference with cold caches, at pipeline refill P = 1 and P = 2."""

    p1: int
    p2: int


@dataclass(frozen=True)
class CyclesByData:
    """Fewest and most cycles (P = 2, cold caches) over observations that are far apart."""

    observations: int
    least: int
    most: int

    @property
    def independent(self) -> bool:
        """Whether the time was the same for all."""
        return self.least == self.most


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


def call(elf: Path, target: Target, *functions: str) -> int:
    """Call functions without arguments of the image in turn; what the last one returns."""
    from targets.emulator import Emulator

    core = Emulator(elf, target, timed=False)
    return [core.call(function) for function in functions][-1]


def stack_depth(elf: Path, target: Target, observations: NDArray[np.float32], act_dim: int) -> int:
    """Bytes of stack that policy_step used at most, on some of the observations."""
    from targets.emulator import Emulator

    core = Emulator(elf, target, timed=False)
    core.paint_stack()
    for observation in observations[:: max(1, len(observations) // STACK_OBSERVATIONS)]:
        _step(core, observation, act_dim)
    return core.stack_depth()


def count_cycles(
    elf: Path, target: Target, observation: NDArray[np.float32], act_dim: int, before: int = 0
) -> Cycles:
    """Modelled cycles of policy_step, flash caches empty at its start, after so many ``before``."""
    refills = (1, 2)
    return Cycles(*(cycles_at(p, elf, target, observation, act_dim, before) for p in refills))


def cycles_at(
    refill: int,
    elf: Path,
    target: Target,
    observation: NDArray[np.float32],
    act_dim: int,
    before: int = 0,
) -> int:
    """The same at one pipeline refill P."""
    from targets.emulator import Emulator

    core = Emulator(elf, target, timed=True, taken_branch=refill)
    return [_step(core, observation, act_dim)[1] for _ in range(before + 1)][-1]


def cycles_by_data(
    elf: Path, target: Target, observations: NDArray[np.float32], act_dim: int, before: int = 0
) -> CyclesByData:
    """Cycles for two of the (n, obs_dim) observations, for zeros, and for one that saturates.

    With the C backend they differ only where data choose what is read from flash: the table of a
    fixed-point activation, with its weights in flash. ``before``: inferences that do not count.
    """
    from targets.emulator import Emulator

    core = Emulator(elf, target, timed=True, taken_branch=2)
    first, last = observations[0], observations[-1]
    probes = (first, last, np.zeros_like(first), np.float32(1e6) * last)
    for _ in range(before):
        _step(core, first, act_dim)
    cycles = [_step(core, probe, act_dim)[1] for probe in probes]
    return CyclesByData(len(probes), min(cycles), max(cycles))


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
