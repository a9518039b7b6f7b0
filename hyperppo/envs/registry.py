"""From a task's name to its environments."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hyperppo.config import first_error
from hyperppo.envs.base import Task, VectorEnv
from hyperppo.envs.brax_env import brax_task
from hyperppo.envs.gymnasium_env import gymnasium_task
from hyperppo.envs.own import own_task
from hyperppo.envs.pendulum import PendulumEnv, PendulumOptions
from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions
from hyperppo.errors import HyperPPOError


def _compiled_quadrotor(num_envs: int, options: QuadrotorOptions, seed: int) -> VectorEnv:
    from hyperppo.envs.quadrotor.compiled import CompiledQuadrotorEnv  # slow to import

    return CompiledQuadrotorEnv(num_envs, options, seed)


TASKS = {
    "quadrotor": Task(QuadrotorOptions, QuadrotorEnv, make_compiled=_compiled_quadrotor),
    "pendulum": Task(PendulumOptions, PendulumEnv),
}


def find_task(task: str) -> Task:
    """The task of a name: see docs/tasks.md. Raises HyperPPOError."""
    kind = family(task)
    if kind in TASKS:
        return TASKS[kind]
    if kind == "gymnasium":
        return gymnasium_task(re.sub("^(gymnasium|mujoco):", "", task))
    if kind == "brax":
        return brax_task(task.removeprefix("brax:"))
    if kind == "own":
        return own_task(task)
    raise HyperPPOError(
        f"unknown task '{task}': known tasks are {', '.join(TASKS)}, brax:ant, "
        "mujoco:HalfCheetah-v5, any other Gymnasium id, and your own as module:function "
        "(docs/tasks.md)"
    )


def family(task: str) -> str:
    """What kind of task a name is: one of `TASKS`, gymnasium, brax, own; "" for none."""
    prefix, colon, _ = task.partition(":")
    if task in TASKS:
        return task
    if colon and prefix == "brax":
        return "brax"
    if (colon and prefix in ("gymnasium", "mujoco")) or re.search(r"-v\d+$", task):
        return "gymnasium"
    return "own" if colon else ""


def resolve_options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task's options in full: defaults filled in, values checked.

    Raises HyperPPOError for an unknown task or option.
    """
    resolved: dict[str, Any] = asdict(_validated(task, find_task(task), options))
    return resolved


def make_env(
    task: str, options: dict[str, Any], num_envs: int, seed: int, device: str = "cpu"
) -> VectorEnv:
    """Build `num_envs` environments of a task; raises HyperPPOError as `resolve_options`."""
    found = find_task(task)
    return found.make(num_envs, _validated(task, found, options), seed, device)


def missing_to_compile() -> str:
    """What this machine lacks to compile a simulator's step; "" for nothing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler ({compiler})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers (on Debian: python3-dev)"
    return ""


def make_compiled_env(task: str, options: dict[str, Any], num_envs: int, seed: int) -> VectorEnv:
    """As `make_env`, on a CPU, with the step compiled; raises HyperPPOError where it cannot be."""
    found = find_task(task)
    if found.make_compiled is None:
        raise HyperPPOError(f"{task} has no compiled step: train it with --set compile=false")
    missing = missing_to_compile()
    if missing:
        raise HyperPPOError(
            f"the simulator's step cannot be compiled without {missing}: install it, or train with "
            "--set compile=false, which takes longer"
        )
    return found.make_compiled(num_envs, _validated(task, found, options), seed)


def _validated(task: str, found: Task, options: dict[str, Any]) -> Any:
    try:
        return TypeAdapter(found.options).validate_python(options)
    except ValidationError as error:
        raise HyperPPOError(f"{task} options: env.{first_error(error)}") from None
