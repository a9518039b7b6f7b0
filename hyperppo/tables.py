"""What the commands print: the same rows as a table or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
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


def print_rows(
    rows: Sequence[Row],
    title: str,
    as_json: bool,
    show: Callable[[str, Any], str] | None = None,
) -> None:
    """Rows of equal keys as a table, or as JSON; `show(name, value)` makes a cell of the table."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", "\n", 1), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*[(show or _cell)(name, value) for name, value in row.items()])
    Console().print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    is_share = name in ("crash_rate", "crash_low", "crash_high", "share")
    return f"{value:.2%}" if is_share else str(value)
