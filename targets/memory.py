"""Bytes of a policy, without compiling it: exact for constants and buffers, fitted for code.

Constants are the panels' streams (a bias and one weight an input for each row, padding included)
and buffers the two that layers write in turn; both are known to the byte. Code and stack come
from compiled samples: a part for each kernel in use, one for each layer, and the largest amount
by which that was short in any sample, so that no sample is under-estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targets import shapes
from targets.cycles import constants_of, fitted
from targets.errors import TargetError
from targets.shapes import Integers
from targets.target import Target

BYTES_PER_WEIGHT = {"f32": 4}
# The eight-row kernel is one function, called by each layer; the four-row kernel is inlined in
# each, with its inputs unrolled where they are few.
CODE_TERMS = (
    "fixed",
    "layer",
    "dense8",
    "dense8_call",
    "dense4_call",
    "dense4_block",
    "dense4_two",
    "dense4_one",
)


class Sizes(Protocol):
    """Compiled bytes of one policy, as `targets.toolchain.PolicySizes` has them."""

    @property
    def text(self) -> int: ...  # noqa: D102
    @property
    def rodata(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> int: ...  # noqa: D102
    @property
    def bss(self) -> int: ...  # noqa: D102
    @property
    def stack(self) -> int: ...  # noqa: D102


def predict_memory(
    target: Target,
    precision: str,
    table: Integers,
    obs_dim: int,
    act_dim: int,
    weights_in: str,
) -> dict[str, Integers]:
    """Bytes (n,) under flash_bytes, ram_bytes (stack included), stack_bytes and total_bytes.

    `table` (n, depth) holds hidden widths, zero padded. TargetError when the target has no fit.
    """
    fit = fitted(target, precision, weights_in)
    layers = shapes.layers(precision, table, obs_dim, act_dim)
    weights = constants_of(fit, [f"code_{term}" for term in CODE_TERMS], target.name)
    fixed = constants_of(fit, ["constants_fixed", "buffers_fixed", "stack"], target.name)
    constants_fixed, buffers_fixed, stack_bytes = fixed.astype(np.int64)
    code = np.ceil(_code_features(layers) @ weights - 1e-6).astype(np.int64)
    constants = _constants(precision, layers) + constants_fixed
    buffers = _buffers(precision, layers) + buffers_fixed
    stack = np.full_like(code, stack_bytes)
    in_ram = constants if weights_in == "ram" else np.zeros_like(constants)
    return {
        "flash_bytes": code + constants,
        "ram_bytes": buffers + stack + in_ram,
        "stack_bytes": stack,
        "total_bytes": code + constants + buffers + stack,
    }


def fit_memory(
    table: Integers, obs_dim: int, act_dim: int, measured: Sequence[Sizes], precision: str = "f32"
) -> dict[str, float]:
    """The constants of `predict_memory` from the compiled sizes of each architecture in `table`."""
    layers = shapes.layers(precision, table, obs_dim, act_dim)
    if len(measured) != len(layers.inputs) or not measured:
        raise TargetError("a fit needs the compiled sizes of each architecture")
    text = np.array([sizes.text for sizes in measured], dtype=np.float64)
    features = _code_features(layers)
    code, *_ = np.linalg.lstsq(features, text, rcond=None)
    code[0] += max(0.0, float((text - features @ code).max()))
    constants = np.array([sizes.rodata + sizes.data for sizes in measured])
    buffers = np.array([sizes.bss for sizes in measured])
    fit = {f"code_{term}": float(value) for term, value in zip(CODE_TERMS, code, strict=True)}
    fit["constants_fixed"] = float((constants - _constants(precision, layers)).max())
    fit["buffers_fixed"] = float((buffers - _buffers(precision, layers)).max())
    fit["stack"] = float(max(sizes.stack for sizes in measured))
    return fit


def _constants(precision: str, layers: shapes.Layers) -> Integers:
    numbers = (layers.rows * (1 + layers.inputs)).sum(axis=1)
    return np.asarray(BYTES_PER_WEIGHT[precision] * numbers, dtype=np.int64)


def _buffers(precision: str, layers: shapes.Layers) -> Integers:
    """Outputs of the even and of the odd layers, the widest of each."""
    even, odd = layers.rows[:, 0::2].max(axis=1), layers.rows[:, 1::2].max(axis=1, initial=0)
    return np.asarray(BYTES_PER_WEIGHT[precision] * (even + odd), dtype=np.int64)


def _code_features(layers: shapes.Layers) -> NDArray[np.float64]:
    k, four = layers.inputs, layers.panels4
    calls8 = (layers.panels8 > 0).sum(axis=1)
    blocks = np.where(k < shapes.UNROLLED_BELOW, k // 4, 1)
    columns = [
        np.ones_like(calls8),
        layers.present.sum(axis=1),
        calls8 > 0,
        calls8,
        four.sum(axis=1),
        (four * blocks).sum(axis=1),
        (four * (k % 4 // 2)).sum(axis=1),
        (four * (k % 2)).sum(axis=1),
    ]
    return np.stack(columns, axis=1).astype(np.float64)
