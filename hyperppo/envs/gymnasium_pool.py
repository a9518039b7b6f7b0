"""Gymnasium environments one by one, several in each of a few processes. Knows no torch.

Gymnasium's own asynchronous vector has a process for every environment: ranking steps hundreds side
by side. Episodes are cut and reset here, at once, so that every step is a step of an episode and
the last observation is not lost.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hyperppo.errors import HyperPPOError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stepped:
    """One step of n environments; those that ended have been reset."""

    observation: Floats  # (n, obs_dim), after the reset
    reward: Floats  # (n,)
    terminated: NDArray[np.bool_]  # (n,)
    truncated: NDArray[np.bool_]  # (n,) and not terminated
    final: Floats  # (K, obs_dim): before the reset, of the K truncated ones


@dataclass(frozen=True)
class _Failure:
    """What a worker says when its environments raise."""

    text: str


@dataclass(frozen=True)
class Recipe:
    """What `gymnasium.make` is called with, and where episodes are cut."""

    id: str
    kwargs: dict[str, Any]
    episode_steps: int

    def make(self) -> gymnasium.Env[Any, Any]:
        """One environment without a time limit of its own."""
        return make(self.id, {**self.kwargs, "max_episode_steps": -1})


def make(id_: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make` without what it only prints."""
    if "mujoco" in str(gymnasium.spec(id_).entry_point):
        # It would print every model's every warning, and write them to a file where it runs.
        mujoco = importlib.import_module("mujoco")
        mujoco.set_mju_user_warning(_warn)
    return gymnasium.make(id_, disable_env_checker=True, **kwargs)


def _warn(text: str) -> None:
    if "deprecated" not in text:  # models that come with Gymnasium, in words of older versions
        warnings.warn(text, stacklevel=2)


class Environments:
    """Some environments in this process, each with its own seed."""

    def __init__(self, recipe: Recipe, seeds: Sequence[int]) -> None:
        self._envs = [recipe.make() for _ in seeds]
        self._seeds: list[int | None] = list(seeds)
        self._limit = recipe.episode_steps

    def reset(self) -> Floats:
        """New episodes everywhere; the first ones are those of the seeds."""
        self._time = np.zeros(len(self._envs), np.int64)
        starts = [
            _flat(env.reset(seed=seed)[0])
            for env, seed in zip(self._envs, self._seeds, strict=True)
        ]
        self._seeds = [None] * len(self._envs)
        return np.stack(starts)

    def set_time(self, time: NDArray[np.int64]) -> None:
        """Say how many steps (n,) each episode has had."""
        self._time = time

    def step(self, actions: NDArray[Any]) -> Stepped:
        """Actions (n, *action shape) in units of the action box."""
        n = len(self._envs)
        observations: list[Floats] = []
        final: list[Floats] = []
        reward = np.empty(n, np.float32)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._time += 1
        for i, env in enumerate(self._envs):
            observation, reward[i], terminated[i], cut, _ = env.step(actions[i])
            truncated[i] = (cut or self._time[i] >= self._limit) and not terminated[i]
            seen = _flat(observation)
            if truncated[i]:
                final.append(seen)
            if terminated[i] or truncated[i]:
                seen = _flat(env.reset()[0])
                self._time[i] = 0
            observations.append(seen)
        seen = np.stack(observations)
        finals = np.stack(final) if final else seen[:0]
        return Stepped(seen, reward, terminated, truncated, finals)


def _flat(observation: Any) -> Floats:
    return np.array(observation, np.float32).reshape(-1)  # a copy: some return their own state


class Pool:
    """The same environments over `workers` processes; the results do not depend on how many."""

    def __init__(self, recipe: Recipe, seeds: Sequence[int], workers: int) -> None:
        self._id = recipe.id
        self._shares = np.array_split(np.arange(len(seeds)), workers)
        self._here = Environments(recipe, seeds) if workers == 1 else None
        self._pipes: list[Connection] = []
        if self._here is not None:
            return
        context = multiprocessing.get_context("forkserver")  # a fork with threads may hang
        context.set_forkserver_preload([__name__])
        for share in self._shares:
            ours, theirs = context.Pipe()
            own = (theirs, recipe, [seeds[i] for i in share])
            process = context.Process(target=_serve, args=own, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)

    def reset(self) -> Floats:
        """See `Environments`."""
        return np.concatenate(self._all("reset", [()] * len(self._shares)))

    def set_time(self, time: NDArray[np.int64]) -> None:
        """See `Environments`."""
        self._all("set_time", [(time[share],) for share in self._shares])

    def step(self, actions: NDArray[Any]) -> Stepped:
        """See `Environments`."""
        parts = self._all("step", [(actions[share],) for share in self._shares])
        names = [field.name for field in fields(Stepped)]
        return Stepped(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Results of a method of every worker's environments.

        Raises HyperPPOError when those of one raised, or when it is no more.
        """
        if self._here is not None:
            return [getattr(self._here, method)(*arguments[0])]
        try:
            for pipe, own in zip(self._pipes, arguments, strict=True):
                pipe.send((method, own))
            answers = [pipe.recv() for pipe in self._pipes]
        except (EOFError, OSError):
            raise HyperPPOError(
                f"a process with environments of {self._id} was killed: is there memory for all of "
                "them? Try fewer, --num-envs"
            ) from None
        for answer in answers:
            if isinstance(answer, _Failure):
                raise HyperPPOError(
                    f"{self._id}: {answer.text} (--set env.workers=1 shows where)"
                ) from None
        return answers

    def __del__(self) -> None:
        """A worker whose pipe is closed ends."""
        for pipe in self._pipes:
            pipe.close()


def _serve(pipe: Connection, recipe: Recipe, seeds: Sequence[int]) -> None:
    """Answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to act on
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    environments: Environments | None = None
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            environments = environments or Environments(recipe, seeds)
            pipe.send(getattr(environments, method)(*arguments))
        except BrokenPipeError:
            return
        except Exception as error:  # the task's own: it belongs to whoever asked
            pipe.send(_Failure(" ".join(f"{type(error).__name__}: {error}".split())))
