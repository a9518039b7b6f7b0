"""The VectorEnv that a Gymnasium id registers (its `vector_entry_point`). Knows no torch."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from hyperppo.envs.gymnasium_pool import Floats, Stepped
from hyperppo.errors import HyperPPOError


class Vector:
    """A registered VectorEnv behind the interface of `gymnasium_pool.Pool`.

    One that resets where it is told to (`AutoresetMode.DISABLED`) is cut at `limit` steps; one that
    resets itself in the step in which an episode ends (`SAME_STEP`) has its own limit. In the step
    after (`NEXT_STEP`) would be a step that belongs to no episode: HyperPPOError.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], limit: int, seed: int) -> None:
        self._env, self._limit = env, limit
        self._seed: int | None = seed
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP):
            raise HyperPPOError(
                f"{env.spec.id if env.spec else env}: its autoreset_mode is {mode}: it must be "
                "AutoresetMode.SAME_STEP or DISABLED; --set env.workers=1 steps single environments"
            )
        self._told = mode == AutoresetMode.DISABLED
        self._time = np.zeros(env.num_envs, np.int64)

    def reset(self) -> Floats:
        """New episodes everywhere; the first ones are those of the seed."""
        observation, _ = self._env.reset(seed=self._seed)
        self._seed = None
        self._time[:] = 0
        return self._flat(observation)

    def set_time(self, time: NDArray[np.int64]) -> None:
        """Say how many steps (n,) each episode has had, where that is ours to count."""
        self._time = time.copy()

    def step(self, actions: NDArray[Any]) -> Stepped:
        """Actions (n, *action shape) in units of the action box."""
        observation, reward, ended, cut, info = self._env.step(actions)
        terminated = np.array(ended, np.bool_)
        truncated = np.array(cut, np.bool_) & ~terminated
        if self._told:
            self._time += 1
            truncated |= (self._time >= self._limit) & ~terminated
            final = self._flat(observation)[truncated]
            over = terminated | truncated
            if over.any():
                observation, _ = self._env.reset(options={"reset_mask": over})
                self._time[over] = 0
        else:
            last = [np.ravel(info["final_obs"][i]) for i in truncated.nonzero()[0]]
            final = self._flat(np.array(last)) if last else self._flat(observation)[:0]
        return Stepped(
            self._flat(observation), np.array(reward, np.float32), terminated, truncated, final
        )

    def _flat(self, observation: Any) -> Floats:
        return np.array(observation, np.float32).reshape(len(observation), -1)


def make_vector(
    id_: str, kwargs: dict[str, Any], num_envs: int, limit: int | None
) -> VectorEnv[Any, Any, Any]:
    """`gymnasium.make_vec` of a registered VectorEnv; `limit`: another time limit, in steps."""
    asked = {} if limit is None else {"max_episode_steps": limit}
    mode = "vector_entry_point"
    return gymnasium.make_vec(id_, num_envs, vectorization_mode=mode, **{**kwargs, **asked})
