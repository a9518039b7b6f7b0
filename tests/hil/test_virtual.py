"""The virtual Crazyflie as stock cflib sees it, and against datagrams that no client sends."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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
            client.send(b"\xfcstill there")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(64)
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
