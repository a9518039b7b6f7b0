"""The Python side of the contract against the C header; the C device code itself, on the host."""

from __future__ import annotations

import ctypes
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil import contract as c
from hil.contract import Command, Result
from targets.toolchain import compile_host_library

APP = Path(str(resources.files("hil") / "crazyflie_app"))
HEADER = (APP / "src" / "hppo_device.h").read_text()

HOST_PORT = """\
#include "hppo_device.h"
uint32_t now; int busy;
uint32_t hppo_port_clock_hz(void) { return 168000000u; }
uint32_t hppo_port_cycles(void) { return now += 168000u; }
uint32_t hppo_port_micros(void) { return now / 168u; }
bool hppo_port_begin(void) { return !busy; }
void hppo_port_end(void) {}
"""


def enumerators(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} \{{(.*?)\}}", HEADER, re.DOTALL)
    assert body is not None
    return {k: int(v) for k, v in re.findall(r"HPPO_(\w+) = (\d+)", body[1])}


def defines() -> dict[str, int]:
    found = re.findall(r"^#define HPPO_(\w+) (0x[0-9A-Fa-f]+|\d+)\b", HEADER, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def test_enumerations_are_those_of_the_header() -> None:
    assert enumerators("hppo_command") == {m.name: m.value for m in Command}
    assert enumerators("hppo_result") == {m.name: m.value for m in Result}
    assert enumerators("hppo_reason") == {f"REASON_{m.name}": m.value for m in c.Reason}
    assert set(c.MEANING) == set(Result)


def test_constants_are_those_of_the_header() -> None:
    values = defines()
    checked = [
        "CONTRACT_VERSION", "PACKET_BYTES", "SLOTS", "CHUNK_FLOATS", "FIRST_FLOATS", "MAX_REPEAT",
        "REPLY", "STATUS_TESTED", "STATUS_PASSED", "STATUS_NOT_FINITE", "STATUS_ACTIVE",
        "MODE_REQUEST", "MODE_FREE", "TIME_DWT", "TIME_MODEL", "TIME_CALIBRATED",
    ]  # fmt: skip
    assert {name: getattr(c, name) for name in checked} == {name: values[name] for name in checked}
    assert values.keys() == set(checked)


def test_variables_are_those_of_the_firmware_app() -> None:
    source = (APP / "src" / "hppo_controller.c").read_text()
    kinds = {"UINT32": "uint32_t", "UINT16": "uint16_t", "UINT8": "uint8_t", "FLOAT": "float"}
    for macro, variables in (("LOG", c.LOG_VARIABLES), ("PARAM", c.PARAMETERS)):
        group = re.findall(rf"{macro}_GROUP_START\((\w+)\)", source)
        found = re.findall(rf"{macro}_ADD\({macro}_(\w+), (\w+), &(\w+)\)", source)
        listed = [c.Variable(group[0], n, kinds[kind], symbol) for kind, n, symbol in found]
        assert listed == list(variables)
        for variable in variables:
            assert f"extern {variable.ctype} {variable.symbol};" in HEADER


@given(st.binary(max_size=40))
def test_parsing_never_raises(data: bytes) -> None:
    c.parse_reply(data)
    for parse in (c.parse_hello, c.parse_run, c.parse_self_test, c.parse_repeat):
        parse(data)


class HostDevice:
    """hppo_device.c compiled for this machine."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))
        self.c.hppo_device_init()

    def answer(self, packet: bytes) -> bytes:
        guard = b"\xa5" * 8
        reply = ctypes.create_string_buffer(bytes(c.PACKET_BYTES) + guard, c.PACKET_BYTES + 8)
        self.c.hppo_device_handle.restype = ctypes.c_uint8
        length = self.c.hppo_device_handle(packet, len(packet), reply)
        assert reply.raw[c.PACKET_BYTES :] == guard
        assert length <= c.PACKET_BYTES
        return reply.raw[:length]

    def handle(self, packet: bytes) -> c.Reply | None:
        answer = self.answer(packet)
        parsed = c.parse_reply(answer)
        assert (parsed is None) == (answer == b"")
        return parsed

    def value(self, symbol: str) -> int:
        return ctypes.c_uint32.in_dll(self.c, symbol).value

    def byte(self, symbol: str) -> ctypes.c_uint8:
        return ctypes.c_uint8.in_dll(self.c, symbol)

    def ask(self, command: Command, sequence: int, body: bytes = b"", session: int = 9) -> c.Reply:
        reply = self.handle(c.request(command, session, sequence, body))
        assert reply is not None
        return reply

    def load(self, sequence: int, observation: np.ndarray) -> None:
        for packet in c.load_requests(9, sequence, observation):
            assert self.handle(packet) is None


def build_host(package: Path, folder: Path) -> Path:
    (folder / "port.c").write_text(HOST_PORT)
    return compile_host_library(
        [package / "policy.c", APP / "src" / "hppo_device.c", folder / "port.c"],
        folder / "device.so",
        include=[package / "crazyflie_app" / "src"],
    )


@pytest.fixture(scope="module")
def library(host_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_host(host_package, tmp_path_factory.mktemp("host"))


@pytest.fixture
def host(library: Path) -> HostDevice:
    device = HostDevice(library)
    device.ask(Command.HELLO, 0, session=8)
    device.ask(Command.HELLO, 0)  # a new session clears the counters of the test before
    return device


OBSERVATION = np.linspace(-1, 1, 18, dtype=np.float32)


def test_hello_says_who_it_is(host: HostDevice, host_package: Path) -> None:
    from hil.package import open_package

    hello = c.parse_hello(host.ask(Command.HELLO, 5).body)
    assert hello is not None
    assert (hello.contract_version, hello.obs_dim, hello.act_dim, hello.slots) == (1, 18, 4, 4)
    assert (hello.clock_hz, hello.deadline_us) == (168_000_000, 1000)
    assert hello.package_hash == open_package(host_package).package_hash


def test_a_repeated_run_gives_the_same_answer_and_counts_once(host: HostDevice) -> None:
    host.load(7, OBSERVATION)
    first = host.ask(Command.RUN, 7, b"\0")
    host.load(7, OBSERVATION + 1)  # late packets change nothing
    again = [host.ask(Command.RUN, 7, b"\0") for _ in range(3)]
    assert again == [first] * 3
    assert host.value("hppo_log_count") == 1
    part = c.parse_run(first.body)
    assert part is not None
    expected = np.clip(0.5 * OBSERVATION[:4] - 0.25 * OBSERVATION[1:5], -1, 1)
    np.testing.assert_array_equal(part.actions, expected.astype(np.float32))
    assert (part.cycles, part.us) == (168_000, 2000)  # as the host's port counts


def test_missing_chunks_are_told_and_can_follow_in_any_order(host: HostDevice) -> None:
    chunks = c.load_requests(9, 3, OBSERVATION)
    host.handle(chunks[2])
    assert host.ask(Command.RUN, 3, b"\0").result is Result.INCOMPLETE
    host.handle(chunks[0])
    host.handle(chunks[1])
    assert host.ask(Command.RUN, 3, b"\0").result is Result.OK
    assert host.value("hppo_log_count") == 1


def test_sequence_numbers_wrap_and_old_ones_are_stale(host: HostDevice) -> None:
    for number in (65_532, 0, 4):  # one slot; 0 and 4 follow 65,532 in serial arithmetic
        host.load(number, OBSERVATION)
        assert host.ask(Command.RUN, number, b"\0").result is Result.OK
    assert host.ask(Command.RUN, 0, b"\0").result is Result.STALE
    assert host.ask(Command.SELF_TEST, 4).result is Result.CONFLICT


def test_sessions_keep_clients_apart(host: HostDevice) -> None:
    host.load(1, OBSERVATION)
    host.ask(Command.RUN, 1, b"\0")
    assert host.ask(Command.RUN, 1, b"\0", session=10).result is Result.OTHER_SESSION
    host.ask(Command.HELLO, 99)  # a late HELLO of the open session
    assert host.value("hppo_log_count") == 1
    host.ask(Command.HELLO, 0, session=10)
    assert host.value("hppo_log_count") == 0
    assert host.ask(Command.RUN, 1, b"\0").result is Result.OTHER_SESSION


def test_repeat_measures_and_is_counted_once(host: HostDevice) -> None:
    host.load(1, OBSERVATION)
    reply = host.ask(Command.REPEAT, 1, (5).to_bytes(2, "little"))
    assert host.ask(Command.REPEAT, 1, (5).to_bytes(2, "little")) == reply
    assert c.parse_repeat(reply.body) == c.RepeatStatistics(168_000, 168_000, 840_000)
    assert host.value("hppo_log_count") == 5
    for wrong in (0, c.MAX_REPEAT + 1):
        bad = host.ask(Command.REPEAT, 2, wrong.to_bytes(2, "little"))
        assert bad.result is Result.BAD_PACKET


def test_busy_is_not_remembered(host: HostDevice) -> None:
    busy = ctypes.c_int.in_dll(host.c, "busy")
    busy.value = 1
    assert host.ask(Command.SELF_TEST, 1).result is Result.BUSY
    busy.value = 0
    assert host.ask(Command.SELF_TEST, 1).result is Result.OK


def test_nan_is_refused_and_shows_in_the_status(host: HostDevice) -> None:
    status = host.byte("hppo_log_status")
    poisoned = OBSERVATION.copy()
    poisoned[3] = np.nan
    host.load(2, poisoned)
    assert host.ask(Command.RUN, 2, b"\0").result is Result.NOT_FINITE
    assert status.value & c.STATUS_NOT_FINITE
    host.load(3, OBSERVATION)
    assert host.ask(Command.RUN, 3, b"\0").result is Result.OK
    assert not status.value & c.STATUS_NOT_FINITE


def test_misses_are_counted_above_the_deadline(host: HostDevice) -> None:
    host.load(1, OBSERVATION)
    host.ask(Command.RUN, 1, b"\0")  # the port makes it take the deadline exactly
    assert (host.value("hppo_log_cycles"), host.value("hppo_log_miss")) == (168_000, 0)


@given(st.lists(st.binary(max_size=c.PACKET_BYTES), max_size=20))
def test_random_packets_do_no_harm(library: Path, packets: list[bytes]) -> None:
    device = HostDevice(library)
    for packet in packets:
        device.answer(packet)
    device.ask(Command.HELLO, 1, session=200)
    assert device.ask(Command.SELF_TEST, 2, session=200).result is Result.OK
