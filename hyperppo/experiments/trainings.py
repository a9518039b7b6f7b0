"""Train what an experiment needs, and evaluate every architecture along the way.

Each training is an ordinary run directory `OUT/runs/VARIANT-SEED`, its evaluations leaderboards
below it: what is there already is not done again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hyperppo import presets
from hyperppo import train as job
from hyperppo.checkpoint import CONFIG, LEADERBOARD, load_run, read_config
from hyperppo.config import RunConfig, make_config
from hyperppo.envs.registry import resolve_options
from hyperppo.errors import HyperPPOError
from hyperppo.evaluate import evaluate, rank
from hyperppo.experiments.results import Trained
from hyperppo.experiments.table import Experiment
from hyperppo.leaderboard import read_leaderboard, write_leaderboard
from hyperppo.trainer import Trainer
from hyperppo.watch import snapshot

_EVALUATIONS = "evaluations"  # RUN/evaluations/STEPS.csv, RUN/evaluations/CONDITION.csv


@dataclass(frozen=True)
class Plan:
    """How much of an experiment is done, and where."""

    out: Path
    task: str
    steps: int  # of one training, before a variant's share
    seeds: Sequence[int]
    evaluations: int  # of every architecture while a training runs, the one at its end included
    episodes: int  # an architecture and evaluation
    device: str = "cpu"
    preset: str = presets.DEFAULT  # what a variant's settings are put on top of
    overrides: Sequence[str] = ()  # `key.sub=value`, for every training


def configurations(experiment: Experiment, plan: Plan) -> dict[tuple[str, int], RunConfig]:
    """The configuration of each training by (variant, seed), seed by seed.

    Raises HyperPPOError for what cannot be trained, and for a folder that holds another training
    in its place, before anything is written.
    """
    found = {}
    for seed in plan.seeds:
        for name, variant in experiment.variants.items():
            steps = max(1, round(plan.steps * variant.steps))
            data = {"task": plan.task, "device": plan.device, "seed": seed, "steps": steps}
            settings = _over(presets.preset(plan.task, plan.preset), variant.settings)
            config = make_config({**settings, **data}, plan.overrides)
            env = resolve_options(plan.task, config.env)
            config = make_config({**config.to_dict(), "env": env})
            path = _path(plan, name, seed)
            if (path / CONFIG).exists() and _stored(path) != config:
                raise HyperPPOError(
                    f"{path} holds a training with other settings (steps, task or --set): "
                    "choose another --out"
                )
            found[name, seed] = config
    return found


def _stored(path: Path) -> RunConfig:
    """A run's configuration; options of the task that are newer than it have their defaults."""
    config = read_config(path)[1]
    return make_config({**config.to_dict(), "env": resolve_options(config.task, config.env)})


def _over(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Settings with `more` on top, section by section."""
    merged = dict(settings)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _path(plan: Plan, variant: str, seed: int) -> Path:
    name = variant.replace(" ", "-").replace(",", "-")
    return plan.out / "runs" / f"{name}-seed{seed}"


def train_all(experiment: Experiment, plan: Plan, console: Console) -> list[Trained] | None:
    """Train, or go on training, or find trained, all that the figure needs.

    None when Ctrl-C stopped a training at a checkpoint: the same command goes on from there.
    """
    configs = configurations(experiment, plan)
    for number, ((variant, seed), config) in enumerate(configs.items(), 1):
        path = _path(plan, variant, seed)
        console.print(f"{number} of {len(configs)}: {path.name}")
        if not _finish(path, config, plan, console):
            return None
        _evaluate_conditions(path, experiment.conditions, plan)
    return [_read(experiment, plan, variant, seed) for variant, seed in configs]


def _finish(path: Path, config: RunConfig, plan: Plan, console: Console) -> bool:
    """Bring one training to its end and its leaderboard; False when it was stopped before."""
    if (path / LEADERBOARD).exists():
        return True
    with job.locked(path):
        if (path / CONFIG).exists():
            trainer = job.resume(path)
        else:
            trainer = job.start(config, path, shlex.join(["hyperppo", *sys.argv[1:]]))

        def look(trainer: Trainer, out: Path, steps: int) -> None:
            if trainer.iteration == config.iterations:
                return  # the end is left to the leaderboard
            run = snapshot(trainer, out)
            board = evaluate(run, run.space.architectures, plan.episodes, config.seed)
            write_leaderboard(_board_at(out, steps), board, run.space)

        total = config.iterations * config.num_envs * config.ppo.rollout
        if not job.train(trainer, path, console, max(1, total // plan.evaluations), look):
            return False
        rank(path, plan.episodes, config.seed, console)
    return True


def _board_at(path: Path, steps: int) -> Path:
    return path / _EVALUATIONS / f"{steps:012d}.csv"


def _evaluate_conditions(path: Path, conditions: dict[str, dict[str, Any]], plan: Plan) -> None:
    run = load_run(path)
    for name, options in conditions.items():
        file = path / _EVALUATIONS / f"{name}.csv"
        if not file.exists():
            architectures = run.space.architectures
            seed = run.config.seed
            board = evaluate(run, architectures, plan.episodes, seed, env_options=options)
            write_leaderboard(file, board, run.space)


def _read(experiment: Experiment, plan: Plan, variant: str, seed: int) -> Trained:
    path = _path(plan, variant, seed)
    run = load_run(path)
    files = sorted((path / _EVALUATIONS).glob("[0-9]*.csv"))
    boards = {int(file.stem): read_leaderboard(file, run.space) for file in files}
    steps = run.config.iterations * run.config.num_envs * run.config.ppo.rollout
    return Trained(
        variant=variant,
        seed=seed,
        path=path,
        config=run.config,
        space=run.space,
        boards={**boards, steps: run.leaderboard()},
        conditions={
            name: read_leaderboard(path / _EVALUATIONS / f"{name}.csv", run.space)
            for name in experiment.conditions
        },
    )
