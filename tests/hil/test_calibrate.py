"""Calibration against virtual devices whose constants are known, and not those of the target."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hil import calibrate, calibration, harness
from hil.contract import KERNELS
from hil.errors import HilError
from hil.package import open_package
from hil.report import build_report, render
from hil.virtual_crazyflie import VirtualCrazyflie
from targets.target import load_target

OTHER = {
    "taken_branch": 3.0,
    "float_multiply_add": 4.0,
    "float_divide": 17.0,
    "load": 3.0,
    "load_pipelined": 2.0,
    "store": 2.0,
    "float_result_use": 2.0,
    "wait_states": 7.0,
}


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated device takes the same time every time, once its caches are warm."""
    monkeypatch.setattr(calibrate, "REPEATS", 3)
    monkeypatch.setattr(calibrate, "POLICY_REPEATS", 3)


@contextmanager
def device_with(package: Path, constants: dict[str, float] | None) -> Iterator[str]:
    elf = package / "bare_metal" / "policy.elf"
    device = VirtualCrazyflie(elf, "crazyflie21", port=0, constants=constants)
    thread = threading.Thread(target=device.serve)
    thread.start()
    try:
        yield device.uri
    finally:
        device.stop()
        thread.join()


def test_the_constants_of_another_device_are_recovered(package: Path) -> None:
    opened = open_package(package)
    nominal = calibration.constants_of(load_target("crazyflie21"))
    assert all(OTHER[name] != nominal[name] for name in calibration.NAMES)
    with device_with(package, OTHER) as uri:
        record, path = calibrate.calibrate(opened, uri, "bench 1", lambda *_: None)
    assert record["constants"] == pytest.approx(OTHER, abs=0.05)
    assert record["largest_kernel_error"] < 0.005
    assert record["policy"]["model"] == record["policy"]["measured"] > record["policy"]["before"]
    assert path.name == "bench-1.json"
    assert json.loads(path.read_text()) == record
    assert record["source"] == "model"
    assert any("taken_branch" in line for line in calibrate.lines(record))


def test_a_device_as_the_target_says_stays_as_it_is(package: Path) -> None:
    opened = open_package(package)
    with device_with(package, None) as uri:
        record, _ = calibrate.calibrate(opened, uri, None, lambda *_: None)
    assert record["constants"] == pytest.approx(record["nominal"], abs=1e-6)
    assert record["device"] == uri
    assert set(record["kernels"]) == set(KERNELS)


def test_reports_use_a_calibration_that_was_measured_on_a_chip(package: Path) -> None:
    opened = open_package(package)
    with device_with(package, OTHER) as uri:
        record, path = calibrate.calibrate(opened, uri, "crazyflie 7", lambda *_: None)
    with harness.device_uri("virtual", opened) as uri:
        plain = build_report(opened, harness.measure(opened, uri, 20, free_run_s=0.1), 20)
    assert plain["timing"]["calibrated_on"] is None  # the stored one came from a model
    path.write_text(json.dumps({**record, "source": "dwt", "band": 0.03}))
    with harness.device_uri("virtual", opened) as uri:
        report = build_report(opened, harness.measure(opened, uri, 20, free_run_s=0.1), 20)
    assert report["timing"]["source"] == "model"
    assert (report["timing"]["calibrated_on"], report["timing"]["band"]) == ("crazyflie 7", 0.03)
    assert report["inferences"]["cycles"]["median"] > plain["inferences"]["cycles"]["median"]
    assert "measured on crazyflie 7" in render(report)


def test_noise_of_interrupts_does_not_move_whole_constants() -> None:
    """A linear model, its truth off by a few cycles in each kernel."""
    rng = np.random.default_rng(0)
    slopes = rng.integers(20, 400, size=(11, len(calibration.NAMES))).astype(float)

    def model(constants: calibration.Constants) -> calibration.Floats:
        values = np.array([constants[name] for name in calibration.NAMES])
        cycles: calibration.Floats = 100.0 + slopes @ values
        return cycles

    start = calibration.constants_of(load_target("crazyflie21"))
    fitted = calibration.fit(model(OTHER) + rng.integers(0, 4, size=11), model, start)
    assert {n: round(v) for n, v in fitted.constants.items()} == OTHER
    assert fitted.largest_error < 0.02


def test_kernels_that_do_not_tell_are_refused() -> None:
    start = calibration.constants_of(load_target("crazyflie21"))

    def blind(constants: calibration.Constants) -> calibration.Floats:
        return np.full(11, 100.0 + constants["load"])

    with pytest.raises(HilError, match="apart"):
        calibration.fit(np.full(11, 103.0), blind, start)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "hyperppo-calibration"}'])
def test_a_damaged_calibration_is_named(no_calibrations: Path, text: str) -> None:
    file = no_calibrations / "crazyflie21" / "bad.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(HilError, match=r"bad\.json is no calibration"):
        calibration.latest("crazyflie21")


def test_without_any_the_target_stands() -> None:
    assert calibration.latest("crazyflie21") is None
