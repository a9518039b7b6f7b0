"""From a run to a package: the whole of ``hyperppo-compile``, top to bottom."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.budget import Affordable, Budget, Costs, smallest_that_would, why_over, within
from compile.candidate import Candidate, OnTarget, build_candidate
from compile.errors import CompileError
from compile.manifest import manifest
from compile.package import Package, staging, write_manifest
from compile.progress import Progress
from compile.select import ranking

if TYPE_CHECKING:
    from compile.candidate_tflm import OnTflm
    from hyperppo.checkpoint import Run
    from hyperppo.leaderboard import Leaderboard
    from hyperppo.space import Architecture
    from targets.target import Target

TFLM_PRECISIONS = ("f32", "i16", "i8")
CHEAPEST_FIRST = ("i8", "i16", "f32")  # what `auto` tries
RETURN_LOSS = 0.01  # share of float32's return that `auto` accepts to lose
TRIES = 10  # candidates compiled before giving up: the model is far better than that


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    target: str
    budget: Budget = field(default_factory=Budget)
    at_least: float = 1.0  # share of the best affordable normalised return that is enough
    architecture: tuple[int, ...] | None = None  # instead of a choice by return
    run: Path | None = None  # default: the run that ships with the project
    precision: str = "f32"  # f32, i16, i8, i8x or auto
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
    leaderboard: Leaderboard
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
    target, run = load(request, progress)
    with staging(request.out_path) as folder:
        survey, index, candidate, rejected = settle(request, run, target, folder, progress)
        with progress.stage("package") as found:
            facts = manifest(request, run, target, survey, rejected, index, candidate)
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
    if request.precision not in TFLM_PRECISIONS:
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


def load(request: Request, progress: Progress) -> tuple[Target, Run]:
    """The target and the run."""
    from targets.target import load_target

    target = load_target(request.target)
    with progress.stage("load") as found:
        from hyperppo.checkpoint import load_run

        run = load_run(request.run if request.run is not None else shipped_run(request.target))
        found.append(f"run {run.path.name} ({run.task}), checkpoint {run.checkpoint_sha256[:12]}")
    return target, run


def shipped_run(target: str) -> Path:
    """The run that comes with the project for a target."""
    from hyperppo.pretrained import path

    return path(target)


def settle(
    request: Request, run: Run, target: Target, folder: Path, progress: Progress
) -> tuple[Survey, int, Candidate, list[dict[str, str]]]:
    """The survey, the index and the candidate of the precision asked for.

    `auto`: the cheapest precision whose policy loses at most RETURN_LOSS of float32's return in
    the simulator. Those that lose more are listed with what was dropped.
    """
    precisions = CHEAPEST_FIRST if request.precision == "auto" else (request.precision,)
    rejected: list[dict[str, str]] = []
    for precision in precisions:
        survey = enumerate_costs(request, run, target, precision, progress)
        order = choose(request, run, survey, progress)
        index, candidate, dropped = first_that_holds(
            request, run, target, survey, order, folder, progress
        )
        rejected += dropped
        lost = 0.0 if candidate.quantization is None else candidate.quantization.return_lost
        if precision == precisions[-1] or lost <= RETURN_LOSS:
            break
        why = f"in {precision} loses {lost:.1%} of float32's return"
        rejected.append({"architecture": survey.names[index], "why": why})
        with progress.stage("dropped") as found:
            found.append(f"{survey.names[index]} {why}")
        shutil.rmtree(folder)
        folder.mkdir()
    return survey, index, candidate, rejected


def enumerate_costs(
    request: Request, run: Run, target: Target, precision: str, progress: Progress
) -> Survey:
    """Predict every architecture's memory and time, and compare with the budget."""
    from hyperppo.space import format_architecture
    from targets.cycles import predict_cycles
    from targets.memory import predict_memory

    with progress.stage("filter") as found:
        space = run.space
        weights_in = request.weights_in or target.weights_in
        table = (space.table, space.obs_dim, space.act_dim, weights_in)
        cycles = us = None
        if request.backend == "tflm":
            from compile.lower.tflm.costs import predict_memory as predict_tflm

            memory = predict_tflm(precision, *table[:3], run.activation, run.output)
            weights_in = "flash"
        else:
            memory = predict_memory(target, precision, *table)
            cycles = predict_cycles(target, precision, *table)
            us = cycles / target.clock_hz * 1e6
        costs = Costs(memory["total_bytes"], memory["flash_bytes"], memory["ram_bytes"], us)
        affordable = within(costs, request.budget, target)
        over = ", ".join(f"{count} over on {name}" for name, count in affordable.over.items())
        found.append(f"{affordable.mask.sum()} of {len(space)} fit in {precision}; {over}")
        names = tuple(format_architecture(a) for a in space.architectures)
        return Survey(
            names, run.leaderboard(), memory, cycles, us, affordable, precision, weights_in
        )


def choose(request: Request, run: Run, survey: Survey, progress: Progress) -> NDArray[np.int64]:
    """Indices of the architectures to try, the best first. CompileError when nothing fits."""
    affordable = survey.affordable
    with progress.stage("choose") as found:
        if request.architecture is not None:
            index = run.space.index(request.architecture)
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
            returns = survey.leaderboard.return_mean
            order = ranking(returns, cost, affordable.mask, request.at_least)
        best = int(order[0])
        time = "no cycle model" if survey.us is None else f"{survey.us[best]:.1f} us"
        found.append(
            f"{survey.names[best]}, return {survey.leaderboard.return_mean[best]:.4g}, predicted "
            f"{survey.memory['total_bytes'][best]} B, {time}"
        )
    return order


def first_that_holds(
    request: Request,
    run: Run,
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
        architecture = run.space.architectures[index]
        candidate = build(request, run, architecture, target, survey, folder, progress)
        why = over_in_truth(candidate.on_target, request, target)
        if not why:
            return index, candidate, rejected
        rejected.append({"architecture": survey.names[index], "why": why})
        with progress.stage("dropped") as found:
            found.append(f"{survey.names[index]} {why}")
        shutil.rmtree(folder)
        folder.mkdir()
    last = rejected[-1]
    raise CompileError(
        f"no candidate holds the budget once compiled; the last, {last['architecture']}, "
        f"{last['why']}"
    )


def build(
    request: Request,
    run: Run,
    architecture: Architecture,
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
        return build_in_tflm(run, architecture, target, survey.precision, root, *last)
    return build_candidate(run, architecture, target, survey.precision, survey.weights_in, *last)


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
    """The Pareto picture and the report, both for people."""
    from compile.pareto import draw_pareto
    from compile.report import write_report

    draw_pareto(folder / "pareto.png", facts, survey, index)
    write_report(folder / "report.html", facts, survey, index, candidate)
