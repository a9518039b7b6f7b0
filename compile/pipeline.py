"""From a run or an ONNX file to a package: all of ``hyperppo-compile``, top to bottom."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.budget import Affordable, Budget, Costs, smallest_that_would, why_over, within
from compile.candidate import Candidate, build_candidate
from compile.errors import CompileError, NoFixedPointError
from compile.machine_code import OnTarget
from compile.manifest import manifest
from compile.package import Package, staging, write_manifest
from compile.progress import Progress
from compile.select import ranking

if TYPE_CHECKING:
    from compile.candidate_tflm import OnTflm
    from compile.source import Source
    from hyperppo.leaderboard import Leaderboard
    from targets.target import Target

TFLM_PRECISIONS = ("f32", "i16", "i8")
CHEAPEST_FIRST = ("i8", "i16", "f32")  # what `auto` tries
LOSS = 0.01  # that `auto` accepts: of float32's return, or of the spread of its actions
TRIES = 10  # candidates compiled before giving up: the model is far better than that


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    target: str
    budget: Budget = field(default_factory=Budget)
    at_least: float = 1.0  # share of the best affordable normalised return that is enough
    architecture: tuple[int, ...] | None = None  # instead of a choice by return
    run: Path | None = None  # default: the run that ships with the project
    onnx: Path | None = None  # a policy that others exported, instead of a run
    output: str | None = None  # of the ONNX file; default: its only one
    calibration: Path | None = None  # observations of the ONNX file's policy
    precision: str | None = None  # f32, i16, i8, i8x or auto; default: `default_precision`
    backend: str = "c"  # c or tflm
    tflm_root: Path | None = None  # TFLM's sources, to link the tflm backend's policy with
    weights_in: str | None = None  # "flash" or "ram"; default: the target's
    out: Path | None = None  # default: build/TARGET
    seed: int = 0  # of the rollouts that the observations come from

    @property
    def out_path(self) -> Path:
        """Where the package goes."""
        return self.out if self.out is not None else Path("build") / self.target


@dataclass(frozen=True)
class Survey:
    """All architectures: what they promise, what they are predicted to cost, who can be afforded.

    Arrays have one entry an architecture, in the search space's order.
    """

    names: tuple[str, ...]
    leaderboard: Leaderboard | None  # None where there is no choice
    memory: dict[str, NDArray[np.int64]]  # flash_bytes, ram_bytes, stack_bytes, total_bytes
    cycles: NDArray[np.float64] | None  # cold caches, P = 2; None without a cycle model
    us: NDArray[np.float64] | None
    affordable: Affordable
    precision: str
    weights_in: str


def compile_policy(request: Request, progress: Progress | None = None) -> Package:
    """Choose, build, verify and package a policy.

    Raises CompileError, HyperPPOError or TargetError, and then nothing was written.
    """
    progress = progress or Progress()
    check_backend(request)
    target, source = load(request, progress)
    with staging(request.out_path) as folder:
        survey, index, candidate, rejected = settle(request, source, target, folder, progress)
        with progress.stage("package") as found:
            facts = manifest(request, source, target, survey, rejected, index, candidate)
            write_reports(folder, facts, survey, index, candidate)
            complete = write_manifest(folder, facts)
            found.append(f"{len(complete['hashes']['files'])} files in {request.out_path}")
    return Package(request.out_path, complete)


def check_backend(request: Request) -> None:
    """CompileError on options that the tflm backend does not have, and where it is not there."""
    if request.backend != "tflm":
        if request.tflm_root is not None:
            raise CompileError("--tflm-root is of --backend tflm")
        return
    if request.precision not in (None, *TFLM_PRECISIONS):
        raise CompileError(
            f"--backend tflm takes --precision {', '.join(TFLM_PRECISIONS)}, not "
            f"{request.precision}"
        )
    if request.budget.max_us is not None:
        raise CompileError("--backend tflm has no cycle model: --max-us is of --backend c")
    if request.weights_in == "ram":
        raise CompileError("--backend tflm keeps the model in flash: --weights-in flash")
    from compile.lower.tflm import require

    require()
    if request.tflm_root is not None:
        from compile.lower.tflm.build import check_tree

        check_tree(request.tflm_root)


def load(request: Request, progress: Progress) -> tuple[Target, Source]:
    """The target and where the policy comes from."""
    from targets.target import load_target

    target = load_target(request.target)
    if request.backend == "tflm" and target.native:
        raise CompileError(f"--backend tflm is for microcontrollers, which {target.name} is not")
    with progress.stage("load") as found:
        source: Source
        if request.onnx is not None:
            from compile.source_onnx import open_onnx

            precisions = wanted_precisions(request, target)
            if request.calibration is None and precisions != ("f32",):
                raise CompileError(
                    f"--precision {request.precision or precisions[0]} of an ONNX file needs "
                    "observations of its policy: give them with --calibration"
                    + (", or compile float32" if "f32" in target.precisions else "")
                )
            source = open_onnx(request.onnx, request.output, request.calibration)
        else:
            from compile.source_run import open_run

            source = open_run(request.run, target.run)
        found.append(source.summary)
    return target, source


def wanted_precisions(request: Request, target: Target) -> tuple[str, ...]:
    """The precisions to try in turn. CompileError when the target does not compute in that one."""
    if request.precision is None:
        return (default_precision(request, target),)
    if request.precision == "auto":
        return tuple(p for p in CHEAPEST_FIRST if p in target.precisions)
    if request.precision not in target.precisions:
        raise CompileError(
            f"{target.name} has no {request.precision}: --precision takes one of "
            f"{', '.join(target.precisions)} or auto"
        )
    return (request.precision,)


def default_precision(request: Request, target: Target) -> str:
    """The target's; float32, where it has that, of an ONNX file without calibration."""
    uncalibrated = request.onnx is not None and request.calibration is None
    return "f32" if uncalibrated and "f32" in target.precisions else target.precisions[0]


