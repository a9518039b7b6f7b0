import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from targets.emulator import Emulator
from targets.errors import TargetError
from targets.target import Target
from targets.toolchain import Image, compile_host_library, link_image

PROGRAMS = Path(__file__).parent / "programs"

Link = Callable[[str], Image]


def results(core: Emulator) -> list[int]:
    return list(np.frombuffer(core.read(core.symbols["results"], 128), "<u4"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    out = tmp_path_factory.mktemp("host") / "mixed.so"
    return ctypes.CDLL(str(compile_host_library([PROGRAMS / "mixed.c"], out)))


@pytest.mark.parametrize("timed", [False, True])
def test_results_equal_the_hosts(
    link: Link, target: Target, host: ctypes.CDLL, timed: bool
) -> None:
    core = Emulator(link("mixed").elf, target, timed=timed)
    for seed in range(40):
        assert core.call("run", seed) == host.run(seed) == seed + 1
        expected = list((ctypes.c_uint32 * 32).in_dll(host, "results"))
        assert results(core) == expected


def test_hooks_change_nothing(link: Link, target: Target) -> None:
    """Timed and untimed runs leave the same memory and registers: the hooks only look."""
    image = link("mixed")
    timed, untimed = (Emulator(image.elf, target, timed=mode) for mode in (True, False))
    ram = target.memories["ram"]
    for seed in range(40):
        assert timed.call("run", seed) == untimed.call("run", seed)
        memory = timed.read(ram.origin, ram.size_bytes)
        assert memory == untimed.read(ram.origin, ram.size_bytes)
    assert timed.cycles > timed.instructions > 0
    assert untimed.cycles == untimed.instructions == 0


def test_constants_in_ram_give_the_same(link: Link, target: Target, tmp_path: Path) -> None:
    image = link_image(
        target,
        [PROGRAMS / "main.c"],
        tmp_path / "ram.elf",
        policy_source=PROGRAMS / "mixed.c",
        entry="run",
        weights_in="ram",
    )
    in_ram, in_flash = Emulator(image.elf, target), Emulator(link("mixed").elf, target)
    for seed in (3, 20):
        in_ram.call("run", seed)
        in_flash.call("run", seed)
        assert results(in_ram) == results(in_flash)


def test_cold_calls_repeat_and_warm_ones_are_no_slower(link: Link, target: Target) -> None:
    core = Emulator(link("mixed").elf, target)

    def cycles(cold: bool) -> int:
        before = core.cycles
        core.call("run", 7, cold=cold)
        return core.cycles - before

    cold = [cycles(True) for _ in range(3)]
    assert len(set(cold)) == 1
    assert cycles(False) < cold[0]


def test_taken_branches_and_wait_states_cost(link: Link, target: Target) -> None:
    elf = link("mixed").elf

    def cycles(core: Emulator) -> int:
        before = core.cycles
        core.call("run", 7, cold=True)
        return core.cycles - before

    one, two = (cycles(Emulator(elf, target, taken_branch=p)) for p in (1, 2))
    assert cycles(Emulator(elf, target)) == two > one
    assert cycles(Emulator(elf, target.with_flash_wait_states(0))) < two


def test_image_reads_its_own_time(link: Link, target: Target) -> None:
    """Each pass of the loop is 3 NOP, SUBS and BNE: 5 + P cycles, P = 2, the last without P."""
    core = Emulator(link("clock").elf, target.with_flash_wait_states(0))

    def read(name: str) -> int:
        return int.from_bytes(core.read(core.symbols[name], 4), "little")

    measured = {}
    for n in (100, 1100, 101_100):
        core.call("run", n)
        measured[n] = read("cycles")
        assert read("stopped") == 0 or n > 100  # the counter stands still until it is enabled
        assert abs(read("microseconds") - measured[n] / 168) <= 1
    assert measured[1100] - measured[100] == 7 * 1000
    assert measured[101_100] - measured[1100] == 7 * 100_000


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (0, r"fault at 0x0800\w+ \(run\+0x\w+\), access to 0x60000000"),
        (1, r"fault at 0x0800\w+ \(run\+0x\w+\), access to 0x70000000"),
        (2, r"fault at 0x0800\w+ \(run\+0x\w+\)"),
        (3, r"runaway: still at 0x0800\w+ \(run\+0x\w+\)"),
    ],
)
def test_faults_say_where(link: Link, target: Target, kind: int, message: str) -> None:
    core = Emulator(link("faults").elf, target, instruction_limit=10_000)
    with pytest.raises(TargetError, match=message):
        core.call("run", kind)
    assert core.call("run", 9) == 9  # the core can be used again


def test_untimed_runaway_ends(link: Link, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targets.emulator.TIME_LIMIT_S", 0.2)
    core = Emulator(link("faults").elf, target, timed=False)
    with pytest.raises(TargetError, match="runaway"):
        core.call("run", 3)
    assert core.call("run", 9) == 9


def test_reset_is_power_on(link: Link, target: Target) -> None:
    core = Emulator(link("mixed").elf, target)
    fresh = core.read(target.memories["ram"].origin, 0x1000), core.cycles
    core.call("run", 5)
    core.reset()
    assert (core.read(target.memories["ram"].origin, 0x1000), core.cycles) == fresh


def test_runs_in_another_thread(link: Link, target: Target) -> None:
    core = Emulator(link("mixed").elf, target)
    core.call("run", 5)
    expected = results(core)
    core.call("run", 6)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(core.call("run", 5)))
    thread.start()
    thread.join()
    assert seen == [6]
    assert results(core) == expected


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not an image" * 50])
def test_no_image(target: Target, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.elf"
    path.write_bytes(content)
    with pytest.raises(TargetError, match=r"x\.elf: not a"):
        Emulator(path, target)
    with pytest.raises(TargetError, match="no such file"):
        Emulator(tmp_path / "y.elf", target)


def test_bad_requests(link: Link, target: Target) -> None:
    core = Emulator(link("mixed").elf, target)
    with pytest.raises(TargetError, match="no function nope"):
        core.call("nope")
    with pytest.raises(TargetError, match="no memory at 0x60000000"):
        core.read(0x6000_0000, 4)
    with pytest.raises(TargetError, match="no memory at 0x60000000"):
        core.write(0x6000_0000, b"1234")
