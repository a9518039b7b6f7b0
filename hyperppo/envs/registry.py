"""From a task's name to its environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hyperppo.config import first_error
from hyperppo.envs.base import VectorEnv
from hyperppo.envs.pendulum import PendulumEnv, PendulumOptions
from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions
from hyperppo.errors import HyperPPOError


@dataclass(frozen=True)
class _Task:
    options: type[Any]  # a validated dataclass, every field with its default
    env: Callable[[int, Any, int, str], VectorEnv]  # (num_envs, options, seed, device)


TASKS = {
    "quadrotor": _Task(QuadrotorOptions, QuadrotorEnv),
    "pendulum": _Task(PendulumOptions, PendulumEnv),
}


def resolve_options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task's options in full: defaults filled in, values checked.

    Raises HyperPPOError for an unknown task or option.
    """
    resolved: dict[str, Any] = asdict(_validated(task, options))
    return resolved


def make_env(
    task: str, options: dict[str, Any], num_envs: int, seed: int, device: str = "cpu"
) -> VectorEnv:
    """Build `num_envs` environments of a task; raises HyperPPOError as `resolve_options`."""
    validated = _validated(task, options)
    return TASKS[task].env(num_envs, validated, seed, device)


def _validated(task: str, options: dict[str, Any]) -> Any:
    if task not in TASKS:
        raise HyperPPOError(f"unknown task '{task}': known tasks are {', '.join(TASKS)}")
    try:
        return TypeAdapter(TASKS[task].options).validate_python(options)
    except ValidationError as error:
        raise HyperPPOError(f"{task} options: env.{first_error(error)}") from None
