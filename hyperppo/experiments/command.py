"""`hyperppo experiment`: one figure or table of the paper by one command."""

from __future__ import annotations

import json
import shlex
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hyperppo.errors import HyperPPOError


class Name(StrEnum):
    """The experiments: those of `table.py`, which would import torch, and `mix.py`."""

    mix = "mix"
    fig3 = "fig3"
    fig4_std = "fig4-std"
    fig4_sampling = "fig4-sampling"
    fig5 = "fig5"
    fig6 = "fig6"
    fig7 = "fig7"
    table1 = "table1"
    ablate_sampling = "ablate-sampling"
    ablate_critic = "ablate-critic"
    ablate_decoder = "ablate-decoder"


def experiment(
    name: Annotated[Name, typer.Argument(help="A figure, a table or an ablation.")],
    task: Annotated[str | None, typer.Option(help="Task (default: the paper's).")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 1,
    scale: Annotated[float, typer.Option(help="Share of the paper's steps; 1 is its size.")] = 0.01,
    steps: Annotated[
        int | None, typer.Option(help="Control steps of each training, instead of --scale.")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Evaluations of all architectures a training.")
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes an architecture and evaluation.")] = 4,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    preset: Annotated[str, typer.Option(help="default or paper (docs/presets.md).")] = "default",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder (default build/NAME).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, of every training. Repeatable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Repeat a figure or table of the paper: picture, CSV, and a summary with the paper's numbers.

    The same command goes on where it was stopped; more --seeds add to what is there. `mix` is
    section III-A. See docs/experiments.md.

    Example: hyperppo experiment fig6 --task quadrotor --seeds 3 --scale 0.01
    """
    from rich.console import Console

    from hyperppo import parallel
    from hyperppo.processor import set_threads

    if min(seeds, episodes, evaluations or 1, steps or 1) < 1 or not 0 < scale <= 1:
        raise HyperPPOError(
            "--seeds, --steps, --evaluations and --episodes must be at least 1, "
            "--scale above 0 and at most 1"
        )
    if parallel.launched() > 1:
        raise HyperPPOError("an experiment is one process: give several seeds a process each")
    set_threads(threads)
    folder, console = out or Path("build") / name.value, Console(stderr=True)
    if name is Name.mix:
        _mix(folder, steps or 3_000_000, seed, as_json)
        return

    from hyperppo.experiments.report import write_report
    from hyperppo.experiments.table import EXPERIMENTS
    from hyperppo.experiments.trainings import Plan, train_all

    chosen = EXPERIMENTS[name.value]
    plan = Plan(
        out=folder,
        task=task or chosen.task,
        steps=steps or max(1, round(scale * chosen.steps)),
        seeds=range(seed, seed + seeds),
        # Evaluating everything costs more than a small training: fewer times where it is small.
        evaluations=evaluations or max(1, round(chosen.evaluations * scale ** (1 / 3))),
        episodes=episodes,
        device=device,
        preset=preset,
        overrides=set_ or [],
    )
    began = time.monotonic()
    results = train_all(chosen, plan, console)
    if results is None:
        console.print("stopped at a checkpoint: the same command goes on")
        raise typer.Exit(130)
    command = shlex.join(["hyperppo", *sys.argv[1:]])
    headline = write_report(name.value, chosen, plan, results, command)
    result = {
        "experiment": name.value,
        "task": plan.task,
        "measure": chosen.figure.measure,
        "ours": headline,
        "paper": chosen.paper,
        "trainings": [str(trained.path) for trained in results],
        "wall_s": round(time.monotonic() - began, 1),
        **{key: str(folder / f) for key, f in _FILES.items()},
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    for variant, text in headline.items():
        typer.echo(f"{variant:18} {text}")
    for key in _FILES:
        typer.echo(f"{key:18} {result[key]}")


_FILES = {"picture": "figure.png", "data": "figure.csv", "summary": "summary.md"}


def _mix(folder: Path, steps: int, seed: int, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from hyperppo.experiments import mix

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("mix", total=1.0)
        found = mix.run(folder, steps, seed, lambda done: bar.update(task, completed=done))
    summary = {key: found[key] for key in ("final_reward", "final_spread")}
    if as_json:
        typer.echo(json.dumps({**summary, "picture": str(folder / "mix.png")}))
        return
    for key, (own, mixed) in summary.items():
        typer.echo(f"{key:14} each its own data {own:.3f}   mixed {mixed:.3f}")
    typer.echo(f"{'picture':14} {folder / 'mix.png'}")