def settle(
    request: Request, source: Source, target: Target, folder: Path, progress: Progress
) -> tuple[Survey, int, Candidate, list[dict[str, str]]]:
    """The survey, the index and the candidate of the precision asked for.

    `auto`: the cheapest precision whose policy loses at most LOSS of float32's return in the
    simulator; without one, whose actions err by at most LOSS of their spread. Those that lose
    more are listed with what was dropped.
    """
    precisions = wanted_precisions(request, target)
    rejected: list[dict[str, str]] = []
    for precision in precisions:
        survey = enumerate_costs(request, source, target, precision, progress)
        order = choose(request, source, target, survey, progress)
        index = int(order[0])
        try:
            index, candidate, dropped = first_that_holds(
                request, source, target, survey, order, folder, progress
            )
            rejected += dropped
            quantization = candidate.quantization
            if precision == precisions[-1] or quantization is None or quantization.lost <= LOSS:
                break
            why = f"in {precision} {quantization.text}"
        except NoFixedPointError as error:
            if len(precisions) == 1:
                raise
            why = f"has no {precision} form ({error})"
        rejected.append({"architecture": survey.names[index], "why": why})
        with progress.stage("dropped") as found:
            found.append(f"{survey.names[index]} {why}")
        shutil.rmtree(folder)
        folder.mkdir()
    return survey, index, candidate, rejected


def enumerate_costs(
    request: Request, source: Source, target: Target, precision: str, progress: Progress
) -> Survey:
    """Predict every architecture's memory and time, and compare with the budget."""
    from targets.cycles import predict_cycles
    from targets.memory import predict_memory

    with progress.stage("filter") as found:
        weights_in = request.weights_in or target.weights_in
        cycles = us = None
        if request.backend == "tflm":
            from compile.lower.tflm.costs import predict_memory as predict_tflm

            weights_in = "flash"
            memory = predict_tflm(precision, source.table, *source.dims, *source.activations)
        else:
            table = (source.table, *source.dims, weights_in, *source.activations)
            memory = predict_memory(target, precision, *table)
            if target.timing is not None:
                cycles = predict_cycles(target, precision, *table)
                us = cycles / target.modelled()[1] * 1e6
        costs = Costs(memory["total_bytes"], memory["flash_bytes"], memory["ram_bytes"], us)
        affordable = within(costs, request.budget, target)
        over = [f"{count} over on {name}" for name, count in affordable.over.items() if count]
        fits = f"{affordable.mask.sum()} of {len(source.names)} fit in {precision}"
        found.append("; ".join([fits, ", ".join(over)] if over else [fits]))
        return Survey(
            source.names,
            source.leaderboard(),
            memory,
            cycles,
            us,
            affordable,
            precision,
            weights_in,
        )


