"""A .tflite policy in tflite-micro's interpreter: TFLM's own kernels, on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.lower.tflm.arena import Arena, arena
from compile.lower.tflm.convert import quiet
from compile.lower.tflm.model import Model, Tensor

Codes = NDArray[Any]
KEEPING_BYTES = 1 << 16  # of an interpreter that keeps all tensors: its planner alone takes 8 KiB


@dataclass(frozen=True)
class Policy:
    """What policy_tflm.cc does around the interpreter: numbers in, numbers out.

    float32 passes as it is. Else code = clamp(floor(observation * gain + 0.5) + zero_point), and
    action = (code - zero_point) * scale; all in float32, as on the target.
    """

    content: bytes  # the .tflite file
    model: Model
    gain: NDArray[np.float32]  # (obs_dim,) codes for one unit of each observation; 1 for float32
    clip: tuple[float, float] | None  # of the action; None where it has no range

    @property
    def source(self) -> Tensor:
        """The input tensor."""
        return self.model.tensors[self.model.source]

    @property
    def result(self) -> Tensor:
        """The output tensor."""
        return self.model.tensors[self.model.result]

    def encode(self, observations: NDArray[np.float32]) -> Codes:
        """(n, obs_dim) observations -> what the input tensor holds."""
        if self.source.scale is None:
            return observations
        limits = np.iinfo(self.source.dtype)
        codes = np.floor(observations * self.gain + np.float32(0.5)) + self.source.zero_point
        whole: Codes = np.clip(codes, limits.min, limits.max).astype(self.source.dtype)
        return whole

    def decode(self, codes: Codes) -> NDArray[np.float32]:
        """(n, act_dim) of the output tensor -> actions."""
        if self.result.scale is None:
            actions = codes
        else:
            whole = (codes.astype(np.int32) - self.result.zero_point).astype(np.float32)
            actions = whole * np.float32(self.result.scale)
        if self.clip is None:
            return actions
        return np.clip(actions, np.float32(self.clip[0]), np.float32(self.clip[1]))


class Interpreter:
    """The interpreter with a policy loaded."""

    def __init__(self, policy: Policy) -> None:
        from tflite_micro import runtime

        self._policy = policy
        # The host needs more than the target: longer pointers and a record of what it allocates.
        size = 2 * arena(policy.model, pointer=8, recording=True).peak
        self._runtime = runtime.Interpreter.from_bytes(policy.content, arena_size=size)

    def forward(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, obs_dim) -> (n, act_dim), one inference a row."""
        return self._policy.decode(self.codes(self._policy.encode(observations)))

    def codes(self, source: Codes) -> Codes:
        """(n, obs_dim) of the input tensor -> (n, act_dim) of the output tensor."""
        rows = []
        for row in np.ascontiguousarray(source):
            self._runtime.set_input(row[None], 0)
            self._runtime.invoke()
            rows.append(self._runtime.get_output(0)[0])
        return np.stack(rows)

    def tensors(self, source: Codes) -> dict[int, Codes]:
        """What every computed tensor holds, (n, units) by index, for (n, obs_dim) of the input."""
        from tflite_micro import runtime

        model = self._policy.model
        steps = [index for operator in model.operators for index in operator.outputs]
        keeping = runtime.Interpreter.from_bytes(
            self._policy.content,
            arena_size=KEEPING_BYTES + sum(model.tensors[index].size_bytes + 16 for index in steps),
            intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
        )
        rows: dict[int, list[Codes]] = {index: [] for index in steps}
        for row in np.ascontiguousarray(source):
            keeping.set_input(row[None], 0)
            keeping.invoke()
            for index in steps:
                rows[index].append(np.array(keeping.GetTensor(index, 0)["tensor_data"]).reshape(-1))
        return {model.source: source, **{index: np.stack(found) for index, found in rows.items()}}

    def used(self) -> tuple[int, int]:
        """(head, tail) bytes of the arena that the interpreter reports. After an inference."""
        with quiet() as caught:
            self._runtime.print_allocations()
        return tuple(  # type: ignore[return-value]
            int(re.findall(rf"Arena allocation {part} (\d+) bytes", caught[0])[0])
            for part in ("head", "tail")
        )


def check_arena_rules(interpreter: Interpreter, model: Model) -> Arena:
    """The rules for this machine's pointers must give what the interpreter reports.

    CompileError where they do not: then the target's figure, by the same rules, proves nothing.
    """
    rules = arena(model, pointer=8, recording=True)
    head, tail = interpreter.used()
    if (head, tail) != (rules.head, rules.tail):
        raise CompileError(
            f"tflite-micro reports an arena of {head} + {tail} B, its allocation rules as "
            f"implemented here give {rules.head} + {rules.tail} B: this version of tflite-micro "
            "allocates differently; install the one pinned in constraints.txt"
        )
    return rules
