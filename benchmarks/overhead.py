"""What HyperPPO costs over plain PPO: iteration time at equal environments, critic and minibatches.

    python benchmarks/overhead.py [--envs 1024 4096] [--repeats 31] [--threads 1] [--json FILE]
    python benchmarks/overhead.py --device cuda --task brax:ant --envs 4096

Both trainers take turns, so that a drifting machine touches both; medians are printed, and of their
ratio the standard error (bootstrap over the repeats). Plain PPO trains (64, 64); HyperPPO trains 16
architectures drawn as in training (biased), anew each repeat: what one draw costs differs by a
third from the next, so that few repeats say little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

PHASES = ("collect", "advantages", "update")


def build(task: str, device: str, num_envs: int, plain: bool) -> Trainer:
    data: dict[str, object] = {
        "task": task,
        "device": device,
        "num_envs": num_envs,
        "env": resolve_options(task, {}),
    }
    if plain:
        data |= {"algo": "ppo", "architecture": (64, 64), "meta_batch": 1}
    config = make_config(data)
    env = make_env(config.task, config.env, num_envs, 0, device)
    trainer = Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)
    for _ in range(3):
        trainer.step()
    return trainer


def _now(trainer: Trainer) -> float:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def iteration(trainer: Trainer) -> dict[str, float]:
    """Seconds of each phase of one iteration."""
    clock = [_now(trainer)]
    architectures = trainer.sampler.draw(trainer.config.meta_batch)
    rollout = trainer.collect(architectures)
    clock.append(_now(trainer))
    batch, _ = trainer.advantages(rollout, architectures)
    clock.append(_now(trainer))
    trainer.update(batch, rollout, architectures)
    clock.append(_now(trainer))
    return {name: clock[i + 1] - clock[i] for i, name in enumerate(PHASES)}


def ratio_of(hyperppo: np.ndarray, ppo: np.ndarray) -> tuple[float, float]:
    """Ratio of the medians of (repeats,) seconds, and its standard error."""
    pick = np.random.default_rng(0).integers(len(ppo), size=(2000, len(ppo)))
    again = np.median(hyperppo[pick], 1) / np.median(ppo[pick], 1)
    return float(np.median(hyperppo) / np.median(ppo)), float(again.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--task", default="quadrotor")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(arguments.threads)

    task, device = arguments.task, arguments.device
    where = f"{arguments.threads} threads" if device == "cpu" else torch.cuda.get_device_name()
    table = Table(title=f"{task}: milliseconds an iteration, {where}, medians")
    for name in ("envs", "algorithm", *PHASES, "total", "steps/s", "HyperPPO / PPO"):
        table.add_column(name, justify="right")
    rows = []
    for num_envs in arguments.envs:
        trainers = {
            "PPO 64,64": build(task, device, num_envs, True),
            "HyperPPO": build(task, device, num_envs, False),
        }
        seen: dict[str, list[dict[str, float]]] = defaultdict(list)
        for _ in range(arguments.repeats):
            for name, trainer in trainers.items():
                seen[name].append(iteration(trainer))
        every = {name: np.array([sum(t.values()) for t in ts]) for name, ts in seen.items()}
        totals = {name: float(np.median(seconds)) for name, seconds in every.items()}
        ratio, error = ratio_of(every["HyperPPO"], every["PPO 64,64"])
        for name, times in seen.items():
            phases = {p: statistics.median(t[p] for t in times) for p in PHASES}
            steps = num_envs * trainers[name].config.ppo.rollout / totals[name]
            rows.append(
                {
                    "task": task,
                    "device": where,
                    "environments": num_envs,
                    "algorithm": name,
                    **phases,
                    "total": totals[name],
                    "steps_per_s": steps,
                    "ratio": ratio,
                    "ratio_standard_error": error,
                }
            )
            milliseconds = [f"{1e3 * phases[p]:.0f}" for p in PHASES]
            table.add_row(
                str(num_envs),
                name,
                *milliseconds,
                f"{1e3 * totals[name]:.0f}",
                f"{steps / 1e3:.0f}k",
                f"{ratio:.2f} ± {error:.2f}" if name == "HyperPPO" else "",
            )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
