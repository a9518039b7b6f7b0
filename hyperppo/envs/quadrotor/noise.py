"""Cheap Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

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
