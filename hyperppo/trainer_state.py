"""What a trainer stands at, as flat tensors, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hyperppo import flat, parallel
from hyperppo.trainer import Trainer


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that a bit-identical continuation needs, of all processes, by dotted name."""
    scalars = [float(trainer.iteration), float(trainer.learning_rate)]
    state: dict[str, Tensor] = {"trainer.scalars": torch.tensor(scalars, dtype=torch.float64)}
    state |= flat.flatten(trainer.modules(), trainer.optimizers())
    state |= parallel.union(_of_shards(trainer))
    state |= {f"sampler.{key}": value for key, value in trainer.sampler.state_dict().items()}
    return state


def restore(trainer: Trainer, state: Mapping[str, Tensor]) -> None:
    """Go on from `state_of(...)` of a trainer of the same configuration.

    Raises KeyError or RuntimeError when it is of another one.
    """
    iteration, learning_rate = state["trainer.scalars"].cpu()
    trainer.iteration, trainer.learning_rate = int(iteration), learning_rate.to(trainer.device)
    flat.restore(trainer.modules(), trainer.optimizers(), state)
    columns: dict[str, list[Tensor]] = {name: [] for name in _columns(trainer)}
    for (number, env), generator in zip(
        trainer.shards.items(), trainer.action_generators, strict=True
    ):
        own = state if trainer.config.shards == 1 else flat.under(state, f"shard{number}")
        if saved := flat.under(own, "env"):
            env.load_state_dict(saved)
        generator.set_state(own["trainer.action_generator"].cpu())
        for name, parts in columns.items():
            parts.append(own[f"trainer.{name}"].to(trainer.device))
    if saved:  # else the new episodes of new environments
        observation, critic_input, trainer.discounted_return = (
            torch.cat(parts, -1) for parts in columns.values()
        )
        trainer.where = (observation, critic_input)
    trainer.sampler.load_state_dict(flat.under(state, "sampler"))


def _columns(trainer: Trainer) -> dict[str, Tensor]:
    """What has one column an environment."""
    observation, critic_input = trainer.where
    return {
        "observation": observation,
        "critic_input": critic_input,
        "discounted_return": trainer.discounted_return,
    }


def _of_shards(trainer: Trainer) -> dict[str, Tensor]:
    """What each shard of this process stands at, on the CPU."""
    each = trainer.env.num_envs // len(trainer.shards)
    state: dict[str, Tensor] = {}
    for i, (number, env) in enumerate(trainer.shards.items()):
        own = {f"env.{key}": value for key, value in env.state_dict().items()}
        for name, values in _columns(trainer).items():
            own[f"trainer.{name}"] = values[..., i * each : (i + 1) * each]
        own["trainer.action_generator"] = trainer.action_generators[i].get_state()
        prefix = "" if trainer.config.shards == 1 else f"shard{number}."
        state |= {prefix + key: value.cpu() for key, value in own.items()}
    return state
