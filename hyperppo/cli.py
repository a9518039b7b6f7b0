"""The `hyperppo` command."""

from __future__ import annotations

import copy
import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hyperppo.errors import HyperPPOError
from hyperppo.experiments.command import experiment

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class Algo(StrEnum):
    """What is trained."""

    csd = "csd"  # HyperPPO, one action standard deviation for all architectures
    vsd = "vsd"  # HyperPPO, one per architecture
    ppo = "ppo"  # plain PPO, one architecture


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads (default: all cores).")]


@app.callback()
def about() -> None:
    """Train one hypernetwork for every small policy, and use what it learned.

    Example: hyperppo train quadrotor --out runs/mine
    """


# Here and not from the task's own list, which would import torch.
_SCENARIOS = (
    "static, bezier, dynamic, lissajous, mix (of these four), figure8, figure8_fast, takeoff, "
    "throw, gusts"
)
_TASK = (
    "quadrotor, pendulum, brax:ant, mujoco:HalfCheetah-v5, any Gymnasium id, or your own as "
    "module:function (docs/tasks.md)."
)
_PLANT = "A vehicle: quadswarm, learning-to-fly, L250, P250, T350, wide, wider (docs/plant.md)."


@app.command()
def train(
    task: Annotated[str, typer.Argument(help=_TASK)],
    algo: Annotated[Algo, typer.Option(help="HyperPPO-CSD, HyperPPO-VSD or plain PPO.")] = Algo.csd,
    arch: Annotated[
        str | None, typer.Option(help="Hidden widths for --algo ppo, for example 64,64.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Control steps in total.")] = None,
    num_envs: Annotated[int | None, typer.Option(help="Environments.")] = None,
    meta_batch: Annotated[int | None, typer.Option(help="Architectures an iteration.")] = None,
    device: DeviceOption = "cpu",
    seed: Annotated[int, typer.Option(help="Seeds every random source.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory (default runs/TASK).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: ppo.gamma=0.995. Repeatable.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Settings to start from: default, paper, robust (docs/presets.md).")
    ] = "default",
    plant: Annotated[str | None, typer.Option(help=_PLANT)] = None,
    episodes: Annotated[int, typer.Option(help="Episodes an architecture, leaderboard.")] = 16,
    evaluate_every: Annotated[
        int,
        typer.Option(
            help="Evaluate a sample every so many steps and at the end, keep the best policies; "
            "0: keep the last."
        ),
    ] = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a run: every architecture of the search space at once.

    Ctrl-C stops at a checkpoint; the same command with --resume goes on. The leaderboard over all
    architectures is written at the end.

    Example: hyperppo train quadrotor --steps 30000000 --out runs/quadrotor
    """
    from rich.console import Console

    from hyperppo import parallel, presets
    from hyperppo import train as job
    from hyperppo.config import make_config
    from hyperppo.envs.quadrotor.plants import plant_options
    from hyperppo.envs.registry import resolve_options
    from hyperppo.evaluate import rank
    from hyperppo.processor import set_threads
    from hyperppo.space import parse_architecture
    from hyperppo.tables import print_shares

    set_threads(threads)
    parallel.join()
    console = Console(stderr=True, quiet=not parallel.is_first())
    directory = out or Path("runs") / task.replace(":", "-").replace("/", "-")
    resume = resume or (parallel.restarted() and job.has_run(directory))
    if resume:
        job.check_resumable(directory)
    else:
        given = presets.preset(task, preset)
        given |= {"task": task, "algo": algo.value, "seed": seed, "device": device}
        if arch is not None:
            given["architecture"] = parse_architecture(arch)
        if algo is Algo.ppo:
            given["meta_batch"] = parallel.processes()  # copies of the one architecture
        if parallel.processes() > 1:
            given["shards"] = parallel.processes()
        optional = {"steps": steps, "num_envs": num_envs, "meta_batch": meta_batch}
        given |= {name: value for name, value in optional.items() if value is not None}
        if plant:
            given["env"] = {**given.get("env", {}), **plant_options(plant)}
        config = make_config(given, set_ or [])
        config = make_config({**config.to_dict(), "env": resolve_options(task, config.env)})
    with job.locked(directory):
        if resume:
            trainer = job.resume(directory)
            if not trainer.env.state_dict():
                console.print(f"{trainer.config.task} cannot be saved: going on with new episodes")
        else:
            command = shlex.join(["hyperppo", *sys.argv[1:]])
            trainer = job.start(config, directory, command)
        finished = job.train(trainer, directory, console, evaluate_every)
        if not finished:
            console.print(
                f"stopped at iteration {trainer.iteration}; go on with: "
                f"hyperppo train {trainer.config.task} --resume --out {directory}"
            )
            raise typer.Exit(130)
        seed, device = trainer.config.seed, trainer.config.device
        board = rank(directory, episodes, seed, console, device=device)
    if parallel.is_first():
        print_shares(board, directory, as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    arch: Annotated[
        list[str] | None, typer.Option(help="Architecture, repeatable: --arch 4 --arch 64,64")
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every architecture; writes the leaderboard.")
    ] = False,
    episodes: Annotated[int, typer.Option(help="Episodes an architecture.")] = 16,
    scenario: Annotated[str | None, typer.Option(help=f"Only this scenario: {_SCENARIOS}.")] = None,
    plant: Annotated[str | None, typer.Option(help=_PLANT)] = None,
    sampled: Annotated[
        bool, typer.Option(help="Sample actions instead of taking the mean.")
    ] = False,
    halving: Annotated[
        bool,
        typer.Option(
            "--successive-halving",
            help="With --all: further episodes where the front of return against size is open.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seeds the episodes.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Task setting: env.spawn_hard=0. Repeatable; not with --all."),
    ] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure architectures over whole episodes, or all of them for the leaderboard.

    Crash rates come with their 95% interval; --all shows the smallest architectures that reach
    100%, 90% and 80% of the best return (scaled from the worst to the best of all).

    Example: hyperppo evaluate runs/quadrotor --arch 4 --arch 64,64 --episodes 1024
    """
    from rich.console import Console
    from rich.progress import Progress

    from hyperppo import parallel
    from hyperppo.checkpoint import load_run
    from hyperppo.config import apply_override
    from hyperppo.envs.quadrotor.goals import shares
    from hyperppo.envs.quadrotor.plants import plant_options
    from hyperppo.evaluate import evaluate as measure
    from hyperppo.evaluate import rank
    from hyperppo.processor import set_threads
    from hyperppo.space import parse_architecture
    from hyperppo.tables import print_architectures, print_shares

    if all_ == bool(arch):
        raise HyperPPOError("say what to evaluate: --arch 64,64 (repeatable) or --all")
    if halving and not all_:
        raise HyperPPOError("--successive-halving ranks every architecture: use it with --all")
    if all_ and (scenario or plant or set_):
        raise HyperPPOError("the leaderboard (--all) takes no --scenario, --plant or --set")
    set_threads(threads)
    parallel.join()
    if all_:
        console = Console(stderr=True, quiet=not parallel.is_first())
        board = rank(
            run,
            episodes,
            seed,
            console,
            deterministic=not sampled,
            halving=halving,
            device=device,
        )
        if parallel.is_first():
            print_shares(board, run, as_json)
        return
    loaded = load_run(run, device)
    architectures = [parse_architecture(text) for text in arch or []]
    for architecture in architectures:
        loaded.space.index(architecture)
    options: dict[str, Any] = {"env": copy.deepcopy(loaded.config.env)}
    if plant:
        options["env"] |= plant_options(plant)
    for override in set_ or []:
        if not override.startswith("env."):
            raise HyperPPOError(f"--set {override}: only env settings can be changed here")
        apply_override(options, override)
    if scenario:
        options["env"]["scenarios"] = shares(scenario)
    console = Console(stderr=True, quiet=not parallel.is_first())
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"{len(architectures)} architectures x {episodes} episodes", total=1.0)
        board = measure(
            loaded,
            architectures,
            episodes,
            seed,
            deterministic=not sampled,
            env_options=options["env"],
            progress=lambda fraction: bar.update(task, completed=fraction),
        )
    if parallel.is_first():
        print_architectures(board, architectures, loaded.space, run.name, as_json)


