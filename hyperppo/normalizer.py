"""Running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyperppo import parallel


class RunningNorm(nn.Module):
    """Running mean and variance of features, merged batch by batch (Chan et al. 1979)."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("var", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """Standard deviation (features,) float64, kept away from 0 (a feature may be constant)."""
        return self.var.sqrt().clamp(min=1e-3)

    def update(self, batch: Tensor) -> None:
        """Merge a batch (n, features), of every process the same number."""
        n = batch.shape[0] * parallel.processes()
        mean = batch.mean(0, dtype=torch.float64)
        var = (batch - mean.to(batch.dtype)).square().mean(0, dtype=torch.float64)
        mean, var = parallel.pooled(mean, var)
        total = self.count + n
        delta = mean - self.mean
        self.var = (
            self.var * self.count + var * n + delta.square() * (self.count * n / total)
        ) / total
        self.mean = self.mean + delta * (n / total)
        self.count = total

    def shift_and_scale(self) -> tuple[Tensor, Tensor]:
        """What normalises: (x - shift) * scale, both (features,) float32."""
        return self.mean.float(), (1 / self.std).float()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., features) float32."""
        shift, scale = self.shift_and_scale()
        return (x - shift) * scale
