"""Control steps a second of the quadrotor simulator alone, in flight.

    python benchmarks/simulator.py [--envs 1024 4096 8192] [--threads 1 2] [--json FILE]

On the vehicles of the default task, and as the shipped run was trained: the wide plant (delays,
dropped updates, uneven motors) and seven scenarios. The shipped run's (16) policy flies, so that
episodes are as long and resets as rare as in use; only `env.step` is timed: 200 Hz physics,
disturbances, sensor noise, goals, reward, resets. The best of several rounds is printed beside the
median, because other processes only ever slow a round down.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import load_run
from hyperppo.envs.registry import make_env
from hyperppo.pretrained import path
from hyperppo.processor import set_threads

ROUNDS, STEPS = 40, 40
PAST = ("previous_actions", "action_average_s", "integral_clip_m_s", "integral_leak_per_s")


@torch.inference_mode()
def rounds(task: str, num_envs: int) -> list[float]:
    """Seconds a control step of all environments, one figure a round."""
    run = load_run(path("crazyflie21"))
    policy = run.policy((16,))
    trained = run.config.env
    options = {name: trained[name] for name in PAST} if task == "default" else trained
    env = make_env(run.task, options, num_envs, 0)
    observation, _ = env.reset()
    env.desynchronise()
    seconds = []
    for _ in range(ROUNDS):
        spent = 0.0
        for _ in range(STEPS):
            action = policy(observation.t()).t()
            began = time.perf_counter()
            observation = env.step(action).observation
            spent += time.perf_counter() - began
        seconds.append(spent / STEPS)
    return seconds[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(title="quadrotor, million control steps a second")
    for name in ("task", "environments", "threads", "best", "median"):
        table.add_column(name, justify="right")
    rows = []
    for task, threads, num_envs in itertools.product(
        ("default", "as trained"), arguments.threads, arguments.envs
    ):
        set_threads(threads)
        seconds = rounds(task, num_envs)
        best = num_envs / min(seconds)
        median = num_envs / statistics.median(seconds)
        rows.append(
            {
                "task": task,
                "environments": num_envs,
                "threads": threads,
                "best_steps_per_s": best,
                "median_steps_per_s": median,
            }
        )
        figures = (f"{best / 1e6:.2f}", f"{median / 1e6:.2f}")
        table.add_row(task, str(num_envs), str(threads), *figures)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
