"""`hyperppo runs`: which runs there are, and how far they have come."""

from __future__ import annotations

import fcntl
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hyperppo.checkpoint import CONFIG, LOCK, METRICS, read_config
from hyperppo.errors import HyperPPOError

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class RunState:
    """One run directory at this moment."""

    name: str
    state: Literal["training", "stopped", "finished", "damaged"]
    task: str | None = None
    algo: str | None = None
    iteration: int = 0
    iterations: int | None = None
    steps_per_s: float | None = None  # median of the last iterations
    reward: float | None = None  # a step, last iteration
    age_s: float | None = None  # since the last iteration was logged


def list_runs(directory: Path) -> list[RunState]:
    """Every run directly under `directory`, the latest first; raises HyperPPOError if it is none.

    A run directory itself is a list of one.
    """
    if not directory.is_dir():
        raise HyperPPOError(f"{directory} is not a directory: say where runs are, such as runs")
    candidates = [directory] if (directory / CONFIG).exists() else sorted(directory.iterdir())
    found = [run_state(path) for path in candidates if (path / CONFIG).is_file()]
    return sorted(found, key=lambda run: run.age_s if run.age_s is not None else float("inf"))


def run_state(path: Path) -> RunState:
    """The state of one run, from its configuration, its log and its lock."""
    name = path.resolve().name
    try:
        _, config = read_config(path)
    except HyperPPOError:
        return RunState(name, "damaged")
    lines = last_lines(path / METRICS)
    last = lines[-1] if lines else {}
    iteration = int(last.get("iteration", 0))
    speeds = [line["steps_per_s"] for line in lines if line.get("steps_per_s")]
    finished = iteration >= config.iterations
    return RunState(
        name=name,
        state="training" if is_locked(path) else "finished" if finished else "stopped",
        task=config.task,
        algo=config.algo,
        iteration=iteration,
        iterations=config.iterations,
        steps_per_s=statistics.median(speeds[-20:]) if speeds else None,
        reward=last.get("reward"),
        age_s=time.time() - (path / METRICS).stat().st_mtime if lines else None,
    )


def last_lines(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of a log (`metrics.jsonl`), oldest first; empty when there are none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            start = max(0, file.tell() - _TAIL_BYTES)
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    whole = text.split("\n")[1 if start else 0 : -1]
    lines = []
    for line in whole:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # cut off when its writer was killed
    return [line for line in lines if isinstance(line, dict)]


def is_locked(path: Path) -> bool:
    """Whether a training holds the run directory."""
    try:
        with (path / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
