"""Fit a target's memory and cycle model to compiled and emulated code.

    python -m compile.fit --target crazyflie21

Writes the ``[fit.PRECISION.PLACEMENT]`` tables of the target's TOML file.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from compile import device
from compile.errors import CompileError
from compile.lower import c as lowering
from compile.machine_code import sizes_of
from compile.network import Layer, Network
from compile.quantize import quantize_plainly

if TYPE_CHECKING:
    from targets.target import Target
    from targets.toolchain import PolicySizes

OBS_DIM, ACT_DIM = 22, 4  # the quadrotor task's, with the previous action
OTHER_OBS_DIMS = range(8, 49)  # of every fourth network: conversion costs by the observation
OTHER_ACT_DIMS = range(1, 13)  # likewise
WIDTHS = (4, 8, 16, 32, 64, 128, 256)
MAX_DEPTH = 4
CALIBRATION = 64  # random observations; more move a shift here and there, not the cost
LARGEST_MACS = 20_000  # larger ones take seconds each and add nothing to a linear model
SMALLEST = ((4,), (4, 4), (4, 4, 4), (4, 4, 4, 4), (8,), (16,), (64, 4), (64, 8))
"""Always fitted: only networks without a layer of eight rows tell that kernel from the rest."""
SLOPES = {"leaky_relu": 0.2, "leaky_relu_any": 0.1}


@dataclass(frozen=True)
class Shape:
    """A network but for its weights; activations as `targets.shapes.ACTIVATIONS` names them."""

    hidden: tuple[int, ...]
    obs_dim: int = OBS_DIM
    act_dim: int = ACT_DIM
    activation: str = "leaky_relu"
    output: str = "clip"


@dataclass(frozen=True)
class Sample:
    """One random network, compiled and emulated."""

    shape: Shape
    sizes: PolicySizes
    cycles: int | None  # cold caches, P at its maximum; None without a cycle model


@dataclass(frozen=True)
class Errors:
    """Predicted against compiled and emulated, on networks that the fit did not see.

    Bytes: by which the worst flash or RAM was under-estimated, 0 if none was, and over-estimated.
    """

    cycles_mean: float | None  # relative, absolute value; None without a cycle model
    cycles_max: float | None
    flash_under: int
    flash_over: int
    ram_under: int
    ram_over: int


WIDE_OUTPUTS = tuple(
    Shape((8,), act_dim=act_dim, output=output)
    for output in ("clip", "tanh", "sigmoid", "elu", "relu", "identity")
    for act_dim in (7, 12)
)
"""Always fitted: few draws tell what an output activation costs by the action."""


def random_network(shape: Shape, rng: np.random.Generator) -> Network:
    """A network of the given shape with weights of the usual size."""
    sizes = (shape.obs_dim, *shape.hidden, shape.act_dim)
    layers = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((n_out, n_in)) * np.sqrt(2 / n_in)
        activation = shape.output if index == len(shape.hidden) else shape.activation
        layers.append(
            Layer(
                name=f"layer_{index}",
                weight=weight.astype(np.float32),
                bias=(0.1 * rng.standard_normal(n_out)).astype(np.float32),
                activation=activation.removesuffix("_any"),
            )
        )
    return Network(tuple(layers), negative_slope=SLOPES.get(shape.activation, 0.2))


def draw(count: int, largest_macs: int, rng: np.random.Generator) -> list[Shape]:
    """Different architectures: uniform over depth, then over widths, none too large.

    Every second one has other activations than the shipped run, every fourth other numbers of
    inputs and outputs. The last ones are SMALLEST, which no fit can do without.
    """
    from targets.shapes import ACTIVATIONS

    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count - len(SMALLEST):
        depth = int(rng.integers(1, MAX_DEPTH + 1))
        hidden = tuple(int(w) for w in rng.choice(WIDTHS, depth))
        sizes = (OBS_DIM, *hidden, ACT_DIM)
        small = sum(a * b for a, b in itertools.pairwise(sizes)) <= largest_macs
        if small and hidden not in SMALLEST:
            drawn[hidden] = None
    shapes = []
    for number, hidden in enumerate([*drawn, *SMALLEST]):
        shape = Shape(hidden)
        if number % 2 and number < len(drawn):
            activation, output = map(str, rng.choice(ACTIVATIONS, 2))
            shape = replace(shape, activation=activation, output=output)
        if number % 4 == 3:
            obs_dim, act_dim = int(rng.choice(OTHER_OBS_DIMS)), int(rng.choice(OTHER_ACT_DIMS))
            shape = replace(shape, obs_dim=obs_dim, act_dim=act_dim)
        shapes.append(shape)
    return shapes


def largest(target: Target, weights_in: str) -> int:
    """Multiply-accumulates that can be linked (weights in RAM) and emulated in a second or two."""
    if target.native:
        return LARGEST_MACS
    bytes_for_weights = target.memories[weights_in].size_bytes * 3 // 4
    return min(LARGEST_MACS, bytes_for_weights // 4)


def measure(shape: Shape, target: Target, precision: str, seed: int) -> dict[str, Sample]:
    """Generate, compile and emulate one network, with its weights in flash and in RAM.

    Fixed point is calibrated on random observations.
    """
    from targets.target import WEIGHTS_IN

    rng = np.random.default_rng(seed)
    network = random_network(shape, rng)
    kernels = lowering.core_kernels(target.core)
    seen = rng.standard_normal((CALIBRATION, network.obs_dim)).astype(np.float32)
    fixed = None if precision == "f32" else quantize_plainly(network, seen, precision)
    samples = {}
    for weights_in in WEIGHTS_IN:
        source = (
            lowering.policy_source(network, "Fit", [], weights_in, kernels)
            if fixed is None
            else lowering.fixed_source(fixed, "Fit", [], weights_in, kernels)
        )
        sizes, cycles = build(network, source, target, weights_in, seen[0])
        samples[weights_in] = Sample(shape, sizes, cycles)
    return samples


def build(
    network: Network,
    source: str,
    target: Target,
    weights_in: str,
    observation: NDArray[np.float32],
) -> tuple[PolicySizes, int | None]:
    """Bytes and, with a cycle model, cycles of a policy.c."""
    from targets.toolchain import link_image

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
        sizes, cycles = sizes_of(image, target, observation[None], network.act_dim), None
        if target.timing is not None:
            cycles = device.cycles_at(2, elf, target, observation, network.act_dim)
        return sizes, cycles


def columns(samples: Sequence[Sample]) -> tuple[Any, ...]:
    """Widths (n, MAX_DEPTH) zero padded, obs_dim (n,), act_dim (n,) and both activations (n,)."""
    shapes = [sample.shape for sample in samples]
    rows = [shape.hidden + (0,) * (MAX_DEPTH - len(shape.hidden)) for shape in shapes]
    return (
        np.array(rows, dtype=np.int64),
        np.array([shape.obs_dim for shape in shapes]),
        np.array([shape.act_dim for shape in shapes]),
        [shape.activation for shape in shapes],
        [shape.output for shape in shapes],
    )


def fit_constants(
    target: Target, samples: Sequence[Sample], precision: str = "f32"
) -> dict[str, float]:
    """The constants of targets.memory, and of targets.cycles where the samples have cycles."""
    from targets.cycles import fit_cycles
    from targets.memory import fit_memory
    from targets.shapes import layers

    shapes = layers(precision, *columns(samples))
    cycles = [sample.cycles for sample in samples if sample.cycles is not None]
    constants = fit_memory(target, shapes, [sample.sizes for sample in samples], precision)
    if cycles:
        constants |= fit_cycles(shapes, np.array(cycles, dtype=np.float64), precision)
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
    fitted = replace(target, fit={**target.fit, key: dict(constants)})
    table, obs_dim, act_dim, *activations = columns(samples)
    arguments = (fitted, precision, table, obs_dim, act_dim, weights_in, *activations)
    cycles = [sample.cycles for sample in samples if sample.cycles is not None]
    relative = np.abs(predict_cycles(*arguments) / np.array(cycles) - 1) if cycles else None
    memory = predict_memory(*arguments)
    flash = memory["flash_bytes"] - [sample.sizes.flash for sample in samples]
    ram = memory["ram_bytes"] - [sample.sizes.ram for sample in samples]
    return Errors(
        None if relative is None else float(relative.mean()),
        None if relative is None else float(relative.max()),
        *(int(max(0, end)) for excess in (flash, ram) for end in (-excess.min(), excess.max())),
    )


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
    samples: Annotated[int, typer.Option(help="Networks to fit.", min=100)] = 200,
    held_out: Annotated[
        int, typer.Option(help="Networks more, to state the errors on.", min=1)
    ] = 200,
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
        typer.echo(json.dumps({key: asdict(e) for key, e in errors.items()}))
        return
    typer.echo("| | cycles mean | cycles max | flash under / over | RAM under / over |")
    typer.echo("|---|---:|---:|---:|---:|")
    for key, found in errors.items():
        cycles = "- | -"
        if found.cycles_mean is not None and found.cycles_max is not None:
            cycles = f"{found.cycles_mean:.2%} | {found.cycles_max:.2%}"
        typer.echo(
            f"| {key} | {cycles} | {found.flash_under} / {found.flash_over} B "
            f"| {found.ram_under} / {found.ram_over} B |"
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
    with Progress(console=Console(stderr=True)) as bar, ProcessPoolExecutor() as workers:
        for kind in wanted:
            macs = min(largest(target, weights_in) for weights_in in WEIGHTS_IN)
            drawn = [*draw(count + held_out, macs, np.random.default_rng(seed)), *WIDE_OUTPUTS]
            seeds = range(seed, seed + len(drawn))
            job = partial(measure, target=target, precision=kind)
            waiting = [
                workers.submit(job, shape, seed=own)
                for shape, own in zip(drawn, seeds, strict=True)
            ]
            taken = [future.result() for future in bar.track(waiting, description=kind)]
            for weights_in in WEIGHTS_IN:
                samples = [sample[weights_in] for sample in taken]
                key = f"{kind}.{weights_in}"
                tables[key] = fit_constants(target, samples[held_out:], kind)
                errors[key] = evaluate(tables[key], samples[:held_out], target, weights_in, kind)
    comment = f"Fitted by `python -m compile.fit --target {target_name}`: {count} networks each"
    write_fit(targets_folder() / f"{target_name}.toml", tables, f"{comment}, seed {seed}.")
    return errors


if __name__ == "__main__":
    app()
