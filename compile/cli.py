"""``hyperppo-compile``: the command line of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compile.errors import CompileError

if TYPE_CHECKING:
    from compile.package import Package

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

EXAMPLE = """Puts the best policy that a budget affords on a microcontroller, with proof.

Chooses among all architectures of a trained run, estimates the weights, exports ONNX, lowers it
to C, compiles that for the host and the target, verifies every step on real observations, and
writes one folder with everything.

Example: hyperppo-compile --target crazyflie21 --budget-kb 16

With --onnx it compiles a feed-forward policy that others trained and exported.
"""


@app.command(help=EXAMPLE)
def compile_command(
    target: Annotated[str, typer.Option(help="Board to compile for, such as crazyflie21.")],
    budget_kb: Annotated[
        str | None,
        typer.Option(help="Cap on all memory: code, constants, buffers, stack.", metavar="KIB"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Trained run; default: the one that ships.", show_default=False),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Exported feed-forward policy, instead of a run.", show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="With --onnx: which of several outputs is the action.", metavar="NAME"),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="With --onnx: .npy or .npz of observations (n, obs_dim) of that policy.",
            show_default=False,
        ),
    ] = None,
    max_us: Annotated[
        str | None,
        typer.Option(help="Cap on one inference, modelled, with margin.", metavar="US"),
    ] = None,
    ram_kb: Annotated[
        str | None, typer.Option(help="Cap on RAM, stack included.", metavar="KIB")
    ] = None,
    flash_kb: Annotated[str | None, typer.Option(help="Cap on flash.", metavar="KIB")] = None,
    at_least: Annotated[
        str,
        typer.Option(
            help="Take the cheapest with this share of the best affordable return (0..1).",
            metavar="SHARE",
        ),
    ] = "1.0",
    arch: Annotated[
        str | None, typer.Option(help="This architecture instead of a choice: 64,64.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="f32, i16, i8, i8x (int8 weights, plain) or auto: the cheapest of i8, i16 and "
            "f32 that loses at most 1% of the return in the simulator, or, with --onnx, errs by "
            "at most 1% of the actions' spread; default: the target's, f32 for --onnx without "
            "--calibration.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="c, or tflm: a TensorFlow Lite for Microcontrollers model and C++ around it.",
            metavar="NAME",
        ),
    ] = "c",
    tflm_root: Annotated[
        Path | None,
        typer.Option(
            help="TFLM's sources (a tflite-micro checkout), to build and link with.",
            show_default=False,
        ),
    ] = None,
    weights_in: Annotated[
        str | None, typer.Option(help="flash or ram; default: the target's.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Package folder; default: build/TARGET.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rollouts for verification.", min=0)] = 0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the manifest as JSON, progress to stderr.")
    ] = False,
    list_targets: Annotated[
        bool,
        typer.Option(
            "--list-targets",
            help="Print the known targets and exit.",
            is_eager=True,
            callback=lambda wanted: show_targets() if wanted else None,
        ),
    ] = False,
) -> None:
    """Compile a policy."""
    with one_line_errors():
        check_source(onnx, output, calibration, run, arch, at_least)
        from compile.budget import parse_budget
        from compile.pipeline import Request, compile_policy
        from compile.progress import Progress
        from hyperppo.space import parse_architecture

        request = Request(
            target=target,
            budget=parse_budget(budget_kb, ram_kb, flash_kb, max_us),
            at_least=parse_share(at_least),
            architecture=None if arch is None else parse_architecture(arch),
            run=run,
            onnx=onnx,
            output=output,
            calibration=calibration,
            precision=parse_precision(precision),
            backend=parse_backend(backend),
            tflm_root=tflm_root,
            weights_in=parse_placement(weights_in),
            out=out,
            seed=seed,
        )
        progress = Progress(lambda line: typer.echo(line, err=json_output))
        package = compile_policy(request, progress)
    if json_output:
        import json

        typer.echo(json.dumps(package.manifest, indent=2))
    else:
        show(package)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the errors meant for the user into one line on stderr and exit code 2."""
    try:
        yield
    except Exception as error:
        from hyperppo.errors import HyperPPOError
        from targets.errors import TargetError

        if not isinstance(error, CompileError | HyperPPOError | TargetError):
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


def check_source(
    onnx: Path | None,
    output: str | None,
    calibration: Path | None,
    run: Path | None,
    arch: str | None,
    at_least: str,
) -> None:
    """CompileError when an option goes with the other kind of source."""
    if onnx is None:
        for option, value in (("--output", output), ("--calibration", calibration)):
            if value is not None:
                raise CompileError(f"{option} goes with --onnx; a run brings its own")
    elif run is not None or arch is not None or at_least != "1.0":
        raise CompileError("--onnx is one policy: --run, --arch and --at-least choose among many")


