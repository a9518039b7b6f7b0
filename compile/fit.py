"""Fit a target's memory and cycle model to compiled and emulated code.

    python -m compile.fit --target crazyflie21

Writes the ``[fit.PRECISION.PLACEMENT]`` tables of the target's TOML file.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from compile import device
from compile.errors import CompileError
from compile.lower import c as lowering
from compile.machine_code import sizes_of
from compile.network import Layer, Network
from compile.quantize import quantize

if TYPE_CHECKING:
    from targets.target import Target
    from targets.toolchain import PolicySizes

OBS_DIM, ACT_DIM = 22, 4  # the quadrotor task's, with the previous action
OTHER_OBS_DIMS = range(8, 49)  # of every fourth network: conversion costs by the observation
WIDTHS = (4, 8, 16, 32, 64, 128, 256)
MAX_DEPTH = 4
CALIBRATION = 64  # random observations; more move a shift here and there, not the cost
LARGEST_MACS = 20_000  # larger ones take seconds each and add nothing to a linear model
SMALLEST = ((4,), (4, 4), (4, 4, 4), (4, 4, 4, 4), (8,), (16,), (64, 4), (64, 8))
"""Always fitted: only networks without a layer of eight rows tell that kernel from the rest."""


@dataclass(frozen=True)
class Sample:
    """One random network, compiled and emulated."""

    hidden: tuple[int, ...]
    sizes: PolicySizes
    cycles: int | None  # cold caches, P at its maximum; None without a cycle model
    obs_dim: int = OBS_DIM


@dataclass(frozen=True)
class Errors:
    """Predicted against compiled and emulated, on networks that the fit did not see."""

    cycles_mean: float | None  # relative, absolute value; None without a cycle model
    cycles_max: float | None
    total_under: int  # bytes by which the worst total was under-estimated, 0 if none was
    total_over: int


def random_network(
    hidden: Sequence[int], rng: np.random.Generator, obs_dim: int = OBS_DIM
) -> Network:
    """A network of the given widths with weights of the usual size."""
    sizes = (obs_dim, *hidden, ACT_DIM)
    layers = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in)
        layers.append(
            Layer(
                name=f"layer_{index}",
                weight=weight.astype(np.float32),
                bias=(0.1 * rng.standard_normal(n_out)).astype(np.float32),
                activation="clip" if index == len(hidden) else "leaky_relu",
            )
        )
    return Network(tuple(layers))


def draw(count: int, largest_macs: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Different architectures: uniform over depth, then over widths, none too large.

    The last ones are SMALLEST, which no fit can do without.
    """
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count - len(SMALLEST):
        depth = int(rng.integers(1, MAX_DEPTH + 1))
        hidden = tuple(int(w) for w in rng.choice(WIDTHS, depth))
        sizes = (OBS_DIM, *hidden, ACT_DIM)
        small = sum(a * b for a, b in itertools.pairwise(sizes)) <= largest_macs
        if small and hidden not in SMALLEST:
            drawn[hidden] = None
    return [*drawn, *SMALLEST]


