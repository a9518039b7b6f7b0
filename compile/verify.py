"""Proof that every form of the policy computes the same: its source, ONNX, C, machine code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError

if TYPE_CHECKING:
    from torch import nn

    from compile.fixed_point import FixedNetwork

OBSERVATIONS = 1024  # how many recorded observations every form is compared on
TOLERANCE = 1e-5
"""Largest accepted difference of an action, absolute, in [-1, 1]. Float32 sums in different
orders differ by about 1e-6 in networks of this size; 1e-5 of the thrust range is 0.6 uN."""

FUNCTION_TOLERANCE = 1e-6
"""The same for fixed point with tanh, sigmoid or ELU behind the last layer, in units of the
activation: float32, and the reference's function is not the kernel's. Else whole numbers are equal
or wrong."""


def fixed_tolerance(fixed: FixedNetwork) -> float:
    """Largest accepted difference of a fixed-point policy's action from its integer reference."""
    largest = max(1.0, abs(fixed.elu_alpha)) if fixed.output == "elu" else 1.0
    return FUNCTION_TOLERANCE * largest if fixed.output_form.function else 0.0


def tolerance_for(actions: NDArray[np.float32]) -> float:
    """TOLERANCE, in units of the largest action where that is above 1."""
    return TOLERANCE * max(1.0, float(np.abs(actions).max()))


def run_torch(policy: nn.Sequential, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions of the torch policy."""
    import torch

    with torch.no_grad():
        result: NDArray[np.float32] = policy(torch.from_numpy(observations)).numpy()
    return result


def run_onnx(path: Path, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Actions of the exported ONNX file in onnxruntime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.float32] = session.run(None, {"observation": observations})[0]
    return result


def compare(
    stage: str,
    expected: NDArray[np.float32],
    actual: NDArray[np.float32],
    tolerance: float = TOLERANCE,
) -> float:
    """The largest absolute difference; CompileError when it is above the tolerance or a NaN."""
    if expected.shape != actual.shape:
        raise CompileError(f"{stage}: actions of shape {actual.shape}, not {expected.shape}")
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    worst = float(difference.max())  # a NaN anywhere makes it NaN
    if not worst <= tolerance:
        row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference).max(axis=1)))
        raise CompileError(
            f"{stage} differ by {worst:.3g} on observation {row}, more than {tolerance:g}; "
            "nothing was written"
        )
    return worst


def bad_observations(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copies of an observation with a NaN or an infinity, first and last element in turn."""
    rows = []
    for value in (np.nan, np.inf, -np.inf):
        for position in (0, -1):
            row = observation.astype(np.float32).copy()
            row[position] = value
            rows.append(row)
    return np.stack(rows)


def check_rejection(stage: str, actions: NDArray[np.float32], rejected: float) -> None:
    """CompileError unless every action is the documented one for a bad observation."""
    if not (actions == np.float32(rejected)).all():
        raise CompileError(
            f"{stage}: an observation with NaN or infinity does not give {rejected:g}; "
            "nothing was written"
        )
