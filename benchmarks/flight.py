"""How a run flies on vehicles nobody measured exactly: error and crashes by plant and scenario.

    python benchmarks/flight.py [RUN] [--episodes 1024] [--random 200] [--json F] [--markdown F]
    python benchmarks/flight.py runs/ppo16 --arch 16 --random 0    # a run that has no other

Two sets of vehicles: `published` (the identified ones, in equal shares, each within 10 %) and
`wide`. Some architectures get every episode; of a random sample each gets `--few`, and its mean and
worst are told. Deterministic actions, episodes of 15 s, errors from second 3 on. Starts are within
2 m an axis of the goal and nearly level, but for `throw`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from hyperppo import pretrained
from hyperppo.checkpoint import Run, load_run
from hyperppo.envs.quadrotor.goals import shares
from hyperppo.envs.quadrotor.plants import PUBLISHED, plant_options
from hyperppo.envs.registry import resolve_options
from hyperppo.evaluate import evaluate
from hyperppo.files import replacing
from hyperppo.processor import set_threads
from hyperppo.ranking import wilson
from hyperppo.space import Architecture, format_architecture, parse_architecture

SETS = {"published": tuple(PUBLISHED), "wide": ("wide",)}
CASES = (
    ("published", "static"),
    ("published", "bezier"),
    ("published", "lissajous"),
    ("published", "dynamic"),
    ("published", "figure8"),
    ("published", "throw"),
    ("wide", "static"),
    ("wide", "bezier"),
)
RANDOM_CASES = (("published", "static"), ("published", "bezier"), ("wide", "static"))
THRUSTS = (1.4, 1.5, 1.6, 1.8, 2.0, 2.1)  # thrust/weight of the height table
NAMED = ("4", "8", "16", "32", "64", "64,64", "256,256")


def options(run: Run, plant: str, scenario: str, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = copy.deepcopy(run.config.env)
    base |= {"scenarios": shares(scenario), "episode_s": 15.0, "spawn_hard": 0.0, "ramp": (0, 0)}
    base |= resolve_options(run.task, {**base, **plant_options(plant)})
    base["plant"] = {**base["plant"], **changes}
    return base


def pooled(
    run: Run, architectures: Sequence[Architecture], where: str, scenario: str, episodes: int
) -> dict[str, NDArray[np.float64]]:
    """Means over the set's plants, each with its share of the episodes."""
    plants = SETS[where]
    each = -(-episodes // len(plants))
    boards = [
        evaluate(run, architectures, each, seed, env_options=options(run, plant, scenario))
        for seed, plant in enumerate(plants)
    ]
    metrics = [board.metrics for board in boards]
    return {
        "error": np.nanmean([m["tracking_error_m"] for m in metrics], axis=0),
        "crash": np.mean([m["crash_rate"] for m in metrics], axis=0),
        "episodes": np.full(len(architectures), each * len(plants)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=pretrained.path("crazyflie21"))
    parser.add_argument("--arch", nargs="+", default=NAMED, help="hidden units of the networks")
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--random", type=int, default=200, help="random architectures")
    parser.add_argument("--few", type=int, default=50, help="episodes of each of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    run = load_run(arguments.run)
    names = arguments.arch
    named = [parse_architecture(name) for name in names]
    space = run.space.architectures
    drawn = np.random.default_rng(0).choice(len(space), min(arguments.random, len(space)), False)
    sample = [space[i] for i in drawn]

    lines: list[str] = []
    found: dict[str, Any] = {"run": str(arguments.run), "cases": [], "height": []}
    total = len(CASES) + len(RANDOM_CASES) * bool(sample) + len(THRUSTS)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("flights", total=total)
        head = ["vehicles", "goal", *(f"`{name}`" for name in names)]
        lines += [_row(head), _row(["---"] * len(head))]
        for where, scenario in CASES:
            got = pooled(run, named, where, scenario, arguments.episodes)
            lows, highs = wilson(got["crash"], got["episodes"])
            cells = []
            for i, name in enumerate(names):
                crash, n = got["crash"][i], int(got["episodes"][i])
                low, high = float(lows[i]), float(highs[i])
                cells.append(f"{got['error'][i]:.3f} m, {crash:.1%} ({low:.1%}-{high:.1%})")
                found["cases"].append(
                    {
                        "vehicles": where,
                        "scenario": scenario,
                        "architecture": name,
                        "tracking_error_m": float(got["error"][i]),
                        "crash_rate": float(crash),
                        "crash_interval": [low, high],
                        "episodes": n,
                    }
                )
            lines.append(_row([where, scenario, *cells]))
            bar.advance(task)
        if sample:
            lines += ["", _row(["vehicles", "goal", "", "error", "crashes"]), _row(["---"] * 5)]
            for where, scenario in RANDOM_CASES:
                got = pooled(run, sample, where, scenario, arguments.few)
                bad = int(np.argmax(got["crash"]))
                mean, worst = np.nanmean(got["error"]), np.nanmax(got["error"])
                lines.append(
                    _row([where, scenario, "mean", f"{mean:.3f} m", f"{got['crash'].mean():.2%}"])
                )
                most = f"{got['crash'][bad]:.1%} (`{format_architecture(sample[bad])}`)"
                lines.append(_row([where, scenario, "worst", f"{worst:.3f} m", most]))
                found.setdefault("random", []).append(
                    {
                        "vehicles": where,
                        "scenario": scenario,
                        "architectures": len(sample),
                        "episodes": int(got["episodes"][0]),
                        "mean_error_m": float(mean),
                        "worst_error_m": float(worst),
                        "mean_crash_rate": float(got["crash"].mean()),
                        "worst_crash_rate": float(got["crash"][bad]),
                    }
                )
                bar.advance(task)
        lines += ["", _row(["thrust/weight", *(f"`{name}`" for name in names)])]
        lines.append(_row(["---"] * (len(names) + 1)))
        for thrust in THRUSTS:
            fixed = options(run, "wide", "static", thrust_to_weight=(thrust, thrust))
            board = evaluate(run, named, max(1, arguments.episodes // 2), 0, env_options=fixed)
            height = board.metrics["height_error_m"]
            lines.append(_row([f"{thrust}", *(f"{100 * h:+.1f} cm" for h in height)]))
            found["height"].append({"thrust_to_weight": thrust, "height_error_m": height.tolist()})
            bar.advance(task)
    text = "\n".join(lines) + "\n"
    print(text)
    for file, content in (
        (arguments.json, json.dumps(found, indent=1)),
        (arguments.markdown, text),
    ):
        if file:
            with replacing(file) as temporary:
                temporary.write_text(content)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
