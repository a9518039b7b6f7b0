"""From a task's name to its environments."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hyperppo.config import first_error
from hyperppo.envs.base import VectorEnv
from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions
from hyperppo.errors import HyperPPOError

TASKS = ("quadrotor",)


def resolve_options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """A task's options in full: defaults filled in, values checked.

    Raises HyperPPOError for an unknown task or option.
    """
    if task not in TASKS:
        raise HyperPPOError(f"unknown task '{task}': known tasks are {', '.join(TASKS)}")
    return asdict(_quadrotor(options))


def make_env(
    task: str, options: dict[str, Any], num_envs: int, seed: int, device: str = "cpu"
) -> VectorEnv:
    """Build `num_envs` environments of a task."""
    resolve_options(task, options)
    return QuadrotorEnv(num_envs, _quadrotor(options), seed, device)


def _quadrotor(options: dict[str, Any]) -> QuadrotorOptions:
    try:
        return TypeAdapter(QuadrotorOptions).validate_python(options)
    except ValidationError as error:
        raise HyperPPOError(f"quadrotor options: env.{first_error(error)}") from None
