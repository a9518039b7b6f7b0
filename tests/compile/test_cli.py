from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compile.cli import app


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["--target", "crazyflie21", *arguments])


def one_line_error(result: Result) -> str:
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    return lines[0]


@pytest.mark.usefixtures("fake_run", "no_cross")
def test_summary_and_json(tmp_path: Path) -> None:
    out = tmp_path / "p"
    result = invoke("--budget-kb", "4", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "architectures fit" in result.stdout
    assert "gcc-arm-none-eabi" in result.stdout  # what to install
    result = invoke("--budget-kb", "4", "--out", str(out), "--json")
    assert json.loads(result.stdout) == json.loads((out / "manifest.json").read_text())
    assert "filter" in result.stderr


@pytest.mark.parametrize("text", ["abc", "-3", "0", "nan", "inf"])
@pytest.mark.parametrize("option", ["--budget-kb", "--ram-kb", "--flash-kb", "--max-us"])
def test_bad_budget(option: str, text: str) -> None:
    assert f"{option} takes a positive number" in one_line_error(invoke(option, text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-least", "1.5"], "--at-least takes a share"),
        (["--at-least", "most"], "--at-least takes a share"),
        (["--at-least", "nan"], "--at-least takes a share"),
        (["--weights-in", "rom"], "--weights-in takes flash or ram"),
        (["--precision", "f16"], "--precision takes f32, i16"),
        (["--arch", "64,x"], "not an architecture"),
        (["--target", "toaster"], "crazyflie21"),
    ],
)
def test_bad_options(arguments: list[str], message: str) -> None:
    assert message in one_line_error(invoke(*arguments))


@pytest.mark.usefixtures("fake_run")
def test_nothing_fits(tmp_path: Path) -> None:
    result = invoke("--budget-kb", "0.5", "--out", str(tmp_path / "p"))
    error = one_line_error(result)
    assert "no architecture fits" in error
    smallest = error.split("--budget-kb ")[-1]
    assert float(smallest) > 0.5
    assert list(tmp_path.iterdir()) == []
    assert invoke("--budget-kb", smallest, "--out", str(tmp_path / "p")).exit_code == 0


@pytest.mark.usefixtures("fake_run")
def test_architecture_outside_the_space(tmp_path: Path) -> None:
    error = one_line_error(invoke("--arch", "7,7", "--out", str(tmp_path / "p")))
    assert "outside the search space" in error


@pytest.mark.usefixtures("fake_run")
def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = one_line_error(invoke("--budget-kb", "4", "--out", str(tmp_path / "file" / "p")))
    assert "cannot write the package" in error
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        error = one_line_error(invoke("--budget-kb", "4", "--out", str(tmp_path / "closed" / "p")))
        assert "Permission denied" in error


def test_missing_corrupt_and_foreign_runs(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "p")]
    assert "no run at" in one_line_error(invoke("--run", str(tmp_path / "none"), *out))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{")
    assert "not a run's configuration" in one_line_error(invoke("--run", str(run), *out))
    (run / "config.json").write_text('{"format": "hyperppo-run", "format_version": 99}')
    assert "version 99" in one_line_error(invoke("--run", str(run), *out))
    assert not (tmp_path / "p").exists()


def test_help_is_quick_and_has_an_example() -> None:
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "compile.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 1.0  # half a second on an idle machine
    assert "hyperppo-compile --target crazyflie21 --budget-kb 16" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, compile.cli; print([m for m in ('torch','onnx','numpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
