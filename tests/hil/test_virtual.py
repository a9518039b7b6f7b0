"""The virtual Crazyflie as stock cflib sees it, and against datagrams that no client sends."""

from __future__ import annotations

import itertools
import queue
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil import contract as c
from hil import harness
from hil.contract import Command
from hil.errors import HilError
from hil.link import Ask, Link
from hil.package import open_package
from hil.virtual_crazyflie import VirtualCrazyflie


@pytest.fixture
def link(device: VirtualCrazyflie) -> Iterator[Link]:
    with Link(device.uri) as opened:
        yield opened


def test_cflib_connects_and_reads_everything(link: Link) -> None:
    assert link.crazyflie.is_connected()
    assert set(link.crazyflie.log.toc.toc["hppo"]) == {v.name for v in c.LOG_VARIABLES}
    values = {name: float(text) for name, text in link.crazyflie.param.values["hppo"].items()}
    assert values == {"mode": 0, "enable": 0, "stale": 500, "tilt": 75.0, "dist": 2.0}
    assert link.crazyflie.mem.mems == []


def test_parameters_reach_the_image_and_come_back(link: Link) -> None:
    link.set_param("hppo.enable", 1)
    assert link.crazyflie.param.get_value("hppo.enable") == "1"
    with pytest.raises(HilError, match=r"no hppo\.absent"):
        link.set_param("hppo.absent", 1)


def test_log_blocks_send_at_their_period(link: Link) -> None:
    link.open_session()
    list(link.exchange([Ask(Command.SELF_TEST)], window=1))
    with link.log(["hppo.status", "hppo.version"], 20) as log:
        samples = [log.next() for _ in range(10)]
    assert {tuple(values.values()) for _, values in samples} == {(3, 1)}
    span = samples[-1][0] - samples[0][0]
    assert 0.8 * 180 <= span <= 3 * 180  # milliseconds by the device; generous on a busy machine


def test_free_running_counts_and_stops(link: Link) -> None:
    link.open_session()
    with link.log(["hppo.count", "hppo.max"], 10) as log:
        link.set_param("hppo.mode", c.MODE_FREE)
        while log.next()[1]["hppo.count"] < 5:
            pass
        link.set_param("hppo.mode", c.MODE_REQUEST)
        while (first := log.next()[1]) != log.next()[1]:
            pass
    assert first["hppo.max"] > 0


def test_pings_are_answered_while_the_core_computes(device: VirtualCrazyflie) -> None:
    host, port = device.address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((host, port))
        client.settimeout(2.0)

        def app(packet: bytes) -> None:
            client.send(bytes([0xDE]) + packet)

        app(c.request(Command.HELLO, 5, 0))
        client.recv(64)
        for packet in c.load_requests(5, 1, np.zeros(18, np.float32)):
            app(packet)
        app(c.request(Command.REPEAT, 5, 1, struct.pack("<H", c.MAX_REPEAT)))
        delays = []
        repeat_done = False
        while not repeat_done:
            start = time.monotonic()
            client.send(b"\xfcping")
            while (answer := client.recv(64)) != b"\xfcping":
                repeat_done |= answer[0] == 0xDE
            delays.append(time.monotonic() - start)
            time.sleep(0.005)
    assert len(delays) > 10
    assert sorted(delays)[int(0.9 * len(delays))] < 0.05


def test_garbage_never_stops_it(device: VirtualCrazyflie) -> None:
    chance = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(device.address)
        for number in range(3000):
            header = bytes([chance.choice((0x2C, 0x4C, 0x5C, 0xDC, 0xFC)) | chance.randrange(4)])
            size = chance.choice((0, 1, 2, 3, 5, 8, 30, 31, 200, 1400))
            body = chance.randbytes(size)
            if number % 3 == 0 and size >= 4:  # near the contract: a known command and session
                body = bytes([chance.randrange(7), chance.randrange(3)]) + body[2:]
                header = b"\xde"
            client.send(b"" if number % 50 == 0 else header + body)
            if number % 32 == 0:
                time.sleep(0.001)  # or the socket's buffer overflows and it never sees them
        client.settimeout(0.5)
        answer = b""
        while answer != b"\xfcstill there":
            try:
                answer = client.recv(64)
            except TimeoutError:  # all earlier answers are read: only now is there room for one
                client.send(b"\xfcstill there")
    with Link(device.uri) as link:
        assert link.open_session().contract_version == c.CONTRACT_VERSION


