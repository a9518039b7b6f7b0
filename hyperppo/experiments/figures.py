"""Rows of the figures, and how they are drawn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from hyperppo.checkpoint import METRICS
from hyperppo.experiments.results import Row, Trained
from hyperppo.leaderboard import Leaderboard
from hyperppo.plot import read_lines
from hyperppo.ranking import SHARE_NAMES, SHARES, smallest_within
from hyperppo.space import format_architecture


def share_rows(results: Sequence[Trained]) -> list[Row]:
    """The max, 90% and 80% architectures at every evaluation of every training."""
    return [
        {"variant": trained.variant, "seed": trained.seed, "steps": steps, **row}
        for trained in results
        for steps, board in trained.boards.items()
        for row in _shares(trained, board)
    ]


def _shares(trained: Trained, board: Leaderboard) -> Iterable[Row]:
    for share in SHARES if len(board.params) > 1 else SHARES[:1]:
        i = smallest_within(board.return_mean, board.params, share)
        yield {
            "share": SHARE_NAMES[share],
            "architecture": format_architecture(trained.space.architectures[i]),
            "params": int(board.params[i]),
            "return_mean": float(board.return_mean[i]),
            "return_stderr": float(board.return_stderr[i]),
            "episodes": int(board.episodes[i]),
            **{name: float(values[i]) for name, values in board.metrics.items()},
        }


def draw_shares(rows: list[Row], figure: Any) -> None:
    """Return and parameter count over steps; mean and spread over seeds."""
    returns, sizes = figure.subplots(1, 2)
    for colour, (variant, share) in enumerate(_keys(rows, "variant", "share")):
        chosen = [r for r in rows if (r["variant"], r["share"]) == (variant, share)]
        style = {"color": f"C{colour}", "label": f"{variant} {share}"}
        _curve(returns, chosen, "return_mean", style)
        _curve(sizes, chosen, "params", style)
    returns.set(xlabel="million steps", ylabel="return an episode")
    sizes.set(xlabel="million steps", ylabel="parameters", yscale="log")
    returns.legend(fontsize=8)


def shares_headline(rows: list[Row]) -> dict[str, str]:
    """Return and parameters at the end, means over seeds."""
    texts = {}
    for (variant,) in _keys(rows, "variant"):
        parts = []
        for (share,) in _keys([r for r in rows if r["variant"] == variant], "share"):
            last = _last(r for r in rows if (r["variant"], r["share"]) == (variant, share))
            spread = _spread([r["return_mean"] for r in last])
            parts.append(f"{share}: {spread} ({statistics.mean(r['params'] for r in last):,.0f})")
        texts[variant] = ", ".join(parts)
    return texts


def mean_rows(results: Sequence[Trained]) -> list[Row]:
    """Mean return over all architectures, and over those of each depth, at every evaluation."""
    rows = []
    for trained in results:
        depths = trained.space.depths
        groups = {"all": depths > 0, **{str(d): depths == d for d in np.unique(depths)}}
        rows += [
            {
                "variant": trained.variant,
                "seed": trained.seed,
                "steps": steps,
                "depth": depth,
                "architectures": int(members.sum()),
                "return_mean": float(board.return_mean[members].mean()),
                "return_std": float(board.return_mean[members].std()),
                "return_max": float(board.return_mean[members].max()),
            }
            for steps, board in trained.boards.items()
            for depth, members in groups.items()
        ]
    return rows


def draw_means(rows: list[Row], figure: Any) -> None:
    """Left: mean return over steps. Right: at the end, by depth."""
    left, right = figure.subplots(1, 2)
    variants = [variant for (variant,) in _keys(rows, "variant")]
    depths = [depth for (depth,) in _keys(rows, "depth") if depth != "all"]
    for place, variant in enumerate(variants):
        own = [r for r in rows if r["variant"] == variant]
        style = {"color": f"C{place}", "label": variant}
        _curve(left, [r for r in own if r["depth"] == "all"], "return_mean", style)
        ends = [[r["return_mean"] for r in _last(own) if r["depth"] == d] for d in depths]
        at = np.arange(len(depths)) + (place - (len(variants) - 1) / 2) * 0.25
        right.errorbar(
            at, [np.mean(e) for e in ends], [np.std(e) for e in ends], fmt="o", capsize=3, **style
        )
    left.set(xlabel="million steps", ylabel="return an episode, all architectures")
    right.set(xticks=range(len(depths)), xticklabels=depths, xlabel="hidden layers")
    right.set_ylabel("return an episode at the end")
    left.legend(fontsize=8)


def means_headline(rows: list[Row]) -> dict[str, str]:
    """Mean return over all architectures at the end."""
    return {
        variant: _spread(
            [r["return_mean"] for r in _last(_of(rows, variant)) if r["depth"] == "all"]
        )
        for (variant,) in _keys(rows, "variant")
    }


def distribution_rows(results: Sequence[Trained]) -> list[Row]:
    """The returns of all architectures at the end, best first."""
    rows = []
    for trained in results:
        board = trained.board
        rows += [
            {
                "variant": trained.variant,
                "seed": trained.seed,
                "rank": rank + 1,
                "architecture": format_architecture(trained.space.architectures[i]),
                "params": int(board.params[i]),
                "return_mean": float(board.return_mean[i]),
            }
            for rank, i in enumerate(np.argsort(-board.return_mean, kind="stable"))
        ]
    return rows


def draw_distribution(rows: list[Row], figure: Any) -> None:
    """How many architectures exceed a return: mean and spread over seeds."""
    axis = figure.subplots()
    returns = [r["return_mean"] for r in rows]
    grid = np.linspace(min(returns), max(returns), 400)
    for colour, (variant,) in enumerate(_keys(rows, "variant")):
        own = _of(rows, variant)
        counts = []
        for seed in {r["seed"] for r in own}:
            ascending = np.sort([r["return_mean"] for r in own if r["seed"] == seed])
            counts.append(len(ascending) - np.searchsorted(ascending, grid, side="right"))
        mean, std = np.mean(counts, axis=0), np.std(counts, axis=0)
        axis.plot(grid, mean, color=f"C{colour}", label=variant)
        axis.fill_between(grid, mean - std, mean + std, color=f"C{colour}", alpha=0.15, lw=0)
    axis.set(xlabel="return an episode", ylabel="architectures with more")
    axis.legend(fontsize=8)


def distribution_headline(rows: list[Row]) -> dict[str, str]:
    """Best and median architecture, means over seeds."""

    def of_seeds(own: list[Row], figure: Callable[[list[float]], float]) -> str:
        seeds = {r["seed"] for r in own}
        return _spread([figure([r["return_mean"] for r in own if r["seed"] == s]) for s in seeds])

    return {
        variant: f"best {of_seeds(_of(rows, variant), max)}, "
        f"median {of_seeds(_of(rows, variant), statistics.median)}"
        for (variant,) in _keys(rows, "variant")
    }


def condition_rows(results: Sequence[Trained]) -> list[Row]:
    """The max, 90% and 80% architectures of the training's own mix, under each condition.

    They are chosen on the finished run's leaderboard and not on the condition: a user has one
    policy for all of them.
    """
    return [
        {
            "variant": trained.variant,
            "seed": trained.seed,
            "condition": condition,
            **chosen,
            "return_mean": float(board.return_mean[i]),
            "return_stderr": float(board.return_stderr[i]),
            "episodes": int(board.episodes[i]),
            **{name: float(values[i]) for name, values in board.metrics.items()},
        }
        for trained in results
        for condition, board in trained.conditions.items()
        for chosen in (
            {key: row[key] for key in ("share", "architecture", "params")}
            for row in _shares(trained, trained.board)
        )
        for i in [_row_of(trained, chosen["architecture"])]
    ]


def _row_of(trained: Trained, architecture: str) -> int:
    names = [format_architecture(a) for a in trained.space.architectures]
    return names.index(architecture)


def draw_conditions(rows: list[Row], figure: Any) -> None:
    """One bar an architecture and condition: its return, and the task's error where it has one."""
    key = "tracking_error_m"
    figures = ["return_mean", *([key] if key in rows[0] else [])]
    axes = figure.subplots(1, len(figures), squeeze=False)[0]
    conditions = [c for (c,) in _keys(rows, "condition")]
    who = _keys(rows, "variant", "share")
    for axis, name in zip(axes, figures, strict=True):
        for place, (variant, share) in enumerate(who):
            own = [r for r in rows if (r["variant"], r["share"]) == (variant, share)]
            values = [[r[name] for r in own if r["condition"] == c] for c in conditions]
            axis.bar(
                np.arange(len(conditions)) + (place - (len(who) - 1) / 2) * 0.8 / len(who),
                [np.mean(v) for v in values],
                0.8 / len(who),
                yerr=[np.std(v) for v in values],
                label=f"{variant} {share}",
            )
        label = {"return_mean": "return an episode", key: "tracking error (m)"}[name]
        axis.set(xticks=range(len(conditions)), xticklabels=conditions, ylabel=label)
    axes[0].legend(fontsize=8)


