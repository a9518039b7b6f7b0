"""Cheap Gaussian noise, and all that is drawn for a control step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperppo.envs.quadrotor.memory import ACT_DIM
from hyperppo.envs.quadrotor.options import QuadrotorOptions

_POOL = 1 << 22


class NoisePool:
    """Standard normal noise, cut at random places from a pool that is drawn once.

    On a CPU, drawing fresh noise would take half of the simulator's time. The pool is much longer
    than what a step takes, so that successive cuts share next to nothing. `generator` decides where
    to cut: its state is all that a resumed run needs.
    """

    def __init__(self, seed: int, generator: torch.Generator) -> None:
        self._generator = generator
        self._pool: Tensor | None = None
        if generator.device.type == "cpu":
            fill = torch.Generator().manual_seed(seed)
            self._pool = torch.randn(_POOL, generator=fill)

    def draw(self, rows: int, columns: int) -> Tensor:
        """Noise (rows, columns)."""
        size = rows * columns
        if self._pool is None or size > _POOL // 4:
            return torch.randn(
                (rows, columns), generator=self._generator, device=self._generator.device
            )
        offset = int(torch.randint(_POOL - size, (), generator=self._generator))
        return self._pool[offset : offset + size].view(rows, columns)

    def chance(self, probability: float, columns: int) -> Tensor:
        """Which of N things happen, (columns,) bool, each with this probability."""
        device = self._generator.device
        return torch.rand(columns, generator=self._generator, device=device) < probability


@dataclass(frozen=True)
class Draws:
    """What chance brings in one control step; None where a task has no such thing."""

    kick: Tensor | None  # (4, N) standard normal, of the unsteady thrust
    sensors: Tensor  # (12, N) standard normal: position, velocity, attitude, rates
    dropped: Tensor | None  # (N,) bool: no new measurement arrives


def of_a_step(pool: NoisePool, options: QuadrotorOptions, columns: int) -> Draws:
    """For N environments that fly."""
    kick = pool.draw(ACT_DIM, columns) if options.thrust_noise > 0 else None
    rate = options.noise.dropped
    return Draws(kick, pool.draw(12, columns), pool.chance(rate, columns) if rate > 0 else None)


def of_a_start(pool: NoisePool, columns: int) -> Draws:
    """For the first look of N episodes."""
    return Draws(None, pool.draw(12, columns), None)