def choose(
    request: Request, source: Source, target: Target, survey: Survey, progress: Progress
) -> NDArray[np.int64]:
    """Indices of the architectures to try, the best first. CompileError when nothing fits."""
    affordable, board = survey.affordable, survey.leaderboard
    with progress.stage("choose") as found:
        if board is None:
            if not affordable.mask[0]:
                why = why_over(affordable.limits, 0)
                size = f"predicted {survey.memory['total_bytes'][0]} B"
                raise CompileError(too_large(request, source, target, survey, why, size))
            order = np.array([0])
        elif request.architecture is not None:
            index = source.index(request.architecture)
            if not affordable.mask[index]:
                raise CompileError(
                    f"architecture {survey.names[index]} does not fit: it "
                    f"{why_over(affordable.limits, index)}"
                )
            order = np.array([index])
        elif not affordable.mask.any():
            raise CompileError(smallest_that_would(affordable.limits, survey.names))
        else:
            cost = survey.memory["total_bytes"].astype(np.float64)
            order = ranking(board.return_mean, cost, affordable.mask, request.at_least)
        best = int(order[0])
        time = "no cycle model" if survey.us is None else f"{survey.us[best]:.1f} us"
        worth = "" if board is None else f"return {board.return_mean[best]:.4g}, "
        found.append(
            f"{survey.names[best]}, {worth}predicted {survey.memory['total_bytes'][best]} B, {time}"
        )
    return order


def first_that_holds(
    request: Request,
    source: Source,
    target: Target,
    survey: Survey,
    order: NDArray[np.int64],
    folder: Path,
    progress: Progress,
) -> tuple[int, Candidate, list[dict[str, str]]]:
    """The first candidate whose compiled size and emulated time are within the budget, too.

    Returns its index, itself, and those that were dropped with the reason.
    """
    rejected: list[dict[str, str]] = []
    for index in map(int, order[:TRIES]):
        candidate = build(request, source, index, target, survey, folder, progress)
        why = over_in_truth(candidate.on_target, request, target)
        if not why:
            return index, candidate, rejected
        rejected.append({"architecture": survey.names[index], "why": why})
        with progress.stage("dropped") as found:
            found.append(f"{survey.names[index]} {why}")
        shutil.rmtree(folder)
        folder.mkdir()
    last = rejected[-1]
    if survey.leaderboard is None:
        assert candidate.on_target is not None
        size = f"linked {candidate.on_target.sizes.total} B"
        raise CompileError(too_large(request, source, target, survey, last["why"], size))
    raise CompileError(
        f"no candidate holds the budget once compiled; the last, {last['architecture']}, "
        f"{last['why']}"
    )


def too_large(
    request: Request, source: Source, target: Target, survey: Survey, why: str, size: str
) -> str:
    """The message when the only policy does not fit: what it takes, and what to do."""
    fit = []
    for precision in CHEAPEST_FIRST:
        if precision == survey.precision or precision not in target.precisions:
            continue
        with suppress(CompileError):  # a form that the backend does not have
            other = enumerate_costs(request, source, target, precision, Progress())
            if other.affordable.mask[0]:
                fit.append(precision)
    advice = "allow it more, or train a smaller network"
    if fit:
        advice += f", or take --precision {' or '.join(fit)}, predicted to fit"
        advice += "" if request.calibration is not None else ", with --calibration"
    return (
        f"{source.names[0]} does not fit: it {why} ({size} in all in {survey.precision}): {advice}"
    )


def build(
    request: Request,
    source: Source,
    index: int,
    target: Target,
    survey: Survey,
    folder: Path,
    progress: Progress,
) -> Candidate:
    """One architecture through the backend asked for."""
    last = (request.seed, folder, progress)
    if request.backend == "tflm":
        from compile.candidate_tflm import build_in_tflm

        root = request.tflm_root
        return build_in_tflm(source, index, target, survey.precision, root, *last)
    return build_candidate(source, index, target, survey.precision, survey.weights_in, *last)


def over_in_truth(on_target: OnTarget | OnTflm | None, request: Request, target: Target) -> str:
    """Why a compiled candidate is over budget; empty when it is not, or was not compiled."""
    if on_target is None:
        return ""
    sizes, us = on_target.sizes, on_target.us(target)
    costs = Costs(
        np.array([sizes.total]),
        np.array([sizes.flash]),
        np.array([sizes.ram]),
        None if us is None else np.array([us]),
    )
    return why_over(within(costs, request.budget, target).limits, 0)


def write_reports(
    folder: Path,
    facts: dict[str, Any],
    survey: Survey,
    index: int,
    candidate: Candidate,
) -> None:
    """The Pareto picture, where there was a choice, and the report, both for people."""
    from compile.pareto import draw_pareto
    from compile.report import write_report

    if survey.leaderboard is not None:
        draw_pareto(folder / "pareto.png", facts, survey.leaderboard, survey, index)
    write_report(folder / "report.html", facts, survey, index, candidate)
