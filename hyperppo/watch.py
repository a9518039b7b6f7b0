"""What a training shows while it runs: the progress line, and evaluations along the way."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hyperppo import parallel
from hyperppo.checkpoint import EVALUATIONS, Run, save_best
from hyperppo.evaluate import evaluate
from hyperppo.groups import SIZES
from hyperppo.ranking import SHARES, smallest_within
from hyperppo.tables import board_rows
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import state_of

_SAMPLE = 128  # architectures, evenly spread over the sizes of the space
_EPISODES = 4
_WORST = 0.25  # share of the architectures that the score looks at
_ERROR = "tracking_error_m"


def progress_figures(log: dict[str, float], speed: float) -> str:
    """The progress line: reward, crashes, hover error (also of small to large ones), steps/s."""
    error = log.get(_ERROR, math.nan)
    tracking = ""
    if math.isfinite(error):
        by_size = [log.get(f"{_ERROR}_by_size/{size}", math.nan) for size in SIZES]
        each = " ".join(f"{value:.2f}" if math.isfinite(value) else "-" for value in by_size)
        tracking = f" error {error:.3f} m (small to large {each})"
    return (
        f"reward {log['reward']:.2f} crash {log['crash_rate']:.1%}{tracking} "
        f"{speed / 1000:.0f}k steps/s"
    )


def snapshot(trainer: Trainer, out: Path) -> Run:
    """What a training would leave if it ended now: further steps do not change it."""
    policy = copy.deepcopy(trainer.averaged)
    norm = copy.deepcopy(trainer.observation_norm)
    return Run(out, trainer.config, trainer.space, {}, policy, norm, trainer.iteration)


def watch(trainer: Trainer, out: Path, steps: int) -> dict[str, Any]:
    """Evaluate a sample of architectures and add a line to `evaluations.jsonl`; returns it.

    The line holds the paper's max / 90% / 80% architectures of the sample, and a score: the mean
    return of its worst quarter, on the task as hard as it gets. The policy with the best score is
    kept as the run's: the last one is often more accurate, and crashes more. A watched run trains
    like one that is not: the training's own random sources are not touched.
    """
    run, space = snapshot(trainer, out), trainer.space
    picked = np.linspace(0, len(space) - 1, min(_SAMPLE, len(space))).round().astype(int)
    architectures = [space.architectures[i] for i in picked]
    board = evaluate(run, architectures, _EPISODES, trainer.config.seed)
    rows = board_rows(board, architectures, space)
    chosen = [smallest_within(board.return_mean, board.params, share) for share in SHARES]
    worst = np.sort(board.return_mean)[: math.ceil(_WORST * len(architectures))]
    score = float(worst.mean())
    line = {
        "iteration": trainer.iteration,
        "steps": steps,
        "architectures": len(architectures),
        "score": round(score, 4),
        "shares": [{"share": s, **rows[i]} for s, i in zip(SHARES, chosen, strict=True)],
    }
    state = state_of(trainer)  # of all processes
    if parallel.is_first():
        if score >= best_score(out):
            save_best(out, state)
        with (out / EVALUATIONS).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return line


def best_score(out: Path) -> float:
    """The best score so far; minus infinity before the first."""
    return max((line.get("score", -math.inf) for line in _evaluations(out)), default=-math.inf)


def _evaluations(out: Path) -> list[dict[str, Any]]:
    file = out / EVALUATIONS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
