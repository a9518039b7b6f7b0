"""Bytes of the tensor arena, by TFLM's own allocation rules for the target's pointers.

The host interpreter's figure is not the target's: its pointers take 8 bytes, its allocator
records every allocation, and ``arena_used_bytes`` leaves out what is needed for a moment only.
Here every allocation is replayed, in TFLM's order (MicroAllocator, MicroInterpreter::
AllocateTensors, GreedyMemoryPlanner, the Prepare functions of the kernels; tflite-micro of
October 2026) with structures laid out for pointers of any size. For 8-byte pointers and the
recording allocator the result equals what the tflite-micro interpreter reports, to the byte, and
the smallest multiple of 16 that it accepts: tests/compile/test_tflm_arena.py.

The arena grows from both ends: what stays is taken from the tail, tensors live at the head, and
while it is being set up the head holds the planner's notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compile.lower.tflm.model import Model, Tensor

ALIGNMENT = 16  # of tensors and kernels' data, MicroArenaBufferAlignment
SCRATCH_REQUESTS = 12  # places for a kernel's requests, kMaxScratchBuffersPerOp
PLANNER_BYTES = 40  # of GreedyMemoryPlanner for each buffer: ten ints
MARGIN_FIXED = 256
MARGIN_OPERATOR = 48
"""Bytes on top of the rules, for other versions of TFLM and for CMSIS-NN's kernels, whose data
for an operator is larger by the sizes of a layer and a buffer's index (five ints), 48 at most
with alignment."""

# Structures by their fields: p a pointer or size_t, i an int or enum, b a bool. An enum counts as
# an int, which it is at most (arm-none-eabi packs some into a byte).
STRUCTURES = {
    "SingleArenaBufferAllocator": "ppppppppp",
    "RecordingSingleArenaBufferAllocator": "ppppppppppppp",
    "GreedyMemoryPlanner": "piippppiipb",
    "MicroAllocator": "ppppppppp",
    "RecordingMicroAllocator": "p" * 34,
    "MicroBuiltinDataAllocator": "pp",
    "SubgraphAllocations": "ppp",
    "NodeAndRegistration": "ppppppip",
    "TfLiteEvalTensor": "ppi",
    "TfLiteTensor": "ippppiiiib",
    "TfLiteAffineQuantization": "ppi",
    "ScratchBufferRequest": "pii",
    "AllocationInfo": "ppiiib",
    "FULLY_CONNECTED parameters": "iibbipp",
    "FULLY_CONNECTED data": "iiiiiiiiippbii",
    "LEAKY_RELU parameters": "i",
    "LEAKY_RELU data": "iiiiii",
    "ELU data": "b" * 256,
    "TANH data": "iiii",
    "LOGISTIC data": "iiii",
    "RELU data": "iiiiiiiii",
}


@dataclass(frozen=True)
class Arena:
    """What the rules give, without margin."""

    head: int  # tensors
    tail: int  # everything that stays
    peak: int  # the smallest multiple of 16 with which the set-up succeeds


@dataclass(frozen=True)
class Others:
    """What the widths of the layers have no part in."""

    tail: int
    set_up: int  # the most that head and tail take before there are tensors


def target_arena(model: Model, others: Others | None = None) -> int:
    """Bytes to reserve on a target with 4-byte pointers, margin included, a multiple of 16.

    ``others``: of a model with the same operators, to save time.
    """
    rules = arena(model, pointer=4, recording=False, others=others)
    return rules.peak + MARGIN_FIXED + MARGIN_OPERATOR * len(model.operators)


def arena(model: Model, pointer: int, recording: bool, others: Others | None = None) -> Arena:
    """Replay the set-up of a model; ``recording``: with the host interpreter's allocators."""
    others = others or others_than_tensors(model, pointer, recording)
    head = plan(_lifetimes(model))
    peak = max(others.set_up, head + others.tail)
    return Arena(head, others.tail, _up(peak, ALIGNMENT))