def parse_share(text: str) -> float:
    """``--at-least``: a number above 0 and at most 1."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise CompileError(f"--at-least takes a share above 0 and at most 1, not '{text}'")
    return share


def parse_precision(text: str | None) -> str | None:
    """``--precision``."""
    if text not in (None, "f32", "i16", "i8", "i8x", "auto"):
        raise CompileError(f"--precision takes f32, i16, i8, i8x or auto, not '{text}'")
    return text


def parse_backend(text: str) -> str:
    """``--backend``: c or tflm."""
    if text not in ("c", "tflm"):
        raise CompileError(f"--backend takes c or tflm, not '{text}'")
    return text


def parse_placement(text: str | None) -> str | None:
    """``--weights-in``: flash or ram."""
    if text not in (None, "flash", "ram"):
        raise CompileError(f"--weights-in takes flash or ram, not '{text}'")
    return text


def show(package: Package) -> None:
    """The summary: what was chosen, what it costs, how exact it is, what to do next."""
    from rich.console import Console
    from rich.table import Table

    from compile.manifest import cost_rows

    facts = package.manifest
    table = Table(title=f"{facts['architecture']['name']} on {facts['target']['name']}")
    for column in ("", "predicted", "compiled"):
        table.add_column(column, justify="left" if not column else "right")
    for row in cost_rows(facts):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    numerics = facts["numerics"]
    quantization = facts["quantization"]
    stages = [name for name in numerics if "_vs_" in name and numerics[name] is not None]
    if quantization is not None:
        price = "tflm" if facts["backend"] == "tflm" else "host_c"
        stages.remove(f"onnxruntime_vs_{price}")  # of fixed point, stated by itself
    errors = [numerics[name] for name in stages]
    console.print(chosen(facts))
    console.print(
        f"all {len(errors) + 1} forms agree within {max(errors):.1e} on {numerics['observations']} "
        f"observations from {numerics['observed']}"
    )
    if facts["closed_loop"] is not None:
        from compile.source import Flown

        kernels = "TFLM's kernels" if facts["backend"] == "tflm" else "the compiled C"
        console.print(f"flown by {kernels}: {Flown(**facts['closed_loop']).text}")
    if quantization is not None:
        flown = quantization["return_fixed"]
        console.print(
            f"{facts['precision']}: actions within {quantization['error_max']:.1e} of float32, "
            f"{quantization['error_rms']:.1e} rms; "
            + (
                f"{quantization['error_share']:.2%} of their spread"
                if flown is None
                else f"return {flown:.4g}, float32's {quantization['return_float32']:.4g}"
            )
        )
    if facts["backend"] == "tflm":
        console.print(f"the budget was held against {facts['size']['compiled']['counted']}")
        if facts["cycles"]["emulated"] is None:
            console.print("no cycle model of TFLM's kernels")
    elif not facts["target"]["cycle_model"]:
        console.print(f"no cycle model of {facts['target']['name']}: time it on the device")
    if facts["backend"] == "c" and facts["toolchain"] is None:
        from targets.target import load_target
        from targets.toolchain import install_hint

        hint = install_hint(load_target(facts["target"]["name"]))
        console.print(f"not compiled for the target, all figures are predicted: {hint}")
    console.print(f"package  {package.path}\nreport   {package.path / 'report.html'}")


def chosen(facts: Mapping[str, Any]) -> str:
    """Why this policy, in a line."""
    if "onnx" in facts:
        source = facts["onnx"]
        names = f"{source['file']}: {source['input']} to {source['output']}"
        firmware = facts["target"]["firmware"]
        if firmware is None:
            return names
        return f"{names}; no {firmware}_app, as the file does not say what they mean"
    choice = facts["choice"]
    worth = {"return": choice["return_mean"], **choice["metrics"]}
    known = [f"{name} {value:.4g}" for name, value in worth.items() if value is not None]
    text = (
        f"{choice['affordable']} of {choice['considered']} architectures fit; this one: "
        f"{', '.join(known) or 'not evaluated'}"
    )
    if facts["target"]["firmware"] == "crazyflie" and not facts["crazyflie_app"]:
        text += f"; no crazyflie_app, as {facts['run']['task']} is no flight of that vehicle"
    return text


def show_targets() -> None:
    """``--list-targets``: what a policy can be compiled for; then the end."""
    from rich.console import Console
    from rich.table import Table

    from targets.target import known_targets, load_target

    table = Table(box=None)
    numbers = ("MHz", "flash", "RAM")
    for column in ("target", "core", *numbers, "precisions", "cycle model"):
        table.add_column(column, no_wrap=True, justify="right" if column in numbers else "left")
    with one_line_errors():
        for target in map(load_target, known_targets()):
            free = {name: memory.free_bytes for name, memory in target.memories.items()}
            sizes = (f"{free[n] / 1024:.0f}" if n in free else "-" for n in ("flash", "ram"))
            clock = "-" if target.clock_hz is None else f"{target.clock_hz / 1e6:g}"
            model = "none" if target.timing is None else f"±{target.error_band:.0%}"
            table.add_row(
                target.name, target.core, clock, *sizes, " ".join(target.precisions), model
            )
    Console(highlight=False).print(table)
    typer.echo("flash, RAM: KiB that the stock firmware leaves free; precisions: the default first")
    raise typer.Exit


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
