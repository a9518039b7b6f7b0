"""What a task offers the trainer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one control step of N environments gives. Environments that ended have been reset."""

    observation: Tensor  # (obs_dim, N) float32, after the reset where one happened
    critic_input: Tensor  # (critic_dim, N) float32, likewise
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool: a true end, its value is 0
    truncated: Tensor  # (N,) bool: the time limit; the state before the reset still has a value
    # (critic_dim, K) float32: before the reset, of the K truncated environments; or of all N, where
    # picking them out would mean to wait for the device.
    final_critic_input: Tensor
    metrics: dict[str, Tensor]  # each (N,) float32: the task's own figures; NaN: does not count


class VectorEnv(Protocol):
    """N environments of one task, stepped together without a Python loop over them."""

    num_envs: int
    obs_dim: int
    act_dim: int
    critic_dim: int
    episode_steps: int  # the time limit
    device: torch.device

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start every environment anew: observation (obs_dim, N), critic input (critic_dim, N)."""

    def desynchronise(self) -> None:
        """Spread the episodes' phases, so that they do not all end in the same rollout."""

    def step(self, action: Tensor) -> Step:
        """Apply actions (act_dim, N), clipped to [-1, 1] by the task, for one control step."""

    def conventions(self) -> dict[str, Any]:
        """What the numbers mean: written to config.json and carried to the device."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs to go on bit for bit.

        Empty where the state cannot be had: a resumed run then starts new episodes.
        """

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`; not called where that was empty."""


@dataclass(frozen=True)
class Task:
    """How a task's environments are made."""

    options: type[Any]  # a validated dataclass, every field with its default
    make: Callable[[int, Any, int, str], VectorEnv]  # (num_envs, options, seed, device)
    side_by_side: int = 8192  # environments that evaluation steps together: the best size
    # The same with their step compiled for a CPU, if there is such a thing.
    make_compiled: Callable[[int, Any, int], VectorEnv] | None = None  # (num_envs, options, seed)


@runtime_checkable
class Capturable(Protocol):
    """A task whose steps on a GPU are the same operations every time, asking the device nothing:
    a whole rollout can be captured and replayed (`hyperppo.graphs`).
    """

    generator: torch.Generator  # all randomness of the steps

    def refresh(self) -> None:
        """Before a rollout: draw anew, in place, what its steps use up."""

    def held(self) -> AbstractContextManager[None]:
        """A rollout within this ends with the state in the very tensors where it began."""


@runtime_checkable
class Differentiable(VectorEnv, Protocol):
    """A simulator with gradients: of rewards, observations and critic inputs by actions."""

    def differentiable(self) -> AbstractContextManager[None]:
        """Steps within this keep the graph; it begins and ends cut off from what was before."""


@runtime_checkable
class Hardening(Protocol):
    """A task that starts easy. Outside of training it is as hard as its options say."""

    def set_progress(self, progress: float) -> None:
        """Say how far training has come, 0 to 1: the difficulty of the episodes that follow."""
