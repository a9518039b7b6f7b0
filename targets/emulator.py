"""The emulated core: an ARM image run instruction by instruction in Unicorn, with model cycles.

Timing is taken from outside the machine code: a hook at each block of instructions adds the
block's static cost, code hooks on single load instructions add the stalls of reading flash.
Memory-read hooks are never used: in Unicorn 2.1.4 they corrupt loads inside IT blocks.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import unicorn
from capstone import arm
from unicorn import arm_const as uc_arm

from targets import cycle_model
from targets.cycle_model import Block, FlashAccelerator, Load
from targets.errors import TargetError
from targets.image import read_image
from targets.target import Target

uc: Any = unicorn  # its own annotations are partial

PAGE = 0x1000
# Where `call` makes functions return to: at the end of the code region (ARMv7-M ARM B3.1), where
# an STM32F4 has its boot ROM and the other targets have nothing.
RETURN_ADDRESS = 0x1FFF_0000
CPU_MODELS = {  # Unicorn's; its Cortex-M0 is an ARMv6-M core, as the M0+ is
    "cortex_m0plus": uc_arm.UC_CPU_ARM_CORTEX_M0,
    "cortex_m4f": uc_arm.UC_CPU_ARM_CORTEX_M4,
    "cortex_m7": uc_arm.UC_CPU_ARM_CORTEX_M7,
}
PAINTED_BYTES = 4096  # of the stack, to see how deep a call goes
PAINT = b"\xa5"
TIMERS, SYSTEM = 0x4000_1000, 0xE000_E000
TIM7_CNT = 0x424  # from TIMERS: RM0090 2.3 puts TIM7 at 0x4000_1400, 20.4.8 CNT at 0x24
TRACE = 0xE000_1000
DWT_CTRL, DWT_CYCCNT = 0x000, 0x004  # ARMv7-M ARM C1.8.7
DEMCR = 0xDFC  # from SYSTEM: ARMv7-M ARM C1.6.5
TIMER_HZ = 1_000_000  # the firmware runs TIM7 as its microsecond clock
TIME_LIMIT_S = 20.0  # an untimed call that runs longer has run away

_UNICORN_REGISTER = {
    getattr(arm, f"ARM_REG_R{n}"): getattr(uc_arm, f"UC_ARM_REG_R{n}") for n in range(13)
} | {arm.ARM_REG_LR: uc_arm.UC_ARM_REG_LR, arm.ARM_REG_SP: uc_arm.UC_ARM_REG_SP}


class Emulator:
    """One image on one emulated core, started and stopped in `main`, from where calls are made.

    timed=True: `cycles` and `instructions` count, the image reads them through DWT and TIM7; only
    for a target with a cycle model.
    timed=False: outputs only, an order of magnitude faster; both stay 0.
    `taken_branch` is the pipeline refill P. `aliases` gives the start-up symbols' names in an image
    that was not linked here, e.g. {"_stack_top": "_estack"}. `timed_functions`: stalls of reading
    flash are charged in functions of these names alone, everywhere when None (each place that may
    stall slows all others down: a large image wants few).
    Use from one thread at a time, any thread.
    Raises TargetError on an image that is not for this target, on a fault and on a runaway.
    """

    def __init__(
        self,
        elf: Path,
        target: Target,
        *,
        timed: bool = True,
        taken_branch: int | None = None,
        instruction_limit: int = 200_000_000,
        aliases: Mapping[str, str] | None = None,
        timed_functions: Collection[str] | None = None,
    ) -> None:
        self.elf, self.target, self.timed = Path(elf), target, timed
        if timed:
            self._timing, self._clock_hz = target.modelled()
            self._refill = self._timing.taken_branch_max if taken_branch is None else taken_branch
        self._limit = instruction_limit
        self._flash = target.memories["flash"]
        self._image = read_image(self.elf)
        self.symbols: dict[str, int] = self._image.symbols
        for name, alias in (aliases or {}).items():
            if alias in self.symbols:
                self.symbols[name] = self.symbols[alias]
        for needed in ("Reset_Handler", "main", "_stack_top"):
            if needed not in self.symbols:
                raise TargetError(f"{self.elf}: no symbol {needed}; not an image of this project")
        self._functions = sorted((a, n) for n, a in self._image.functions.items())
        self._stalling = timed_functions
        self._blocks: dict[int, Block] = {}
        self._loads: dict[int, Load | None] = {}
        self._skips: dict[int, tuple[tuple[int, int], ...]] = {}
        self._decoder = cycle_model.disassembler(detail=True)
        self._uc = self._machine()
        self.reset()

    def reset(self) -> None:
        """Power-on: memories cleared, image loaded, start-up code run until `main`."""
        self.cycles = self.instructions = 0
        if self.timed:
            self._accelerator = FlashAccelerator(self._timing, self._flash.wait_states or 0)
        self._next = self._at = 0
        self._block: Block | None = None
        self._demcr = self._dwt_control = self._cyccnt_base = 0
        self._fault_address: int | None = None
        self._problem: TargetError | None = None
        for memory in self.target.memories.values():
            self._uc.mem_write(memory.origin, bytes(memory.size_bytes))
        for address, data in self._image.segments:
            self.write(address, data)
        self._uc.reg_write(uc_arm.UC_ARM_REG_SP, self.symbols["_stack_top"])
        self._run(self.symbols["Reset_Handler"], until=self.symbols["main"])
        self._stack = self._uc.reg_read(uc_arm.UC_ARM_REG_SP)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of emulated memory."""
        try:
            return bytes(self._uc.mem_read(address, size))
        except uc.UcError:
            raise TargetError(f"no memory at {address:#010x}..{address + size:#010x}") from None

    def write(self, address: int, data: bytes) -> None:
        """Puts bytes into emulated memory."""
        try:
            self._uc.mem_write(address, data)
        except uc.UcError:
            raise TargetError(f"no memory at {address:#010x}, {len(data)} bytes") from None

    def call(self, function: str, *arguments: int, cold: bool = False) -> int:
        """Calls a function with up to four integer arguments and returns r0.

        cold=True empties the flash caches first. Cycles run from its first instruction to its
        return, the return's pipeline refill included.
        """
        if function not in self.symbols:
            raise TargetError(f"{self.elf}: no function {function}")
        if cold and self.timed:
            self._accelerator.flush()
        for register, value in zip(range(4), arguments, strict=False):
            self._uc.reg_write(uc_arm.UC_ARM_REG_R0 + register, value & 0xFFFF_FFFF)
        self._uc.reg_write(uc_arm.UC_ARM_REG_SP, self._stack)
        self._uc.reg_write(uc_arm.UC_ARM_REG_LR, RETURN_ADDRESS | 1)
        self._run(self.symbols[function], until=RETURN_ADDRESS)
        return int(self._uc.reg_read(uc_arm.UC_ARM_REG_R0))

    def paint_stack(self) -> None:
        """Fills the stack below where calls begin, for `stack_depth`."""
        self.write(self._stack - PAINTED_BYTES, PAINT * PAINTED_BYTES)

    def stack_depth(self) -> int:
        """Bytes of stack that calls have used since `paint_stack`."""
        painted = self.read(self._stack - PAINTED_BYTES, PAINTED_BYTES)
        return len(painted.lstrip(PAINT))

    def where(self, address: int) -> str:
        """`function+0x12` for a code address."""
        index = bisect.bisect_right(self._functions, (address, "\U0010ffff")) - 1
        if index < 0:
            return "outside the image"
        start, name = self._functions[index]
        return f"{name}+{address - start:#x}"

    def _machine(self) -> Any:
        # Not UC_MODE_MCLASS: in Unicorn 2.1.4 it overrules the CPU model and gives a Cortex-M33.
        machine = uc.Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB)
        machine.ctl_set_cpu_model(CPU_MODELS[self.target.core])
        for memory in self.target.memories.values():
            end = memory.origin + memory.size_bytes
            machine.mem_map(memory.origin & -PAGE, -(-end // PAGE) * PAGE - (memory.origin & -PAGE))
        machine.mem_map(RETURN_ADDRESS, PAGE)
        machine.mmio_map(TIMERS, PAGE, self._read_timers, None, _ignore_write, None)
        machine.mmio_map(TRACE, PAGE, self._read_trace, None, self._write_trace, None)
        machine.mmio_map(SYSTEM, PAGE, self._read_system, None, self._write_system, None)
        machine.hook_add(uc.UC_HOOK_MEM_INVALID, self._on_invalid)
        if self.timed:
            machine.hook_add(uc.UC_HOOK_BLOCK, self._on_block)
            for address in self._find_hooked():
                hook = self._on_load if address in self._loads else self._on_it
                machine.hook_add(uc.UC_HOOK_CODE, hook, None, address, address)
        return machine

    def _run(self, start: int, until: int) -> None:
        machine, budget = self._uc, self.instructions + self._limit
        self._budget = budget
        self._next, self._block = start, None
        watchdog = None
        if not self.timed:
            watchdog = threading.Timer(TIME_LIMIT_S, machine.emu_stop)
            watchdog.daemon = True
            watchdog.start()
        try:
            machine.emu_start(start | 1, until)
        except uc.UcError as error:
            counter = machine.reg_read(uc_arm.UC_ARM_REG_PC)
            accessed = ""
            if self._fault_address is not None:
                accessed = f", access to {self._fault_address:#010x}"
                self._fault_address = None
            place = f"{counter:#010x} ({self.where(counter)})"
            raise TargetError(f"fault at {place}{accessed}: {error}") from None
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        counter = machine.reg_read(uc_arm.UC_ARM_REG_PC) & ~1
        if counter != until:
            raise TargetError(f"runaway: still at {counter:#010x} ({self.where(counter)})")
        if self.timed and self._next != until:
            self.cycles += self._refill

    # Timing. Each hook is called thousands of times an inference: kept short.

    def _on_block(self, machine: Any, address: int, size: int, _: object) -> None:
        if address != self._next:
            self.cycles += self._refill
        block = self._blocks.get(address)
        if block is None or block.end != address + size:
            block = self._describe(address, size)
        if block is not self._block or len(block.lines) > self._accelerator.instruction_lines:
            self.cycles += self._accelerator.fetch(block.lines)
            self._block = block
        self.cycles += block.cycles
        self.instructions += block.instructions
        self._next = block.end
        if self.instructions > self._budget:
            machine.emu_stop()

    def _on_load(self, machine: Any, address: int, _size: int, _: object) -> None:
        self._at = address
        load = self._loads[address]
        if load is None:
            return
        target = load.offset
        if load.base is not None:
            target += machine.reg_read(_UNICORN_REGISTER[load.base])
            if load.index is not None:
                target += machine.reg_read(_UNICORN_REGISTER[load.index]) << load.shift
        if self._flash.holds(target) and (
            load.condition == arm.ARM_CC_AL or self._condition_holds(machine, load.condition)
        ):
            self.cycles += self._accelerator.read(target, load.size)

    def _on_it(self, machine: Any, address: int, _size: int, _: object) -> None:
        """A skipped instruction costs 1: takes back the rest of what its block charged."""
        for condition, extra in self._skips[address]:
            if not self._condition_holds(machine, condition):
                self.cycles -= extra

    @staticmethod
    def _condition_holds(machine: Any, condition: int) -> bool:
        flags = machine.reg_read(uc_arm.UC_ARM_REG_APSR)
        return cycle_model.condition_holds(condition, flags)

    def _describe(self, address: int, size: int) -> Block:
        code = self.read(address, size)
        instructions = list(self._decoder.disasm(code, address))
        if not instructions or sum(i.size for i in instructions) != size:
            raise TargetError(f"cannot decode the code at {address:#010x} ({self.where(address)})")
        block = cycle_model.describe_block(instructions, self._timing)
        self._blocks[address] = block
        return block

    def _find_hooked(self) -> Iterator[int]:
        """Addresses of loads that may read flash, and of IT instructions over costly ones."""
        lite = cycle_model.disassembler(detail=False)
        governed: dict[int, Any] = {}  # instructions under an IT, which know their condition
        for start, code in self._code_with_stalls():
            for address, size, mnemonic, operands in lite.disasm_lite(code, start):
                rest = code[address - start :]
                if mnemonic.startswith("it"):
                    group = list(self._decoder.disasm(rest[:18], address, len(mnemonic)))[1:]
                    governed |= {instruction.address: instruction for instruction in group}
                    self._skips[address] = cycle_model.skip_savings(group, self._timing)
                    if self._skips[address]:
                        yield address
                elif cycle_model.is_load(mnemonic) and "[sp" not in operands:
                    decoded = governed.get(address)
                    if decoded is None:
                        decoded = next(self._decoder.disasm(rest[:size], address))
                    self._loads[address] = cycle_model.describe_load(decoded)
                    yield address

    def _code_with_stalls(self) -> Iterator[tuple[int, bytes]]:
        """Runs of code in which reading flash may stall."""
        if self._stalling is None:
            yield from self._image.code
            return
        ends = [address for address, _ in self._functions[1:]] + [1 << 32]
        for (first, name), end in zip(self._functions, ends, strict=True):
            if name not in self._stalling:
                continue
            for start, code in self._image.code:
                low, high = max(first, start), min(end, start + len(code))
                if low < high:
                    yield low, code[low - start : high - start]

    # Memory-mapped registers.

    def _now(self) -> int:
        """Cycles up to the load that is being executed: its block is already charged in full."""
        block = self._block
        if block is None:
            return self.cycles
        return self.cycles - block.cycles + block.before.get(self._at, 0)

    def _read_timers(self, _uc: Any, offset: int, _size: int, _: object) -> int:
        if offset == TIM7_CNT:
            return self._now() * TIMER_HZ // self._clock_hz & 0xFFFF if self.timed else 0
        return 0

    def _read_trace(self, _uc: Any, offset: int, _size: int, _: object) -> int:
        if offset == DWT_CTRL:
            return self._dwt_control
        if offset == DWT_CYCCNT and self._counting():
            return (self._now() - self._cyccnt_base) & 0xFFFF_FFFF
        return 0

    def _write_trace(self, _uc: Any, offset: int, _size: int, value: int, _: object) -> None:
        if offset == DWT_CTRL:
            self._dwt_control = value
        elif offset == DWT_CYCCNT:
            self._cyccnt_base = self._now() - value

    def _read_system(self, _uc: Any, offset: int, _size: int, _: object) -> int:
        return self._demcr if offset == DEMCR else 0

    def _write_system(self, _uc: Any, offset: int, _size: int, value: int, _: object) -> None:
        if offset == DEMCR:
            self._demcr = value

    def _counting(self) -> bool:
        return bool(self._demcr >> 24 & 1 and self._dwt_control & 1)  # TRCENA, CYCCNTENA

    def _on_invalid(
        self, _uc: Any, _access: int, address: int, _size: int, _value: int, _: object
    ) -> bool:
        self._fault_address = address
        return False


def _ignore_write(_uc: Any, _offset: int, _size: int, _value: int, _: object) -> None:
    return
