"""The Pareto picture: return against bytes and against microseconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.select import pareto_front

if TYPE_CHECKING:
    from compile.pipeline import Survey

DOTS, FRONT, CHOICE, LIMIT = "#b8c4d0", "#1f6fb2", "#d1495b", "#5c6770"


def draw_pareto(path: Path, facts: dict[str, Any], survey: Survey, index: int) -> None:
    """Write the picture: all architectures, the front, the budget's limits, the choice."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    returns = survey.leaderboard.return_mean
    within = survey.affordable.mask
    caps = {limit.name: limit for limit in survey.affordable.limits}
    memory_cap = caps["memory"].cap / 1024 if "memory" in caps else None
    memory = survey.memory["total_bytes"] / 1024
    panels = [(left, memory, "memory, KiB (predicted)", memory_cap)]
    if survey.us is None:
        right.text(0.5, 0.5, "no cycle model", ha="center", transform=right.transAxes)
        right.set_axis_off()
    else:
        margin = caps["cycles"].need / survey.us  # the gate's safety factor, the same for all
        time_cap = caps["cycles"].cap / margin[0]
        panels.append((right, survey.us, "one inference, µs (cycle model)", time_cap))
    for axes, cost, label, cap in panels:
        axes.scatter(cost[~within], returns[~within], s=5, color="#e3e8ed", label="does not fit")
        axes.scatter(cost[within], returns[within], s=5, color=DOTS, label="fits the budget")
        front = pareto_front(cost, returns)
        axes.step(cost[front], returns[front], where="post", color=FRONT, lw=1.2)
        axes.scatter(cost[front], returns[front], s=16, color=FRONT, label="Pareto front", zorder=3)
        if cap is not None:
            axes.axvline(cap, color=LIMIT, ls="--", lw=1)
        axes.scatter(
            cost[index],
            returns[index],
            s=130,
            marker="*",
            color=CHOICE,
            edgecolor="white",
            zorder=4,
            label=f"choice: {survey.names[index]}",
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    finite = returns[np.isfinite(returns)]
    low = np.percentile(finite, 2)
    pad = 0.06 * (finite.max() - low) or 1.0
    left.set_ylim(low - pad, finite.max() + pad)
    left.set_ylabel("return")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.suptitle(
        f"{facts['run']['name']} on {facts['target']['name']}: {len(survey.names)} architectures, "
        f"{facts['choice']['affordable']} within all limits (dashed)",
        fontsize=11,
    )
    figure.savefig(path, metadata={"Software": None})
