"""One architecture through TensorFlow Lite for Microcontrollers: model, C++, proof, cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile import candidate, device, verify
from compile.activation import action_range
from compile.candidate import (
    Candidate,
    Exported,
    Numerics,
    Quantization,
    essentials,
    export,
    unsaturated,
    write_vectors,
)
from compile.errors import CompileError
from compile.lower.c import rejected_action
from compile.lower.tflm.arena import Arena, arena, target_arena
from compile.lower.tflm.bound import exact, kernel_errors
from compile.lower.tflm.convert import convert, import_tensorflow
from compile.lower.tflm.costs import table_bytes
from compile.lower.tflm.generate import sources
from compile.lower.tflm.interpret import Interpreter, Policy, check_arena_rules
from compile.lower.tflm.model import read_model
from compile.network import Network
from compile.progress import Progress
from compile.source import Flown, Source

if TYPE_CHECKING:
    from compile.lower.tflm.build import Linked
    from targets.target import Target

Actions = NDArray[np.float32]

ARENA_CALLS = ("policy_tflm_init", "policy_tflm_arena_used")

PRECISION_TEXT = {
    "f32": "float32",
    "i16": "int16 activations, int8 weights, a scale for each tensor",
    "i8": "int8 activations and weights, a scale for each tensor",
}
CODE_TOLERANCE = 1e-6
"""Of an action between two machines that run a quantised model: TFLM's integer kernels give the
same codes everywhere, CMSIS-NN's too (its documentation: bit-exact with TFLM's reference
kernels); turning a code into a float rounds once."""


@dataclass(frozen=True)
class OnTflm:
    """What a policy costs in TFLM. Code only where it was linked."""

    model_bytes: int
    table_bytes: int  # by which the observation becomes codes
    arena_bytes: int  # reserved
    arena_rules: Arena  # by TFLM's allocation rules, for 4-byte pointers
    image: Linked | None

    @property
    def cycles(self) -> device.Cycles | None:
        """Modelled, of an inference after the first; None without an image or a cycle model."""
        return self.image.cycles if self.image else None

    @property
    def by_data(self) -> device.CyclesByData | None:
        """Likewise."""
        return self.image.by_data if self.image else None

    def us(self, target: Target) -> float | None:
        """Modelled microseconds of one inference at P = 2, without the safety margin."""
        return self.cycles.p2 / target.modelled()[1] * 1e6 if self.cycles else None

    @property
    def sizes(self) -> OnTflm:
        """Itself: flash, ram and total."""
        return self

    @property
    def flash(self) -> int:
        """Bytes in flash: of an image where there is one, else model and table."""
        return self.image.flash if self.image else self.model_bytes + self.table_bytes

    @property
    def ram(self) -> int:
        """Bytes in RAM: of an image where there is one, with its stack, else the arena."""
        return self.image.ram + self.image.stack if self.image else self.arena_bytes

    @property
    def total(self) -> int:
        """What ``--budget-kb`` caps."""
        return self.flash + self.ram

    @property
    def counted(self) -> str:
        """What the budget was held against, in words."""
        if self.image:
            return (
                "model, input table, code and static data of a linked image, and the stack that it "
                "used on the emulated core"
            )
        return (
            "model, input table and arena; not TFLM's code, the interpreter's object and the "
            "stack, which are unknown without --tflm-root"
        )

    def facts(self) -> dict[str, Any]:
        """The manifest's part."""
        return {
            "model_bytes": self.model_bytes,
            "input_table_bytes": self.table_bytes,
            "arena_bytes": self.arena_bytes,
            "arena_by_rules_bytes": self.arena_rules.peak,
            "arena_used_bytes": self.image.arena if self.image else None,
            "code_bytes": self.image.code if self.image else None,
            "flash_bytes": self.flash,
            "ram_bytes": self.ram,
            **({"stack_bytes": self.image.stack} if self.image else {}),
            "total_bytes": self.total,
            "counted": self.counted,
        }


