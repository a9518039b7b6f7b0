"""Steps per second of HyperPPO, our plain PPO, and plain PPO of other libraries on our simulator.

    python benchmarks/trainers.py [--envs 1024 4096] [--threads 1 2] [--repeats 5] [--json FILE]

All trainers take turns, one iteration each, so that a drifting machine touches all; medians are
printed, of wall time and of processor time (what an iteration costs whoever else is computing).
The libraries come with `pip install -e '.[bench]'`; one that is missing says so in its row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import peers
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

Iteration = Callable[[], object]


def ours(num_envs: int, plain: bool) -> Iteration:
    data: dict[str, Any] = {"num_envs": num_envs, "env": resolve_options("quadrotor", {})}
    if plain:
        data |= {"algo": "ppo", "architecture": peers.HIDDEN, "meta_batch": 1}
    config = make_config(data)
    env = make_env(config.task, config.env, num_envs, 0)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env).step


def build(num_envs: int) -> dict[str, Iteration | str]:
    """An iteration of each trainer, or why there is none."""
    trainers: dict[str, Iteration | str] = {
        "HyperPPO, 16 of 2800": ours(num_envs, plain=False),
        "our PPO 64,64": ours(num_envs, plain=True),
    }
    for package, make in (
        ("rsl-rl-lib", peers.rsl_rl),
        ("stable-baselines3", peers.stable_baselines3),
    ):
        try:
            trainers[f"{package} {version(package)} 64,64"] = make(num_envs)
        except (PackageNotFoundError, ImportError) as error:
            trainers[f"{package} 64,64"] = f"not installed ({error})"
    return trainers


def measure(trainers: dict[str, Iteration | str], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of an iteration; two go first unmeasured."""
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for repeat in range(repeats + 2):
        for name, iteration in trainers.items():
            if isinstance(iteration, str):
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            iteration()
            if repeat >= 2:
                seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in times), statistics.median(c for _, c in times))
        for name, times in seen.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    table = Table(title="training on the quadrotor: medians of interleaved iterations")
    for name in ("environments", "threads", "trainer", "steps/s", "processor s / M steps"):
        table.add_column(name, justify="left" if name == "trainer" else "right")
    for num_envs in arguments.envs:
        trainers = build(num_envs)
        batch = num_envs * peers.SETTINGS.rollout
        for threads in arguments.threads:
            set_threads(threads)
            times = measure(trainers, arguments.repeats)
            for name, iteration in trainers.items():
                row: dict[str, Any] = {"environments": num_envs, "threads": threads}
                row["trainer"] = name
                if isinstance(iteration, str):
                    row["note"] = iteration
                    table.add_row(str(num_envs), str(threads), name, iteration, "-")
                else:
                    wall, cpu = times[name]
                    row |= {"steps_per_s": batch / wall, "processor_s": cpu / batch * 1e6}
                    figures = (f"{batch / wall / 1e3:.0f}k", f"{cpu / batch * 1e6:.1f}")
                    table.add_row(str(num_envs), str(threads), name, *figures)
                rows.append(row)
    Console(width=100).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
