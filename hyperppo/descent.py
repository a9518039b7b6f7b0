"""One step of gradient descent, on a CPU or without asking a GPU anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyperppo import parallel


def descend(
    optimizer: torch.optim.Adam,
    module: nn.Module,
    loss: Tensor,
    learning_rate: Tensor,
    max_grad_norm: float,
    skip: Tensor | None = None,
) -> None:
    """One step of gradient descent on `module`, whose parameters are the optimizer's, unless `skip`
    (0-dimensional) says that there is none.
    """
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    parallel.average_gradients(module.parameters())
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # Seldom on a CPU: most of the time a pass over all gradients is saved. A GPU is not asked.
    if not norm.is_cpu or norm > max_grad_norm:
        nn.utils.clip_grads_with_norm_(module.parameters(), max_grad_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = float(learning_rate) if norm.is_cpu else learning_rate.float()
    if not norm.is_cpu and skip is not None:
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]  # fused: does nothing then
    optimizer.step()