def build_in_tflm(
    source: Source,
    index: int,
    target: Target,
    precision: str,
    tflm_root: Path | None,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Candidate:
    """Write policy.onnx, policy.tflite, the C++ and, with TFLM's sources, an image; each checked.

    CompileError when TFLM's kernels differ from onnxruntime by more than float32's tolerance, or
    by more than the quantisation's bound.
    """
    exported = export(source, index, seed, folder, progress)
    network, observations = exported.network, exported.observations
    with progress.stage("tensorflow") as found:
        found.append(f"imported TensorFlow {import_tensorflow().__version__}")
    with progress.stage("convert") as found:
        policy = make_policy(network, observations, precision)
        (folder / "policy.tflite").write_bytes(policy.content)
        found.append(f"{len(policy.content)} B, {', '.join(policy.model.kinds)}")
    with progress.stage("tflm") as found:
        interpreter = Interpreter(policy)
        actions = interpreter.forward(observations)
        check_arena_rules(interpreter, policy.model)
        flown = source.fly(interpreter.forward, seed)
        quantization = None
        tolerance = exported.tolerance
        error = float(np.abs(actions.astype(np.float64) - exported.actions).max())
        if precision == "f32":
            stage = "onnxruntime and TFLM's interpreter"
            verify.compare(stage, exported.actions, actions, tolerance)
            found.append(f"TFLM's kernels within {error:.1e} of onnxruntime")
        else:
            tolerance = CODE_TOLERANCE * max(1.0, float(np.abs(actions).max()))
            quantization = judge(source, exported, policy, interpreter, actions, flown, seed)
            found.append(
                f"{precision} within {error:.1e} of float32, bound "
                f"{quantization.error_bound:.1e}, {quantization.text}"
            )
    lines = essentials(network, source, target, PRECISION_TEXT[precision])
    texts = sources(network, policy, f"Policy {network.name} for {target.description}", lines)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    write_vectors(folder, observations, actions, tolerance, "TFLM's kernels gave on the host")
    with progress.stage("device") as found:
        linked, target_error = None, None
        if tflm_root is not None:
            rejected = rejected_action(network)
            linked, target_error = build_for_target(
                tflm_root, target, folder, observations, actions, rejected, tolerance
            )
        on_target = OnTflm(
            len(policy.content),
            table_bytes(precision, network.obs_dim),
            target_arena(policy.model),
            arena(policy.model, pointer=4, recording=False),
            linked,
        )
        unknown = "" if linked else " (model and arena; code is unknown without --tflm-root)"
        found.append(f"{on_target.total} B{unknown}")
    numerics = Numerics(
        observations=len(observations),
        observed=source.observed,
        source=source.form,
        source_vs_onnxruntime=exported.source_error,
        onnxruntime_vs_tflm=error,
        tflm_vs_target=target_error,
        tolerance=tolerance,
        unsaturated=unsaturated(network, actions),
    )
    return Candidate(exported.original.network, precision, numerics, quantization, flown, on_target)


def make_policy(network: Network, observations: NDArray[np.float32], precision: str) -> Policy:
    """Convert a network.

    One scale serves the whole observation, and int8 has 8 bits for it: there each element is
    first divided by its own largest value, which the first layer's weights take back.
    """
    reach = np.ones(network.obs_dim, np.float32)
    if precision == "i8":
        largest = np.abs(observations).max(axis=0)
        reach = np.where(largest > 0, largest, 1.0).astype(np.float32)
    first = network.layers[0]
    scaled = replace(first, weight=first.weight * reach)
    content = convert(
        replace(network, layers=(scaled, *network.layers[1:])), observations / reach, precision
    )
    model = read_model(content)
    scale = model.tensors[model.source].scale
    gain = reach if scale is None else (1 / (reach.astype(np.float64) * scale)).astype(np.float32)
    clip = action_range(network.layers[-1].activation, network)
    return Policy(content, model, gain, clip)


def judge(
    source: Source,
    exported: Exported,
    policy: Policy,
    interpreter: Interpreter,
    actions: Actions,
    flown: Flown | None,
    seed: int,
) -> Quantization:
    """Hold a quantised policy against its error bound, and its flights against float32's.

    CompileError on an observation, or a kernel, that is off by more than its bound.
    """
    off = np.abs(actions.astype(np.float64) - exported.actions)
    codes = policy.encode(exported.observations)
    kernels = kernel_errors(policy.model, interpreter.tensors(codes))
    for kind, share in kernels.items():
        if not share <= 1:
            raise CompileError(
                f"TFLM's {kind} is off by {share:.3g} times what rounding explains; nothing was "
                "written"
            )
    bound = error_bound(policy, codes, exported.actions)
    if not (off <= bound).all():
        row = int(np.argmax((off - bound).max(axis=1)))
        raise CompileError(
            f"TFLM's interpreter is off by {off[row].max():.3g} on observation {row}, more than "
            f"its quantisation explains ({bound[row].max():.3g}); nothing was written"
        )
    return replace(
        candidate.judge(source, exported, actions, flown, seed),
        error_bound=float(bound.max()),
        kernel_error=max(kernels.values()),
    )


def error_bound(policy: Policy, codes: NDArray[Any], by_onnx: Actions) -> NDArray[np.float64]:
    """(n, act_dim) how far an action may be from float32's, for these input codes.

    No more than the action's range is wide, which deep int8 policies reach: interval analysis
    lets all roundings conspire. What holds those to account is each kernel's own bound.
    """
    found = exact(policy.model, codes)
    low, high = policy.clip or (-np.inf, np.inf)
    bound = np.abs(np.clip(found.actions, low, high) - by_onnx) + found.rounding
    return np.minimum(bound + CODE_TOLERANCE, high - low)


def build_for_target(
    tflm_root: Path,
    target: Target,
    folder: Path,
    observations: NDArray[np.float32],
    expected: Actions,
    rejected: float,
    tolerance: float,
) -> tuple[Linked, float]:
    """Link the image with TFLM, compare its actions with the interpreter's, and measure it."""
    from compile.lower.tflm.build import link

    linked = link(tflm_root, target, folder)
    act_dim = expected.shape[1]
    actual = device.run_emulated(linked.elf, target, observations, act_dim)
    stage = "TFLM's interpreter and the machine code"
    error = verify.compare(stage, expected, actual, tolerance)
    bad = verify.bad_observations(observations[0])
    verify.check_rejection(
        "the machine code", device.run_emulated(linked.elf, target, bad, act_dim), rejected
    )
    linked = replace(
        linked,
        stack=device.stack_depth(linked.elf, target, observations, act_dim),
        arena=device.call(linked.elf, target, *ARENA_CALLS),
    )
    if target.timing is None:
        return linked, error
    # The first inference sets TFLM up; all others are as the second.
    cycles = device.count_cycles(linked.elf, target, observations[0], act_dim, before=1)
    by_data = device.cycles_by_data(linked.elf, target, observations, act_dim, before=1)
    return replace(linked, cycles=cycles, by_data=by_data), error
