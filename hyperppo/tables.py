"""What the commands print: the same rows as a table or as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import load_run
from hyperppo.leaderboard import Leaderboard
from hyperppo.ranking import SHARES, smallest_within, wilson
from hyperppo.space import Architecture, SearchSpace, format_architecture

Row = dict[str, Any]


def print_architectures(
    board: Leaderboard,
    architectures: Sequence[Architecture],
    space: SearchSpace,
    title: str,
    as_json: bool,
) -> None:
    """One row an architecture; row i of `board` belongs to `architectures[i]`."""
    print_rows(board_rows(board, architectures, space), title, as_json)


def print_shares(board: Leaderboard, directory: Path, as_json: bool) -> None:
    """The paper's max / 90% / 80% architectures of a leaderboard over the whole space."""
    space = load_run(directory).space
    rows = board_rows(board, space.architectures, space)
    chosen = [
        {"share": share, **rows[smallest_within(board.return_mean, board.params, share)]}
        for share in SHARES
    ]
    print_rows(chosen, f"{directory}: {len(space)} architectures ranked", as_json)


def board_rows(
    board: Leaderboard, architectures: Sequence[Architecture], space: SearchSpace
) -> list[Row]:
    """A leaderboard as rows, the crash rate with its 95% interval (Wilson)."""
    figures = {"return_mean": board.return_mean, "return_stderr": board.return_stderr}
    for name, values in board.metrics.items():
        figures[name] = values
        if name == "crash_rate":
            figures["crash_low"], figures["crash_high"] = wilson(values, board.episodes)
    return [
        {
            "index": space.index(architecture),
            "architecture": format_architecture(architecture),
            "params": int(board.params[i]),
            "episodes": int(board.episodes[i]),
            **{name: _rounded(float(values[i])) for name, values in figures.items()},
        }
        for i, architecture in enumerate(architectures)
    ]


def _rounded(value: float) -> float | None:
    return round(value, 3 if abs(value) >= 10 else 5) if math.isfinite(value) else None


def print_rows(rows: Sequence[Row], title: str, as_json: bool) -> None:
    """Rows of equal keys as JSON, or as a table that fits a terminal."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    cells = [_cells(row) for row in rows]
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in cells[0]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cells(row: Row) -> dict[str, str]:
    """Column names and texts: what belongs together in one cell, the index left to JSON."""
    cells = {}
    for name, value in row.items():
        if name in ("index", "crash_low", "crash_high", "iterations"):
            continue
        header, text = name.replace("_", "\n", 1), str(value)
        if value is None:
            text = "-"
        elif name == "share":
            text = f"{value:.0%}"
        elif name == "crash_rate":
            header = "crash rate\n(95% interval)"
            text = f"{value:.1%} ({100 * row['crash_low']:.1f}-{100 * row['crash_high']:.1f})"
        elif name.startswith("return"):
            text = f"{value:.1f}"
        elif name == "tracking_error_m":
            header, text = "error\n(m)", f"{value:.3f}"
        elif name == "iteration":
            text = f"{value} of {row['iterations']}"
        elif name == "steps_per_s":
            header, text = "steps/s", f"{value:,.0f}"
        elif name == "reward":
            text = f"{value:.2f}"
        elif name == "age_s":
            header, text = "last\nlogged", f"{_duration(value)} ago"
        cells[header] = text
    return cells


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
