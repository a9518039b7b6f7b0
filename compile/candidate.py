"""One architecture taken all the way: weights, ONNX, C, machine code, proof and true cost."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

import hyperppo
from compile import device, verify
from compile.closed_loop import mean_return
from compile.fixed_point import SUM_LIMIT, FixedNetwork
from compile.lower import c as lowering
from compile.network import Network, network_from_torch
from compile.onnx_graph import export_onnx, network_from_onnx
from compile.package import add_crazyflie_app
from compile.progress import Progress
from compile.quantize import quantize

if TYPE_CHECKING:
    from torch import nn

    from compile.candidate_tflm import OnTflm
    from hyperppo.checkpoint import Run
    from hyperppo.space import Architecture
    from targets.target import Target
    from targets.toolchain import Image, PolicySizes

GOLDEN_VECTORS = 16
PRECISION_TEXT = {
    "f32": "float32",
    "i16": "int16 weights and activations",
    "i8": "int8 weights (packed), int16 activations",
    "i8x": "int8 weights (exact), int16 activations",
}


class Forward(Protocol):
    """A quantised policy."""

    def forward(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, obs_dim) -> (n, act_dim)."""


@dataclass(frozen=True)
class Numerics:
    """Largest differences of an action between the forms of the policy, absolute."""

    observations: int
    torch_vs_onnxruntime: float
    tolerance: float
    unsaturated: float  # share of the compared action values strictly inside the range
    onnxruntime_vs_host_c: float | None = None  # None with another backend, below too
    host_c_vs_target: float | None = None  # None without the cross-compiler
    onnxruntime_vs_tflm: float | None = None
    tflm_vs_target: float | None = None  # None without --tflm-root


@dataclass(frozen=True)
class Quantization:
    """What fixed point does to a policy, and the proof that no sum overflows."""

    error_rms: float  # of an action against float32, on the recorded observations
    error_max: float
    return_float32: float  # flown in the simulator, same starts and disturbances
    return_fixed: float
    input_range: tuple[float, ...] | None = None  # observations saturate at +- this
    largest_sum: float | None = None  # of any observation, as a share of what 32 bits hold
    error_bound: float | None = None  # TFLM: of an action, on the recorded observations
    kernel_error: float | None = None  # TFLM: of its worst kernel, as a share of its bound

    @property
    def return_lost(self) -> float:
        """Share of float32's return that fixed point loses; negative where it gains."""
        return (self.return_float32 - self.return_fixed) / max(abs(self.return_float32), 1e-9)


@dataclass(frozen=True)
class OnTarget:
    """The linked image and what it costs in truth: sizes from the ELF, cycles from the core."""

    image: Image
    sizes: PolicySizes
    cycles: device.Cycles

    def us(self, target: Target) -> float:
        """Modelled microseconds of one inference at P = 2, without the safety margin."""
        return self.cycles.p2 / target.clock_hz * 1e6


@dataclass(frozen=True)
class Exported:
    """A policy as ONNX, and what it computes."""

    policy: nn.Sequential
    network: Network  # as read back from the file
    observations: NDArray[np.float32]  # (n, obs_dim), of rollouts of that very policy
    actions: NDArray[np.float32]  # (n, act_dim) of them, by onnxruntime
    torch_error: float


@dataclass(frozen=True)
class Candidate:
    """A verified policy whose files lie in the staging folder."""

    architecture: Architecture
    network: Network
    precision: str
    numerics: Numerics
    quantization: Quantization | None  # None for float32
    on_target: OnTarget | OnTflm | None  # None without the cross-compiler