@app.command()
def robustness(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    arch: Annotated[str, typer.Option(help="Hidden widths, for example 4 or 64,64.")] = "16",
    scenario: Annotated[str, typer.Option(help=f"One of {_SCENARIOS}.")] = "static",
    plant: Annotated[str | None, typer.Option(help=_PLANT)] = None,
    episodes: Annotated[int, typer.Option(help="Episodes a cell.")] = 64,
    seed: Annotated[int, typer.Option(help="Draws vehicles, goals and starts.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Picture (default build/robustness.png).")
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Map crash rate and error over thrust/weight and motor lag, and over delay and sensor noise.

    Example: hyperppo robustness runs/quadrotor --arch 16
    """
    from rich.console import Console
    from rich.progress import Progress

    from hyperppo.checkpoint import load_run
    from hyperppo.processor import set_threads
    from hyperppo.robustness import draw, measure, report
    from hyperppo.space import parse_architecture

    set_threads(threads)
    loaded, architecture = load_run(run), parse_architecture(arch)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{arch} on every kind of vehicle", total=1.0)
        maps = measure(
            loaded,
            architecture,
            scenario,
            plant,
            episodes,
            seed,
            lambda fraction: bar.update(task, completed=fraction),
        )
    picture = out or Path("build") / "robustness.png"
    draw(
        f"{run.resolve().name}: {arch}, {scenario} goal, {episodes} episodes a cell", maps, picture
    )
    result = {**report(architecture, scenario, maps), "picture": str(picture)}
    typer.echo(json.dumps(result) if as_json else str(picture))


@app.command()
def fly(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    arch: Annotated[str, typer.Option(help="Hidden widths, for example 4 or 64,64.")] = "16",
    compare: Annotated[
        list[str] | None, typer.Option(help="Another network on the same flight; repeatable.")
    ] = None,
    scenario: Annotated[str, typer.Option(help=f"One of {_SCENARIOS}.")] = "bezier",
    plant: Annotated[str | None, typer.Option(help=_PLANT)] = None,
    seed: Annotated[int, typer.Option(help="Draws the plant, the goal and the start.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Picture (default build/flight.png); the animation beside.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fly one episode; draw it as a picture, and as an animation that a browser plays.

    Example: hyperppo fly runs/quadrotor --arch 4 --compare 64,64 --scenario bezier
    """
    from hyperppo.checkpoint import load_run
    from hyperppo.flight import animate, draw, report
    from hyperppo.flight import fly as fly_once
    from hyperppo.space import parse_architecture

    loaded = load_run(run)
    names = [arch, *(name for group in compare or [] for name in group.split())]
    architectures = [parse_architecture(name) for name in names]
    flights = [fly_once(loaded, a, scenario, seed, plant) for a in architectures]
    picture = out or Path("build") / "flight.png"
    page = picture.with_suffix(".html")
    draw(flights, picture)
    animate(flights, page)
    results = [report(flight) for flight in flights]
    if as_json:
        files = {"picture": str(picture), "animation": str(page)}
        typer.echo(json.dumps({"flights": results, **files}))
        return
    for result in results:
        for key, value in result.items():
            typer.echo(f"{key:18} {value}")
    typer.echo(f"{'picture':18} {picture}")
    typer.echo(f"{'animation':18} {page}")


app.command()(experiment)


@app.command()
def runs(
    directory: Annotated[Path, typer.Argument(help="Where runs are, or one run.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List runs and how far they have come.

    Example: hyperppo runs runs
    """
    from dataclasses import asdict

    from hyperppo.runs import list_runs
    from hyperppo.tables import print_rows

    rows = [asdict(run) for run in list_runs(directory)]
    if not rows and not as_json:
        typer.echo(f"no runs in {directory}")
        return
    print_rows(rows, str(directory), as_json)


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.")],
    space: Annotated[
        bool, typer.Option("--space", help="One run's leaderboard: returns over the space.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Picture (default build/plot.png).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the learning curve and, for a run trained with --evaluate-every, the paper's figure 3.

    Several runs, such as seeds, are drawn into the same axes, with their mean. --space draws the
    returns of all architectures instead (figures 5 and 6).

    Example: hyperppo plot runs/quadrotor --out quadrotor.png
    """
    from hyperppo.plot import draw_run, draw_runs
    from hyperppo.plot_space import draw_space

    picture = out or Path("build") / "plot.png"
    if space:
        if len(runs) != 1:
            raise HyperPPOError("--space draws one run")
        chosen = {"architectures": draw_space(runs[0], picture)}
        result: dict[str, Any] = {"runs": [str(runs[0])], **chosen, "picture": str(picture)}
        typer.echo(json.dumps(result) if as_json else str(picture))
        return
    drawn = draw_run(runs[0], picture) if len(runs) == 1 else draw_runs(runs, picture)
    result = {"runs": [str(run) for run in runs], **drawn, "picture": str(picture)}
    typer.echo(json.dumps(result) if as_json else str(picture))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Argument(help="Where to put the copy.")],
    as_json: JsonOption = False,
) -> None:
    """Copy what is needed to use a run, without what is only needed to resume it.

    Example: hyperppo export runs/quadrotor shipped/quadrotor
    """
    from hyperppo.checkpoint import export_run

    export_run(run, out)
    size = sum(f.stat().st_size for f in out.iterdir() if f.is_file())
    result = {"run": str(run), "out": str(out), "bytes": size}
    typer.echo(json.dumps(result) if as_json else f"{out}: {size / 1e6:.1f} MB")


def main() -> None:
    """Entry point: a user-facing error is one line and exit code 2."""
    try:
        app()
    except HyperPPOError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
