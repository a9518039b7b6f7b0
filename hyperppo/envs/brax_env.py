"""Brax's environments, stepped by JAX on the device that torch trains on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from hyperppo.envs.base import Step, Task
from hyperppo.errors import HyperPPOError
from hyperppo.processor import cores


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BraxOptions:
    """How a Brax task is made."""

    episode_steps: int = 1000  # the time limit; Brax's own for all of its tasks
    backend: str | None = None  # generalized, positional, spring or mjx; None: the task's own


def brax_task(name: str) -> Task:
    """The task of Brax's name: ant, halfcheetah, walker2d, humanoid, ..."""
    return Task(BraxOptions, partial(BraxEnv, name))


class BraxEnv:
    """N environments of Brax.

    Observation (obs_dim, N): Brax's; the critic sees the same. Action (act_dim, N) in [-1, 1],
    Brax's own range. An episode starts from one of the N states that `reset` drew: Brax's own
    training starts each environment from the same one every time. Tensors are handed over by
    dlpack, which copies nothing where both sides use the same device. On a CPU each core steps its
    part of the environments: JAX's own threads share operations that are too short for it. Torch's
    have one thread from then on. Raises HyperPPOError when there is no such task, when Brax is not
    installed, or when JAX cannot use the device.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        options: BraxOptions,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        jax = _import_jax(name)
        env = _environment(name, options.backend)
        self.name, self.num_envs, self.device = name, num_envs, torch.device(device)
        parts = _largest_divisor(num_envs, cores()) if self.device.type == "cpu" else 1
        self._map: Callable[..., Iterable[Any]] = map
        if parts > 1:
            self._map = ThreadPoolExecutor(parts, "brax").map
        if self.device.type == "cpu":
            # Between its operations torch's threads would spin on the cores that JAX needs.
            torch.set_num_threads(1)
        self._part = num_envs // parts  # environments a part
        self.episode_steps = options.episode_steps
        self.obs_dim = self.critic_dim = int(env.observation_size)
        self.act_dim = int(env.action_size)
        self._step_s = float(env.dt)
        self._jax, self._jax_device = jax, _device(jax, self.device)
        self._begin, self._advance = _compiled(
            name, options.backend, options.episode_steps, self.device.type
        )
        self._key = jax.device_put(jax.random.PRNGKey(seed), self._jax_device)
        self._phases = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> tuple[Tensor, Tensor]:
        """Draw N starts, and start every environment from its own."""
        self._key, key = self._jax.random.split(self._key)
        self._starts = self._begin(self._jax.random.split(key, self.num_envs))
        self._hold(self._starts, np.zeros(self.num_envs, np.int32))
        observation = _to_torch(self._starts.obs).t()
        return observation, observation

    def desynchronise(self) -> None:
        """Cut the first episodes short, each at its own time."""
        phases = self._phases.integers(0, self.episode_steps, self.num_envs)
        self._hold(self._state, phases.astype(np.int32))

    def step(self, action: Tensor) -> Step:
        """One step; episodes that ended start anew."""
        rows = action.clamp(-1.0, 1.0).t().contiguous().view(-1, self._part, self.act_dim)
        seen = list(self._map(self._step_part, range(len(rows)), rows))
        self._key = self._next_key
        fields = seen[0] if len(seen) == 1 else [torch.cat(x, -1) for x in zip(*seen, strict=True)]
        observation, final, reward, terminated, truncated = fields
        return Step(
            observation=observation,
            critic_input=observation,
            reward=reward,
            terminated=terminated.bool(),
            truncated=truncated.bool(),
            final_critic_input=final,
            metrics={},
        )

    def _step_part(self, part: int, rows: Tensor) -> list[Tensor]:
        state, time = self._parts[part]
        action, first = self._jax.numpy.from_dlpack(rows), part * self._part
        *self._parts[part], self._next_key, seen = self._advance(
            state, self._starts, time, self._key, first, action
        )
        return [_to_torch(array) for array in seen]

    def _hold(self, state: Any, time: Any) -> None:
        """Stand there: Brax's state of all environments, and control steps flown (N,) int32."""
        both = self._jax.tree.map(self._on_device, (state, time))
        self._parts: list[list[Any]] = [
            list(self._jax.tree.map(lambda leaf, i=i: leaf[i : i + self._part], both))
            for i in range(0, self.num_envs, self._part)
        ]

    def _whole(self, which: int) -> Any:
        parts = [part[which] for part in self._parts]
        if len(parts) == 1:
            return parts[0]
        return self._jax.tree.map(lambda *leaves: self._jax.numpy.concatenate(leaves), *parts)

    @property
    def _state(self) -> Any:
        return self._whole(0)

    @property
    def _time(self) -> Any:
        return self._whole(1)

    def _on_device(self, array: Any) -> Any:
        return self._jax.device_put(array, self._jax_device)

    def conventions(self) -> dict[str, Any]:
        """What the numbers mean."""
        return {
            "observation": [f"Brax's {self.name}, its {self.obs_dim} numbers"],
            "control_hz": round(1 / self._step_s),
            "action": "[-1, 1], as Brax takes it",
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All state: the leaves of Brax's, in JAX's order."""
        leaves = self._jax.tree.leaves(self._everything())
        arrays = [np.array(leaf) for leaf in leaves]
        return {
            f"leaf{i}": torch.from_numpy(a.astype(np.int64) if a.dtype == np.uint32 else a)
            for i, a in enumerate(arrays)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        leaves, form = self._jax.tree.flatten(self._everything())
        loaded = [
            self._on_device(state[f"leaf{i}"].cpu().numpy().astype(leaf.dtype))
            for i, leaf in enumerate(leaves)
        ]
        everything = self._jax.tree.unflatten(form, loaded)
        state, self._starts, time, self._key = everything
        self._hold(state, time)

    def _everything(self) -> tuple[Any, Any, Any, Any]:
        return self._state, self._starts, self._time, self._key


def _to_torch(array: Any) -> Tensor:
    tensor: Tensor = torch.utils.dlpack.from_dlpack(array)
    return tensor


def _import_jax(name: str) -> Any:
    # Else JAX takes three quarters of a GPU's memory for itself when it is first used.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        importlib.import_module("brax.envs")
        return importlib.import_module("jax")
    except ImportError:
        raise HyperPPOError(
            f"brax:{name} needs Brax: pip install -c constraints.txt -e '.[brax]'"
        ) from None


@lru_cache(maxsize=4)
def _environment(name: str, backend: str | None) -> Any:
    envs = importlib.import_module("brax.envs")
    options = {} if backend is None else {"backend": backend}
    try:
        return envs.get_environment(name, **options)
    except KeyError:
        known = ", ".join(sorted(envs._envs))
        raise HyperPPOError(f"Brax has no task '{name}': it has {known}") from None
    except (AssertionError, ValueError) as error:
        raise HyperPPOError(f"brax:{name} with backend {backend}: {error!r}") from None


def _device(jax: Any, device: torch.device) -> Any:
    try:
        return jax.devices(device.type)[device.index or 0]
    except (RuntimeError, IndexError):
        raise HyperPPOError(
            f"JAX has no {device}: install JAX for it (pip install 'jax[cuda13]' for a GPU), or "
            "use --device cpu"
        ) from None


def _largest_divisor(number: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if number % d == 0)


@lru_cache(maxsize=4)
def _compiled(
    name: str, backend: str | None, limit: int, platform: str
) -> tuple[Callable[..., Any], ...]:
    """Drawing starts from keys (N, 2), and one step of some of N environments; compiled once a
    size.
    """
    jax = importlib.import_module("jax")
    jnp = jax.numpy
    env = _environment(name, backend)

    def advance(state: Any, starts: Any, time: Any, key: Any, first: Any, action: Any) -> Any:
        """Those from `first` on; all parts draw the same, and take what is theirs."""
        stepped = jax.vmap(env.step)(state, action)
        terminated = stepped.done > 0.5
        truncated = (time + 1 >= limit) & ~terminated
        ended = terminated | truncated
        key, drawn = jax.random.split(key)
        every = jax.random.randint(drawn, starts.done.shape, 0, len(starts.done))
        which = jax.lax.dynamic_slice_in_dim(every, first, len(ended))

        def start(old: Any, fresh: Any) -> Any:
            return jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), fresh[which], old)

        state = jax.tree.map(start, stepped, starts)
        time = jnp.where(ended, 0, time + 1)
        flags = (terminated.astype(jnp.uint8), truncated.astype(jnp.uint8))
        return state, time, key, (state.obs.T, stepped.obs.T, stepped.reward, *flags)

    alone = {"xla_cpu_multi_thread_eigen": False} if platform == "cpu" else None
    return jax.jit(jax.vmap(env.reset)), jax.jit(advance, compiler_options=alone)
