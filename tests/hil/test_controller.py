"""The out-of-tree controller on this machine, against stand-ins for the firmware's functions.

The stand-ins only declare what the app uses. That it builds against the real firmware is checked
where one is at hand: CRAZYFLIE_BASE names its folder.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from hil import harness
from hil.contract import Reason
from hil.package import open_package
from hil.virtual_crazyflie import VirtualCrazyflie
from targets.toolchain import compile_host_library

SOURCES = Path(str(resources.files("hil") / "crazyflie_app" / "src"))
STUBS = Path(__file__).parent / "firmware_stubs"
HEADERS = [
    *("FreeRTOS", "task", "app", "app_channel", "controller", "controller_pid", "debug", "log"),
    *(
        "attitude_controller",
        "position_controller",
        "param",
        "stabilizer_types",
        "stm32fxxx",
        "supervisor",
        "usec_time",
    ),
]
LEGACY, FORCE = 0, 2  # control_mode_t
ABSOLUTE, VELOCITY = 1, 2  # stab_mode_t
PASSED, ACTIVE = 0x02, 0x08

Vector = ctypes.c_float * 3


class Sensors(ctypes.Structure):
    _fields_ = [("gyro", Vector)]


class State(ctypes.Structure):
    _fields_ = [
        ("quaternion", ctypes.c_float * 4),
        ("position", Vector),
        ("velocity", Vector),
        ("attitude", Vector),
    ]


class Setpoint(ctypes.Structure):
    _fields_ = [
        ("timestamp", ctypes.c_uint32),
        ("position", Vector),
        ("velocity", Vector),
        ("velocity_body", ctypes.c_bool),
        ("mode", ctypes.c_int * 3),
    ]


class Control(ctypes.Structure):
    _fields_ = [("forces", ctypes.c_float * 4), ("mode", ctypes.c_int)]


CONVENTIONS = {
    "observation": [
        *("position_error_body", "velocity_error_body", "rotation", "angular_velocity"),
        "previous_action",
    ],
    "previous_actions": 2,
    "position_clip_m": 1.0,
    "control_hz": 100,
}


@pytest.fixture(scope="module")
def library(make_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controller")
    host_package = make_package(folder / "package", image=False, conventions=CONVENTIONS)
    for name in HEADERS:
        (folder / f"{name}.h").write_text('#include "firmware.h"\n')
    names = ("hppo_device.c", "hppo_observation.c", "hppo_controller.c")
    return compile_host_library(
        [*(SOURCES / name for name in names), host_package / "policy.c", STUBS / "firmware.c"],
        folder / "controller.so",
        include=[host_package / "crazyflie_app" / "src", STUBS, folder],
    )


class Firmware:
    """The controller with a level drone 0.2 m in front of its goal."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))
        self.state = State((0, 0, 0, 1), (0.2, 0, 0), (0, 0, 0), (0, 0, 0))
        self.sensors = Sensors((0, 0, 0))
        self.setpoint = Setpoint(0, (0, 0, 0), (0, 0, 0), False, (ABSOLUTE,) * 3)
        self.tick = 1
        self.commander_sends = True
        self.set(enable=0, mode=0)
        self.byte("stub_flying").value = 0
        self.byte("hppo_log_status").value = 0
        self.step()

    def byte(self, symbol: str) -> ctypes.c_uint8:
        return ctypes.c_uint8.in_dll(self.c, symbol)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.byte(f"hppo_param_{name}").value = value

    def step(self, ticks: int = 10) -> Control:
        """Runs the 1 kHz loop; a whole control period unless told otherwise."""
        control = Control()
        ticks_now = ctypes.c_uint32.in_dll(self.c, "stub_ticks")
        for _ in range(ticks):
            self.tick += 1
            ticks_now.value = self.tick
            if self.commander_sends:
                self.setpoint.timestamp = self.tick
            self.c.controllerOutOfTree(
                ctypes.byref(control),
                ctypes.byref(self.setpoint),
                ctypes.byref(self.sensors),
                ctypes.byref(self.state),
                self.tick,
            )
        return control

    @property
    def reason(self) -> Reason:
        return Reason(self.byte("hppo_log_reason").value)

    def limit(self, name: str, value: float) -> None:
        ctypes.c_float.in_dll(self.c, f"hppo_param_{name}").value = value

    @property
    def status(self) -> int:
        return self.byte("hppo_log_status").value

    @property
    def count(self) -> int:
        return ctypes.c_uint32.in_dll(self.c, "hppo_log_count").value


