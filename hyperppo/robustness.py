"""`hyperppo robustness`: on which vehicles a policy flies, as heat maps.

Two maps of crash rate and tracking error: thrust/weight against motor lag, and delay against sensor
noise. In each cell the two are held at its values and all else is drawn from the plant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hyperppo.checkpoint import Run
from hyperppo.envs.quadrotor.goals import shares
from hyperppo.envs.quadrotor.plants import plant_options
from hyperppo.envs.registry import resolve_options
from hyperppo.errors import HyperPPOError
from hyperppo.evaluate import evaluate
from hyperppo.files import replacing
from hyperppo.processor import side_by_side
from hyperppo.space import Architecture, format_architecture


@dataclass(frozen=True)
class Axis:
    """One quantity of a map: a setting of the task, and the values it is held at."""

    label: str
    setting: tuple[str, str]  # below `env`
    values: tuple[float, ...]
    real: float  # a Crazyflie 2.1 as identified: the mean of drone-models' L250 and P250


MAPS = (
    (
        Axis(
            "thrust / weight", ("plant", "thrust_to_weight"), (1.4, 1.5, 1.6, 1.7, 1.8, 2.0), 1.54
        ),
        Axis(
            "motor lag (s)",
            ("plant", "motor_time_constant_s"),
            (0.03, 0.06, 0.09, 0.12, 0.16, 0.2),
            0.136,
        ),
    ),
    (
        Axis("measurement delay (10 ms)", ("noise", "delay_steps"), (0, 1, 2, 3, 4), 1),
        Axis("position and velocity noise (times)", ("noise", "scale"), (0.0, 1.0, 2.0, 4.0), 1.0),
    ),
)


@dataclass(frozen=True)
class Cell:
    """What a policy does on one kind of vehicle."""

    x: float
    y: float
    crash_rate: float
    tracking_error_m: float  # NaN where every episode crashed at once


def measure(
    run: Run,
    architecture: Architecture,
    scenario: str,
    plant: str | None,
    episodes: int,
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[list[Cell]]:
    """The cells of each of `MAPS`, row by row; raises HyperPPOError for other tasks."""
    if run.task != "quadrotor":
        raise HyperPPOError(f"{run.path} was not trained on the quadrotor: nothing to map")
    base = resolve_options(run.task, run.config.env)
    base["scenarios"] = shares(scenario)
    if plant:
        base |= resolve_options(run.task, {**base, **plant_options(plant)})
    places = [(m, x, y) for m, (ax, ay) in enumerate(MAPS) for y in ay.values for x in ax.values]
    done = [0]

    def fly(m: int, x: float, y: float) -> Cell:
        options = copy.deepcopy(base)
        for axis, value in zip(MAPS[m], (x, y), strict=True):
            group, name = axis.setting
            options[group][name] = (value, value)
        board = evaluate(run, [architecture], episodes, seed, env_options=options)
        done[0] += 1
        progress(done[0] / len(places))
        error = board.metrics["tracking_error_m"][0]
        return Cell(x, y, float(board.metrics["crash_rate"][0]), float(error))

    cells = side_by_side([partial(fly, *place) for place in places])
    return [
        [cell for cell, place in zip(cells, places, strict=True) if place[0] == m]
        for m in range(len(MAPS))
    ]


def report(architecture: Architecture, scenario: str, maps: list[list[Cell]]) -> dict[str, Any]:
    """Plain data for JSON; an error that does not exist is null."""

    def plain(cell: Cell) -> dict[str, float | None]:
        return {k: v if np.isfinite(v) else None for k, v in asdict(cell).items()}

    return {
        "architecture": format_architecture(architecture),
        "scenario": scenario,
        "maps": [
            {"x": ax.label, "y": ay.label, "cells": [plain(cell) for cell in cells]}
            for (ax, ay), cells in zip(MAPS, maps, strict=True)
        ],
    }


def draw(title: str, maps: list[list[Cell]], path: Path) -> None:
    """Draw the maps as a PNG: crash rates above, errors below; a ring marks the real vehicle."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(MAPS), figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    rows = (("crash_rate", "crashes (%)", 100.0, 20.0), ("tracking_error_m", "error (m)", 1.0, 0.3))
    for column, ((ax, ay), cells) in enumerate(zip(MAPS, maps, strict=True)):
        for axis, (name, label, scale, top) in zip(axes[:, column], rows, strict=True):
            values = scale * np.array([getattr(cell, name) for cell in cells])
            grid = values.reshape(len(ay.values), len(ax.values))
            shown = axis.imshow(
                grid, origin="lower", cmap="viridis_r", vmin=0, vmax=top, aspect="auto"
            )
            for (i, j), value in np.ndenumerate(grid):
                text = "-" if np.isnan(value) else f"{value:.1f}" if scale > 1 else f"{value:.2f}"
                dark = value > 0.6 * top
                axis.text(j, i, text, ha="center", va="center", color="w" if dark else "k", size=8)
            place = [np.interp(a.real, a.values, np.arange(len(a.values))) for a in (ax, ay)]
            axis.plot(*place, "o", ms=24, mfc="none", mec="tab:red", mew=2)
            axis.set_xticks(range(len(ax.values)), [f"{v:g}" for v in ax.values])
            axis.set_yticks(range(len(ay.values)), [f"{v:g}" for v in ay.values])
            axis.set(xlabel=ax.label, ylabel=ay.label)
            figure.colorbar(shown, ax=axis, label=label, extend="max")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
