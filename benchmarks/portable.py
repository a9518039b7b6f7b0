"""Bytes and instructions of the portable fixed-point kernels on cores without a cycle model.

    python benchmarks/portable.py [--obs-dim 33] [--nets 4 16 64,64] [--json FILE]

Cortex-M0+ (rp2040) and Cortex-M7 (stm32h743), leaky ReLU and clip. Instructions are counted on the
emulated core; how many cycles they take nobody has modelled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import unicorn
from kernels import MAIN, network_of
from rich.console import Console
from rich.table import Table

from compile.device import _step
from compile.lower import c as lowering
from compile.machine_code import sizes_of
from compile.quantize import quantize
from targets.emulator import Emulator
from targets.target import load_target
from targets.toolchain import link_image

TARGETS = ("rp2040", "stm32h743")
PRECISIONS = ("i16", "i8", "i8x")


def measure(target_name: str, precision: str, net: str, obs_dim: int) -> dict[str, Any]:
    """One line of the table."""
    target = load_target(target_name)
    network = network_of(net, obs_dim, "leaky_relu")
    seen = np.random.default_rng(1).standard_normal((512, obs_dim)).astype(np.float32)
    kernels = lowering.core_kernels(target.core)
    source = lowering.fixed_source(
        quantize(network, seen, precision), "Benchmark", [], "flash", kernels
    )
    with tempfile.TemporaryDirectory(prefix="hyperppo-bench-") as temporary:
        folder = Path(temporary)
        (folder / "policy.h").write_text(lowering.policy_header(network, "Benchmark", []))
        (folder / "policy.c").write_text(source)
        (folder / "main.c").write_text(MAIN)
        image = link_image(
            target,
            [folder / "main.c"],
            folder / "policy.elf",
            policy_source=folder / "policy.c",
            include=[folder],
        )
        sizes = sizes_of(image, target, seen[:1], network.act_dim)
        core = Emulator(image.elf, target, timed=False)
        count = 0

        def one(*_: Any) -> None:
            nonlocal count
            count += 1

        core._uc.hook_add(unicorn.UC_HOOK_CODE, one)
        _step(core, seen[0], network.act_dim)
    return {
        "target": target_name,
        "precision": precision,
        "net": net,
        "code_bytes": sizes.text,
        "constants_bytes": sizes.rodata + sizes.data,
        "ram_bytes": sizes.bss,
        "stack_bytes": sizes.stack,
        "instructions": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--obs-dim", type=int, default=33)
    parser.add_argument("--nets", nargs="+", default=["4", "16", "64,64"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(title=f"Portable fixed point, {arguments.obs_dim} inputs, leaky ReLU")
    lines = []
    for name, precision, net in itertools.product(TARGETS, PRECISIONS, arguments.nets):
        lines.append(measure(name, precision, net, arguments.obs_dim))
    for column in lines[0]:
        table.add_column(column.removesuffix("_bytes"), justify="right")
    for line in lines:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else v for v in line.values()))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
