"""Any task of Gymnasium with boxes of numbers for observation and action, MuJoCo's among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from hyperppo.envs.base import Step, Task
from hyperppo.errors import HyperPPOError

if TYPE_CHECKING:
    from hyperppo.envs.gymnasium_pool import Pool
    from hyperppo.envs.gymnasium_vector import Vector

_T = TypeVar("_T")

_WORTH_A_PROCESS = 8  # environments: fewer are stepped faster than they are asked for
_SIDE_BY_SIDE = 512  # in evaluation: about 1 MB each


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GymnasiumOptions:
    """How a Gymnasium task is made."""

    episode_steps: int | None = None  # the time limit; None: as registered
    # Processes that step environments one by one. None: the VectorEnv that the id registers; else
    # one a core, each with at least a few.
    workers: int | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)  # for `gymnasium.make`


def gymnasium_task(id_: str) -> Task:
    """The task of a Gymnasium id, `module:Name-v0` to import a module that registers it."""
    return Task(GymnasiumOptions, partial(GymnasiumEnv, id_), _SIDE_BY_SIDE)


class GymnasiumEnv:
    """N environments of a Gymnasium id.

    Observation (obs_dim, N): the box flattened, in the task's own units; the critic sees the same.
    Action (act_dim, N): [-1, 1] scaled to the box. Its state cannot be saved: a resumed run starts
    new episodes. Raises HyperPPOError when there is no such task, when it is not installed, or when
    its spaces are no bounded boxes.
    """

    def __init__(
        self,
        id_: str,
        num_envs: int,
        options: GymnasiumOptions,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.id, self.num_envs, self.device = id_, num_envs, torch.device(device)
        sequence = np.random.SeedSequence(seed)
        self._phases = np.random.default_rng(sequence.spawn(1)[0])
        self._pool: Pool | Vector
        if options.workers is None and _made(id_, _registers_a_vector):
            self._pool = self._vector(options, seed)
        else:
            self._pool = self._one_by_one(options, sequence.generate_state(num_envs).tolist())

    def _vector(self, options: GymnasiumOptions, seed: int) -> Vector:
        from hyperppo.envs.gymnasium_vector import Vector, make_vector

        limit = options.episode_steps
        env = _made(self.id, lambda id_: make_vector(id_, options.kwargs, self.num_envs, limit))
        self._look_at(env, env.single_observation_space, env.single_action_space, limit)
        return Vector(env, self.episode_steps, seed)

    def _one_by_one(self, options: GymnasiumOptions, seeds: list[int]) -> Pool:
        from hyperppo.envs.gymnasium_pool import Pool, Recipe, make

        probe = _made(self.id, lambda id_: make(id_, options.kwargs))
        spaces = probe.observation_space, probe.action_space
        self._look_at(probe, *spaces, options.episode_steps)
        probe.close()
        cores = len(os.sched_getaffinity(0))
        workers = options.workers or max(1, min(cores, len(seeds) // _WORTH_A_PROCESS))
        recipe = Recipe(self.id, options.kwargs, self.episode_steps)
        return Pool(recipe, seeds, min(workers, len(seeds)))

    def _look_at(self, env: Any, seen: Any, acts: Any, limit: int | None) -> None:
        """What an environment, or a vector of them, says of itself and its spaces."""
        _check(self.id, seen, acts)
        self.episode_steps = _episode_steps(self.id, env, limit)
        self.obs_dim = self.critic_dim = int(np.prod(seen.shape or (1,)))
        self.act_dim = int(np.prod(acts.shape or (1,)))
        self._box: Any = acts
        # None where the task does not say how long a step lasts.
        self._step_s: float | None = getattr(env.unwrapped, "dt", None)

    def reset(self) -> tuple[Tensor, Tensor]:
        """New episodes everywhere."""
        observation = self._tensor(self._pool.reset()).t()
        return observation, observation

    def desynchronise(self) -> None:
        """Cut the first episodes short, each at its own time."""
        self._pool.set_time(self._phases.integers(0, self.episode_steps, self.num_envs))

    def step(self, action: Tensor) -> Step:
        """One step; episodes that ended start anew."""
        share = (action.clamp(-1.0, 1.0).t().cpu().double().numpy() + 1) / 2
        box = self._box
        share = share.reshape(self.num_envs, *box.shape)
        stepped = self._pool.step((box.low + share * (box.high - box.low)).astype(box.dtype))
        observation = self._tensor(stepped.observation).t()
        return Step(
            observation=observation,
            critic_input=observation,
            reward=self._tensor(stepped.reward),
            terminated=self._tensor(stepped.terminated),
            truncated=self._tensor(stepped.truncated),
            final_critic_input=self._tensor(stepped.final).t(),
            metrics={},
        )

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def conventions(self) -> dict[str, Any]:
        """What the numbers mean."""
        rate = {} if self._step_s is None else {"control_hz": round(1 / self._step_s)}
        return {
            "observation": [f"{self.id}, its {self.obs_dim} numbers"],
            **rate,
            "action": f"[-1, 1], scaled to {self.id}'s box "
            f"{self._box.low.ravel().tolist()} to {self._box.high.ravel().tolist()}",
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: Gymnasium cannot save an environment in general."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was saved: new episodes."""
        self.reset()


def _registers_a_vector(id_: str) -> bool:
    import gymnasium

    return gymnasium.spec(id_).vector_entry_point is not None


def _made(id_: str, make: Callable[[str], _T]) -> _T:
    """What `make` makes of an id by Gymnasium; raises HyperPPOError."""
    try:
        import gymnasium
    except ImportError:
        raise _missing(id_, "Gymnasium") from None
    try:
        return make(id_)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        if "mujoco" in str(error) or "imageio" in str(error):
            raise _missing(id_, "MuJoCo") from None
        raise HyperPPOError(f"{id_} cannot be imported: {error}") from None
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise HyperPPOError(f"Gymnasium cannot make {id_}: {reason}") from None


def _check(id_: str, seen: Any, acts: Any) -> None:
    """Raises HyperPPOError for spaces that are no boxes."""
    from gymnasium.spaces import Box

    for name, space in (("observation", seen), ("action", acts)):
        if not isinstance(space, Box):
            raise HyperPPOError(f"{id_}: its {name} is {space}; only boxes of numbers can be used")
    if not np.issubdtype(acts.dtype, np.floating) or not acts.is_bounded():
        raise HyperPPOError(f"{id_}: its action is {acts}; only bounded boxes of reals can be used")


def _missing(id_: str, package: str) -> HyperPPOError:
    return HyperPPOError(f"{id_} needs {package}: pip install -c constraints.txt -e '.[mujoco]'")


def _episode_steps(id_: str, env: Any, asked: int | None) -> int:
    steps = asked or getattr(env.spec, "max_episode_steps", None)
    if steps is None or steps < 1:
        raise HyperPPOError(f"{id_} has no time limit: give it one, --set env.episode_steps=1000")
    return int(steps)
