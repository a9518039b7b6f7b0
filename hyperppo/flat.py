"""Modules and optimisers as flat tensors by name, as checkpoints hold them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def flatten(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Parameters and buffers as `module.name`, optimiser state as `optimizer.index.slot`."""
    state: dict[str, Tensor] = {}
    for name, module in modules.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, slots in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{i}.{key}": value for key, value in slots.items()}
    return state


def restore(
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Tensor],
) -> None:
    """Put what `flatten` gave into modules and optimisers of the same shapes."""
    for name, module in modules.items():
        module.load_state_dict(under(state, name))
    for name, optimizer in optimizers.items():
        slots: dict[int, dict[str, Any]] = {}
        for key, value in under(state, name).items():
            index, slot = key.split(".")
            slots.setdefault(int(index), {})[slot] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named `prefix.name`, by name."""
    start = f"{prefix}."
    return {key[len(start) :]: value for key, value in state.items() if key.startswith(start)}
