"""What an experiment leaves: `figure.csv`, `figure.png`, `summary.md`."""

from __future__ import annotations

import csv
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from hyperppo.experiments.results import Row, Trained
from hyperppo.experiments.table import Experiment
from hyperppo.experiments.trainings import Plan
from hyperppo.files import replacing


def write_report(
    name: str, experiment: Experiment, plan: Plan, results: Sequence[Trained], command: str
) -> dict[str, str]:
    """Write the three files; returns the headline by variant."""
    rows = experiment.figure.rows(results)
    _write_csv(plan.out / "figure.csv", rows)
    _draw(plan.out / "figure.png", f"{name}: {plan.task}", experiment, rows)
    headline = experiment.figure.headline(rows)
    with replacing(plan.out / "summary.md") as temporary:
        temporary.write_text(_summary(name, experiment, plan, results, headline, command))
    return headline


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _draw(path: Path, title: str, experiment: Experiment, rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(10, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    experiment.figure.draw(rows, figure)
    for axis in figure.axes:
        axis.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _summary(
    name: str,
    experiment: Experiment,
    plan: Plan,
    results: Sequence[Trained],
    headline: dict[str, str],
    command: str,
) -> str:
    same = plan.task == experiment.task
    paper = "paper" if same else f"paper ({experiment.task}: not to be compared)"
    lines = [
        f"# {name}: {experiment.title}",
        "",
        experiment.source,
        "",
        f"![{experiment.title}](figure.png)",
        "",
        f"{experiment.figure.measure}, mean ± standard deviation over seeds:",
        "",
        f"| variant | {paper} | ours | steps |",
        "|---|---|---|---|",
    ]
    for variant, ours in headline.items():
        steps = max(max(t.boards) for t in results if t.variant == variant)
        known = experiment.paper.get(variant, "not known to us")
        lines.append(f"| {variant} | {known} | {ours} | {steps / 1e6:.3g} million |")
    lines += [
        "",
        f"- task: {plan.task}; the paper's size is {experiment.steps:,} steps of "
        f"{experiment.task} and {experiment.seeds} seeds",
        f"- seeds: {', '.join(map(str, plan.seeds))}",
        f"- evaluation: {plan.episodes} episodes an architecture, deterministic actions, averaged "
        "hypernetwork",
        f"- hardware: {_hardware(plan.device)}",
        f"- date: {datetime.now(UTC):%Y-%m-%d}",
        f"- command: `{command}`",
        "",
    ]
    return "\n".join(lines)


def _hardware(device: str) -> str:
    """Processor, threads and torch's version; the GPU's name where one was used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if device.startswith("cuda") else ""
    threads = torch.get_num_threads()
    cores = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{processor}, {cores}{gpu}, torch {torch.__version__}"
