"""An ONNX file through the whole pipeline, and what its options refuse."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from compile import device
from compile.budget import Budget
from compile.cli import app
from compile.errors import CompileError
from compile.network import Network
from compile.onnx_graph import export_onnx
from compile.onnx_import import read_policy
from compile.package import load_package
from compile.pipeline import Request, compile_policy
from compile.progress import Progress
from compile.source_onnx import run_original
from targets.toolchain import compile_host_library

MakeNetwork = Callable[..., Network]
OBS_DIM = 11


@pytest.fixture
def policy(make_network: MakeNetwork, tmp_path: Path) -> Path:
    """A ReLU policy whose actions have no bound."""
    path = tmp_path / "walker.onnx"
    network = make_network(
        (24, 16), obs_dim=OBS_DIM, act_dim=3, activation="relu", output="identity"
    )
    export_onnx(network, path, {})
    return path


def observations(count: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (2 * rng.standard_normal((count, OBS_DIM))).astype(np.float32)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "seen.npy"
    np.save(path, observations(3000))
    return path


def request(policy: Path, **more: Any) -> Request:
    return Request(target="crazyflie21", onnx=policy, out=policy.parent / "p", **more)


@pytest.mark.usefixtures("cross")
def test_the_whole_way(policy: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    budget = Budget(total_bytes=8192)
    package = compile_policy(request(policy, budget=budget), Progress(lines.append))
    facts = load_package(package.path).manifest
    assert [line.split()[0] for line in lines] == (
        ["load", "filter", "choose", "weights", "observe", "onnx", "host", "device", "package"]
    )
    assert facts["onnx"] == {
        "file": "walker.onnx",
        "sha256": hashlib.sha256(policy.read_bytes()).hexdigest(),
        "producer": "hyperppo",
        "input": "observation",
        "output": "action",
        "calibration": None,
    }
    assert "run" not in facts
    assert facts["conventions"] == {}
    assert facts["crazyflie_app"] is False
    assert facts["architecture"]["hidden"] == [24, 16]
    assert facts["choice"]["return_mean"] is None
    assert "normal distribution" in facts["numerics"]["observed"]
    assert facts["numerics"]["unsaturated"] == 1.0
    for name in ("source_vs_onnxruntime", "onnxruntime_vs_host_c", "host_c_vs_target"):
        assert 0 <= facts["numerics"][name] <= facts["numerics"]["tolerance"]
    assert facts["size"]["compiled"]["total_bytes"] <= 8192
    assert facts["cycles"]["emulated"]["source"] == "model"
    written = {p.relative_to(package.path).as_posix() for p in package.path.rglob("*")}
    assert written == {
        "bare_metal", "bare_metal/policy.elf", "manifest.json", "observations.npz", "policy.c",
        "policy.h", "policy.onnx", "policy_golden.h", "report.html",
    }  # fmt: skip
    # The C, on observations that the pipeline never saw, against the file as it came.
    library = compile_host_library(
        [package.path / "policy.c"], tmp_path / "policy.so", include=[package.path]
    )
    fresh = observations(200, seed=9)
    expected = run_original(policy, read_policy(policy), fresh)
    assert np.abs(expected).max() > 1.5  # nothing is clipped
    assert np.abs(device.run_host(library, fresh, 3) - expected).max() < 1e-5


@pytest.mark.usefixtures("no_cross")
def test_the_report_says_what_is_known(policy: Path) -> None:
    package = compile_policy(request(policy))
    text = (package.path / "report.html").read_text()
    assert not re.search(r"(src|href)=|url\(|@import|<script|<svg", text)
    assert "walker.onnx" in text
    assert "There is no <code>crazyflie_app</code>" in text
    assert "normal distribution" in text
    assert "None" not in text
    assert "walker.onnx" in (package.path / "policy.h").read_text()


@pytest.mark.parametrize("precision", ["i16", "i8", "i8x"])
@pytest.mark.usefixtures("cross")
def test_fixed_point(precision: str, policy: Path, calibration: Path) -> None:
    facts = compile_policy(request(policy, precision=precision, calibration=calibration)).manifest
    assert facts["numerics"]["host_c_vs_target"] == 0
    assert facts["numerics"]["observed"] == "the calibration file seen.npy"
    assert facts["onnx"]["calibration"] == "seen.npy"
    found = facts["quantization"]
    assert found["return_float32"] is None
    assert 0 < found["error_share"] < (0.005 if precision == "i16" else 0.1)
    data = np.load(policy.parent / "p" / "observations.npz")["observations"]
    assert {row.tobytes() for row in data} <= {row.tobytes() for row in observations(3000)}
    assert len(data) == 1024


@pytest.mark.parametrize(("loss", "chosen"), [(0.9, "i8"), (0.003, "i16"), (1e-9, "f32")])
@pytest.mark.usefixtures("no_cross")
def test_auto_goes_by_the_error_of_the_action(
    loss: float, chosen: str, policy: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compile.pipeline.LOSS", loss)
    facts = compile_policy(request(policy, precision="auto", calibration=calibration)).manifest
    assert facts["precision"] == chosen
    dropped = [entry["why"] for entry in facts["choice"]["rejected"]]
    assert len(dropped) == ["i8", "i16", "f32"].index(chosen)
    assert all("of the actions' spread" in why for why in dropped)


@pytest.mark.usefixtures("no_cross")
def test_auto_goes_on_where_there_is_no_fixed_point(
    policy: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise CompileError("layer x: too large")

    monkeypatch.setattr("compile.candidate.quantize", none)
    facts = compile_policy(request(policy, precision="auto", calibration=calibration)).manifest
    assert facts["precision"] == "f32"
    assert "has no i8 form (layer x: too large)" in facts["choice"]["rejected"][0]["why"]
    with pytest.raises(CompileError, match="layer x: too large"):
        compile_policy(request(policy, precision="i8", calibration=calibration))


def error(*arguments: Any) -> str:
    """The one line on stderr of a command that fails."""
    result = CliRunner().invoke(app, ["--target", "crazyflie21", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("error: ")
    return line


def test_too_large_a_policy(policy: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "p"]
    line = error("--onnx", policy, "--budget-kb", 3, *out)
    assert re.search(r"24,16 does not fit: it needs 4\.\d KiB of memory where --budget-kb", line)
    assert re.search(r"predicted [45]\d{3} B in all in f32", line)
    assert "--precision i8, predicted to fit, with --calibration" in line
    line = error("--onnx", policy, "--budget-kb", 0.5, *out)
    assert line.endswith("allow it more, or train a smaller network")
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("cross")
def test_too_large_once_compiled(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compile.device.count_cycles", lambda *_: device.Cycles(1, 10_000_000))
    line = error("--onnx", policy, "--out", tmp_path / "p")
    assert "24,16 does not fit: it needs" in line
    assert re.search(r"linked 4\d{3} B in all in f32", line)
    assert "of time where crazyflie21 allows" in line
    assert not (tmp_path / "p").exists()


def test_options_that_do_not_go_together(policy: Path, calibration: Path) -> None:
    assert "choose among many" in error("--onnx", policy, "--arch", "64,64")
    assert "choose among many" in error("--onnx", policy, "--run", "somewhere")
    assert "choose among many" in error("--onnx", policy, "--at-least", "0.9")
    assert "--output goes with --onnx" in error("--output", "action")
    assert "--calibration goes with --onnx" in error("--calibration", calibration)
    assert "it has: action" in error("--onnx", policy, "--output", "mean")
    assert "cannot read the ONNX model" in error("--onnx", "none.onnx")
    assert "give them with --calibration" in error("--onnx", policy, "--precision", "i8")
    assert "give them with --calibration" in error("--onnx", policy, "--precision", "auto")


BAD = {
    "few": (np.zeros((63, OBS_DIM)), "has 63 observations, of 64 at least"),
    "other": (np.zeros((99, OBS_DIM + 1)), r"of shape \(99, 12\); .* of shape \(n, 11\)"),
    "flat": (np.zeros(99), r"of shape \(99,\)"),
    "text": (np.full((99, OBS_DIM), "a"), "holds <U1"),
    "nan": (np.full((99, OBS_DIM), np.nan), "not finite"),
    "huge": (np.full((99, OBS_DIM), 1e300), "not finite"),
    "objects": (np.full((99, OBS_DIM), None), "cannot read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calibration(name: str, policy: Path, tmp_path: Path) -> None:
    array, message = BAD[name]
    path = tmp_path / "bad.npy"
    np.save(path, array, allow_pickle=True)
    assert re.search(message, error("--onnx", policy, "--calibration", path))


def test_calibration_archives(policy: Path, tmp_path: Path) -> None:
    from compile.source_onnx import read_observations

    imported, seen = read_policy(policy), observations(64)
    path = tmp_path / "seen.npz"
    np.savez(path, anything=seen.astype(np.float64))
    assert np.array_equal(read_observations(path, imported), seen)
    np.savez(path, actions=seen[:, :3], observations=seen)
    assert np.array_equal(read_observations(path, imported), seen)
    np.savez(path, a=seen, b=seen)
    assert "arrays a, b, none 'observations'" in error("--onnx", policy, "--calibration", path)
    np.savez(path)
    assert "cannot read --calibration" in error("--onnx", policy, "--calibration", path)
    path.write_bytes(b"PK\x03\x04 not an archive")
    assert "cannot read --calibration" in error("--onnx", policy, "--calibration", path)
    missing = tmp_path / "none.npy"
    assert "cannot read --calibration" in error("--onnx", policy, "--calibration", missing)
