"""What an instruction costs on a Cortex-M4F, and what the STM32F4 flash accelerator adds.

Costs: Arm Cortex-M4 Technical Reference Manual (DDI 0439), table 3-1 (integer) and table 7-1
(floating point), with the numbers of a target's `[timing]` table. Flash: ST RM0090 section 3.5.
Not modelled: interrupts, bus contention, load-use interlocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import capstone
from capstone import arm

SINGLE_LOADS = ("ldr", "vldr")
MULTIPLE_LOADS = ("ldm", "ldrd", "pop", "vldm", "vpop")
MULTIPLE_STORES = ("stm", "strd", "push", "vstm", "vpush")
MULTIPLY_ADDS = ("vmla", "vmls", "vfma", "vfms", "vnmla", "vnmls", "vfnma", "vfnms")
FLOAT_ARITHMETIC = (
    "vadd", "vsub", "vmul", "vnmul", "vabs", "vneg", "vcvt", "vdiv", "vsqrt", *MULTIPLY_ADDS,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CoreTiming:
    """Cycle counts of one core and its flash accelerator; a target's `[timing]` table.

    `taken_branch_min/max` bound the pipeline refill P; sizes of the cache are in 16 B lines.
    """

    taken_branch_min: int
    taken_branch_max: int
    integer_divide: int
    float_multiply_add: int
    float_divide: int
    load: int
    load_pipelined: int
    store: int
    float_result_use: int
    cache_line_bytes: int
    instruction_lines: int
    data_lines: int
    prefetch: bool


@dataclasses.dataclass(frozen=True)
class Block:
    """A straight run of instructions: cost without flash stalls and without the taken branch."""

    end: int  # address behind the last instruction
    cycles: int
    instructions: int
    lines: tuple[tuple[int, int], ...]  # flash lines entered, each with the cycles spent in it
    before: dict[int, int]  # instruction address -> cycles of the block spent before it


@dataclasses.dataclass(frozen=True)
class Load:
    """Where a load instruction reads: base register + index << shift + offset, `size` bytes."""

    base: int | None  # capstone register; None: `offset` is the absolute address (literal)
    index: int | None
    shift: int
    offset: int
    size: int
    condition: int  # capstone condition code; ARM_CC_AL when always executed


def disassembler(detail: bool) -> Any:
    """A capstone decoder for the Thumb-2 instruction set of the M profile."""
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    decoder.detail = detail
    return decoder


def is_load(mnemonic: str) -> bool:
    """Whether the instruction reads data memory."""
    return mnemonic.startswith(SINGLE_LOADS + MULTIPLE_LOADS)


def _register_count(instruction: Any) -> int:
    """32-bit registers a load or store multiple moves (a D register is two)."""
    registers = [o.reg for o in instruction.operands if o.type == arm.ARM_OP_REG]
    if instruction.mnemonic.startswith(("ldm", "stm", "vldm", "vstm")):
        registers = registers[1:]  # the base
    return sum(2 if arm.ARM_REG_D0 <= r <= arm.ARM_REG_D31 else 1 for r in registers)


def _is_single_load(instruction: Any) -> bool:
    name = instruction.mnemonic
    return name.startswith(SINGLE_LOADS) and not name.startswith("ldrd")


def instruction_cycles(instruction: Any, previous: Any, timing: CoreTiming) -> int:
    """Cycles of one instruction behind `previous` (None at the start of a block).

    A taken branch's refill P is not in it: whether a branch is taken is seen at run time.
    """
    name: str = instruction.mnemonic
    if name.startswith(MULTIPLE_LOADS + MULTIPLE_STORES):
        cycles = 1 + _register_count(instruction)
    elif name.startswith(SINGLE_LOADS):
        if name.startswith("vldr") and _writes_double(instruction):
            cycles = timing.load + 1
        else:
            pipelined = (
                previous is not None
                and _is_single_load(previous)
                and not _consumes(instruction, previous)
            )
            cycles = timing.load_pipelined if pipelined else timing.load
    elif name.startswith(("str", "vstr")):
        cycles = timing.store + (name.startswith("vstr") and _writes_double(instruction))
    elif name.startswith(("sdiv", "udiv")):
        cycles = timing.integer_divide
    elif name.startswith(("vdiv", "vsqrt")):
        cycles = timing.float_divide
    elif name.startswith(MULTIPLY_ADDS):
        cycles = timing.float_multiply_add
    elif name.startswith(("tbb", "tbh")) or (
        name.startswith("vmov") and len(instruction.operands) >= 3
    ):
        cycles = 2
    else:
        cycles = 1
    if (
        previous is not None
        and previous.mnemonic.startswith(FLOAT_ARITHMETIC)
        and _consumes(instruction, previous)
    ):
        cycles += timing.float_result_use
    return cycles


def _writes_double(instruction: Any) -> bool:
    return bool(arm.ARM_REG_D0 <= instruction.operands[0].reg <= arm.ARM_REG_D31)


def _consumes(instruction: Any, producer: Any) -> bool:
    """Whether `instruction` reads the register that `producer` wrote as its result."""
    if not producer.operands or producer.operands[0].type != arm.ARM_OP_REG:
        return False
    read, _ = instruction.regs_access()
    return producer.operands[0].reg in read


def describe_block(instructions: Sequence[Any], timing: CoreTiming) -> Block:
    """Static costs of decoded instructions that follow each other in memory."""
    before: dict[int, int] = {}
    lines: dict[int, int] = {}
    total = 0
    previous = None
    for instruction in instructions:
        before[instruction.address] = total
        cycles = instruction_cycles(instruction, previous, timing)
        line = instruction.address // timing.cache_line_bytes
        lines[line] = lines.get(line, 0) + cycles
        last_line = (instruction.address + instruction.size - 1) // timing.cache_line_bytes
        lines.setdefault(last_line, 0)  # an instruction may straddle two lines
        total += cycles
        previous = instruction
    end = instructions[-1].address + instructions[-1].size
    return Block(end, total, len(instructions), tuple(lines.items()), before)


def skip_savings(group: Sequence[Any], timing: CoreTiming) -> tuple[tuple[int, int], ...]:
    """(condition, cycles) of instructions under an IT: what skipping one saves (it costs 1)."""
    previous = [None, *group[:-1]]
    costs = (instruction_cycles(i, p, timing) for p, i in zip(previous, group, strict=True))
    return tuple((i.cc, cost - 1) for i, cost in zip(group, costs, strict=True) if cost > 1)


def describe_load(instruction: Any) -> Load | None:
    """Where the load reads, or None for loads through SP (never in flash)."""
    name: str = instruction.mnemonic
    operands = instruction.operands
    if name.startswith(("pop", "vpop")):
        return None
    if name.startswith(("ldm", "vldm")):
        base = operands[0].reg
        size = 4 * _register_count(instruction)
        offset = -size if "db" in name else 0
        load = Load(base, None, 0, offset, size, instruction.cc)
    else:
        memory = next(o for o in operands if o.type == arm.ARM_OP_MEM)
        size = 4
        if name.startswith(("ldrb", "ldrsb")):
            size = 1
        elif name.startswith(("ldrh", "ldrsh")):
            size = 2
        elif name.startswith("ldrd") or (name.startswith("vldr") and _writes_double(instruction)):
            size = 8
        index = memory.mem.index or None
        base, offset = memory.mem.base, memory.mem.disp
        if instruction.post_index:
            offset = 0  # ldr r0, [r1], #4 reads at the old base
        if base == arm.ARM_REG_PC:
            literal = ((instruction.address + 4) & ~3) + offset
            return Load(None, None, 0, literal, size, instruction.cc)
        load = Load(base, index, memory.shift.value if index else 0, offset, size, instruction.cc)
    return None if load.base == arm.ARM_REG_SP else load


def condition_holds(condition: int, apsr: int) -> bool:
    """Whether a condition code holds for the flags N Z C V in bits 31..28."""
    if condition in (arm.ARM_CC_AL, arm.ARM_CC_INVALID):
        return True
    n, z, c, v = (bool(apsr >> bit & 1) for bit in (31, 30, 29, 28))
    holds = (z, c, n, v, c and not z, n == v, not z and n == v)[(condition - 1) // 2]
    return holds if condition % 2 else not holds  # codes come in pairs: a test and its opposite


class FlashAccelerator:
    """ART accelerator: instruction and data caches of 16 B lines, LRU, sequential prefetch.

    A line that is neither cached nor prefetched costs the wait states. The prefetch of the line
    behind the current one starts when the current one is entered, so it has that line's cycles
    of head start. Assumption: a prefetched line that is used enters the cache as a missed one
    does (RM0090 3.5.2 leaves it open).
    """

    def __init__(self, timing: CoreTiming, wait_states: int) -> None:
        self._wait = wait_states
        self.instruction_lines = timing.instruction_lines
        self._data_lines = timing.data_lines
        self._line_bytes = timing.cache_line_bytes
        self._prefetch = timing.prefetch
        self.flush()

    def flush(self) -> None:
        """Empties both caches, as after reset."""
        self._code: dict[int, None] = {}  # insertion order is age: the first key is the oldest
        self._data: dict[int, None] = {}
        self._line = -2  # the instruction line in use, and the cycles spent in it
        self._spent = 0

    def fetch(self, lines: Iterable[tuple[int, int]]) -> int:
        """Stall cycles of running through instruction lines [(line, cycles spent in it)]."""
        stall = 0
        code = self._code
        for line, cycles in lines:
            if line == self._line:
                self._spent += cycles
                continue
            if line in code:
                del code[line]
            else:
                wait = self._wait
                if self._prefetch and line == self._line + 1:
                    wait = max(0, wait - self._spent)
                stall += wait
                if len(code) >= self.instruction_lines:
                    del code[next(iter(code))]
            code[line] = None
            self._line = line
            self._spent = cycles
        return stall

    def read(self, address: int, size: int) -> int:
        """Stall cycles of a data read of `size` bytes from flash; without a cache, word by word."""
        if not self._data_lines:
            return self._wait * -(-size // 4)
        stall = 0
        data = self._data
        for line in range(
            address // self._line_bytes, (address + size - 1) // self._line_bytes + 1
        ):
            if line in data:
                del data[line]
            else:
                stall += self._wait
                if len(data) >= self._data_lines:
                    del data[next(iter(data))]
            data[line] = None
        return stall
