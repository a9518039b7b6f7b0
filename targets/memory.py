"""Bytes of a policy, without compiling it: exact for constants and buffers, fitted for code.

Constants are the panels' streams (a bias and the weights of each row, padding included) and
buffers those that layers write in turn; both are known to the byte. Code and stack come
from compiled samples: a part for each kernel in use, one for each layer, and the largest amount
by which that was short in any sample, so that no sample is under-estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from targets import shapes
from targets.cycles import constants_of, fitted
from targets.errors import TargetError
from targets.shapes import Integers
from targets.target import Target
from targets.terms import terms_of

SPARE = 4  # bytes of code beyond the worst sample: the compiler pads and aligns


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
    obs_dim: int | Integers,
    act_dim: int,
    weights_in: str,
) -> dict[str, Integers]:
    """Bytes (n,) under flash_bytes, ram_bytes (stack included), stack_bytes and total_bytes.

    `table` (n, depth) holds hidden widths, zero padded. TargetError when the target has no fit.
    """
    fit = fitted(target, precision, weights_in)
    layers = shapes.layers(precision, table, obs_dim, act_dim)
    terms = terms_of(precision)
    weights = constants_of(fit, [f"code_{term}" for term in terms.code], target.name)
    fixed = constants_of(fit, ["constants_fixed", "buffers_fixed", "stack"], target.name)
    constants_fixed, buffers_fixed, stack_bytes = fixed.astype(np.int64)
    code = np.ceil(terms.code_features(layers) @ weights - 1e-6).astype(np.int64)
    constants = terms.constants(layers) + constants_fixed
    buffers = terms.buffers(layers) + buffers_fixed
    stack = np.full_like(code, stack_bytes)
    in_ram = constants if weights_in == "ram" else np.zeros_like(constants)
    return {
        "flash_bytes": code + constants,
        "ram_bytes": buffers + stack + in_ram,
        "stack_bytes": stack,
        "total_bytes": code + constants + buffers + stack,
    }


def fit_memory(
    table: Integers,
    obs_dim: int | Integers,
    act_dim: int,
    measured: Sequence[Sizes],
    precision: str = "f32",
) -> dict[str, float]:
    """The constants of `predict_memory` from the compiled sizes of each architecture in `table`."""
    layers = shapes.layers(precision, table, obs_dim, act_dim)
    terms = terms_of(precision)
    if len(measured) != len(layers.inputs) or not measured:
        raise TargetError("a fit needs the compiled sizes of each architecture")
    text = np.array([sizes.text for sizes in measured], dtype=np.float64)
    features = terms.code_features(layers)
    code, *_ = np.linalg.lstsq(features, text, rcond=None)
    code[0] += max(0.0, float((text - features @ code).max())) + SPARE
    constants = np.array([sizes.rodata + sizes.data for sizes in measured])
    buffers = np.array([sizes.bss for sizes in measured])
    fit = {f"code_{term}": float(value) for term, value in zip(terms.code, code, strict=True)}
    fit["constants_fixed"] = float((constants - terms.constants(layers)).max())
    fit["buffers_fixed"] = float((buffers - terms.buffers(layers)).max())
    fit["stack"] = float(max(sizes.stack for sizes in measured))
    return fit
