"""One architecture taken all the way: weights, ONNX, C, machine code, proof and true cost."""

from __future__ import annotations

import math
import shutil
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import hyperppo
from compile import verify
from compile.activation import action_range
from compile.errors import CompileError, NoFixedPointError
from compile.fixed_point import SUM_LIMIT, FixedNetwork
from compile.lower import c as lowering
from compile.machine_code import OnTarget, build_for_target
from compile.network import Network
from compile.onnx_graph import export_onnx
from compile.onnx_import import network_from_onnx
from compile.package import add_firmware_app, flies
from compile.progress import Progress
from compile.quantize import quantize
from compile.source import Flown, Original, Source
from targets.host import host_policy

if TYPE_CHECKING:
    from compile.candidate_tflm import OnTflm
    from targets.target import Target

GOLDEN_VECTORS = 16
PRECISION_TEXT = {
    "f32": "float32",
    "i16": "int16 weights and activations",
    "i8": "int8 weights (packed), int16 activations",
    "i8x": "int8 weights (exact), int16 activations",
}


@dataclass(frozen=True)
class Numerics:
    """Largest differences of an action between the forms of the policy, absolute."""

    observations: int
    observed: str  # where they come from
    source: str  # what the policy was compared with first: torch, or the original ONNX file
    source_vs_onnxruntime: float
    tolerance: float
    unsaturated: float  # share of the compared action values strictly inside the range
    onnxruntime_vs_host_c: float | None = None  # None with the tflm backend, below too
    host_c_vs_target: float | None = None  # None without the cross-compiler
    onnxruntime_vs_tflm: float | None = None  # None with the C backend, below too
    tflm_vs_target: float | None = None  # None without --tflm-root


@dataclass(frozen=True)
class Quantization:
    """What fixed point does to a policy, and what was proved of it."""

    error_rms: float  # of an action against float32, on the observations
    error_max: float
    error_share: float  # error_rms by the standard deviation of float32's actions
    return_float32: float | None  # flown in the simulator, same starts and disturbances
    return_fixed: float | None  # None without a simulator
    input_range: tuple[float, ...] | None = None  # C: observations saturate at +- this
    largest_sum: float | None = None  # C: of any observation, as a share of what 32 bits hold
    error_bound: float | None = None  # TFLM: of an action, on the observations
    kernel_error: float | None = None  # TFLM: of its worst kernel, as a share of its bound

    @property
    def lost(self) -> float:
        """Share of float32's return that is lost, negative where one is gained.

        Without a simulator, `error_share`.
        """
        if self.return_float32 is None or self.return_fixed is None:
            return self.error_share
        return (self.return_float32 - self.return_fixed) / max(abs(self.return_float32), 1e-9)

    @property
    def text(self) -> str:
        """The price in words."""
        if self.return_float32 is None:
            return f"errs by {self.error_share:.2%} of the actions' spread"
        return f"loses {self.lost:.1%} of float32's return"


@dataclass(frozen=True)
class Exported:
    """A policy as ONNX, and what it computes: what every backend begins with."""

    original: Original
    network: Network  # as read back from the file
    observations: NDArray[np.float32]  # (n, obs_dim)
    actions: NDArray[np.float32]  # (n, act_dim) of them, by onnxruntime
    source_error: float
    tolerance: float


@dataclass(frozen=True)
class Candidate:
    """A verified policy whose files lie in the staging folder."""

    network: Network
    precision: str
    numerics: Numerics
    quantization: Quantization | None  # None for float32
    closed_loop: Flown | None  # by the code that is deployed; None without a simulator
    on_target: OnTarget | OnTflm | None  # None without the cross-compiler


