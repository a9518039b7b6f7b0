"""Constants of the cycle model as a device has them: their fit, their file, their use.

The model's cycles of a kernel are linear in its constants, so that each constant's part is the
difference that one more cycle of it makes, and least squares finds the constants from what the
kernels took on the device.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hil.errors import HilError
from hil.files import write_text

if TYPE_CHECKING:
    from targets.target import Target

Constants = Mapping[str, float]
Floats = npt.NDArray[np.float64]

CORE = (
    "float_multiply_add",
    "float_divide",
    "load",
    "load_pipelined",
    "store",
    "float_result_use",
)
NAMES = ("taken_branch", *CORE, "wait_states")
ROUNDS = 8  # at most, of the fit
FORMAT, FORMAT_VERSION = "hyperppo-calibration", 1


@dataclasses.dataclass(frozen=True)
class Fit:
    """Constants by least squares, with each kernel's cycles measured and by the fitted model."""

    constants: dict[str, float]
    modelled: Floats  # (kernels,) with the constants as they are used: whole cycles
    largest_error: float  # over the kernels, relative


def constants_of(target: Target) -> dict[str, float]:
    """The constants that a target's file gives."""
    timing, _ = target.modelled()
    core = {name: float(getattr(timing, name)) for name in CORE}
    branch, wait = timing.taken_branch_max, target.memories["flash"].wait_states or 0
    return {"taken_branch": float(branch), **core, "wait_states": float(wait)}


def apply(target: Target, constants: Constants) -> tuple[Target, int]:
    """The target with these constants in whole cycles, and the pipeline refill P."""
    whole = {name: max(0, round(constants[name])) for name in NAMES}
    core: dict[str, Any] = {name: whole[name] for name in CORE}
    timing = dataclasses.replace(target.modelled()[0], **core)
    changed = dataclasses.replace(target, timing=timing)
    return changed.with_flash_wait_states(whole["wait_states"]), whole["taken_branch"]


def fit(measured: Floats, model: Callable[[Constants], Floats], start: Constants) -> Fit:
    """Fits all constants to (kernels,) measured cycles. Raises HilError when they cannot be told.

    `model` gives the (kernels,) cycles under given constants. Costs that a cache or the prefetch
    hides are linear only near the truth: the fit is repeated from where it came to.
    """
    constants = dict(start)
    for _ in range(ROUNDS):
        base = model(constants)
        steps = [model({**constants, name: constants[name] + 1}) - base for name in NAMES]
        slopes = np.stack(steps, axis=1)
        weights = 1 / measured
        change, _, rank, _ = np.linalg.lstsq(
            slopes * weights[:, None], (measured - base) * weights, rcond=None
        )
        if rank < len(NAMES):
            raise HilError("the kernels do not tell the constants of this target apart")
        found = {n: max(0.0, constants[n] + float(d)) for n, d in zip(NAMES, change, strict=True)}
        settled = all(round(found[n]) == round(constants[n]) for n in NAMES)
        constants = {n: float(round(found[n])) for n in NAMES}
        if settled:
            break
    modelled = model(constants)
    return Fit(found, modelled, float(np.max(np.abs(modelled - measured) / measured)))


def store_folder() -> Path:
    """Where calibrations are kept: HYPERPPO_CALIBRATIONS, or a folder of the user's own data."""
    chosen = os.environ.get("HYPERPPO_CALIBRATIONS")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "hyperppo" / "calibrations"


def store(record: dict[str, Any]) -> Path:
    """Writes a calibration, one file a device. Raises HilError."""
    name = "".join(c if c.isalnum() else "-" for c in record["device"]).strip("-")
    path = store_folder() / str(record["target"]) / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise HilError(f"cannot write {path}: {error.strerror}") from None
    return path


def latest(target_name: str) -> dict[str, Any] | None:
    """The newest calibration of such a target that was measured on a chip; None without one.

    Raises HilError when a file there is damaged.
    """
    found = [read(path) for path in sorted((store_folder() / target_name).glob("*.json"))]
    measured = [record for record in found if record["source"] == "dwt"]
    return max(measured, key=lambda record: str(record["created"]), default=None)


def read(path: Path) -> dict[str, Any]:
    """One calibration. Raises HilError."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(record, dict) and record["format"] == FORMAT
        if not whole or record["format_version"] != FORMAT_VERSION:
            raise HilError(f"{path} is no calibration that this version reads; remove it")
        _ = [float(record["constants"][name]) for name in NAMES]
        _ = record["source"], record["created"], float(record["band"]), record["device"]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise HilError(f"{path} is no calibration ({error}); remove it") from None
    return dict(record)
