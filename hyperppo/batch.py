"""A rollout as PPO trains on it."""

from __future__ import annotations

from collections.abc import Iterator
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


def minibatches(batch: Batch, epochs: int, seed: int | None) -> Iterator[Batch]:
    """The minibatches of all epochs, in order: fields (M, B, ...).

    Without a seed environments stay whole and every epoch is the same: nothing is copied. With one
    every epoch draws the samples of each architecture anew, which few environments need: a
    minibatch of two of them is two long trajectories.
    """
    for epoch in range(epochs):
        drawn = batch if seed is None else _redraw(batch, seed + epoch)
        for j in range(len(batch.value)):
            yield Batch(**{name: x[j] for name, x in vars(drawn).items()})


def _redraw(batch: Batch, seed: int) -> Batch:
    J, _, B = batch.value.shape
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(J * B, generator=generator).to(batch.value.device)

    def drawn(x: Tensor) -> Tensor:
        of_each = x.transpose(0, 1).flatten(1, 2)  # (M, J B, ...)
        return torch.unflatten(of_each[:, order], 1, (J, B)).transpose(0, 1)

    return Batch(**{name: drawn(x) for name, x in vars(batch).items()})


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