@pytest.fixture
def firmware(library: Path) -> Firmware:
    return Firmware(library)


@pytest.fixture
def ready(firmware: Firmware) -> Firmware:
    firmware.c.stub_run_app()
    firmware.set(enable=1)
    return firmware


def test_the_policy_is_off_by_default(firmware: Firmware) -> None:
    firmware.c.stub_run_app()
    before = firmware.count
    control = firmware.step(100)
    assert (control.mode, control.forces[0]) == (LEGACY, -1.0)
    assert firmware.status & ACTIVE == 0
    assert firmware.count == before  # it does not even run


def test_enabled_after_the_self_test_it_commands_the_motors(ready: Firmware) -> None:
    control = ready.step()
    assert control.mode == FORCE
    observation = np.array([0.2, 0, 0, 0, 0], np.float32)  # the first of the position error
    action = np.clip(0.5 * observation[:4] - 0.25 * observation[1:], -1, 1)
    np.testing.assert_allclose(control.forces[:], (action + 1) / 2, rtol=1e-6)
    assert ready.status & (PASSED | ACTIVE) == PASSED | ACTIVE


def test_it_observes_its_own_past_answers_and_only_those_that_flew(ready: Firmware) -> None:
    first = ready.step().forces[0]
    base = 2 * first - 1  # of a still drone: each answer adds half of the one before
    for expected in (1.5 * base, 1.75 * base, 1.875 * base):
        assert 2 * ready.step().forces[0] - 1 == pytest.approx(expected, rel=1e-6)
    ready.set(enable=0)
    ready.step(1)
    ready.set(enable=1)
    assert ready.step(1).mode == LEGACY  # an answer from before does not count
    assert ready.step(8).forces[0] == first  # the stock controller flew in between
    ready.set(enable=0, mode=1)
    ready.step(50)  # it runs, but the motors do not follow it
    ready.set(enable=1)
    assert ready.step().forces[0] == first


def test_without_the_self_test_it_never_flies(firmware: Firmware) -> None:
    firmware.c.stub_run_app()
    firmware.byte("hppo_log_status").value = 0x01  # it ran and failed
    firmware.set(enable=1)
    assert firmware.step(50).mode == LEGACY


def test_it_runs_at_100_hz_in_the_1_khz_loop(ready: Firmware) -> None:
    before = ready.count
    ready.step(1000)
    assert ready.count - before == 100


def test_free_running_leaves_the_motors_alone(firmware: Firmware) -> None:
    firmware.c.stub_run_app()
    firmware.set(mode=1)
    before = firmware.count
    assert firmware.step(100).mode == LEGACY
    assert firmware.count - before == 10


def tilted(degrees: float) -> tuple[float, float, float, float]:
    half = np.radians(degrees) / 2
    return (float(np.sin(half)), 0.0, 0.0, float(np.cos(half)))


def spoil(ready: Firmware, reason: Reason) -> None:
    if reason is Reason.NOT_FINITE:
        ready.sensors.gyro[1] = float("nan")
    elif reason is Reason.ATTITUDE:
        ready.state.quaternion[3] = 0.0
    elif reason is Reason.TILT:
        ready.state.quaternion[:] = tilted(80)
    elif reason is Reason.DISTANCE:
        ready.state.position[2] = 2.1
    elif reason is Reason.STALE:
        ready.commander_sends = False


def repair(ready: Firmware) -> None:
    ready.sensors.gyro[1] = 0.0
    ready.state.quaternion[:] = (0, 0, 0, 1)
    ready.state.position[2] = 0.0
    ready.commander_sends = True


@pytest.mark.parametrize(
    "reason",
    [Reason.NOT_FINITE, Reason.ATTITUDE, Reason.TILT, Reason.DISTANCE, Reason.STALE],
)
def test_what_goes_wrong_in_flight_hands_back_until_it_was_disabled(
    ready: Firmware, reason: Reason
) -> None:
    assert ready.step().mode == FORCE
    assert ready.reason is Reason.NONE
    resets = ctypes.c_int.in_dll(ready.c, "stub_resets")
    before = resets.value
    spoil(ready, reason)
    assert ready.step(510 if reason is Reason.STALE else 10).mode == LEGACY
    assert ready.reason is reason
    assert resets.value == before + 1  # the stock controller starts from the present state
    repair(ready)
    ready.setpoint.mode[2] = VELOCITY  # another reason does not hide the first
    assert ready.step(50).mode == LEGACY
    assert ready.reason is reason
    ready.setpoint.mode[2] = ABSOLUTE
    ready.set(enable=0)
    ready.step()
    assert ready.reason is reason  # to be read afterwards
    ready.set(enable=1)
    assert ready.step().mode == FORCE
    assert ready.reason is Reason.NONE


