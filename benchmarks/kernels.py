"""Cycles, instructions, bytes and error of this project's kernels beside those of other tools.

    python benchmarks/kernels.py --json build/kernels.json

Every line is compiled with the target's compiler and run on the emulated core in this very run;
cycles are the project's model (cold caches, P = 2), not measurements on a chip.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kernel_peers as peers
import numpy as np

from compile.device import _step
from compile.lower import c as lowering
from compile.network import ACTIVATIONS, Layer, Network
from compile.quantize import quantize
from targets.emulator import Emulator
from targets.target import Target, load_target
from targets.toolchain import link_image, policy_sizes

NETS = ("4", "16", "64", "64,64", "256,256,256")
PRECISIONS = ("f32", "i16", "i8", "i8x")
WIDTHS = (4, 8, 16, 32, 64)  # of the random networks
MAIN = (
    '#include "policy.h"\nstatic float o[POLICY_OBS_DIM], a[POLICY_ACT_DIM];\n'
    "int main(void) { policy_step(o, a); return 0; }\n"
)
PEER_FLAGS = (("-Os",), ("-O2",), ("-O3", "-ffast-math"))  # the best of them counts


def network_of(name: str, obs_dim: int, activation: str, seed: int = 0) -> Network:
    """A network with random weights of the usual size and actions inside the range."""
    rng = np.random.default_rng(seed)
    sizes = (obs_dim, *map(int, name.split(",")), 4)
    layers = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        size = 0.3 if last else 1.0
        layers.append(
            Layer(
                f"layer_{index}",
                (size * rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32),
                (0.1 * rng.standard_normal(n_out)).astype(np.float32),
                "clip" if last else activation,
            )
        )
    return Network(tuple(layers))


def measure(
    source: str, network: Network, target: Target, include: list[Path], observations: Any
) -> dict[str, Any]:
    """Compile a policy.c and run it: figures of one line of the table."""
    with tempfile.TemporaryDirectory(prefix="hyperppo-bench-") as temporary:
        folder = Path(temporary)
        (folder / "policy.h").write_text(lowering.policy_header(network, "Benchmark", []))
        (folder / "policy.c").write_text(source)
        (folder / "main.c").write_text(MAIN)
        elf = folder / "policy.elf"
        image = link_image(
            target,
            [folder / "main.c"],
            elf,
            policy_source=folder / "policy.c",
            include=[folder, *include],
        )
        sizes = policy_sizes(elf, image.stack_bytes)
        line: dict[str, Any] = {}
        for wait_states in (5, 0):
            core = Emulator(elf, target.with_flash_wait_states(wait_states), taken_branch=2)
            before = core.instructions
            line[f"cycles_ws{wait_states}"] = _step(core, observations[0], 4)[1]
            line["instructions"] = core.instructions - before
        untimed = Emulator(elf, target, timed=False)
        actions = np.stack([_step(untimed, row, 4)[0] for row in observations])
    return {
        **line,
        "code_bytes": sizes.text,
        "constants_bytes": sizes.rodata + sizes.data,
        "ram_bytes": sizes.bss,
        "stack_bytes": sizes.stack,
        "actions": actions,
    }


def lines_of(
    name: str,
    obs_dim: int,
    activation: str,
    include: dict[str, Path],
    target: Target,
    compared: bool,
) -> list[dict[str, Any]]:
    """All the table's lines for one network; `compared`: with other tools' beside ours."""
    network = network_of(name, obs_dim, activation)
    rng = np.random.default_rng(1)
    seen = rng.standard_normal((1024, obs_dim)).astype(np.float32)
    probes = seen[:16]
    exact = network.forward(probes)
    core = lowering.core_kernels(target.core)

    def ours(precision: str) -> str:
        if precision == "f32":
            return lowering.policy_source(network, "Benchmark", [], "flash", core)
        fixed = quantize(network, seen, precision)
        return lowering.fixed_source(fixed, "Benchmark", [], "flash", core)

    lines = [(f"hyperppo {p}", ours(p), [target], []) for p in PRECISIONS]
    portable = lowering.policy_source(network, "Benchmark", [], "flash", lowering.CoreKernels())
    flags = [dataclasses.replace(target, optimise=f) for f in PEER_FLAGS]
    lines.append(("hyperppo f32, portable C", portable, [target], []))
    if compared:
        if len(network.layers) > 3:
            flags = flags[-1:]  # the large one takes minutes a line
        lines.append(("plain loops", peers.plain_loops(network), flags, []))
        builders: dict[str, Callable[[Network], str]] = {
            "CMSIS-DSP": peers.cmsis_dsp,
            "emlearn": peers.emlearn,
        }
        for tool, folder in include.items():
            private = folder.parent / "PrivateInclude"  # CMSIS-DSP's second folder of headers
            lines.append((tool, builders[tool](network), flags, [folder, private]))
    results = []
    for tool, source, targets, folders in lines:
        tried = [measure(source, network, t, folders, probes) for t in targets]
        best = min(tried, key=lambda line: line["cycles_ws5"])
        error = float(np.abs(best.pop("actions") - exact).max())
        comparable = tool != "emlearn"  # another activation
        results.append(
            {"net": name, "tool": tool, **best, "max_error": error if comparable else None}
        )
        show(results[-1])
    return results


def show(line: dict[str, Any]) -> None:
    """One line of the table, as Markdown."""
    error = "" if line["max_error"] is None else f"{line['max_error']:.0e}"
    cells = [line["net"], line["tool"], *(f"{line[k]:,}" for k in COLUMNS.values()), error]
    print("| " + " | ".join(cells) + " |", flush=True)


COLUMNS = {
    "cycles WS=5": "cycles_ws5",
    "cycles WS=0": "cycles_ws0",
    "instructions": "instructions",
    "code B": "code_bytes",
    "constants B": "constants_bytes",
    "RAM B": "ram_bytes",
    "stack B": "stack_bytes",
}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activation", choices=ACTIVATIONS, default="leaky_relu")
    parser.add_argument("--no-peers", action="store_true", help="only this project's kernels")
    parser.add_argument("--obs-dim", type=int, default=22)
    parser.add_argument("--random", type=int, default=20, help="random networks beside the five")
    parser.add_argument("--net", action="append", help="only these (repeat)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    target = load_target("crazyflie21")
    rng = np.random.default_rng(0)
    drawn: dict[str, None] = {}
    while len(drawn) < arguments.random:
        widths = rng.choice(WIDTHS, rng.integers(1, 5))
        drawn[",".join(map(str, widths))] = None
    names = arguments.net or [*NETS, *drawn]
    compared = arguments.activation == "leaky_relu" and not arguments.no_peers
    include = peers.fetch(Path("build/peers")) if compared else {}
    print("| net | tool | " + " | ".join(COLUMNS) + " | max error |")
    print("|---|---|" + "---:|" * (len(COLUMNS) + 1))
    lines = []
    for name in names:
        lines += lines_of(name, arguments.obs_dim, arguments.activation, include, target, compared)
    if arguments.json:
        document = {
            "activation": arguments.activation,
            "obs_dim": arguments.obs_dim,
            "cycles": "model: cold caches, P = 2",
            "command": "python benchmarks/kernels.py " + " ".join(sys.argv[1:]),
            "lines": lines,
            "recorded": peers.RECORDED,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
