"""The harness against everything that the virtual device's fault flags can do to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil import harness, link
from hil.contract import Command
from hil.crtp import Packet, Port
from hil.errors import HilError
from hil.faults import Faults, FaultyAir, strikes
from hil.package import open_package
from hil.report import build_report, render
from hil.virtual_crazyflie import VirtualCrazyflie


@contextlib.contextmanager
def serving(
    package: Path, port: int = 0, faults: Faults | None = None
) -> Iterator[VirtualCrazyflie]:
    elf = package / "bare_metal" / "policy.elf"
    device = VirtualCrazyflie(elf, "crazyflie21", port=port, faults=faults)
    thread = threading.Thread(target=device.serve)
    thread.start()
    try:
        yield device
    finally:
        device.stop()
        thread.join()


def test_loss_and_delay_change_no_result(package: Path) -> None:
    opened = open_package(package)
    with serving(package, faults=Faults(drop=0.2, delay_s=0.01)) as device:
        measured = harness.measure(opened, device.uri, 30, free_run_s=0.3)
    report = build_report(opened, measured, 30)
    assert report["passed"], (report["verdict"], report["stopped"])
    assert report["link"]["asked_again"] > 10
    assert report["link"]["latency_ms"]["median"] > 2
    assert (report["link"]["reconnects"], report["link"]["device_restarts"]) == (0, 0)


def test_a_reboot_in_the_recorded_inferences(package: Path) -> None:
    opened = open_package(package)
    with serving(package, faults=Faults(reboot_after_s=1.0)) as device:
        measured = harness.measure(opened, device.uri, 1000, free_run_s=0.3)
    report = build_report(opened, measured, 1000)
    assert report["passed"], (report["verdict"], report["stopped"])
    assert report["link"]["device_restarts"] >= 1
    assert "after a restart" in render(report)


def test_a_reboot_while_it_runs_by_itself(package: Path) -> None:
    opened = open_package(package)
    with serving(package) as served:
        told: list[int] = []

        def reboot(stage: str, done: int, _of: int) -> None:
            if stage == "free run" and done > 300 and not told:
                told.append(done)
                served._reboot_at = time.monotonic()

        measured = harness.measure(opened, served.uri, 20, reboot, free_run_s=1.0)
    assert told
    assert measured.stopped is None
    assert measured.free_run is not None
    assert measured.free_run.count > 0
    assert measured.traffic.reconnects == 1


def test_a_link_that_drops_and_comes_back(package: Path) -> None:
    """The device is gone for two seconds, socket and all, and another process takes its place."""
    opened = open_package(package)
    again = threading.Event()
    over = threading.Event()

    def come_back(port: int) -> None:
        again.wait(20)
        time.sleep(2.0)
        with serving(package, port):
            over.wait(60)

    with serving(package) as device:
        port = device.address[1]
        second = threading.Thread(target=come_back, args=(port,))
        second.start()

        def drop(stage: str, done: int, _of: int) -> None:
            if stage == "inferences" and done == 50 and not again.is_set():
                device.stop()
                time.sleep(0.5)
                again.set()

        measured = harness.measure(opened, device.uri, 200, drop, free_run_s=0.3)
        over.set()
        second.join()
    report = build_report(opened, measured, 200)
    assert report["passed"], (report["verdict"], report["stopped"])
    assert report["link"]["reconnects"] >= 1


def test_a_device_that_comes_back_with_another_package_is_refused(
    package: Path,
    tmp_path: Path,
    make_package: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "RECONNECT_S", 1.0)
    other = make_package(tmp_path / "other", golden="0.25f")
    with serving(package) as device, link.Link(device.uri) as connected:
        connected.open_session()
        device.stop()
        time.sleep(0.5)
        with serving(other, device.address[1]), pytest.raises(HilError, match="another device"):
            connected.recover("test")


def test_a_device_that_never_keeps_a_session_is_given_up(package: Path) -> None:
    opened = open_package(package)
    with serving(package) as device:
        handle = device._core.handle

        def forgetful(packet: bytes, on_reply: Callable[[bytes], None]) -> None:
            if packet[0] != 1:
                device._core.reboot()
            handle(packet, on_reply)

        device._core.handle = forgetful  # type: ignore[method-assign]
        measured = harness.measure(opened, device.uri, 5, free_run_s=0.1)
    assert measured.stopped is not None
    assert "gave up" in measured.stopped


def test_air_loses_and_delays_only_what_may_be_lost() -> None:
    arrived: list[Packet] = []
    air = FaultyAir(Faults(drop=0.5, delay_s=0.01), lambda packet, _: arrived.append(packet))
    app, table = Packet(Port.PLATFORM, 2, b"a"), Packet(Port.PARAM, 0, b"t")
    assert (strikes(app), strikes(table)) == (True, False)
    for number in range(400):
        air.send(Packet(Port.PLATFORM, 2, number.to_bytes(2, "big")), ("", 0))
        air.send(table, ("", 0))
    time.sleep(0.2)
    air.close()
    numbers = [p.data for p in arrived if p.port == Port.PLATFORM]
    assert arrived.count(table) == 400
    assert 140 < len(numbers) < 260
    assert numbers != sorted(numbers)  # they overtook each other


def test_a_device_that_answers_pings_alone_ends_the_run(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SILENCE_S", 1.0)
    opened = open_package(package)
    with serving(package) as device:

        def deafen(stage: str, done: int, _of: int) -> None:
            if stage == "inferences" and done == 5:
                device._core.handle = lambda packet, on_reply: None  # type: ignore[method-assign]

        measured = harness.measure(opened, device.uri, 50, deafen)
    assert measured.stopped is not None
    assert "no answer for 1 s" in measured.stopped
    assert 5 <= len(measured.cycles) < 50
    assert measured.traffic.reconnects == 0


def test_a_missing_piece_is_no_silence(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says that pieces are missing is there: the wait before asking does not grow from it."""
    monkeypatch.setattr(link, "SILENCE_S", 3.0)
    opened = open_package(package)
    with serving(package) as device:
        handle = device._core.handle
        lost: list[float] = []

        def lossy(packet: bytes, on_reply: Callable[[bytes], None]) -> None:
            first_piece = packet[0] == Command.LOAD and packet[4] == 0
            if first_piece and len(lost) < 24:  # six times each of the four that are under way
                lost.append(time.monotonic())
            elif len(lost) < 24 or time.monotonic() > lost[-1] + 1.0:  # then a second of nothing
                handle(packet, on_reply)

        def begin(stage: str, done: int, _of: int) -> None:
            if stage == "inferences" and done == 5:
                device._core.handle = lossy  # type: ignore[method-assign]

        measured = harness.measure(opened, device.uri, 50, begin, free_run_s=0.3)
    assert (measured.stopped, len(measured.cycles), len(lost)) == (None, 50, 24)


def test_another_client_ends_the_run(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1, 256))  # drawn, one time in 255 both clients have the same
    monkeypatch.setattr("hil.link.random.choice", lambda options: next(numbers))
    opened = open_package(package)
    with serving(package) as device, link.Link(device.uri) as intruder:

        def intrude(stage: str, done: int, _of: int) -> None:
            if stage == "inferences" and done == 5:
                intruder.open_session()

        measured = harness.measure(opened, device.uri, 200, intrude)
    assert measured.stopped is not None
    assert "another client" in measured.stopped
