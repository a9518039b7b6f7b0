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
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import peers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.base import Step, VectorEnv
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

Iteration = Callable[[], object]


class Unprivileged:
    """A task whose critic sees what the policy sees, as Stable-Baselines3's does."""

    def __init__(self, env: VectorEnv) -> None:
        self.env, self.critic_dim = env, env.obs_dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start anew: what is seen, twice."""
        observation, _ = self.env.reset()
        return observation, observation

    def step(self, action: Tensor) -> Step:
        """The task's step."""
        step = self.env.step(action)
        final = step.final_critic_input[: self.env.obs_dim]
        return replace(step, critic_input=step.observation, final_critic_input=final)


def ours(num_envs: int, plain: bool, privileged: bool = True) -> Iteration:
    data: dict[str, Any] = {"num_envs": num_envs, "env": resolve_options("quadrotor", {})}
    if plain:
        data |= {"algo": "ppo", "architecture": peers.HIDDEN, "meta_batch": 1}
    config = make_config(data)
    env = make_env(config.task, config.env, num_envs, 0)
    if not privileged:
        env = Unprivileged(env)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env).step


def build(num_envs: int) -> dict[str, Iteration | str]:
    """An iteration of each trainer, or why there is none."""
    trainers: dict[str, Iteration | str] = {
        "HyperPPO, 16 of 2800": ours(num_envs, plain=False),
        "our PPO 64,64": ours(num_envs, plain=True),
        "our PPO 64,64, critic as SB3's": ours(num_envs, plain=True, privileged=False),
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
