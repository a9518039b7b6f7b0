"""The whole way: package, virtual device, harness, report; and over a link that loses packets."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hil import harness, link, toc
from hil.errors import HilError
from hil.package import open_package
from hil.report import build_report, render, write_report
from hil.virtual_crazyflie import VirtualCrazyflie

APP_CHANNEL_HEADER = 0xDE
MakePackage = Callable[..., Path]


class FaultyLink:
    """A UDP proxy that loses, doubles and delays app-channel packets, both ways."""

    def __init__(self, device: tuple[str, int], lose: float, double: float, late: float) -> None:
        self._device, self._chances = device, (lose, double, late)
        self._chance = random.Random(3)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.connect(device)
        self._client: tuple[str, int] | None = None
        self._open = True
        self._threads: list[threading.Thread] = []
        self.faults = 0
        for source in (self._front, self._back):
            source.settimeout(0.1)
            thread = threading.Thread(target=self._forward, args=(source,), daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def uri(self) -> str:
        return f"udp://127.0.0.1:{self._front.getsockname()[1]}"

    def close(self) -> None:
        self._open = False
        for thread in self._threads:
            thread.join()
        self._front.close()
        self._back.close()

    def _forward(self, source: socket.socket) -> None:
        while self._open:
            try:
                data, sender = source.recvfrom(2048)
            except OSError:
                continue
            if source is self._front:
                self._client = sender
            lose, double, late = self._chances
            copies = 1
            delay = 0.0
            if data[0] == APP_CHANNEL_HEADER:
                copies = 0 if self._chance.random() < lose else 1
                copies += self._chance.random() < double
                delay = 0.02 if self._chance.random() < late else 0.0
                self.faults += copies != 1 or delay > 0
            for _ in range(copies):
                if delay:
                    threading.Timer(delay, self._send, (source, data)).start()
                else:
                    self._send(source, data)

    def _send(self, source: socket.socket, data: bytes) -> None:
        if not self._open:
            return
        if source is self._front:
            self._back.send(data)
        elif self._client is not None:
            self._front.sendto(data, self._client)


@pytest.fixture
def faulty(device: VirtualCrazyflie) -> Iterator[FaultyLink]:
    proxy = FaultyLink(device.address, lose=0.15, double=0.15, late=0.15)
    yield proxy
    proxy.close()


def test_end_to_end_over_the_virtual_device(package: Path, tmp_path: Path) -> None:
    opened = open_package(package)
    stages = []
    with harness.device_uri("virtual", opened) as uri:
        measured = harness.measure(
            opened, uri, 1100, lambda stage, done, of: stages.append(stage), free_run_s=0.3
        )
    report = build_report(opened, measured, 1100)
    assert report["passed"], report["verdict"]
    assert report["inferences"]["done"] == 1100  # more than were recorded
    assert report["outputs"]["max_error"] == 0.0
    assert report["timing"]["source"] == "model"
    assert report["free_run"]["count"] > 0
    assert report["link"]["pings"] > 0
    assert set(stages) == {"self-test", "inferences", "free run"}
    cycles = np.array(report["samples"]["cycles"])
    assert report["inferences"]["cycles"]["p99"] == np.percentile(cycles, 99)
    timer = np.array(report["samples"]["timer_us"])
    assert np.all(np.abs(timer - cycles / 168) < 2)  # two clocks of the device agree

    data, page = write_report(report, tmp_path / "out")
    assert json.loads(data.read_text()) == report
    text = page.read_text()
    assert "cycle model" in text
    assert package.name not in text or str(package) not in text
    assert not re.search(r"(src|href)=|https?://|@import", text)
    assert sorted(p.name for p in data.parent.iterdir()) == ["latency.html", "latency.json"]


def test_lost_doubled_and_late_packets_change_nothing(package: Path, faulty: FaultyLink) -> None:
    opened = open_package(package)
    measured = harness.measure(opened, faulty.uri, 60, free_run_s=0.1)
    assert measured.stopped is None
    assert faulty.faults > 60
    assert measured.traffic.resent > 0
    assert sorted(measured.index) == list(range(60))
    assert max(measured.error) == 0.0


def test_every_inference_is_counted_once_over_a_faulty_link(
    package: Path, faulty: FaultyLink
) -> None:
    opened = open_package(package)
    with link.Link(faulty.uri) as connected:
        hello = connected.open_session()
        measured = harness.Measurement(uri=faulty.uri, hello=hello)
        harness.run_recorded(connected, opened, 60, measured, lambda *_: None)
        with connected.log(["hppo.count"], 10) as log:
            assert log.next()[1]["hppo.count"] == 60


def test_many_actions_come_in_parts(
    tmp_path: Path, package: Path, make_package: MakePackage
) -> None:
    wide = open_package(make_package(tmp_path / "wide", act_dim=11))
    with harness.device_uri("virtual", wide) as uri:
        measured = harness.measure(wide, uri, 20, free_run_s=0.05)
    assert measured.stopped is None
    assert max(measured.error) == 0.0


def test_a_device_with_another_package_is_refused(
    device: VirtualCrazyflie, tmp_path: Path, make_package: MakePackage
) -> None:
    other = open_package(make_package(tmp_path / "other", golden="0.25f"))
    with pytest.raises(HilError, match="the device runs package"):
        harness.measure(other, device.uri, 1)


def test_a_failed_self_test_and_a_wrong_output_are_reported(
    tmp_path: Path, package: Path, make_package: MakePackage
) -> None:
    broken = open_package(make_package(tmp_path / "broken", golden="0.25f"))
    broken.actions[3] += 0.1
    with harness.device_uri("virtual", broken) as uri:
        report = build_report(broken, harness.measure(broken, uri, 5, free_run_s=0.05), 5)
    assert report["verdict"] == {
        "complete": True, "self_test": False, "outputs": False, "deadline": True,
    }  # fmt: skip
    assert not report["passed"]
    assert report["outputs"]["max_error"] == pytest.approx(0.1, abs=1e-6)
    assert "failed" in render(report)


def test_interrupted_runs_keep_what_they_have(package: Path, device: VirtualCrazyflie) -> None:
    def interrupt(stage: str, done: int, _of: int) -> None:
        if stage == "inferences" and done == 10:
            raise KeyboardInterrupt

    opened = open_package(package)
    report = build_report(opened, harness.measure(opened, device.uri, 50, interrupt), 50)
    assert (report["inferences"]["done"], report["stopped"]) == (10, "interrupted")
    assert not report["verdict"]["complete"]
    assert "interrupted" in render(report)


def test_a_device_that_falls_silent_ends_the_run(
    package: Path, device: VirtualCrazyflie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SILENCE_S", 0.5)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(link, "RECONNECT_S", 0.5)

    def stop(stage: str, done: int, _of: int) -> None:
        if stage == "inferences" and done == 5:
            device.stop()
            time.sleep(0.4)

    opened = open_package(package)
    measured = harness.measure(opened, device.uri, 50, stop)
    assert measured.stopped is not None
    assert re.search("no answer|lost", measured.stopped)
    assert 5 <= len(measured.cycles) < 50


def test_nobody_at_the_uri() -> None:
    for uri, reason in (("udp://127.0.0.1:9", ""), ("nonsense://1", "check the URI")):
        with pytest.raises(HilError, match=f"cannot connect to {uri}.*{reason}"):
            link.Link(uri, timeout_s=1.0)


def test_a_crazyflie_without_the_app(package: Path, device: VirtualCrazyflie) -> None:
    device._log_toc = toc.log_toc((), 16, 128)
    with pytest.raises(HilError, match="does not run a package of this project"):
        harness.measure(open_package(package), device.uri, 1)


# -- command line -------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hil.cli", *arguments], capture_output=True, text=True, timeout=60
    )


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_run_and_its_json(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = command("run", str(package), "--inferences", "30", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "latency.json").read_text())


def test_two_reports_side_by_side(package: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert command("run", str(package), "--inferences", "5", "--out", str(first)).returncode == 0
    report = json.loads((first / "latency.json").read_text())
    report["timing"]["source"] = "dwt"
    report["samples"]["cycles"] = [2 * c for c in report["samples"]["cycles"]]
    for figures in (report["inferences"]["cycles"], report["inferences"]["us"]):
        figures.update({key: 2 * value for key, value in figures.items()})
    second.mkdir()
    (second / "latency.json").write_text(json.dumps(report))
    done = command("run", "--compare", str(first), str(second), "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert rows["cycles, median"]["change"] == "+100.0 %"
    assert (rows["timing source"]["first"], rows["timing source"]["second"]) == ("model", "dwt")
    page = (tmp_path / "compare.html").read_text()
    assert page.count("<svg") == 2
    assert "Not like with like" in page
    shown = command("run", "--compare", str(first), str(second / "latency.json"))
    assert "not like with like" in shown.stdout


def test_reports_that_cannot_be_compared(tmp_path: Path) -> None:
    for text, problem in (("[]", "no latency report"), ("{", "cannot be read")):
        (tmp_path / "latency.json").write_text(text)
        done = command("run", "--compare", str(tmp_path), str(tmp_path))
        assert problem in one_line_error(done)
    assert "no report" in one_line_error(command("run", "--compare", "none", "none"))
    assert "which package" in one_line_error(command("run"))


def test_bad_packages_on_the_command_line(
    package: Path, tmp_path: Path, make_package: MakePackage
) -> None:
    missing = tmp_path / "missing"
    assert "is no package" in one_line_error(command("run", str(missing)))
    bare = make_package(tmp_path / "bare", image=False)
    assert "apt-get install" in one_line_error(command("run", str(bare)))
    assert "apt-get install" in one_line_error(command("serve", str(bare)))
    assert not (bare / "latency.json").exists()
    (bare / "policy.c").write_text("changed")
    assert "hash" in one_line_error(command("run", str(bare)))


def test_ctrl_c_writes_what_it_has(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    arguments = ["run", str(package), "--inferences", "1000000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hil.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    shown, problems = process.communicate(timeout=30)
    assert process.returncode == 1, problems
    assert "ended early: interrupted" in shown
    report = json.loads((out / "latency.json").read_text())
    assert report["stopped"] == "interrupted"
    assert 0 < report["inferences"]["done"] < 1_000_000
    assert report["self_test"] == {"ran": True, "code": 0}


def test_serve_until_ctrl_c(package: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hil.cli", "serve", str(package), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with link.Link(json.loads(process.stdout.readline())["uri"]) as connected:
        assert connected.open_session().obs_dim == 18
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_serve_says_that_the_port_is_taken(package: Path, device: VirtualCrazyflie) -> None:
    done = command("serve", str(package), "--port", str(device.address[1]))
    assert "--port" in one_line_error(done)


def test_help_is_quick_and_shows_examples() -> None:
    for arguments in (["--help"], ["run", "--help"], ["serve", "--help"]):
        start = time.monotonic()
        done = command(*arguments)
        assert done.returncode == 0
        assert time.monotonic() - start < 2.0  # 0.2 s alone; the machine may be busy
    assert "Example" in done.stdout
