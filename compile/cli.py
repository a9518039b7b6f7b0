"""``hyperppo-compile``: the command line of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
        str,
        typer.Option(
            help="f32, i16, i8, i8x (int8 weights, plain) or auto: the cheapest of i8, i16 and "
            "f32 that loses at most 1% of the return in the simulator.",
            metavar="NAME",
        ),
    ] = "f32",
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
) -> None:
    """Compile a policy."""
    with one_line_errors():
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


def parse_share(text: str) -> float:
    """``--at-least``: a number above 0 and at most 1."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise CompileError(f"--at-least takes a share above 0 and at most 1, not '{text}'")
    return share


def parse_precision(text: str) -> str:
    """``--precision``."""
    if text not in ("f32", "i16", "i8", "i8x", "auto"):
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
    choice, numerics = facts["choice"], facts["numerics"]
    quantization = facts["quantization"]
    stages = [name for name in numerics if "_vs_" in name and numerics[name] is not None]
    if quantization is not None:
        price = "tflm" if facts["backend"] == "tflm" else "host_c"
        stages.remove(f"onnxruntime_vs_{price}")  # of fixed point, stated by itself
    errors = [numerics[name] for name in stages]
    worth = {"return": choice["return_mean"], **choice["metrics"]}
    known = [f"{name} {value:.4g}" for name, value in worth.items() if value is not None]
    console.print(
        f"{choice['affordable']} of {choice['considered']} architectures fit; this one: "
        f"{', '.join(known) or 'not evaluated'}"
    )
    console.print(
        f"all {len(errors) + 1} forms agree within {max(errors):.1e} on {numerics['observations']} "
        "recorded observations"
    )
    if quantization is not None:
        console.print(
            f"{facts['precision']}: actions within {quantization['error_max']:.1e} of float32, "
            f"{quantization['error_rms']:.1e} rms; return {quantization['return_fixed']:.4g}, "
            f"float32's {quantization['return_float32']:.4g}"
        )
    if facts["backend"] == "tflm":
        console.print(f"the budget was held against {facts['size']['compiled']['counted']}")
    elif facts["toolchain"] is None:
        from targets.target import load_target
        from targets.toolchain import install_hint

        hint = install_hint(load_target(facts["target"]["name"]))
        console.print(f"not compiled for the target, sizes and cycles are predicted: {hint}")
    console.print(f"package  {package.path}\nreport   {package.path / 'report.html'}")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
