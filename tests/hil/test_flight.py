"""Closed loop: a hand-made linear controller as the policy, so that no training is needed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil import closed_loop, fly
from hil.errors import HilError
from hil.package import DevicePackage, open_package
from targets.host import host_policy

torch = pytest.importorskip("torch")

CONVENTIONS = {
    "observation": [
        *("position_error_body", "velocity_error_body", "rotation", "angular_velocity"),
        "previous_action",
    ],
    "previous_actions": 1,
    "position_clip_m": 1.0,
    "control_hz": 100,
}
CHECKPOINT = "cd" * 32


def position_controller() -> tuple[np.ndarray, np.ndarray]:
    """Weights (4, 22) and bias (4,) of cascaded PD control for small angles.

    Attitude loop 8 rad/s, position loop 1.5 rad/s, for the middle of the simulated vehicles.
    """
    weights = np.zeros((4, 22))
    lift, roll, pitch, yaw = np.zeros((4, 22))
    lift[[2, 5]] = -0.5, -0.4
    # Row 3 of R: the vertical in body axes; R31 = -sin(pitch), R32 = sin(roll).
    pitch[[0, 3, 12, 16]] = 0.12 * np.array([-0.23, -0.25, 1, 0]) + np.array([0, 0, 0, -0.025])
    roll[[1, 4, 13, 15]] = 0.12 * np.array([0.23, 0.25, -1, 0]) + np.array([0, 0, 0, -0.025])
    yaw[17] = -0.05
    right, front = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 1])  # M1..M4
    for motor in range(4):
        weights[motor] = lift + (1 - 2 * right[motor]) * roll + (1 - 2 * front[motor]) * pitch
        weights[motor] += (1 if motor % 2 else -1) * yaw
    return weights.astype(np.float32), np.full(4, 0.1, np.float32)


@dataclasses.dataclass(frozen=True)
class Config:
    env: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LinearRun:
    """What closed-loop flight uses of a run."""

    path: Path = Path("runs/linear")
    task: str = "quadrotor"
    checkpoint_sha256: str = CHECKPOINT
    config: Config = dataclasses.field(
        default_factory=lambda: Config({"previous_actions": 1, "spawn_hard": 0.0})
    )

    def policy(self, architecture: tuple[int, ...]) -> Any:
        layer = torch.nn.Linear(22, 4)
        with torch.no_grad():
            for parameter, values in zip(layer.parameters(), position_controller(), strict=True):
                parameter.copy_(torch.from_numpy(values))
        return torch.nn.Sequential(layer, torch.nn.Hardtanh(-1.0, 1.0))


@pytest.fixture(scope="module")
def flyer(make_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(
        tmp_path_factory.mktemp("flyer") / "package",
        conventions=CONVENTIONS,
        linear=position_controller(),
        checkpoint=CHECKPOINT,
        image=shutil.which("arm-none-eabi-gcc") is not None,
    )


@pytest.fixture
def opened(flyer: Path, monkeypatch: pytest.MonkeyPatch) -> DevicePackage:
    monkeypatch.setattr(closed_loop, "open_run", lambda package, path: LinearRun())
    return open_package(flyer)


@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)
def test_a_flight_on_the_virtual_device_is_the_torch_policys(
    opened: DevicePackage, tmp_path: Path
) -> None:
    seen = []
    report, paths = fly.one_over_link(
        opened, None, "static", "virtual", 4.0, 1, tmp_path,
        lambda stage, done, of: seen.append((done, of)),
    )  # fmt: skip
    assert report["passed"], report["verdict"]
    assert report["seconds"] == 4.0
    assert seen[-1] == (400, 400)
    assert len(report["samples"]["cycles"]) == 400
    assert not report["device"]["crashed"]
    assert report["device"]["last_error_m"] < 0.5 < report["device"]["largest_error_m"]
    assert report["largest_answer_error"] <= report["tolerance"]
    assert report["largest_precision_error"] < 1e-6
    assert report["path_difference_m"]["max"] < 1e-3
    assert report["timing"]["source"] == "model"
    assert json.loads((tmp_path / "flight.json").read_text()) == report
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert any("no crash" in line for line in fly.summary_lines(report))


def test_many_episodes_in_process(opened: DevicePackage, tmp_path: Path) -> None:
    report, _ = fly.many_in_process(
        opened, None, "bezier", 64, 3, tmp_path, lambda stage, done, of: None
    )
    deployed, by_torch = report["deployed"], report["torch"]
    assert report["episodes"] == 64
    assert deployed["return"]["mean"] == pytest.approx(by_torch["return"]["mean"], rel=0.02)
    assert deployed["crash_rate"]["crashes"] == by_torch["crash_rate"]["crashes"] < 16
    assert 0 < deployed["tracking_error_m"]["mean"] < 1
    assert json.loads((tmp_path / "episodes.json").read_text()) == report
    assert len(fly.summary_lines(report)) == 4


def test_the_episodes_are_those_of_the_trainings_evaluation(opened: DevicePackage) -> None:
    """Sums and crashes as the simulator gives them, followed one vehicle at a time."""
    run: Any = LinearRun()
    with host_policy(opened.path, 4) as answer:
        episodes = closed_loop.fly_many(run, "static", 5, 0, answer, lambda *_: None)
        seed = int(np.random.SeedSequence((0, 0)).generate_state(1)[0])
        env = closed_loop._make_env(run, "static", None, 5, seed)
        with torch.inference_mode():
            seen, _ = env.reset()
            returns, over = np.zeros(5), np.zeros(5, bool)
            for _ in range(env.episode_steps):
                step = env.step(torch.from_numpy(answer(seen.t().numpy()).T.copy()))
                seen = step.observation
                for i in range(5):
                    if not over[i]:
                        returns[i] += float(step.reward[i])
                        over[i] = bool(step.terminated[i] | step.truncated[i])
    np.testing.assert_allclose(episodes.returns, returns, rtol=1e-5)


def test_the_batched_policy_is_the_single_one(opened: DevicePackage) -> None:
    with host_policy(opened.path, 4) as answer:
        actions = answer(opened.observations)
        alone = np.concatenate([answer(row[None]) for row in opened.observations[:50]])
    np.testing.assert_allclose(actions, opened.actions, atol=1e-5)
    np.testing.assert_array_equal(actions[:50], alone)


def test_a_policy_that_fails_is_reported(opened: DevicePackage) -> None:
    run: Any = LinearRun()

    def off(observations: np.ndarray) -> np.ndarray:
        return np.full((len(observations), 4), -1.0, np.float32)

    flight = closed_loop.fly(run, "static", 10.0, 0, off, lambda *_: None)
    assert flight.crashed
    assert len(flight.position) < 1000
    episodes = closed_loop.fly_many(run, "static", 8, 0, off, lambda *_: None)
    assert episodes.crashed.all()


def test_intervals() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    found = closed_loop.mean_interval(values)
    assert found["mean"] == pytest.approx(3.0, abs=0.3)
    assert found["plus_minus"] == pytest.approx(1.96 * 2 / 20, rel=0.1)
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: 81 of 263.
    share = closed_loop.share_interval(81, 263)
    assert (round(share["low"], 4), round(share["high"], 4)) == (0.2553, 0.3662)
    assert closed_loop.share_interval(0, 20)["high"] == pytest.approx(0.1611, abs=1e-4)


def test_bad_requests(opened: DevicePackage, flyer: Path) -> None:
    run: Any = LinearRun()
    with pytest.raises(HilError, match="unknown scenario"):
        closed_loop.fly(run, "moon", 1.0, 0, lambda x: x, lambda *_: None)
    done = subprocess.run(
        [sys.executable, "-m", "hil.cli", "fly", str(flyer), "--run", "no/such/run"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no run at no/such/run")