def build_candidate(
    run: Run,
    architecture: Architecture,
    target: Target,
    precision: str,
    weights_in: str,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Candidate:
    """Write policy.onnx, the C, the app and the image into ``folder``, each checked.

    CompileError when two forms of the policy differ by more than the tolerance; forms of a
    fixed-point policy may not differ at all.
    """
    exported = export(run, architecture, seed, folder, progress)
    policy, lowered = exported.policy, exported.network
    observations, by_onnx = exported.observations, exported.actions
    fixed, quantization = None, None
    if precision != "f32":
        with progress.stage("quantize") as found:
            fixed = quantize(lowered, observations, precision)
            quantization = judge(run, policy, fixed, by_onnx, observations, seed)
            found.append(
                f"{precision} within {quantization.error_rms:.1e} rms of float32, "
                f"return {quantization.return_fixed:.4g} of {quantization.return_float32:.4g}"
            )
    with progress.stage("host C") as found:
        rejected = lower_to_c(lowered, fixed, run, target, weights_in, folder)
        by_host = host_actions(folder, observations, lowered.act_dim, rejected)
        if fixed is None:
            host_error = verify.compare("onnxruntime and the host's C", by_onnx, by_host)
            found.append(f"C within {host_error:.1e} of onnxruntime")
        else:
            host_error = float(np.abs(by_host - by_onnx).max())
            exact = verify.FIXED_TOLERANCE[fixed.output]
            verify.compare("numpy and the host's C", fixed.forward(observations), by_host, exact)
            found.append(f"C equal to the integer reference on {len(by_host)} observations")
        tolerance = verify.TOLERANCE if fixed is None else verify.FIXED_TOLERANCE[fixed.output]
        write_vectors(folder, observations, by_host, tolerance)
        add_crazyflie_app(folder, run.conventions, target)
    with progress.stage("device") as found:
        on_target, target_error = build_for_target(
            folder, target, weights_in, observations, by_host, rejected, tolerance
        )
        if on_target is None:
            found.append("skipped: no cross-compiler")
        else:
            found.append(
                f"machine code within {target_error:.1e} of the host's C, "
                f"{on_target.sizes.total} B, {on_target.cycles.p2} cycles (model)"
            )
    numerics = Numerics(
        observations=len(observations),
        torch_vs_onnxruntime=exported.torch_error,
        onnxruntime_vs_host_c=host_error,
        host_c_vs_target=target_error,
        tolerance=tolerance,
        unsaturated=unsaturated(lowered, by_host),
    )
    return Candidate(architecture, lowered, precision, numerics, quantization, on_target)


def export(
    run: Run, architecture: Architecture, seed: int, folder: Path, progress: Progress
) -> Exported:
    """Write policy.onnx into ``folder`` and check it: what every backend begins with."""
    with progress.stage("weights") as found:
        policy = run.policy(architecture)
        network = network_from_torch(policy)
        found.append(f"one GHN pass, {network.params} parameters")
    with progress.stage("observe") as found:
        observations = record(run, architecture, verify.OBSERVATIONS, seed)
        found.append(f"{len(observations)} observations from rollouts of this policy")
    with progress.stage("onnx") as found:
        model = folder / "policy.onnx"
        export_onnx(network, model, onnx_metadata(run, network))
        by_torch = verify.run_torch(policy, observations)
        by_onnx = verify.run_onnx(model, observations)
        torch_error = verify.compare("torch and onnxruntime", by_torch, by_onnx)
        found.append(f"onnxruntime within {torch_error:.1e} of torch")
        return Exported(policy, network_from_onnx(model), observations, by_onnx, torch_error)


def unsaturated(network: Network, actions: NDArray[np.float32]) -> float:
    """Share of the action values strictly inside the range."""
    low, high = network.clip
    return float(((actions > low) & (actions < high)).mean())


def judge(
    run: Run,
    policy: nn.Sequential,
    fixed: FixedNetwork,
    by_onnx: NDArray[np.float32],
    observations: NDArray[np.float32],
    seed: int,
) -> Quantization:
    """Compare a fixed-point policy with float32, on recorded observations and in flight."""
    error = np.abs(fixed.forward(observations).astype(np.float64) - by_onnx)
    return_float32, return_fixed = fly_both(run, policy, fixed, seed)
    return Quantization(
        input_range=tuple(map(float, fixed.input_range)),
        largest_sum=max(fixed.worst_sums) / SUM_LIMIT,
        error_rms=float(np.sqrt((error**2).mean())),
        error_max=float(error.max()),
        return_float32=return_float32,
        return_fixed=return_fixed,
    )


def fly_both(run: Run, policy: nn.Sequential, fixed: Forward, seed: int) -> tuple[float, float]:
    """Mean returns of the float32 and of the fixed-point policy in the simulator."""
    by_float = mean_return(run, lambda x: verify.run_torch(policy, x), seed)
    return by_float, mean_return(run, fixed.forward, seed)


def record(run: Run, architecture: Architecture, count: int, seed: int) -> NDArray[np.float32]:
    """Observations (count, obs_dim) from closed-loop rollouts of that very policy."""
    from hyperppo.evaluate import record_observations

    return record_observations(run, architecture, count, seed)


def onnx_metadata(run: Run, network: Network) -> dict[str, str]:
    """What the ONNX file says about itself."""
    import json

    return {
        "architecture": ",".join(map(str, network.hidden)),
        "task": run.task,
        "checkpoint_sha256": run.checkpoint_sha256,
        "conventions": json.dumps(run.conventions),
        "hyperppo_version": hyperppo.__version__,
    }


def lower_to_c(
    network: Network,
    fixed: FixedNetwork | None,
    run: Run,
    target: Target,
    weights_in: str,
    folder: Path,
) -> float:
    """Write policy.h and policy.c; returns the action that answers a bad observation."""
    name = ",".join(map(str, network.hidden))
    title = f"Policy {name} for {target.description}"
    precision = "f32" if fixed is None else fixed.precision
    text = f"{PRECISION_TEXT[precision]}; weights in {weights_in}"
    lines = essentials(network, run, target, text)
    kernels = lowering.core_kernels(target.core)
    (folder / "policy.h").write_text(
        lowering.policy_header(network, title, lines), encoding="utf-8"
    )
    source = (
        lowering.policy_source(network, title, lines, weights_in, kernels)
        if fixed is None
        else lowering.fixed_source(fixed, title, lines, weights_in, kernels)
    )
    (folder / "policy.c").write_text(source, encoding="utf-8")
    return lowering.rejected_action(network)


def essentials(network: Network, run: Run, target: Target, precision: str) -> list[str]:
    """The lines of the header comments that say what this policy is; ``precision`` as text."""
    sizes = " -> ".join(map(str, (network.obs_dim, *network.hidden, network.act_dim)))
    activations = ", ".join(dict.fromkeys(layer.activation for layer in network.layers))
    lines = [
        f"Network: {sizes}, {activations}; {network.params} parameters, {network.macs} MACs",
        f"Precision: {precision}",
        f"Target: {target.name} ({target.core})",
        f"Run: {run.task}, checkpoint sha256 {run.checkpoint_sha256[:16]}",
    ]
    for key, value in run.conventions.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        lines.append(f"{key.replace('_', ' ').capitalize()}: {text}")
    return [
        wrapped
        for line in lines
        for wrapped in textwrap.wrap(line.replace("*/", "* /"), 96, subsequent_indent="  ")
    ]


def host_actions(
    folder: Path, observations: NDArray[np.float32], act_dim: int, rejected: float
) -> NDArray[np.float32]:
    """Actions of policy.c on this machine; also checks what it does with NaN and infinity."""
    import tempfile

    from targets.toolchain import compile_host_library

    with tempfile.TemporaryDirectory(prefix="hyperppo-") as temporary:
        library = compile_host_library(
            [folder / "policy.c"], Path(temporary) / "policy.so", include=[folder]
        )
        bad = device.run_host(library, verify.bad_observations(observations[0]), act_dim)
        verify.check_rejection("the host's C", bad, rejected)
        return device.run_host(library, observations, act_dim)


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


def build_for_target(
    folder: Path,
    target: Target,
    weights_in: str,
    observations: NDArray[np.float32],
    expected: NDArray[np.float32],
    rejected: float,
    tolerance: float,
) -> tuple[OnTarget | None, float | None]:
    """Link the image, compare its actions with the host's, and measure it.

    (None, None) without the cross-compiler.
    """
    from targets.toolchain import ToolchainMissing, policy_sizes

    elf = folder / "bare_metal" / "policy.elf"
    elf.parent.mkdir()
    try:
        image = link(folder, target, weights_in, elf)
    except ToolchainMissing:
        elf.parent.rmdir()
        return None, None
    act_dim = expected.shape[1]
    actual = device.run_emulated(elf, target, observations, act_dim)
    error = verify.compare("the host's C and the machine code", expected, actual, tolerance)
    bad = device.run_emulated(elf, target, verify.bad_observations(observations[0]), act_dim)
    verify.check_rejection("the machine code", bad, rejected)
    cycles = device.count_cycles(elf, target, observations[0], act_dim)
    return OnTarget(image, policy_sizes(elf, image.stack_bytes), cycles), error


def link(folder: Path, target: Target, weights_in: str, elf: Path) -> Image:
    """The bare image: start-up code, the device contract, its main, and the policy."""
    from targets.toolchain import link_image

    app = folder / "crazyflie_app"
    return link_image(
        target,
        [app / "src" / "hppo_device.c", app / "bare_metal" / "main.c"],
        elf,
        policy_source=folder / "policy.c",
        include=[folder, app / "src"],
        weights_in=weights_in,
    )
