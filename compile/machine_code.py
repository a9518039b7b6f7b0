"""The policy as machine code: built for the target, compared with the host's C, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile import device, verify
from compile.errors import CompileError

if TYPE_CHECKING:
    from targets.target import Target
    from targets.toolchain import Image, PolicySizes


@dataclass(frozen=True)
class OnTarget:
    """The linked program and what it costs in truth: sizes from the ELF, cycles from the core."""

    image: Image
    sizes: PolicySizes
    cycles: device.Cycles | None  # None without a cycle model
    by_data: device.CyclesByData | None  # likewise

    def us(self, target: Target) -> float | None:
        """Modelled microseconds of one inference at P = 2, without the safety margin."""
        if self.cycles is None:
            return None
        return self.cycles.p2 / target.modelled()[1] * 1e6

    def facts(self) -> dict[str, Any]:
        """The sizes as the manifest has them."""
        sizes = self.sizes
        return {
            "text_bytes": sizes.text,
            "rodata_bytes": sizes.rodata,
            "data_bytes": sizes.data,
            "bss_bytes": sizes.bss,
            "stack_bytes": sizes.stack,
            "flash_bytes": sizes.flash,
            "ram_bytes": sizes.ram,
            "total_bytes": sizes.total,
        }


def build_for_target(
    folder: Path,
    target: Target,
    weights_in: str,
    observations: NDArray[np.float32],
    expected: NDArray[np.float32],
    rejected: float,
    tolerance: float,
) -> tuple[OnTarget | None, float | None]:
    """Link the program, compare its actions with the host's, run its self-test, and measure it.

    (None, None) without the target's compiler.
    """
    from targets.toolchain import ToolchainMissing

    program = folder / program_folder(target) / program_name(target)
    program.parent.mkdir()
    try:
        image = link(folder, target, weights_in, program)
    except ToolchainMissing:
        program.parent.rmdir()
        return None, None
    if target.native:
        return run_natively(image, target, folder, observations, expected, rejected, tolerance)
    return run_emulated(image, target, observations, expected, rejected, tolerance)


def program_folder(target: Target) -> str:
    """The package's folder for what is linked."""
    return "native" if target.native else "bare_metal"


def program_name(target: Target) -> str:
    """File name of what is linked."""
    return "self_test" if target.native else "policy.elf"


def link(folder: Path, target: Target, weights_in: str, program: Path) -> Image:
    """The program: the policy with the device contract of the target's firmware, or a self-test.

    Start-up code is added where there is no operating system to do its work.
    """
    from targets.toolchain import link_image

    app = folder / f"{target.firmware}_app"
    with resources.as_file(resources.files("compile") / "self_test.c") as main:
        sources, include = [main], [folder]
        if target.firmware is not None:
            sources = [app / "src" / "hppo_device.c", app / "bare_metal" / "main.c"]
            include = [folder, app / "src"]
        return link_image(
            target,
            sources,
            program,
            policy_source=folder / "policy.c",
            include=include,
            weights_in=weights_in,
        )


def run_natively(
    image: Image,
    target: Target,
    folder: Path,
    observations: NDArray[np.float32],
    expected: NDArray[np.float32],
    rejected: float,
    tolerance: float,
) -> tuple[OnTarget, float]:
    """On this machine: all observations, bad ones, and the self-test as a program."""
    import subprocess
    import tempfile

    from targets.toolchain import compile_host_library

    act_dim, flags = expected.shape[1], (*target.isa_flags, *target.optimise)
    with tempfile.TemporaryDirectory(prefix="hyperppo-") as temporary:
        library = Path(temporary) / "policy.so"
        compile_host_library([folder / "policy.c"], library, include=[folder], flags=flags)
        actual = device.run_host(library, observations, act_dim)
        bad = device.run_host(library, verify.bad_observations(observations[0]), act_dim)
    error = verify.compare("the host's C and the machine code", expected, actual, tolerance)
    verify.check_rejection("the machine code", bad, rejected)
    check_self_test(subprocess.run([image.elf], check=False).returncode)
    return OnTarget(image, sizes_of(image, target, observations, act_dim), None, None), error


def run_emulated(
    image: Image,
    target: Target,
    observations: NDArray[np.float32],
    expected: NDArray[np.float32],
    rejected: float,
    tolerance: float,
) -> tuple[OnTarget, float]:
    """The image on the emulated core: all observations, bad ones, the self-test, and cycles."""
    elf, act_dim = image.elf, expected.shape[1]
    actual = device.run_emulated(elf, target, observations, act_dim)
    error = verify.compare("the host's C and the machine code", expected, actual, tolerance)
    bad = device.run_emulated(elf, target, verify.bad_observations(observations[0]), act_dim)
    verify.check_rejection("the machine code", bad, rejected)
    if target.firmware is None:
        check_self_test(device.call(elf, target, "main"))
    cycles, by_data = None, None
    if target.timing is not None:
        cycles = device.count_cycles(elf, target, observations[0], act_dim)
        by_data = device.cycles_by_data(elf, target, observations, act_dim)
    sizes = sizes_of(image, target, observations, act_dim)
    return OnTarget(image, sizes, cycles, by_data), error


def sizes_of(
    image: Image, target: Target, observations: NDArray[np.float32], act_dim: int
) -> PolicySizes:
    """What the policy takes: from the ELF, and the stack from the call graph.

    Where it calls the compiler's runtime library, which the call graph does not cover, the stack
    that (n, obs_dim) observations use on the emulated core counts where it is deeper.
    """
    from targets.toolchain import native_sizes, policy_sizes

    stack = image.stack_bytes
    if target.native:
        return native_sizes(image.elf, stack)
    if image.runtime:
        stack = max(stack, device.stack_depth(image.elf, target, observations, act_dim))
    return policy_sizes(image.elf, stack)


def check_self_test(mismatches: int) -> None:
    """CompileError unless all golden vectors matched."""
    if mismatches:
        raise CompileError(
            f"the self-test fails on {mismatches} golden vectors as machine code; "
            "nothing was written"
        )
