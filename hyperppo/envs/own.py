"""A user's own task, by name: `module:function` (docs/own-task.md)."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from hyperppo.envs.base import Step, Task, VectorEnv
from hyperppo.errors import HyperPPOError

_POSITIONAL = ("num_envs", "seed", "device")
_SIZES = ("num_envs", "obs_dim", "act_dim", "critic_dim", "episode_steps")
_METHODS = ("reset", "desynchronise", "step", "conventions", "state_dict", "load_state_dict")


def own_task(name: str) -> Task:
    """The task that `function(num_envs, seed, device, **options)` of a module makes.

    Its keyword parameters are the task's options, and their defaults the options' defaults. The
    module is looked for in the working directory first. Raises HyperPPOError when there is no such
    module or function, or when it has other parameters.
    """
    function = _load(name)
    options = _options(name, function)

    def make(num_envs: int, chosen: Any, seed: int, device: str) -> VectorEnv:
        env: VectorEnv = function(num_envs, seed, device, **dataclasses.asdict(chosen))
        check_env(name, env, num_envs, device)
        return env

    return Task(options, make)


def _load(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not look there
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's file does when it is read
        if isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name):
            raise HyperPPOError(
                f"task {name}: no module {module_name} in {here} or on Python's path"
            ) from None
        reason = f"{type(error).__name__}: {error}"
        raise HyperPPOError(f"task {name}: {module_name} cannot be imported ({reason})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise HyperPPOError(f"task {name}: {module.__name__} has no function {function_name!r}")
    found: Callable[..., Any] = function
    return found


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _options(name: str, function: Callable[..., Any]) -> type[Any]:
    """The function's keyword parameters as a validated dataclass."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    first, options = parameters[: len(_POSITIONAL)], parameters[len(_POSITIONAL) :]
    if tuple(p.name for p in first) != _POSITIONAL or any(p.default is p.empty for p in options):
        raise HyperPPOError(
            f"task {name}: write it as {name.partition(':')[2]}({', '.join(_POSITIONAL)}, ...), "
            "what follows with defaults"
        )
    fields = [
        (
            p.name,
            Any if p.annotation is p.empty else p.annotation,
            dataclasses.field(default_factory=partial(copy.deepcopy, p.default)),
        )
        for p in options
    ]
    made = dataclasses.make_dataclass("Options", fields)
    validated: type[Any] = dataclass(made, config=ConfigDict(extra="forbid"))
    return validated


def check_env(task: str, env: VectorEnv, num_envs: int, device: str) -> None:
    """Raise HyperPPOError where an environment breaks the protocol. Takes one step."""
    missing = [name for name in (*_SIZES, "device", *_METHODS) if not hasattr(env, name)]
    if missing:
        raise HyperPPOError(f"task {task}: its environment has no {', '.join(missing)}")
    for name in _SIZES:
        if not isinstance(getattr(env, name), int) or getattr(env, name) < 1:
            raise HyperPPOError(f"task {task}: {name} must be a positive int")
    if env.num_envs != num_envs:
        raise HyperPPOError(f"task {task}: num_envs is {env.num_envs}, not {num_envs} as asked")
    if torch.device(env.device).type != torch.device(device).type:
        raise HyperPPOError(f"task {task}: its device is {env.device}, not {device}")
    _check_conventions(task, env.conventions())
    start = env.reset()
    if not isinstance(start, tuple) or len(start) != 2:
        raise HyperPPOError(f"task {task}: reset() must return (observation, critic input)")
    _check(task, "reset() observation", start[0], (env.obs_dim, num_envs))
    _check(task, "reset() critic input", start[1], (env.critic_dim, num_envs))
    step = env.step(torch.zeros((env.act_dim, num_envs), device=env.device))
    if not isinstance(step, Step):
        raise HyperPPOError(f"task {task}: step() must return a hyperppo.envs.base.Step")
    ended = int(step.truncated.sum()) if isinstance(step.truncated, Tensor) else 0
    if getattr(step.final_critic_input, "shape", ())[1:] == (num_envs,):
        ended = num_envs  # those of all
    for name, shape, dtype in (
        ("observation", (env.obs_dim, num_envs), torch.float32),
        ("critic_input", (env.critic_dim, num_envs), torch.float32),
        ("reward", (num_envs,), torch.float32),
        ("terminated", (num_envs,), torch.bool),
        ("truncated", (num_envs,), torch.bool),
        ("final_critic_input", (env.critic_dim, ended), torch.float32),
    ):
        _check(task, f"step() {name}", getattr(step, name), shape, dtype)
    for name, values in step.metrics.items():
        _check(task, f"step() metric {name}", values, (num_envs,))


def _check(
    task: str, what: str, value: object, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> None:
    expected = f"{str(dtype).removeprefix('torch.')} of shape {shape}"
    if not isinstance(value, Tensor):
        raise HyperPPOError(f"task {task}: {what} is no tensor but {type(value).__name__}")
    if tuple(value.shape) != shape or value.dtype != dtype:
        found = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
        raise HyperPPOError(f"task {task}: {what} is {found}, not {expected}")
    if not bool(value.isfinite().all()) and "metric" not in what:
        raise HyperPPOError(f"task {task}: {what} holds numbers that are not finite")


def _check_conventions(task: str, conventions: object) -> None:
    try:
        json.dumps(conventions)
    except (TypeError, ValueError) as error:
        raise HyperPPOError(f"task {task}: conventions() is no plain data ({error})") from None
    if not isinstance(conventions, dict) or not isinstance(conventions.get("observation"), list):
        raise HyperPPOError(
            f"task {task}: conventions() must be a dict with 'observation', a list of names"
        )
