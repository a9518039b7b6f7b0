"""The environments of a run in shards: independent groups, each with its own random sources.

What happens in a shard does not depend on which process steps it, so that a run is the same
however many processes share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperppo import parallel
from hyperppo.config import RunConfig
from hyperppo.envs.base import Capturable, Differentiable, Step, VectorEnv
from hyperppo.envs.registry import make_compiled_env, make_env


def shard_seed(config: RunConfig, number: int) -> int:
    """The seed of a shard: the run's own where it has but one."""
    if config.shards == 1:
        return config.seed
    return int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])


def training_env(config: RunConfig, iteration: int = 0) -> VectorEnv:
    """The environments that this process steps; raises HyperPPOError as `make_env`.

    For another `iteration` they are other ones.
    """
    each = config.num_envs // config.shards
    seeds = [shard_seed(config, n) + iteration for n in parallel.share(range(config.shards))]
    given = (config.task, config.env, each)
    if config.compile and config.device == "cpu":
        shards = [make_compiled_env(*given, seed) for seed in seeds]
    else:
        shards = [make_env(*given, seed, config.device) for seed in seeds]
    return shards[0] if len(shards) == 1 else Shards(shards)


def shards_of(env: VectorEnv) -> Sequence[VectorEnv]:
    """The shards that an environment is made of."""
    return env.shards if isinstance(env, Shards) else (env,)


def capturable(env: VectorEnv) -> list[Capturable]:
    """Its shards whose rollouts on a GPU can be captured: all or, of another task, none."""
    return [shard for shard in shards_of(env) if isinstance(shard, Capturable)]


def refresh(env: VectorEnv) -> None:
    """Before a rollout on a GPU: draw anew, in place, what its steps use up."""
    for shard in capturable(env):
        shard.refresh()


@contextmanager
def held(env: VectorEnv) -> Iterator[None]:
    """A rollout within this ends with the state in the tensors where it began, if it can."""
    with ExitStack() as stack:
        for shard in capturable(env):
            stack.enter_context(shard.held())
        yield


class Shards:
    """Several environments of one task, one after the other along the last dimension."""

    def __init__(self, shards: Sequence[VectorEnv]) -> None:
        self.shards = shards
        first = shards[0]
        self.num_envs = sum(shard.num_envs for shard in shards)
        self.obs_dim, self.act_dim = first.obs_dim, first.act_dim
        self.critic_dim, self.episode_steps = first.critic_dim, first.episode_steps
        self.device = first.device

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start every environment anew."""
        observations, critic_inputs = zip(*(s.reset() for s in self.shards), strict=True)
        return torch.cat(observations, -1), torch.cat(critic_inputs, -1)

    def desynchronise(self) -> None:
        """Spread the episodes' phases, shard by shard."""
        for shard in self.shards:
            shard.desynchronise()

    def step(self, action: Tensor) -> Step:
        """One control step of every shard."""
        each = self.num_envs // len(self.shards)
        parts = torch.split(action, each, -1)
        steps = [shard.step(part) for shard, part in zip(self.shards, parts, strict=True)]
        joined = {
            name: torch.cat([getattr(step, name) for step in steps], -1)
            for name in vars(steps[0])
            if name != "metrics"
        }
        metrics = {n: torch.cat([s.metrics[n] for s in steps], -1) for n in steps[0].metrics}
        return Step(**joined, metrics=metrics)

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Of every shard, where each has it."""
        with ExitStack() as stack:
            for shard in self.shards:
                assert isinstance(shard, Differentiable)
                stack.enter_context(shard.differentiable())
            yield

    def conventions(self) -> dict[str, Any]:
        """What the numbers mean."""
        return self.shards[0].conventions()

    def state_dict(self) -> dict[str, Tensor]:
        """All state, shard by shard."""
        return {
            f"{i}.{key}": value
            for i, shard in enumerate(self.shards)
            for key, value in shard.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        for i, shard in enumerate(self.shards):
            start = f"{i}."
            shard.load_state_dict(
                {key[len(start) :]: v for key, v in state.items() if key.startswith(start)}
            )