def largest(target: Target, weights_in: str) -> int:
    """Multiply-accumulates that can be linked (weights in RAM) and emulated in a second or two."""
    if target.native:
        return LARGEST_MACS
    bytes_for_weights = target.memories[weights_in].size_bytes * 3 // 4
    return min(LARGEST_MACS, bytes_for_weights // 4)


def source_of(
    network: Network, precision: str, weights_in: str, core: str, rng: np.random.Generator
) -> str:
    """policy.c in any precision; fixed point is calibrated on random observations."""
    kernels = lowering.core_kernels(core)
    if precision == "f32":
        return lowering.policy_source(network, "Fit", [], weights_in, kernels)
    seen = rng.standard_normal((CALIBRATION, network.obs_dim)).astype(np.float32)
    fixed = quantize(network, seen, precision)
    return lowering.fixed_source(fixed, "Fit", [], weights_in, kernels)


def measure(
    hidden: tuple[int, ...],
    target: Target,
    weights_in: str,
    rng: np.random.Generator,
    precision: str = "f32",
    obs_dim: int = OBS_DIM,
) -> Sample:
    """Generate, compile and emulate one network."""
    from targets.toolchain import link_image

    network = random_network(hidden, rng, obs_dim)
    source = source_of(network, precision, weights_in, target.core, rng)
    with tempfile.TemporaryDirectory(prefix="hyperppo-fit-") as temporary:
        folder = Path(temporary)
        (folder / "policy.h").write_text(lowering.policy_header(network, "Fit", []))
        (folder / "policy.c").write_text(source)
        (folder / "main.c").write_text(
            '#include "policy.h"\n'
            "static float observation[POLICY_OBS_DIM], action[POLICY_ACT_DIM];\n"
            "int main(void) { policy_step(observation, action); return 0; }\n"
        )
        elf = folder / "policy.elf"
        image = link_image(
            target,
            [folder / "main.c"],
            elf,
            policy_source=folder / "policy.c",
            include=[folder],
            weights_in=weights_in,
        )
        observation = rng.standard_normal(obs_dim).astype(np.float32)
        sizes = sizes_of(image, target, observation[None], ACT_DIM)
        cycles = None
        if target.timing is not None:
            cycles = device.count_cycles(elf, target, observation, ACT_DIM).p2
        return Sample(hidden, sizes, cycles, obs_dim)


def fit_constants(samples: Sequence[Sample], precision: str = "f32") -> dict[str, float]:
    """The constants of targets.memory, and of targets.cycles where the samples have cycles."""
    from targets.cycles import fit_cycles
    from targets.memory import fit_memory

    table = widths_table(samples)
    obs_dim = np.array([sample.obs_dim for sample in samples])
    cycles = [sample.cycles for sample in samples if sample.cycles is not None]
    sizes = [sample.sizes for sample in samples]
    constants = fit_memory(table, obs_dim, ACT_DIM, sizes, precision)
    if cycles:
        measured = np.array(cycles, dtype=np.float64)
        constants |= fit_cycles(table, obs_dim, ACT_DIM, measured, precision)
    return constants


def evaluate(
    constants: Mapping[str, float],
    samples: Sequence[Sample],
    target: Target,
    weights_in: str,
    precision: str = "f32",
) -> Errors:
    """Errors of the fitted model on samples."""
    from targets.cycles import predict_cycles
    from targets.memory import predict_memory

    key = f"{precision}.{weights_in}"
    fitted = dataclasses.replace(target, fit={**target.fit, key: dict(constants)})
    obs_dim = np.array([sample.obs_dim for sample in samples])
    arguments = (fitted, precision, widths_table(samples), obs_dim, ACT_DIM, weights_in)
    cycles = [sample.cycles for sample in samples if sample.cycles is not None]
    relative = np.abs(predict_cycles(*arguments) / np.array(cycles) - 1) if cycles else None
    totals = np.array([sample.sizes.total for sample in samples])
    excess = predict_memory(*arguments)["total_bytes"] - totals
    return Errors(
        None if relative is None else float(relative.mean()),
        None if relative is None else float(relative.max()),
        int(max(0, -excess.min())),
        int(max(0, excess.max())),
    )


def widths_table(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(n, MAX_DEPTH) hidden widths, zero padded on the right."""
    rows = [sample.hidden + (0,) * (MAX_DEPTH - len(sample.hidden)) for sample in samples]
    return np.array(rows, dtype=np.int64)


def write_fit(path: Path, tables: Mapping[str, Mapping[str, float]], comment: str) -> None:
    """Replace the ``[fit.*]`` tables at the end of a target file, in one step."""
    text = path.read_text(encoding="utf-8")
    kept = re.split(r"^(?:# [^\n]*\n)*\[fit\.", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = ["", f"# {comment}"]
    for key, constants in tables.items():
        lines += [f"[fit.{key}]"]
        lines += [f"{name} = {value:.6g}" for name, value in constants.items()] + [""]
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(kept.rstrip() + "\n" + "\n".join(lines), encoding="utf-8")
    temporary.replace(path)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    help="Fit a target's cost model to compiled and emulated code.\n\n"
    "Example: python -m compile.fit --target crazyflie21"
)
def fit(
    target_name: Annotated[str, typer.Option("--target", help="Target to fit.")],
    samples: Annotated[int, typer.Option(help="Networks to fit.", min=40)] = 120,
    held_out: Annotated[
        int, typer.Option(help="Networks more, to state the errors on.", min=1)
    ] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    precision: Annotated[
        str | None, typer.Option(help="Only this one of f32, i16, i8, i8x.", show_default=False)
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the held-out errors as JSON.")
    ] = False,
) -> None:
    """Fit every precision in both placements and write the target's TOML."""
    from targets.errors import TargetError

    try:
        errors = run_fit(target_name, samples, held_out, seed, precision)
    except (CompileError, TargetError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if json_output:
        typer.echo(json.dumps({key: dataclasses.asdict(e) for key, e in errors.items()}))
        return
    for key, found in errors.items():
        cycles = "no cycle model"
        if found.cycles_mean is not None and found.cycles_max is not None:
            cycles = f"cycles {found.cycles_mean:.2%} mean, {found.cycles_max:.2%} max"
        typer.echo(
            f"{key}, {held_out} held out: {cycles}; memory under by at most {found.total_under} B, "
            f"over by at most {found.total_over} B"
        )


def run_fit(
    target_name: str, count: int, held_out: int, seed: int, precision: str | None = None
) -> dict[str, Errors]:
    """Measure, fit, evaluate and write; returns the held-out errors by precision and placement."""
    from rich.console import Console
    from rich.progress import Progress

    from targets.target import WEIGHTS_IN, load_target, targets_folder
    from targets.toolchain import find_cross

    target = load_target(target_name)
    known = target.precisions
    if precision not in (None, *known):
        raise CompileError(f"--precision takes one of {', '.join(known)}, not '{precision}'")
    find_cross(target)
    tables = {key: dict(constants) for key, constants in target.fit.items()}
    errors: dict[str, Errors] = {}
    wanted = known if precision is None else (precision,)
    with Progress(console=Console(stderr=True)) as bar:
        for kind, weights_in in itertools.product(wanted, WEIGHTS_IN):
            key = f"{kind}.{weights_in}"
            rng = np.random.default_rng(seed)
            drawn = draw(count + held_out, largest(target, weights_in), rng)
            task = bar.add_task(key, total=len(drawn))
            taken = []
            for number, hidden in enumerate(drawn):
                other = number % 4 == 3
                obs_dim = int(rng.choice(OTHER_OBS_DIMS)) if other else OBS_DIM
                taken.append(measure(hidden, target, weights_in, rng, kind, obs_dim))
                bar.advance(task)
            tables[key] = fit_constants(taken[held_out:], kind)
            errors[key] = evaluate(tables[key], taken[:held_out], target, weights_in, kind)
    comment = f"Fitted by `python -m compile.fit --target {target_name}`: {count} networks each"
    write_fit(targets_folder() / f"{target_name}.toml", tables, f"{comment}, seed {seed}.")
    return errors


if __name__ == "__main__":
    app()
