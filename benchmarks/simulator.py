"""Control steps a second of the quadrotor simulator alone, in flight.

    python benchmarks/simulator.py [--envs 1024 4096 8192] [--threads 1 2] [--json FILE]
    python benchmarks/simulator.py --gradients [--envs 512 1024] [--threads 1]

The default task; the same with what the shipped run observes of its past; and as that run was
trained: the wide plant (delays, dropped updates, uneven motors) and seven scenarios. A simple
controller flies the first and the shipped run's (16) policy the others, so that episodes are long
and resets rare; only `env.step` is timed: 200 Hz physics, disturbances, sensor noise, goals,
reward, resets. The best of several rounds is printed beside the median, because other processes
only ever slow a round down. Each plain, and with the step compiled (`--set compile=true`).

With --gradients: 32 steps forth and back, the policy's (16) share included, as trainings by the
simulator's gradients fly.
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
from hyperppo.envs.base import Differentiable, VectorEnv
from hyperppo.envs.quadrotor.dynamics import GRAVITY
from hyperppo.envs.registry import make_compiled_env, make_env
from hyperppo.pretrained import path
from hyperppo.processor import set_threads

ROUNDS, STEPS, HORIZON = 40, 40, 32
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


def environments(task: str, num_envs: int, compiled: bool) -> VectorEnv:
    """Environments of one of `TASKS`."""
    trained = load_run(path("crazyflie21")).config.env
    past = {name: trained[name] for name in PAST}
    options = {"default": {}, "past observed": past, "as trained": trained}[task]
    make = make_compiled_env if compiled else make_env
    return make("quadrotor", options, num_envs, 0)


@torch.no_grad()
def rounds(task: str, num_envs: int, compiled: bool) -> list[float]:
    """Seconds a control step of all environments, one figure a round."""
    policy = load_run(path("crazyflie21")).policy((16,))
    env = environments(task, num_envs, compiled)
    observation, _ = env.reset()
    env.desynchronise()
    seconds = []
    for _ in range(ROUNDS):
        spent = 0.0
        for _ in range(STEPS):
            action = pilot(observation) if task == "default" else policy(observation.t()).t()
            began = time.perf_counter()
            observation = env.step(action).observation
            spent += time.perf_counter() - began
        seconds.append(spent / STEPS)
    return seconds[2:]


def rounds_with_gradients(task: str, num_envs: int, compiled: bool) -> list[float]:
    """The same, of flights forth and back."""
    policy = load_run(path("crazyflie21")).policy((16,))
    env = environments(task, num_envs, compiled)
    assert isinstance(env, Differentiable)
    observation, _ = env.reset()
    env.desynchronise()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        total = torch.zeros(())
        added = torch.zeros(4, num_envs, requires_grad=True)
        with env.differentiable():
            for _ in range(HORIZON):
                action = pilot(observation) if task == "default" else policy(observation.t()).t()
                step = env.step(action + added)
                observation, total = step.observation, total + step.reward.sum()
            total.backward()  # type: ignore[no-untyped-call]
        observation = observation.detach()
        seconds.append((time.perf_counter() - began) / HORIZON)
    return seconds[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table = Table(title="quadrotor, million control steps a second")
    for name in ("task", "step", "environments", "threads", "best", "median"):
        table.add_column(name, justify="right")
    rows = []
    each = itertools.product(TASKS, (False, True), arguments.threads, arguments.envs)
    for task, compiled, threads, num_envs in each:
        set_threads(threads)
        fly = rounds_with_gradients if arguments.gradients else rounds
        seconds = fly(task, num_envs, compiled)
        best = num_envs / min(seconds)
        median = num_envs / statistics.median(seconds)
        rows.append(
            {
                "task": task,
                "compiled": compiled,
                "gradients": arguments.gradients,
                "environments": num_envs,
                "threads": threads,
                "best_steps_per_s": best,
                "median_steps_per_s": median,
            }
        )
        figures = (f"{best / 1e6:.2f}", f"{median / 1e6:.2f}")
        how = "compiled" if compiled else "plain"
        table.add_row(task, how, str(num_envs), str(threads), *figures)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
