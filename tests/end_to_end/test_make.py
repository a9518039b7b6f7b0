"""The shipped run through the user's commands, as `make demo` runs them."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hyperppo.checkpoint import load_run
from hyperppo.envs.quadrotor.env import QuadrotorEnv
from hyperppo.envs.quadrotor.plants import plant_options
from hyperppo.envs.registry import make_env
from hyperppo.evaluate import evaluate
from hyperppo.pretrained import path as shipped
from hyperppo.space import parse_architecture

ROOT = Path(__file__).parents[2]
needs_cross = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    module, *rest = arguments
    code = f"from {module} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *rest],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@needs_cross
def test_the_main_job_on_the_shipped_run_ends_with_a_verified_package_and_a_latency_report(
    tmp_path: Path,
) -> None:
    out = tmp_path / "crazyflie21"
    compiled = command(
        "compile.cli", "--target", "crazyflie21", "--budget-kb", "16", "--out", str(out)
    )
    assert compiled.returncode == 0, compiled.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["choice"]["considered"] == 2800
    assert manifest["size"]["compiled"]["total_bytes"] <= 16 * 1024
    assert manifest["numerics"]["observations"] >= 1000
    assert manifest["numerics"]["host_c_vs_target"] <= manifest["numerics"]["tolerance"]
    assert manifest["choice"]["metrics"]["crash_rate"] <= 0.05

    # The return that the compiled C earned is the one that torch earns.
    run, flown = load_run(shipped("crazyflie21")), manifest["closed_loop"]
    chosen = parse_architecture(manifest["architecture"]["name"])
    in_torch = evaluate(run, [chosen], flown["episodes"], 5)
    assert flown["episodes"] >= 64
    assert flown["crash_low"] <= flown["crash_rate"] <= flown["crash_high"] <= 0.25
    error = math.hypot(flown["return_stderr"], in_torch.return_stderr[0])
    assert abs(flown["return_mean"] - in_torch.return_mean[0]) < 4 * error
    assert "flown by the compiled C" in compiled.stderr + compiled.stdout

    checked = command("hil.cli", "run", str(out), "--inferences", "1000", "--json")
    assert checked.returncode == 0, checked.stderr
    latency = json.loads((out / "latency.json").read_text())
    assert latency["passed"]
    assert latency["inferences"]["done"] == 1000
    assert latency["timing"]["source"] == "model"
    emulated = manifest["cycles"]["emulated"]["cycles_p2"]
    assert latency["inferences"]["cycles"]["median"] == pytest.approx(emulated, rel=0.05)
    for name in ("report.html", "pareto.png", "latency.html", "crazyflie_app/Makefile"):
        assert (out / name).stat().st_size > 100

    summary = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "summary.py"), str(out)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert manifest["architecture"]["name"] in summary
    assert "not a measurement" in " ".join(summary.replace("│", " ").split())


def test_the_shipped_run_hovers_on_vehicles_that_others_measured() -> None:
    """With a margin for 128 episodes: the full figures are in docs/results/flight.md."""
    run = load_run(shipped("crazyflie21"))
    architectures = [(4,), (16,), (64, 64), (256, 256)]
    for plant in ("L250", "learning-to-fly"):  # measurements come 10 ms late
        options = {**run.config.env, "scenarios": {"static": 1.0}, "spawn_hard": 0.0}
        board = evaluate(run, architectures, 128, 1, env_options=options | plant_options(plant))
        assert (board.metrics["tracking_error_m"] < 0.10).all(), (plant, board.metrics)
        assert (board.metrics["crash_rate"] <= 0.02).all(), (plant, board.metrics)


def test_the_shipped_run_does_not_turn_about_its_vertical_axis() -> None:
    """No task asks for a heading, so that only the cost of spinning keeps a policy from it."""
    run = load_run(shipped("crazyflie21"))
    options = {**run.config.env, "scenarios": {"static": 1.0}, "spawn_hard": 0.0}
    for architecture in ((4,), (64, 64)):
        env = make_env("quadrotor", options, 64, 1)
        assert isinstance(env, QuadrotorEnv)
        policy, (observation, _) = run.policy(architecture), env.reset()
        for _ in range(300):
            observation = env.step(policy(observation.t()).t()).observation
        assert env.world.state.angular_velocity[2].abs().mean() < 2.0, architecture  # rad/s


def test_the_shipped_run_is_small_and_its_leaderboard_whole() -> None:
    folder = shipped("crazyflie21")
    assert sum(f.stat().st_size for f in folder.iterdir()) < 16e6
    board = load_run(folder).leaderboard()
    assert len(board.params) == 2800
    assert np.isfinite(board.return_mean).all()
    assert "hyperppo train quadrotor" in json.loads((folder / "config.json").read_text())["command"]
