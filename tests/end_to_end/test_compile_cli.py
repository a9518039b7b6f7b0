"""`hyperppo-compile` as a user runs it, on a small run that was really trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compile.package import load_package
from tests.compile.tflm import installed

SMALL = {"space.widths": "[4,8]", "space.max_depth": 2, "ppo.rollout": 8, "ppo.minibatches": 2}
TRAIN = ["quadrotor", "--steps", "3072", "--num-envs", "64", "--meta-batch", "4"]
TRAIN += ["--threads", "1", "--episodes", "2", "--set", "env.episode_s=0.3"]
SETTINGS = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
TRAIN += SETTINGS


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from {module} import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    done = command("hyperppo.cli", "train", *TRAIN, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def has_cross() -> bool:
    return shutil.which("arm-none-eabi-gcc") is not None


def compile_run(
    run: Path, out: Path, *arguments: str, target: str = "crazyflie21"
) -> subprocess.CompletedProcess[str]:
    fixed = ["--target", target, "--run", str(run), "--out", str(out)]
    return command("compile.cli", *fixed, *arguments)


def test_run_to_package(run: Path, tmp_path: Path) -> None:
    done = compile_run(run, tmp_path / "p", "--budget-kb", "3")
    assert done.returncode == 0, done.stderr
    facts = load_package(tmp_path / "p").manifest
    assert facts["choice"]["considered"] == 6
    assert facts["conventions"]["observation"][0] == "position_error_body"
    assert (facts["size"]["compiled"] is not None) == has_cross()
    assert "architectures fit" in done.stdout


@pytest.mark.parametrize(("target", "precision"), [("rp2040", "i16"), ("host", "f32")])
def test_a_target_without_a_cycle_model(
    run: Path, tmp_path: Path, target: str, precision: str
) -> None:
    done = compile_run(run, tmp_path / "p", "--budget-kb", "16", target=target)
    assert done.returncode == 0, done.stderr
    assert "no cycle model" in done.stdout
    facts = load_package(tmp_path / "p").manifest
    assert facts["precision"] == precision
    assert facts["cycles"] == {"predicted": None, "emulated": None}
    assert not (tmp_path / "p" / "crazyflie_app").exists()
    if target == "host":
        self_test = tmp_path / "p" / facts["machine_code"]["program"]
        assert subprocess.run([self_test], check=False).returncode == 0
    done = compile_run(run, tmp_path / "q", "--max-us", "50", target=target)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"error: {target} has no cycle model" in done.stderr
    assert not (tmp_path / "q").exists()


def test_known_targets_are_listed() -> None:
    done = command("compile.cli", "--list-targets")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "none" in rows["rp2040"]
    assert "±20%" in rows["crazyflie21"]
    assert command("compile.cli", "--target", "toaster").stderr.startswith(
        "error: unknown target 'toaster': choose one of bolt, crazyflie-bl, crazyflie21, host, "
    )


def test_json_output(run: Path, tmp_path: Path) -> None:
    done = compile_run(run, tmp_path / "p", "--arch", "4,8", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["architecture"]["hidden"] == [4, 8]


@installed
@pytest.mark.parametrize("precision", ["f32", "i8"])
def test_tflm(run: Path, tmp_path: Path, precision: str) -> None:
    out = tmp_path / "p"
    options = ["--backend", "tflm", "--precision", precision, "--budget-kb", "4", "--json"]
    done = compile_run(run, out, *options)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)  # nothing of TensorFlow's is in it
    assert facts == load_package(out).manifest
    assert facts["size"]["compiled"]["total_bytes"] <= 4096
    assert (out / "policy_tflm.cc").is_file()
    stages = "load filter choose weights observe onnx tensorflow convert tflm device package"
    assert [line.split()[0] for line in done.stderr.splitlines()] == stages.split()  # nor here


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("checkpoint", "corrupt"),
        ("version", "version 99"),
        ("leaderboard", "leaderboard"),
        ("nothing", "outside the search space"),
    ],
)
def test_damaged_runs(run: Path, tmp_path: Path, damage: str, message: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    if damage == "checkpoint":
        file = copy / "checkpoint.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "version":
        file = copy / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    elif damage == "leaderboard":
        (copy / "leaderboard.csv").unlink()
    done = compile_run(copy, tmp_path / "p", "--arch", "64" if damage == "nothing" else "4")
    assert done.returncode == 2
    errors = done.stderr.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (tmp_path / "p").exists()


def test_a_task_of_ones_own_to_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/own-task.md, from its text to machine code for a Crazyflie."""
    page = Path(__file__).parents[2] / "docs" / "own-task.md"
    example = re.search(r"```python\n(.*?)```", page.read_text(), re.S)
    assert example is not None
    (tmp_path / "rail.py").write_text(example[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), *sys.path]))
    monkeypatch.chdir(tmp_path)
    train = ["rail:make_env", *TRAIN[1 : TRAIN.index("--set")], *SETTINGS, "--out", "run"]
    done = command("hyperppo.cli", "train", *train)
    assert done.returncode == 0, done.stderr
    for precision in ("f32", "i8"):
        done = compile_run(Path("run"), Path(precision), "--precision", precision)
        assert done.returncode == 0, done.stderr
        assert "no crazyflie_app, as rail:make_env is no flight" in " ".join(done.stdout.split())
        facts = load_package(Path(precision)).manifest
        assert facts["conventions"]["observation"] == ["position_m", "velocity_m_s"]
        assert not Path(precision, "crazyflie_app").exists()
        report = " ".join(Path(precision, "report.html").read_text().split())
        assert "the task <code>rail:make_env</code> is no flight" in report
        assert Path(precision, "bare_metal", "policy.elf").exists() == has_cross()
