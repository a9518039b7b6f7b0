"""The package's manifest as plain data: everything that was decided, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import hyperppo
from compile.candidate import OnTarget
from compile.package import FORMAT, FORMAT_VERSION

if TYPE_CHECKING:
    from compile.candidate import Candidate
    from compile.candidate_tflm import OnTflm
    from compile.pipeline import Request, Survey
    from hyperppo.checkpoint import Run
    from targets.target import Target


def manifest(
    request: Request,
    run: Run,
    target: Target,
    survey: Survey,
    rejected: list[dict[str, str]],
    index: int,
    candidate: Candidate,
) -> dict[str, Any]:
    """Everything but the hashes, which come with the files."""
    board = survey.leaderboard
    network, on_target = candidate.network, candidate.on_target
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "hyperppo_version": hyperppo.__version__,
        "run": {
            "name": run.path.resolve().name,
            "task": run.task,
            "checkpoint_sha256": run.checkpoint_sha256,
        },
        "architecture": {
            "name": survey.names[index],
            "hidden": list(network.hidden),
            "index": index,
            "params": network.params,
            "macs": network.macs,
            "activation": run.activation,
            "negative_slope": run.negative_slope,
            "output": run.output,
        },
        "precision": candidate.precision,
        "backend": request.backend,
        "weights_in": survey.weights_in,
        "seed": request.seed,
        "target": {
            "name": target.name,
            "core": target.core,
            "clock_hz": target.clock_hz,
            "deadline_us": target.deadline_us,
            "control_hz": target.control_hz,
        },
        "budget": {**asdict(request.budget), "at_least": request.at_least},
        "choice": {
            "considered": len(survey.names),
            "requested": request.architecture is not None,
            "affordable": int(survey.affordable.mask.sum()),
            "over": survey.affordable.over,
            "return_mean": _number(board.return_mean[index]),
            "return_stderr": _number(board.return_stderr[index]),
            "metrics": {name: _number(values[index]) for name, values in board.metrics.items()},
            "rejected": rejected,
        },
        "size": {
            "predicted": {name: int(values[index]) for name, values in survey.memory.items()},
            "compiled": None if on_target is None else _compiled(on_target),
        },
        "cycles": {
            "predicted": _predicted(survey, index),
            "emulated": None if on_target is None else _emulated(on_target, target),
        },
        "numerics": asdict(candidate.numerics),
        "quantization": None if candidate.quantization is None else asdict(candidate.quantization),
        "conventions": run.conventions,
        "toolchain": None
        if on_target is None or on_target.image is None
        else {
            "compiler": on_target.image.compiler_version,
            "flags": list(on_target.image.flags),
        },
    }


def cost_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, predicted, compiled) of the manifest, for tables."""
    predicted, compiled = facts["size"]["predicted"], facts["size"]["compiled"] or {}
    names = {
        "total_bytes": "memory, all",
        "flash_bytes": "  flash",
        "ram_bytes": "  RAM",
        "stack_bytes": "  of it stack",
    }
    rows = [
        (
            label,
            f"{predicted[name]:,} B",
            f"{compiled[name]:,} B" if compiled else "-",
        )
        for name, label in names.items()
        if name in predicted
    ]
    cycles, emulated = facts["cycles"]["predicted"], facts["cycles"]["emulated"]
    if not cycles:
        rows.append(("one inference", "no cycle model", "no cycle model"))
        return rows
    rows.append(
        (
            "cycles (model)",
            f"{cycles['cycles']:,.0f}",
            f"{emulated['cycles_p2']:,}" if emulated else "-",
        )
    )
    rows.append(
        (
            "one inference (model)",
            f"{cycles['us']:.1f} µs",
            f"{emulated['us_p2']:.1f} µs ± {emulated['band']:.0%}" if emulated else "-",
        )
    )
    return rows


def _predicted(survey: Survey, index: int) -> dict[str, float] | None:
    if survey.cycles is None or survey.us is None:
        return None
    return {"cycles": float(survey.cycles[index]), "us": float(survey.us[index])}


def _number(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return float(value) if math.isfinite(value) else None


def _compiled(on_target: OnTarget | OnTflm) -> dict[str, Any]:
    if not isinstance(on_target, OnTarget):
        return on_target.facts()
    sizes = on_target.sizes
    return {
        "text_bytes": sizes.text,
        "rodata_bytes": sizes.rodata,
        "data_bytes": sizes.data,
        "bss_bytes": sizes.bss,
        "stack_bytes": sizes.stack,
        "flash_bytes": sizes.flash,
        "ram_bytes": sizes.ram,
        "total_bytes": sizes.total,
    }


def _emulated(on_target: OnTarget | OnTflm, target: Target) -> dict[str, Any] | None:
    us = on_target.us(target)
    if on_target.cycles is None or us is None:
        return None
    return {
        "source": "model",
        "cycles_p1": on_target.cycles.p1,
        "cycles_p2": on_target.cycles.p2,
        "us_p2": us,
        "band": target.error_band,
        "gate_us": us * target.gate_margin,
    }