@pytest.mark.parametrize("lost", [0, 5])
def test_connecting_survives_a_lost_datagram(
    device: VirtualCrazyflie, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Over UDP cflib sends nothing a second time."""
    answer = device._answer
    seen = itertools.count()
    monkeypatch.setattr(device, "_answer", lambda *a: answer(*a) if next(seen) != lost else None)
    with Link(device.uri) as link:
        assert link.open_session().contract_version == c.CONTRACT_VERSION


def test_a_scan_finds_it_and_the_platform_names_itself(device: VirtualCrazyflie) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(device.address)
        client.settimeout(2.0)
        client.send(b"\xff")
        assert client.recv(64)
        client.send(b"\xdd\x00")
        assert client.recv(64) == b"\xdd\x00" + struct.pack("<I", 12)


def test_it_listens_on_loopback_only_unless_told(device: VirtualCrazyflie) -> None:
    assert device.address[0] == "127.0.0.1"


def test_port_in_use(device: VirtualCrazyflie, package: Path) -> None:
    with pytest.raises(HilError, match="cannot listen"):
        VirtualCrazyflie(
            package / "bare_metal" / "policy.elf", "crazyflie21", port=device.address[1]
        )


def test_an_image_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.elf"
    other.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(HilError):
        VirtualCrazyflie(other, "crazyflie21", port=0)


def rename_symbols(image: Path, out: Path, *options: str) -> Path:
    subprocess.run(["arm-none-eabi-objcopy", *options, str(image), str(out)], check=True)
    return out


def test_it_runs_an_image_that_starts_as_a_firmware_does(package: Path, tmp_path: Path) -> None:
    """The bare image under a firmware's names, without a mailbox."""
    image = rename_symbols(
        package / "bare_metal" / "policy.elf",
        tmp_path / "cf2.elf",
        *("--redefine-sym", "main=SystemInit", "--redefine-sym", "_stack_top=_estack"),
        *("--strip-symbol", "hppo_mailbox"),
    )
    bare_image = package / "bare_metal" / "policy.elf"
    device = VirtualCrazyflie(bare_image, "crazyflie21", port=0, firmware=image)
    thread = threading.Thread(target=device.serve)
    thread.start()
    opened = open_package(package)
    whole = harness.measure(opened, device.uri, 50, free_run_s=0.2)
    device.stop()
    thread.join()
    with harness.device_uri("virtual", opened) as uri:
        bare = harness.measure(opened, uri, 50, free_run_s=0.2)
    assert whole.stopped is None
    assert (whole.self_test, max(whole.error)) == (0, 0.0)
    # The first one meets flash caches that its start-up code left behind.
    assert np.median(whole.cycles) == np.median(bare.cycles)


def test_a_firmware_without_the_app_is_refused(package: Path, tmp_path: Path) -> None:
    image = rename_symbols(
        package / "bare_metal" / "policy.elf",
        tmp_path / "cf2.elf",
        *("--strip-symbol", "hppo_log_cycles"),
    )
    with pytest.raises(HilError, match="not an image of this contract"):
        VirtualCrazyflie(
            package / "bare_metal" / "policy.elf", "crazyflie21", port=0, firmware=image
        )


@pytest.fixture
def client(device: VirtualCrazyflie) -> Iterator[Any]:
    """Stock cflib alone, as cfclient uses it."""
    import cflib.crtp
    from cflib.crazyflie import Crazyflie
    from cflib.crazyflie.syncCrazyflie import SyncCrazyflie

    cflib.crtp.init_drivers()
    crazyflie = Crazyflie()
    console: list[str] = []
    crazyflie.console.receivedChar.add_callback(console.append)
    with SyncCrazyflie(device.uri, cf=crazyflie):
        crazyflie.console_text = console
        yield crazyflie


def test_a_plain_client_plots_blocks_with_their_own_periods_and_types(client: Any) -> None:
    from cflib.crazyflie.log import LogConfig

    came: dict[str, list[tuple[int, dict[str, float]]]] = {"fast": [], "slow": []}
    blocks = [LogConfig("fast", 20), LogConfig("slow", 100)]
    blocks[0].add_variable("hppo.version")  # as stored: uint8_t
    blocks[1].add_variable("hppo.version", "float")
    blocks[1].add_variable("hppo.version", "FP16")
    blocks[1].add_variable("hppo.count", "int32_t")
    for block in blocks:
        samples = came[block.name]
        block.data_received_cb.add_callback(
            lambda stamp, values, _, samples=samples: samples.append((stamp, dict(values)))
        )
        client.log.add_config(block)
        block.start()
    end = time.monotonic() + 20
    while len(came["slow"]) < 6 and time.monotonic() < end:
        time.sleep(0.01)
    for block in blocks:
        block.stop()
    assert {v["hppo.version"] for _, v in came["fast"]} == {c.CONTRACT_VERSION}
    assert {v["hppo.version"] for _, v in came["slow"]} == {float(c.CONTRACT_VERSION)}
    assert {v["hppo.count"] for _, v in came["slow"]} == {0}
    for name, period_ms in (("fast", 20), ("slow", 100)):
        stamps = [stamp for stamp, _ in came[name]]
        assert np.diff(stamps).min() >= 0
        assert (stamps[-1] - stamps[0]) / (len(stamps) - 1) >= 0.9 * period_ms
    assert len(came["fast"]) > 2 * len(came["slow"])


def test_a_plain_client_writes_parameters_of_each_type(client: Any) -> None:
    from cflib.crazyflie.param import ParamTocElement

    heard: queue.Queue[tuple[str, float]] = queue.Queue()
    client.param.add_update_callback("hppo", cb=lambda name, text: heard.put((name, float(text))))
    kinds = set()
    for written in (("hppo.mode", 1.0), ("hppo.stale", 65_535.0), ("hppo.tilt", 12.625)):
        kinds.add(client.param.toc.get_element_by_complete_name(written[0]).ctype)
        client.param.set_value(*written)
        while heard.get(timeout=10) != written:  # the values at the start may still come in
            pass
        client.param.request_param_update(written[0])
        while (answer := heard.get(timeout=10))[0] != written[0]:
            pass
        assert answer == written
    assert kinds == {"uint8_t", "uint16_t", "float"}
    assert {ParamTocElement.RW_ACCESS} == {
        element.access for element in client.param.toc.toc["hppo"].values()
    }


def test_a_plain_client_hears_console_and_echo_and_counts_memories(client: Any) -> None:
    end = time.monotonic() + 10
    while "\n" not in "".join(client.console_text) and time.monotonic() < end:
        time.sleep(0.01)
    assert "".join(client.console_text).startswith("HyperPPO virtual device\n")
    assert client.mem.mems == []
    latencies: list[float] = []
    client.link_statistics.latency_updated.add_callback(latencies.append)
    client.link_statistics.start()
    while not latencies and time.monotonic() < end:
        time.sleep(0.05)
    client.link_statistics.stop()
    assert 0 < latencies[0] < 10_000  # milliseconds: echo came back
