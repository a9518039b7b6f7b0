"""What the command shows: a progress bar while it runs, a summary at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hil.harness import Progress


@contextlib.contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar on standard error, one line a stage; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    stages: dict[str, Any] = {}

    def show(stage: str, done: int, of: int) -> None:
        if stage not in stages:
            stages[stage] = bar.add_task(stage, total=of)
        bar.update(stages[stage], completed=done, total=of)

    with bar:
        yield show


def print_summary(report: dict[str, Any], data: Path, page: Path) -> None:
    """The report's main figures as a table, and where it is."""
    from rich.console import Console
    from rich.table import Table

    runs, verdict, timing = report["inferences"], report["verdict"], report["timing"]
    source = "on the chip (DWT)"
    if timing["source"] == "model":
        band = f", +-{100 * timing['band']:.0f} %" if timing["band"] else ""
        source = f"cycle model{band}"
    table = Table(title=f"Latency: {source}")
    for column in ("", "min", "median", "p99", "max"):
        table.add_column(column, justify="right" if column else "left")
    for label, key, form in (("cycles", "cycles", ",.0f"), ("microseconds", "us", ",.1f")):
        if runs[key]:
            figures = (format(runs[key][k], form) for k in ("min", "median", "p99", "max"))
            table.add_row(label, *figures)
    console = Console()
    console.print(table)
    worst = report["outputs"]["max_error"]
    console.print(
        f"self-test {_word(verdict['self_test'])}, "
        f"{runs['done']} of {runs['requested']} inferences, "
        f"outputs {_word(verdict['outputs'])}"
        + (f" (largest difference {worst:.1e})" if worst is not None else "")
        + f", {runs['misses']} deadlines of {runs['deadline_us']} us missed"
    )
    if report["stopped"]:
        console.print(f"ended early: {report['stopped']}", markup=False)
    for path in (page, data):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def print_comparison(
    rows: list[tuple[str, str, str, str]],
    names: tuple[str, str],
    warning: str | None,
    page: Path | None,
) -> None:
    """Two reports as a table, and where the page is."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for number, column in enumerate(("", *names, "change")):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    if warning:
        console.print(f"not like with like: {warning}")
    if page:
        console.print(str(page), markup=False, highlight=False, soft_wrap=True)


def _word(ok: bool) -> str:
    return "passed" if ok else "FAILED"