def conditions_headline(rows: list[Row]) -> dict[str, str]:
    """Return of the max architecture under each condition."""
    best = [r for r in rows if r["share"] == "max"]
    return {
        variant: ", ".join(
            f"{c} {_spread([r['return_mean'] for r in _of(best, variant) if r['condition'] == c])}"
            for (c,) in _keys(best, "condition")
        )
        for (variant,) in _keys(rows, "variant")
    }


def price_rows(results: Sequence[Trained]) -> list[Row]:
    """What a training's hypernetwork costs and brings."""
    rows = []
    for trained in results:
        speeds = [line["steps_per_s"] for line in read_lines(trained.path / METRICS)]
        rows.append(
            {
                "variant": trained.variant,
                "seed": trained.seed,
                "steps": max(trained.boards),
                "steps_per_s": statistics.median(speeds),
                "return_mean": float(trained.board.return_mean.mean()),
                "return_max": float(trained.board.return_mean.max()),
            }
        )
    return rows


def draw_price(rows: list[Row], figure: Any) -> None:
    """Mean return over training speed."""
    axis = figure.subplots()
    for colour, (variant,) in enumerate(_keys(rows, "variant")):
        own = _of(rows, variant)
        speed, returns = ([r[k] for r in own] for k in ("steps_per_s", "return_mean"))
        axis.errorbar(
            np.mean(speed) / 1e3, np.mean(returns), np.std(returns), np.std(speed) / 1e3,
            fmt="o", capsize=3, color=f"C{colour}", label=variant,
        )  # fmt: skip
    axis.set(xlabel="thousand steps a second", ylabel="return an episode, all architectures")
    axis.legend(fontsize=8)