def others_than_tensors(model: Model, pointer: int = 4, recording: bool = False) -> Others:
    """Everything in the arena but the tensors."""
    tail = 0
    peak = 0

    def keep(size: int, alignment: int = pointer) -> None:
        nonlocal tail
        tail = _up(tail + size, alignment)

    def struct(name: str) -> int:
        return structure_bytes(STRUCTURES[name], pointer)

    prefix = "Recording" if recording else ""
    keep(struct(f"{prefix}SingleArenaBufferAllocator"))
    keep(struct("GreedyMemoryPlanner"))
    keep(struct(f"{prefix}MicroAllocator"))
    keep(struct("MicroBuiltinDataAllocator"))
    keep(struct("SubgraphAllocations"))
    keep(struct("TfLiteEvalTensor") * len(model.tensors))
    keep(struct("NodeAndRegistration") * len(model.operators))
    for operator in model.operators:
        name = f"{operator.kind} parameters"
        if name in STRUCTURES:
            keep(struct(name), structure_alignment(STRUCTURES[name], pointer))
    prepared = [o for o in model.operators if f"{o.kind} data" in STRUCTURES]
    for operator in prepared:
        keep(struct(f"{operator.kind} data"), ALIGNMENT)
    requests = SCRATCH_REQUESTS * struct("ScratchBufferRequest")
    for operator in prepared:
        there = requests
        for index in (*operator.inputs, *operator.outputs):
            there = _up(there, pointer) + struct("TfLiteTensor")
            for size, alignment in _quantization(model.tensors[index], pointer):
                there = _up(there, alignment) + size
        peak = max(peak, there + tail)
    notes = _up(requests, pointer) + pointer
    notes = _up(notes, pointer) + struct("AllocationInfo") * len(model.tensors)
    buffers = sum(not tensor.constant for tensor in model.tensors)
    planning = _up(notes, ALIGNMENT) + PLANNER_BYTES * buffers
    peak = max(peak, planning + _up(tail, ALIGNMENT))
    for index in (model.source, model.result):
        keep(pointer, ALIGNMENT)
        keep(struct("TfLiteTensor"))
        for size, alignment in _quantization(model.tensors[index], pointer):
            keep(size, alignment)
    return Others(tail, peak)


def structure_bytes(fields: str, pointer: int) -> int:
    """Size of a C structure with these fields."""
    end = 0
    for field in fields:
        size = _field(field, pointer)
        end = _up(end, size) + size
    return _up(end, structure_alignment(fields, pointer))


def structure_alignment(fields: str, pointer: int) -> int:
    """Alignment of a C structure with these fields."""
    return max(_field(field, pointer) for field in fields)


def plan(buffers: Sequence[tuple[int, int, int]]) -> int:
    """Bytes that GreedyMemoryPlanner needs for (size, first use, last use) buffers.

    It places the largest first (of equals the later one), each into the first gap among those
    that live at the same time.
    """
    order = sorted(reversed(buffers), key=lambda buffer: -buffer[0])  # stable
    placed: list[tuple[int, int, int, int]] = []  # offset, size, first, last; by offset
    for size, first, last in order:
        offset = 0
        for other, length, begin, end in placed:
            if begin > last or first > end:
                continue
            if other - offset >= size:
                break
            offset = max(offset, other + length)
        placed.append((offset, size, first, last))
        placed.sort(key=lambda entry: entry[0])  # stable: of equals the earlier placed first
    return max(offset + size for offset, size, _, _ in placed)


def _lifetimes(model: Model) -> list[tuple[int, int, int]]:
    """(aligned size, first, last operator) of each tensor in the arena, in the file's order."""
    first = {model.source: 0}
    last = {model.source: 0}
    for step, operator in enumerate(model.operators, 1):
        for index in operator.outputs:
            first[index] = last[index] = step
        for index in operator.inputs:
            last[index] = step
    last[model.result] = len(model.operators)
    return [
        (_up(tensor.size_bytes, ALIGNMENT), first[index], last[index])
        for index, tensor in enumerate(model.tensors)
        if not tensor.constant
    ]


def _quantization(tensor: Tensor, pointer: int) -> list[tuple[int, int]]:
    """(size, alignment) of what a TfLiteTensor's scale and zero point take."""
    if tensor.scale is None:
        return []
    return [(structure_bytes(STRUCTURES["TfLiteAffineQuantization"], pointer), pointer), (8, 4)]


def _field(field: str, pointer: int) -> int:
    return {"p": pointer, "i": 4, "b": 1}[field]


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
