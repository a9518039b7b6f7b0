"""The package's manifest as plain data: everything that was decided, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import hyperppo
from compile.machine_code import program_folder, program_name
from compile.package import FORMAT, FORMAT_VERSION, flies

if TYPE_CHECKING:
    from compile.candidate import Candidate
    from compile.candidate_tflm import OnTflm
    from compile.machine_code import OnTarget
    from compile.network import Network
    from compile.pipeline import Request, Survey
    from compile.source import Source
    from hyperppo.leaderboard import Leaderboard
    from targets.target import Target


def manifest(
    request: Request,
    source: Source,
    target: Target,
    survey: Survey,
    rejected: list[dict[str, str]],
    index: int,
    candidate: Candidate,
) -> dict[str, Any]:
    """Everything but the hashes, which come with the files."""
    board = survey.leaderboard
    network, on_target = candidate.network, candidate.on_target
    image = None if on_target is None else on_target.image
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "hyperppo_version": hyperppo.__version__,
        **source.provenance,
        "architecture": {
            "name": survey.names[index],
            "hidden": list(network.hidden),
            "index": index,
            "params": network.params,
            "macs": network.macs,
            "activation": _hidden_activations(network),
            "negative_slope": network.negative_slope,
            "output": network.layers[-1].activation,
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
            "firmware": target.firmware,
            "platform": target.platform,
            "cycle_model": target.timing is not None,
        },
        "budget": {**asdict(request.budget), "at_least": request.at_least},
        "choice": {
            "considered": len(survey.names),
            "requested": request.architecture is not None or board is None,
            "affordable": int(survey.affordable.mask.sum()),
            "over": survey.affordable.over,
            **_worth(board, index),
            "rejected": rejected,
        },
        "size": {
            "predicted": {name: int(values[index]) for name, values in survey.memory.items()},
            "compiled": None if on_target is None else on_target.facts(),
        },
        "cycles": {
            "predicted": _predicted(survey, index),
            "emulated": None if on_target is None else _emulated(on_target, target),
        },
        "numerics": asdict(candidate.numerics),
        "machine_code": None if image is None else machine_code(target, request.backend),
        "quantization": None if candidate.quantization is None else asdict(candidate.quantization),
        "closed_loop": None if candidate.closed_loop is None else asdict(candidate.closed_loop),
        "conventions": source.conventions,
        "crazyflie_app": request.backend == "c"
        and target.firmware == "crazyflie"
        and flies(source.conventions),
        "toolchain": None
        if image is None
        else {"compiler": image.compiler_version, "flags": list(image.flags)},
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
    if not cycles and not emulated:
        return [*rows, ("one inference", "no cycle model", "no cycle model")]
    return [
        *rows,
        (
            "cycles (model)",
            f"{cycles['cycles']:,.0f}" if cycles else "-",
            f"{emulated['cycles_p2']:,}" if emulated else "-",
        ),
        (
            "one inference (model)",
            f"{cycles['us']:.1f} µs" if cycles else "-",
            f"{emulated['us_p2']:.1f} µs ± {emulated['band']:.0%}" if emulated else "-",
        ),
    ]


def _worth(board: Leaderboard | None, index: int) -> dict[str, Any]:
    """What the leaderboard says; nothing is known without one."""
    if board is None:
        return {"return_mean": None, "return_stderr": None, "metrics": {}}
    return {
        "return_mean": _number(board.return_mean[index]),
        "return_stderr": _number(board.return_stderr[index]),
        "metrics": {name: _number(values[index]) for name, values in board.metrics.items()},
    }


def _hidden_activations(network: Network) -> str:
    """The hidden layers' activation, or all of them in order of appearance."""
    return ", ".join(dict.fromkeys(layer.activation for layer in network.layers[:-1])) or "none"


def machine_code(target: Target, backend: str) -> dict[str, str]:
    """Which program was built, and on what its outputs were compared with the host's."""
    holds = "device contract" if target.firmware is not None else "self-test"
    timing = "with modelled timing" if target.timing is not None else "outputs alone, no timing"
    emulated = f"on an emulated {target.core} (Unicorn), {timing}"
    return {
        "program": f"{program_folder(target)}/{program_name(target)}",
        "holds": holds if backend == "c" else "policy alone",
        "ran": "on this machine" if target.native else emulated,
    }


def _predicted(survey: Survey, index: int) -> dict[str, float] | None:
    if survey.cycles is None or survey.us is None:
        return None
    return {"cycles": float(survey.cycles[index]), "us": float(survey.us[index])}


def _number(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return float(value) if math.isfinite(value) else None


def _emulated(on_target: OnTarget | OnTflm, target: Target) -> dict[str, Any] | None:
    us, by_data = on_target.us(target), on_target.by_data
    if on_target.cycles is None or by_data is None or us is None:
        return None
    return {
        "source": "model",
        "cycles_p1": on_target.cycles.p1,
        "cycles_p2": on_target.cycles.p2,
        "us_p2": us,
        "independent_of_data": by_data.independent,
        "by_data": asdict(by_data),
        "band": target.error_band,
        "gate_us": us * target.gate_margin,
    }
