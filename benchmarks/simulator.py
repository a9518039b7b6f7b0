"""Control steps a second of the quadrotor simulator alone, in flight.

    python benchmarks/simulator.py [--envs 1024 4096 8192] [--threads 1 2] [--json FILE]

The default task; the same with what the shipped run observes of its past; and as that run was
trained: the wide plant (delays, dropped updates, uneven motors) and seven scenarios. A simple
controller flies the first and the shipped run's (16) policy the others, so that episodes are long
and resets rare; only `env.step` is timed: 200 Hz physics, disturbances, sensor noise, goals,
reward, resets. The best of several rounds is printed beside the median, because other processes
only ever slow a round down.
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
from torch import Tensor

from hyperppo.checkpoint import load_run
from hyperppo.envs.quadrotor.dynamics import GRAVITY
from hyperppo.envs.registry import make_env
from hyperppo.pretrained import path
from hyperppo.processor import set_threads

ROUNDS, STEPS = 40, 40
PAST = ("previous_actions", "action_average_s", "integral_clip_m_s", "integral_leak_per_s")
TASKS = ("default", "past observed", "as trained")


def pilot(observation: Tensor) -> Tensor:
    """Actions (4, N) of a proportional controller on the default task's observation (22, N).

    Errors ask for an acceleration, its direction for body rates, these for torque; gains by hand.
    """
    px, py, pz, vx, vy, vz = observation[:6].unbind(0)
    up_x, up_y, up_z = (observation[12:15] * GRAVITY).unbind(0)  # the world's vertical in the body
    roll, pitch, yaw = observation[15:18].unbind(0)
    x, y, z = up_x - 3 * (px + vx), up_y - 3 * (py + vy), (up_z - 3 * (pz + vz)).clamp(min=3.0)
    thrust = z * (0.031 / 0.48)  # 31 g, 4 x 0.12 N
    roll, pitch, yaw = 0.008 * (-3 * y / z - roll), 0.008 * (3 * x / z - pitch), 0.02 * yaw
    front_right, back_right = thrust - roll - pitch + yaw, thrust - roll + pitch - yaw
    back_left, front_left = thrust + roll + pitch + yaw, thrust + roll - pitch - yaw
    return torch.stack((front_right, back_right, back_left, front_left)) * 2 - 1


@torch.inference_mode()
def rounds(task: str, num_envs: int) -> list[float]:
    """Seconds a control step of all environments, one figure a round."""
    run = load_run(path("crazyflie21"))
    policy, trained = run.policy((16,)), run.config.env
    past = {name: trained[name] for name in PAST}
    options = {"default": {}, "past observed": past, "as trained": trained}[task]
    env = make_env(run.task, options, num_envs, 0)
    observation, _ = env.reset()
    env.desynchronise()
    seconds = []
    for _ in range(ROUNDS):
        spent = 0.0
        for _ in range(STEPS):
            action = policy(observation.t()).t() if options else pilot(observation)
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
    for task, threads, num_envs in itertools.product(TASKS, arguments.threads, arguments.envs):
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