def build_candidate(
    source: Source,
    index: int,
    target: Target,
    precision: str,
    weights_in: str,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Candidate:
    """Write policy.onnx, the C, the app and the image into ``folder``, each checked.

    NoFixedPointError when the policy has no form in that precision. CompileError when two forms
    differ by more than the tolerance; forms of a fixed-point policy may not differ at all.
    """
    exported = export(source, index, seed, folder, progress)
    lowered, tolerance = exported.network, exported.tolerance
    observations, by_onnx = exported.observations, exported.actions
    fixed, quantization = None, None
    if precision != "f32":
        with progress.stage("quantize") as found:
            try:
                fixed = quantize(lowered, observations, precision)
            except CompileError as error:
                raise NoFixedPointError(str(error)) from None
            share = max(fixed.worst_sums) / SUM_LIMIT
            found.append(f"{precision}, sums at most {share:.0%} of what 32 bits hold")
    with progress.stage("host C") as found:
        rejected = lower_to_c(lowered, fixed, source, target, weights_in, folder)
        with host_policy(folder, lowered.act_dim) as by_c:
            bad = by_c(verify.bad_observations(observations[0]))
            verify.check_rejection("the host's C", bad, rejected)
            by_host = by_c(observations)
            flown = source.fly(by_c, seed)
            if fixed is None:
                stage = "onnxruntime and the host's C"
                host_error = verify.compare(stage, by_onnx, by_host, tolerance)
                found.append(f"C within {host_error:.1e} of onnxruntime")
            else:
                host_error = float(np.abs(by_host - by_onnx).max())
                tolerance = verify.fixed_tolerance(fixed)
                by_numpy = fixed.forward(observations)
                verify.compare("numpy and the host's C", by_numpy, by_host, tolerance)
                quantization = replace(
                    judge(source, exported, by_host, flown, seed),
                    input_range=tuple(map(float, fixed.input_range)),
                    largest_sum=share,
                )
                found.append(
                    f"C equal to the integer reference on {len(by_host)} observations, within "
                    f"{quantization.error_rms:.1e} rms of float32; flown, it {quantization.text}"
                )
        if flown is not None:
            found.append(flown.text)
        write_vectors(folder, observations, by_host, tolerance)
        if target.firmware is not None:
            add_firmware_app(folder, source.conventions, target)
    with progress.stage("device") as found:
        on_target, target_error = build_for_target(
            folder, target, weights_in, observations, by_host, rejected, tolerance
        )
        if on_target is None:
            found.append("skipped: no cross-compiler")
        else:
            cycles = on_target.cycles
            found.append(
                f"machine code within {target_error:.1e} of the host's C, {on_target.sizes.total} "
                f"B, {'no cycle model' if cycles is None else f'{cycles.p2} cycles (model)'}"
            )
    if target.firmware is not None and not flies(source.conventions):
        # Its device contract is in the image; it has no controller to build that observation.
        shutil.rmtree(folder / f"{target.firmware}_app")
    numerics = Numerics(
        observations=len(observations),
        observed=source.observed,
        source=source.form,
        source_vs_onnxruntime=exported.source_error,
        onnxruntime_vs_host_c=host_error,
        host_c_vs_target=target_error,
        tolerance=tolerance,
        unsaturated=unsaturated(lowered, by_host),
    )
    return Candidate(exported.original.network, precision, numerics, quantization, flown, on_target)


def export(source: Source, index: int, seed: int, folder: Path, progress: Progress) -> Exported:
    """Write policy.onnx into ``folder`` and compare it with the source."""
    with progress.stage("weights") as found:
        original = source.original(index)
        network = original.network
        found.append(f"{network.name}, {network.params} parameters")
    with progress.stage("observe") as found:
        observations = source.observations(index, verify.OBSERVATIONS, seed)
        found.append(f"{len(observations)} observations from {source.observed}")
    with progress.stage("onnx") as found:
        model = folder / "policy.onnx"
        export_onnx(network, model, onnx_metadata(source, network))
        by_source = original.answer(observations)
        tolerance = verify.tolerance_for(by_source)
        by_onnx = verify.run_onnx(model, observations)
        stage = f"{source.form} and policy.onnx"
        error = verify.compare(stage, by_source, by_onnx, tolerance)
        found.append(f"policy.onnx within {error:.1e} of {source.form}")
        lowered = network_from_onnx(model)
    return Exported(original, lowered, observations, by_onnx, error, tolerance)


def unsaturated(network: Network, actions: NDArray[np.float32]) -> float:
    """Share of the action values strictly inside the range."""
    low, high = action_range(network.layers[-1].activation, network) or (-math.inf, math.inf)
    return float(((actions > low) & (actions < high)).mean())


def judge(
    source: Source,
    exported: Exported,
    actions: NDArray[np.float32],
    flown: Flown | None,
    seed: int,
) -> Quantization:
    """Compare a quantised policy with float32, on observations and, where it can, in flight.

    ``actions``: (n, act_dim) what it gives for the recorded observations; ``flown``: its flights.
    """
    error = np.abs(actions.astype(np.float64) - exported.actions)
    error_rms = float(np.sqrt((error**2).mean()))
    spread = float(exported.actions.astype(np.float64).std(axis=0).mean())
    by_float32 = None if flown is None else source.fly(exported.original.answer, seed)
    return Quantization(
        error_rms=error_rms,
        error_max=float(error.max()),
        error_share=error_rms / max(spread, 1e-9),
        return_float32=None if by_float32 is None else by_float32.return_mean,
        return_fixed=None if flown is None else flown.return_mean,
    )


def onnx_metadata(source: Source, network: Network) -> dict[str, str]:
    """What the ONNX file says about itself."""
    import json

    return {
        "architecture": network.name,
        **{key: json.dumps(value) for key, value in source.provenance.items()},
        "conventions": json.dumps(source.conventions),
        "hyperppo_version": hyperppo.__version__,
    }


def lower_to_c(
    network: Network,
    fixed: FixedNetwork | None,
    source: Source,
    target: Target,
    weights_in: str,
    folder: Path,
) -> float:
    """Write policy.h and policy.c; returns the action that answers a bad observation."""
    title = f"Policy {network.name} for {target.description}"
    precision = "f32" if fixed is None else fixed.precision
    form = f"{PRECISION_TEXT[precision]}; weights in {weights_in}"
    lines = essentials(network, source, target, form)
    kernels = lowering.core_kernels(target.core)
    (folder / "policy.h").write_text(
        lowering.policy_header(network, title, lines), encoding="utf-8"
    )
    text = (
        lowering.policy_source(network, title, lines, weights_in, kernels)
        if fixed is None
        else lowering.fixed_source(fixed, title, lines, weights_in, kernels)
    )
    (folder / "policy.c").write_text(text, encoding="utf-8")
    return lowering.rejected_action(network)


def essentials(network: Network, source: Source, target: Target, precision: str) -> list[str]:
    """The lines of the header comments that say what this policy is; ``precision`` as text."""
    sizes = " -> ".join(map(str, (network.obs_dim, *network.hidden, network.act_dim)))
    activations = ", ".join(dict.fromkeys(layer.activation for layer in network.layers))
    lines = [
        f"Network: {sizes}, {activations}; {network.params} parameters, {network.macs} MACs",
        f"Precision: {precision}",
        f"Target: {target.name} ({target.core})",
        source.essentials,
    ]
    for key, value in source.conventions.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        lines.append(f"{key.replace('_', ' ').capitalize()}: {text}")
    return [
        wrapped
        for line in lines
        for wrapped in textwrap.wrap(line.replace("*/", "* /"), 96, subsequent_indent="  ")
    ]


def write_vectors(
    folder: Path,
    observations: NDArray[np.float32],
    actions: NDArray[np.float32],
    tolerance: float,
    origin: str = lowering.FROM_C,
) -> None:
    """Write observations.npz and policy_golden.h; ``origin``: what gave the actions.

    The golden vectors are those with the most actions inside the range: a saturated action
    hides errors.
    """
    np.savez_compressed(folder / "observations.npz", observations=observations, actions=actions)
    inside = (np.abs(actions) < 1.0).sum(axis=1)
    telling = np.argsort(-inside, kind="stable")[: max(GOLDEN_VECTORS, len(actions) // 2)]
    chosen = np.sort(telling[:: max(1, len(telling) // GOLDEN_VECTORS)][:GOLDEN_VECTORS])
    (folder / "policy_golden.h").write_text(
        lowering.golden_header(observations[chosen], actions[chosen], tolerance, origin),
        encoding="utf-8",
    )
