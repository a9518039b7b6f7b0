"""What the tests of the tflm backend share. Without its packages they are skipped."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from compile.network import Network

installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "tflite_micro")),
    reason="the packages of the group tflm are not installed",
)

# hidden activation, output, hidden widths
NETWORKS = [
    ("leaky_relu", "clip", (4,)),
    ("leaky_relu", "clip", (64, 64)),
    ("relu", "clip", (8, 128, 4)),
    ("tanh", "tanh", (16,)),
    ("tanh", "clip", (32, 8)),
    ("relu", "identity", (16, 16)),
    ("sigmoid", "sigmoid", (16, 8)),
    ("clip", "leaky_relu", (8, 16)),
    ("elu", "clip", (16, 8)),  # float32 alone
    ("elu", "elu", (8,)),
]


def cases(*precisions: str) -> list[tuple[str, str, tuple[int, ...], str]]:
    """NETWORKS in each precision that TensorFlow converts them to."""
    return [
        (*network, precision)
        for precision in precisions
        for network in NETWORKS
        if precision == "f32" or "elu" not in network
    ]


def observations(network: Network, count: int = 300, seed: int = 1) -> NDArray[np.float32]:
    """As from a drone: every element has its own range."""
    rng = np.random.default_rng(seed)
    ranges = np.geomspace(0.1, 10, network.obs_dim)
    return (ranges * rng.standard_normal((count, network.obs_dim))).astype(np.float32)