def price_headline(rows: list[Row]) -> dict[str, str]:
    """Mean return and speed."""
    return {
        variant: f"{_spread([r['return_mean'] for r in _of(rows, variant)])}, "
        f"{statistics.mean(r['steps_per_s'] for r in _of(rows, variant)) / 1e6:.3f}"
        for (variant,) in _keys(rows, "variant")
    }


def _keys(rows: Sequence[Row], *names: str) -> list[tuple[Any, ...]]:
    """The combinations of these columns that occur, in order of appearance."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def _of(rows: Sequence[Row], variant: str) -> list[Row]:
    return [row for row in rows if row["variant"] == variant]


def _last(rows: Iterable[Row]) -> list[Row]:
    """The rows of each seed's last evaluation."""
    rows = list(rows)
    ends: dict[tuple[str, int], int] = {}
    for row in rows:
        key = (row["variant"], row["seed"])
        ends[key] = max(ends.get(key, 0), row["steps"])
    return [row for row in rows if row["steps"] == ends[row["variant"], row["seed"]]]


def _curve(axis: Any, rows: Sequence[Row], name: str, style: dict[str, Any]) -> None:
    """Mean over seeds, with a band of one standard deviation."""
    steps = sorted({row["steps"] for row in rows})
    values = [[row[name] for row in rows if row["steps"] == s] for s in steps]
    mean, std = np.array([np.mean(v) for v in values]), np.array([np.std(v) for v in values])
    million = np.array(steps) / 1e6
    axis.plot(million, mean, marker="o", ms=3, **style)
    axis.fill_between(million, mean - std, mean + std, color=style["color"], alpha=0.15, lw=0)


def _spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    mean = statistics.mean(values)
    digits = ".0f" if abs(mean) >= 100 else ".2f"
    text = f"{mean:,{digits}}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):,{digits}}"
