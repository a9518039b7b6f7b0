"""report.html: one file without a network, for the person who decides whether to flash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.manifest import cost_rows
from compile.select import pareto_front

if TYPE_CHECKING:
    from compile.candidate import Candidate
    from compile.pipeline import Survey

WIDTH, HEIGHT = 560, 340  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 52
BUDGETS_KIB = (2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Chart:
    """One scatter chart in SVG coordinates; texts as shown."""

    label: str
    unit: str
    cloud: str  # path data of the architectures that fit
    beyond: str  # path data of those that do not
    front: str  # path data of the Pareto front's steps
    points: list[dict[str, Any]]  # the front: x, y, text
    choice: dict[str, Any]
    limit: float | None  # x of the budget's line
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    hidden: int  # architectures below the chart's lower edge


def write_report(
    path: Path, facts: dict[str, Any], survey: Survey, index: int, candidate: Candidate
) -> None:
    """Render the report from the manifest, the survey of all architectures and the candidate."""
    import jinja2

    board = survey.leaderboard
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compile", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        facts=facts,
        closed_loop=candidate.closed_loop,
        charts=[] if board is None else both_charts(board.return_mean, survey, index),
        width=WIDTH,
        height=HEIGHT,
        edges=(LEFT, RIGHT, TOP, BOTTOM),
        costs=cost_rows(facts),
        limits=survey.affordable.limits,
        layers=layer_rows(candidate),
        budgets=[] if board is None else best_per_budget(board.return_mean, survey),
        numerics=numeric_rows(facts),
    )
    path.write_text(html, encoding="utf-8")


def both_charts(returns: NDArray[np.float64], survey: Survey, index: int) -> list[Chart]:
    """Return against memory and, with a cycle model, against time, with the budget's lines."""
    limits = {limit.name: limit for limit in survey.affordable.limits}
    kib = survey.memory["total_bytes"] / 1024
    memory_cap = limits["memory"].cap / 1024 if "memory" in limits else None
    charts = [chart(returns, survey, index, kib, ("memory", "KiB"), memory_cap)]
    if survey.us is not None:
        margin = float(limits["cycles"].need[0] / survey.us[0])
        time_cap = limits["cycles"].cap / margin
        axis = ("one inference, cycle model", "µs")
        charts.append(chart(returns, survey, index, survey.us, axis, time_cap))
    return charts


def layer_rows(candidate: Candidate) -> list[dict[str, Any]]:
    """What each layer costs: multiply-accumulates and bytes of constants, padding included."""
    from compile.lower.c.layout import lay_out

    macs = candidate.network.macs
    return [
        {
            "name": layout.name,
            "shape": f"{layout.n_in} → {layout.n_out}",
            "activation": layout.activation.replace("_", " "),
            "macs": layout.n_in * layout.n_out,
            "bytes": 4 * layout.constants,
            "share": layout.n_in * layout.n_out / macs,
        }
        for layout in lay_out(candidate.network)
    ]


def best_per_budget(returns: NDArray[np.float64], survey: Survey) -> list[dict[str, Any]]:
    """The best architecture of each memory budget within the target's other limits."""
    total = survey.memory["total_bytes"]
    others = np.ones(len(total), bool)
    for limit in survey.affordable.limits:
        if limit.name != "memory":
            others &= limit.need <= limit.cap
    rows = []
    for kib in BUDGETS_KIB:
        fits = np.flatnonzero((total <= kib * 1024) & others & np.isfinite(returns))
        if fits.size:
            best = int(fits[np.argmax(returns[fits])])
            rows.append(
                {
                    "kib": kib,
                    "count": fits.size,
                    "name": survey.names[best],
                    "return": float(returns[best]),
                    "bytes": int(total[best]),
                    "us": None if survey.us is None else float(survey.us[best]),
                }
            )
    return rows


def numeric_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(comparison, largest difference) of the comparisons that a backend makes."""
    numerics, ran = facts["numerics"], "not run"
    if facts["machine_code"]:
        ran = facts["machine_code"]["ran"]
    titles = {"source_vs_onnxruntime": f"{numerics['source']} → policy.onnx in onnxruntime"}
    if facts["backend"] == "tflm":
        titles |= {
            "onnxruntime_vs_tflm": "onnxruntime → policy.tflite in TFLM's interpreter",
            "tflm_vs_target": f"TFLM's interpreter → machine code for the target, {ran}",
        }
    else:
        titles |= {
            "onnxruntime_vs_host_c": "onnxruntime → policy.c on this machine",
            "host_c_vs_target": f"policy.c on this machine → machine code for the target, {ran}",
        }
    return [
        (title, "not compiled" if numerics[name] is None else f"{numerics[name]:.2g}")
        for name, title in titles.items()
    ]


def chart(
    returns: NDArray[np.float64],
    survey: Survey,
    index: int,
    cost: NDArray[np.float64],
    axis: tuple[str, str],
    limit: float | None,
) -> Chart:
    """Return against a cost on a logarithmic axis."""
    finite = np.isfinite(returns)
    top = float(returns[finite].max())
    low = float(min(np.percentile(returns[finite], 2), returns[index]))
    pad = 0.06 * (top - low) or 1.0
    bottom, top = low - pad, top + pad
    edges = np.log10([cost.min() / 1.15, max(cost.max(), limit or 0.0) * 1.15])

    def x(value: float) -> float:
        share = (np.log10(value) - edges[0]) / (edges[1] - edges[0])
        return round(float(LEFT + share * (WIDTH - LEFT - RIGHT)), 1)

    def y(value: float) -> float:
        share = (value - bottom) / (top - bottom)
        return round(float(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)), 1)

    def dots(mask: NDArray[np.bool_]) -> str:
        shown = np.flatnonzero(mask & finite & (returns >= bottom))
        return "".join(f"M{x(cost[i])} {y(returns[i])}h0" for i in shown)

    def point(i: int) -> dict[str, Any]:
        text = f"{survey.names[i]}: {cost[i]:.3g} {axis[1]}, return {returns[i]:.4g}"
        return {"x": x(cost[i]), "y": y(returns[i]), "text": text}

    points = [point(i) for i in map(int, pareto_front(cost, returns)) if returns[i] >= bottom]
    front = "".join(
        f"M{p['x']} {p['y']}" if n == 0 else f"H{p['x']}V{p['y']}" for n, p in enumerate(points)
    )
    fits = survey.affordable.mask
    return Chart(
        label=axis[0],
        unit=axis[1],
        cloud=dots(fits),
        beyond=dots(~fits),
        front=front,
        points=points,
        choice=point(index),
        limit=None if limit is None else x(limit),
        x_ticks=[(x(value), f"{value:g}") for value in log_ticks(10 ** edges[0], 10 ** edges[1])],
        y_ticks=[(y(value), f"{value:g}") for value in linear_ticks(bottom, top)],
        hidden=int((finite & (returns < bottom)).sum()),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """1, 10, 100, ... within the range; 1-2-5 steps where that is too few."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(s * 10.0**d) for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) >= 4:
            break
    return ticks


def linear_ticks(low: float, high: float) -> list[float]:
    """About five round numbers within the range."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(power * min((1, 2, 5, 10), key=lambda s: abs(s * power - raw)))
    first = np.ceil(low / step) * step
    return [round(float(v), 10) + 0.0 for v in np.arange(first, high, step)]  # no -0