def test_limits_are_parameters(ready: Firmware) -> None:
    ready.limit("tilt", 20)
    ready.limit("dist", 0.3)
    ready.state.quaternion[:] = tilted(19)
    assert ready.step().mode == FORCE
    ready.state.quaternion[:] = tilted(21)
    assert ready.step().mode == LEGACY
    ready.set(enable=0)
    ready.step()
    ready.set(enable=1)
    repair(ready)
    ready.state.position[2] = 0.3  # and 0.2 m in x
    assert ready.step().mode == LEGACY
    assert ready.reason is Reason.DISTANCE
    ready.limit("dist", 0.4)
    assert ready.step().mode == FORCE  # it had not flown yet: nothing went wrong


def test_a_dead_mans_setpoint(ready: Firmware) -> None:
    assert ready.step().mode == FORCE
    ready.commander_sends = False
    assert ready.step(500).mode == FORCE
    assert ready.step(10).mode == LEGACY
    assert ready.reason is Reason.STALE


def test_without_a_position_setpoint_the_stock_controller_flies(ready: Firmware) -> None:
    assert ready.step().mode == FORCE
    ready.setpoint.mode[2] = VELOCITY
    assert ready.step().mode == LEGACY
    assert ready.reason is Reason.NO_GOAL
    ready.setpoint.mode[2] = ABSOLUTE
    assert ready.step().mode == FORCE


def test_why_it_does_not_start(firmware: Firmware) -> None:
    firmware.c.stub_run_app()
    firmware.byte("hppo_log_status").value = 0x01  # the self-test ran and failed
    firmware.set(enable=1)
    firmware.step()
    assert firmware.reason is Reason.SELF_TEST


def test_free_running_on_a_desk_needs_no_setpoint(firmware: Firmware) -> None:
    firmware.c.stub_run_app()
    firmware.setpoint.mode[:] = (0, 0, 0)
    firmware.set(mode=1)
    before = firmware.count
    assert firmware.step(100).mode == LEGACY
    assert firmware.count - before == 10


def test_disabling_acts_at_once(ready: Firmware) -> None:
    assert ready.step().mode == FORCE
    ready.set(enable=0)
    assert ready.step(1).mode == LEGACY


def test_requests_do_not_hold_up_the_loop_in_flight(firmware: Firmware) -> None:
    firmware.c.hppo_port_begin.restype = ctypes.c_bool
    suspended = ctypes.c_int.in_dll(firmware.c, "stub_suspended")
    assert firmware.c.hppo_port_begin()
    assert suspended.value == 1
    firmware.c.hppo_port_end()
    assert suspended.value == 0
    firmware.byte("stub_flying").value = 1
    assert not firmware.c.hppo_port_begin()
    firmware.byte("stub_flying").value = 0
    firmware.set(enable=1)
    assert not firmware.c.hppo_port_begin()
    assert suspended.value == 0


@pytest.mark.skipif("CRAZYFLIE_BASE" not in os.environ, reason="CRAZYFLIE_BASE is not set")
def test_it_builds_against_the_real_firmware_and_runs_in_it(package: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(package / "crazyflie_app", app)
    base = f"CRAZYFLIE_BASE={os.environ['CRAZYFLIE_BASE']}"
    for goal in ("cf2_defconfig", "all"):
        done = subprocess.run(["make", base, "-j2", goal], cwd=app, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (app / "build" / "cf2.bin").is_file()
    bare, whole = package / "bare_metal" / "policy.elf", app / "build" / "cf2.elf"
    device = VirtualCrazyflie(bare, "crazyflie21", port=0, firmware=whole)
    thread = threading.Thread(target=device.serve)
    thread.start()
    measured = harness.measure(open_package(package), device.uri, 100, free_run_s=0.3)
    device.stop()
    thread.join()
    assert measured.stopped is None
    assert (measured.self_test, max(measured.error)) == (0, 0.0)
