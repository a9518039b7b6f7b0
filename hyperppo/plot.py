"""`hyperppo plot`: the learning curves of runs and the paper's figure 3, as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperppo.checkpoint import EVALUATIONS, METRICS, read_config
from hyperppo.errors import HyperPPOError
from hyperppo.files import replacing
from hyperppo.groups import SIZES
from hyperppo.ranking import SHARE_NAMES

Lines = list[dict[str, Any]]


def draw_run(run: Path, path: Path) -> dict[str, int]:
    """Draw a run to a PNG; returns how many iterations and evaluations it shows.

    Reward a step over steps, of all architectures and by their size; the task's crash rate and
    tracking error where it has them; and, where there are evaluations along the way, the returns
    and parameter counts of the max / 90% / 80% architectures (figure 3 of the paper).
    Raises HyperPPOError when there is nothing to draw.
    """
    read_config(run)
    metrics, evaluations = read_lines(run / METRICS), read_lines(run / EVALUATIONS)
    rows = bool(metrics) + bool(evaluations)
    if not rows:
        raise HyperPPOError(f"{run} has not logged an iteration yet: nothing to draw")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, 2, figsize=(11, 3.8 * rows), layout="constrained", squeeze=False
    )
    figure.suptitle(run.resolve().name)
    if metrics:
        _draw_learning(axes[0, 0], metrics)
        _draw_task(axes[0, 1], metrics)
    if evaluations:
        _draw_figure_3(axes[-1, 0], axes[-1, 1], evaluations)
    for axis in axes.flat:
        axis.set_xlabel("million steps")
        axis.set_xlim(0, max(log[-1]["steps"] for log in (metrics, evaluations) if log) / 1e6)
        axis.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
    return {"iterations": len(metrics), "evaluations": len(evaluations)}


def draw_runs(runs: Sequence[Path], path: Path) -> dict[str, int]:
    """Draw several runs, such as seeds, to one PNG: reward, tracking error and crash rate.

    One line a run and, in black, their mean as far as all of them have come. Returns how many
    iterations that is. Raises HyperPPOError when a run has nothing to draw.
    """
    logs = []
    for run in runs:
        read_config(run)
        logs.append(read_lines(run / METRICS))
        if not logs[-1]:
            raise HyperPPOError(f"{run} has not logged an iteration yet: nothing to draw")
    shared = min(len(lines) for lines in logs)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    panels = (
        ("reward", "reward a step", 1.0),
        ("tracking_error_m", "tracking error (m)", 1.0),
        ("crash_rate", "episodes that end in a crash (%)", 100.0),
    )
    for axis, (key, label, scale) in zip(axes, panels, strict=True):
        curves = []
        for run, lines in zip(runs, logs, strict=True):
            values = scale * _smooth(_column(lines, key))
            axis.plot(_column(lines, "steps") / 1e6, values, lw=0.9, alpha=0.7, label=str(run))
            curves.append(values[:shared])
        steps = _column(logs[0][:shared], "steps") / 1e6
        axis.plot(steps, np.mean(curves, axis=0), color="black", lw=1.6, label="mean")
        axis.set(xlabel="million steps", ylabel=label)
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
    return {"iterations": shared}


def read_lines(path: Path) -> Lines:
    """Every whole line of a log; a line cut off by a kill does not count."""
    lines: Lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _column(lines: Lines, key: str) -> NDArray[np.float64]:
    values = [line.get(key) for line in lines]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last 2% of the run that have a value; NaN where there is none."""
    width = max(1, len(values) // 50)
    known = ~np.isnan(values)
    sums = np.convolve(np.where(known, values, 0.0), np.ones(width))[: len(values)]
    counts = np.convolve(known, np.ones(width))[: len(values)]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _draw_learning(axis: Any, metrics: Lines) -> None:
    steps = _column(metrics, "steps") / 1e6
    axis.plot(steps, _smooth(_column(metrics, "reward")), color="black", lw=1.6, label="all")
    for i, size in enumerate(SIZES):
        rewards = _column(metrics, f"reward_by_size/{size}")
        if not np.isnan(rewards).all():
            label = size.replace("_", " ") + " parameters"
            axis.plot(steps, _smooth(rewards), lw=0.9, color=f"C{i}", label=label)
    axis.set(title="Learning curve", ylabel="reward a step")
    axis.legend(fontsize=8)


def _draw_task(axis: Any, metrics: Lines) -> None:
    """Tracking error and crash rate where the task has them; otherwise how well the critic fits."""
    steps = _column(metrics, "steps") / 1e6
    errors = _column(metrics, "tracking_error_m")
    if np.isnan(errors).all():
        axis.plot(steps, _smooth(_column(metrics, "explained_variance")))
        axis.set(title="Critic", ylabel="explained variance", ylim=(-0.05, 1.05))
        return
    axis.plot(steps, _smooth(errors), color="tab:red")
    axis.set(title="Task", yscale="log")
    axis.set_ylabel("tracking error (m)", color="tab:red")
    crashes = axis.twinx()
    crashes.plot(steps, 100 * _smooth(_column(metrics, "crash_rate")), color="tab:gray", lw=1)
    crashes.set_ylim(0, 100)
    crashes.set_ylabel("episodes that end in a crash (%)", color="tab:gray")


def _draw_figure_3(returns: Any, sizes: Any, evaluations: Lines) -> None:
    steps = _column(evaluations, "steps") / 1e6
    for rank, (share, name) in enumerate(SHARE_NAMES.items()):
        chosen = [line["shares"][rank] for line in evaluations]
        style = {"color": f"C{rank}", "label": name, "marker": "o", "ms": 3}
        mean = _column(chosen, "return_mean")
        returns.errorbar(steps, mean, yerr=_column(chosen, "return_stderr"), capsize=2, **style)
        sizes.plot(steps, _column(chosen, "params"), **style)
        assert chosen[0]["share"] == share
    count = evaluations[-1]["architectures"]
    returns.set(title=f"Best of {count} evaluated architectures", ylabel="return an episode")
    sizes.set(title="Their size", ylabel="parameters", yscale="log")
    returns.legend(fontsize=8)
