"""What arrives late: actions at the motors, measurements at the policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Delay:
    """A line of N channels, each of its own whole number of control steps, drawn per episode."""

    share: Tensor  # (k + 1, N): 1 at the channel's delay, 0 elsewhere
    waiting: Tensor  # (d k, N): the last k values of d numbers, newest first


def draw(
    low_high: tuple[int, int],
    dim: int,
    num: int,
    generator: torch.Generator,
    hardness: float = 1.0,
) -> Delay | None:
    """Delays drawn evenly from low..high steps, for values of `dim` numbers; None if all are 0.

    `hardness` 0 to 1: this share of the steps.
    """
    low, high = low_high
    if high == 0:
        return None
    device = generator.device
    steps = torch.randint(low, high + 1, (num,), generator=generator, device=device)
    if hardness < 1:
        steps = (steps * hardness).round()
    share = (steps == torch.arange(high + 1, device=device)[:, None]).float()
    return Delay(share, torch.zeros((dim * high, num), device=device))


def fill(delay: Delay, value: Tensor) -> None:
    """Let the whole line hold `value` (d, N): before the first step nothing else had happened."""
    delay.waiting = value.repeat(len(delay.share) - 1, 1)


def send(delay: Delay, value: Tensor) -> Tensor:
    """Put `value` (d, N) in, take what has been in for the channel's delay out."""
    line = torch.cat((value, delay.waiting))
    delay.waiting = line[: -len(value)]
    parts = line.view(len(delay.share), len(value), -1)
    return (parts * delay.share[:, None]).sum(0)
