"""Instruction sequences against cycles added up by hand from Arm DDI 0439, tables 3-1 and 7-1."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets import cycle_model
from targets.cycle_model import FlashAccelerator
from targets.target import Target, load_target

SEQUENCES = {
    "mov r0, #1; add r0, r1; mul r0, r1, r2; smlad r0, r1, r2, r3": 4,
    "ldr r0, [r1]": 2,
    "ldr r0, [r1]; ldr r2, [r1, #4]; ldr r3, [r1, #8]": 4,  # pipelined
    "ldr r0, [r1]; ldr r2, [r0]": 4,  # the second needs the first
    "ldr r0, [r1]; add r2, r2, r3; ldr r4, [r1]": 5,
    "str r0, [r1]; strb r2, [r1, #4]": 2,
    "ldrd r0, r1, [r2]": 3,
    "strd r0, r1, [r2]": 3,
    "ldmia r0!, {r1, r2, r3, r4}": 5,
    "stmia r0!, {r1, r2}": 3,
    "push {r4, r5, lr}": 4,
    "pop {r4, r5}": 3,
    "ldmia r0!, {r1, r2}; ldr r3, [r4]": 5,  # behind a load multiple nothing is pipelined
    "udiv r0, r1, r2": 12,
    "vadd.f32 s0, s1, s2; vsub.f32 s3, s4, s5; vmul.f32 s6, s7, s8": 3,
    "vmul.f32 s0, s1, s2; vadd.f32 s3, s3, s0": 3,  # +1: the result is used at once
    "vmul.f32 s0, s1, s2; vmul.f32 s4, s5, s6; vadd.f32 s3, s3, s0": 3,
    "vmla.f32 s0, s1, s2": 3,
    "vfma.f32 s0, s1, s2; vfma.f32 s0, s3, s4": 7,
    "vdiv.f32 s0, s1, s2": 14,
    "vsqrt.f32 s0, s1": 14,
    "vldr s0, [r0]; vldr s1, [r0, #4]": 3,
    "vldmia r0!, {s0-s15}": 17,
    "vldmia r0!, {d0-d3}": 9,
    "vstmia r0!, {s0-s3}": 5,
    "vpush {s16-s31}": 17,
    "vstr s0, [r0]": 1,
    "vmov s0, r0": 1,
    "vmov s0, s1, r0, r1": 2,
    "vcvt.f32.s32 s0, s1; vcmp.f32 s2, s3; vmrs APSR_nzcv, fpscr": 3,
    "it ne; movne r0, #1": 2,
    "vldmia r1!, {s24-s31}; vldmia r0!, {s8-s23}; vmul.f32 s8, s8, s24; vmul.f32 s9, s9, s24; "
    "vadd.f32 s0, s0, s8; vadd.f32 s1, s1, s9": 30,
}


@pytest.fixture(scope="module")
def assemble(cross: str, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("assembly")

    def run(source: str) -> bytes:
        text = ".syntax unified\n.thumb\n" + source.replace(";", "\n") + "\n"
        flags = ["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mthumb"]
        built = folder / "x.o"
        subprocess.run([f"{cross}as", *flags, "-o", built, "-"], input=text, text=True, check=True)
        subprocess.run([f"{cross}objcopy", "-O", "binary", built, folder / "x.bin"], check=True)
        return Path(folder / "x.bin").read_bytes()

    return run


@pytest.mark.parametrize("source", SEQUENCES)
def test_a_sequence_costs_what_the_manual_says(assemble, target: Target, source: str) -> None:  # type: ignore[no-untyped-def]
    code = list(cycle_model.disassembler(detail=True).disasm(assemble(source), 0x0800_4000))
    block = cycle_model.describe_block(code, target.timing)
    assert block.instructions == source.count(";") + 1
    assert block.cycles == SEQUENCES[source]
    assert sum(cycles for _, cycles in block.lines) == block.cycles


@pytest.mark.parametrize(
    ("source", "base", "offset", "size"),
    [
        ("ldr r0, [r1, #8]", "r1", 8, 4),
        ("ldr r0, [r1], #4", "r1", 0, 4),
        ("ldr r0, [r1, #4]!", "r1", 4, 4),
        ("ldrb r0, [r1]", "r1", 0, 1),
        ("ldrsh r0, [r1]", "r1", 0, 2),
        ("ldrd r0, r2, [r1, #16]", "r1", 16, 8),
        ("vldr s0, [r1, #-4]", "r1", -4, 4),
        ("ldmia r1!, {r2, r3}", "r1", 0, 8),
        ("ldmdb r1!, {r2, r3}", "r1", -8, 8),
        ("vldmia r1!, {s0-s7}", "r1", 0, 32),
        ("vldmdb r1!, {s0-s1}", "r1", -8, 8),
        ("vldr s0, [pc, #8]", None, 0x0800_400C, 4),
        ("ldr r0, [sp, #4]", "sp", 0, 0),
        ("pop {r0}", "sp", 0, 0),
    ],
)
def test_where_a_load_reads(
    assemble, source: str, base: str | None, offset: int, size: int
) -> None:  # type: ignore[no-untyped-def]
    decoder = cycle_model.disassembler(detail=True)
    instruction = next(decoder.disasm(assemble(source), 0x0800_4000))
    assert cycle_model.is_load(instruction.mnemonic)
    load = cycle_model.describe_load(instruction)
    if base == "sp":
        assert load is None
        return
    assert load is not None
    assert (None if load.base is None else instruction.reg_name(load.base)) == base
    assert (load.offset, load.size) == (offset, size)


def test_indexed_load(assemble) -> None:  # type: ignore[no-untyped-def]
    decoder = cycle_model.disassembler(detail=True)
    instruction = next(decoder.disasm(assemble("ldr r0, [r1, r2, lsl #2]"), 0x0800_4000))
    load = cycle_model.describe_load(instruction)
    assert load is not None
    assert load.index is not None
    assert (instruction.reg_name(load.index), load.shift, load.offset) == ("r2", 2, 0)


@given(apsr=st.integers(0, 15))
def test_conditions(apsr: int) -> None:
    """ARMv7-M ARM table A7-1."""
    n, z, c, v = (bool(apsr >> bit & 1) for bit in (3, 2, 1, 0))
    expected = [
        z, not z, c, not c, n, not n, v, not v,
        c and not z, not c or z, n == v, n != v, not z and n == v, z or n != v, True,
    ]  # fmt: skip
    codes = range(1, 16)  # capstone: EQ, NE, HS, LO, MI, PL, VS, VC, HI, LS, GE, LT, GT, LE, AL
    assert [cycle_model.condition_holds(code, apsr << 28) for code in codes] == expected


TIMING = load_target("crazyflie21").timing


def test_sequential_code_is_prefetched() -> None:
    art = FlashAccelerator(TIMING, 5)
    assert art.fetch([(100, 4)]) == 5  # nothing cached
    assert art.fetch([(101, 4)]) == 1  # four of five cycles were hidden behind line 100
    assert art.fetch([(102, 9), (103, 2)]) == 1  # line 103 came while 102 ran
    assert art.fetch([(103, 1)]) == 0  # still in it
    assert art.fetch([(104, 1)]) == 2  # 2 + 1 cycles of head start
    assert art.fetch([(100, 1), (101, 1), (102, 1)]) == 0  # cached
    assert art.fetch([(200, 1)]) == 5  # a jump is not foreseen


def test_instruction_cache_forgets_the_oldest() -> None:
    art = FlashAccelerator(TIMING, 5)
    lines = [(2 * n, 9) for n in range(64)]
    assert art.fetch(lines) == 64 * 5
    assert art.fetch(lines) == 0
    assert art.fetch([(1000, 1)]) == 5  # pushes line 0 out
    assert art.fetch([(2, 1)]) == 0
    assert art.fetch([(0, 1)]) == 5


def test_data_cache_is_eight_lines() -> None:
    art = FlashAccelerator(TIMING, 5)
    assert art.read(0x0800_4000, 64) == 20
    assert art.read(0x0800_4000, 64) == 0
    assert art.read(0x0800_403C, 8) == 5  # straddles into a new line
    assert art.read(0x0800_5000, 4) == 5
    assert art.read(0x0800_6000, 48) == 15  # nine lines by now: the oldest is gone
    assert art.read(0x0800_4000, 4) == 5
    art.flush()
    assert art.read(0x0800_6000, 4) == 5


@given(reads=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 64)), max_size=80))
def test_data_cache_is_least_recently_used(reads: list[tuple[int, int]]) -> None:
    """Against a cache written the obvious way: a list, newest last."""
    art = FlashAccelerator(TIMING, 5)
    held: list[int] = []
    for address, size in reads:
        expected = 0
        for line in sorted({a // 16 for a in range(address, address + size)}):
            if line in held:
                held.remove(line)
            else:
                expected += 5
            held = [*held, line][-8:]
        assert art.read(address, size) == expected
