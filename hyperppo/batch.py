"""A rollout as PPO trains on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A rollout cut into J minibatches along its environments: B = T E / J samples each.

    Every minibatch has samples of all M architectures, each in its own row.
    """

    observation: Tensor  # (J, M, B, obs_dim)
    action: Tensor  # (J, M, B, act_dim)
    mean: Tensor  # (J, M, B, act_dim)
    log_prob: Tensor  # (J, M, B)
    critic_input: Tensor  # (J, M, B, critic_dim + architecture features), normalised
    advantage: Tensor  # (J, M, B), normalised over the whole batch
    value: Tensor  # (J, M, B), before the update
    target: Tensor  # (J, M, B), value targets


def cut(x: Tensor, architectures: int, minibatches: int) -> Tensor:
    """(T, M E, ...) -> (J, M, T E / J, ...)."""
    steps = x.shape[0]
    x = torch.unflatten(x, 1, (architectures, minibatches, -1))  # (T, M, J, E / J, ...)
    x = x.movedim((2, 1), (0, 1))  # (J, M, T, E / J, ...)
    x = x.reshape(minibatches, architectures, steps * x.shape[3], *x.shape[4:])
    # One environment a minibatch, or one minibatch: nothing was copied, and what was collected
    # in inference mode takes no part in gradients.
    return x.clone() if x.is_inference() else x


def mix(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with every minibatch shuffled over the architectures.

    What a first attempt at PPO does (HyperPPO, section III-A): samples of one architecture, with
    the log-probabilities of the policy that took them, train another.
    """
    M, B = batch.value.shape[1:]
    order = torch.randperm(M * B, generator=generator, device=batch.value.device)

    def shuffled(x: Tensor) -> Tensor:
        return x.flatten(1, 2)[:, order].view(x.shape)

    return Batch(**{name: shuffled(x) for name, x in vars(batch).items()})
