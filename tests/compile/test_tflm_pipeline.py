"""hyperppo-compile --backend tflm: options, package, budget, errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from compile import candidate_tflm
from compile.budget import Budget
from compile.cli import app
from compile.errors import CompileError
from compile.network import Network
from compile.onnx_graph import export_onnx
from compile.package import load_package
from compile.pipeline import Request, compile_policy
from compile.progress import Progress
from hil.errors import HilError
from hil.package import open_package
from tests.compile.tflm import installed

MakeNetwork = Callable[..., Network]


def request(out: Path, **more: Any) -> Request:
    budget = Budget(total_bytes=8 * 1024)
    return Request(target="crazyflie21", backend="tflm", budget=budget, out=out, **more)


def invoke(*arguments: str) -> Result:
    fixed = ["--target", "crazyflie21", "--backend", "tflm"]
    return CliRunner().invoke(app, [*fixed, *arguments])


def one_line_error(result: Result) -> str:
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "i8x"], "--backend tflm takes --precision f32, i16, i8, not i8x"),
        (["--precision", "auto"], "--backend tflm takes --precision f32, i16, i8, not auto"),
        (["--max-us", "100"], "--max-us is of --backend c"),
        (["--weights-in", "ram"], "--backend tflm keeps the model in flash"),
        (["--backend", "onnx2c"], "--backend takes c or tflm, not 'onnx2c'"),
        (["--backend", "c", "--tflm-root", "/"], "--tflm-root is of --backend tflm"),
    ],
)
def test_bad_options(arguments: list[str], message: str) -> None:
    assert message in one_line_error(invoke(*arguments))


@installed
def test_a_root_that_is_none(tmp_path: Path) -> None:
    error = one_line_error(invoke("--tflm-root", str(tmp_path)))
    assert f"--tflm-root {tmp_path} is no TFLM tree" in error


@pytest.mark.parametrize("missing", ["tensorflow", "tflite_micro"])
def test_without_the_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else object()
    )
    error = one_line_error(invoke("--budget-kb", "16"))
    assert f"needs {missing.replace('_', '-')}, not installed here" in error
    assert "pip install -c constraints.txt -e '.[tflm]'" in error


@installed
@pytest.mark.usefixtures("fake_run")
@pytest.mark.parametrize("precision", ["f32", "i16", "i8"])
def test_the_whole_way(precision: str, tmp_path: Path) -> None:
    lines: list[str] = []
    package = compile_policy(request(tmp_path / "p", precision=precision), Progress(lines.append))
    facts = package.manifest
    assert load_package(package.path).manifest == facts
    stages = "load filter choose weights observe onnx tensorflow convert tflm device package"
    assert [line.split()[0] for line in lines] == stages.split()
    assert facts["backend"] == "tflm"
    assert facts["precision"] == precision
    size, predicted = facts["size"]["compiled"], facts["size"]["predicted"]
    model = (package.path / "policy.tflite").read_bytes()
    assert size["model_bytes"] == len(model)
    assert size["input_table_bytes"] == (0 if precision == "f32" else 4 * 18)
    assert size["arena_bytes"] > size["arena_by_rules_bytes"] > 0
    assert size["code_bytes"] is None
    assert "not TFLM's code" in size["counted"]
    parts = ("model_bytes", "input_table_bytes", "arena_bytes")
    assert size["total_bytes"] == sum(size[part] for part in parts) <= 8 * 1024
    assert 0 <= predicted["total_bytes"] - size["total_bytes"] <= 96
    assert facts["cycles"] == {"predicted": None, "emulated": None}
    numerics, quantization = facts["numerics"], facts["quantization"]
    assert numerics["onnxruntime_vs_host_c"] is None
    if precision == "f32":
        assert quantization is None
        assert 0 < numerics["onnxruntime_vs_tflm"] <= numerics["tolerance"] == 1e-5
    else:
        assert 0 < quantization["error_rms"] < quantization["error_max"]
        assert numerics["onnxruntime_vs_tflm"] == pytest.approx(quantization["error_max"])
        assert quantization["error_max"] <= quantization["error_bound"]
        assert 0.5 < quantization["kernel_error"] <= 1
        assert quantization["return_fixed"] == 99.5
    files = {path.name for path in package.path.rglob("*")}
    assert {"policy.onnx", "policy.h", "policy_tflm.h", "policy_tflm.cc"} < files
    assert {"policy_golden.h", "observations.npz", "report.html", "pareto.png"} < files
    assert "policy.c" not in files
    source = (package.path / "policy_tflm.cc").read_text()
    array = source.split("policy_model[", 1)[1].split("{", 1)[1].split("}", 1)[0]
    assert bytes(int(word, 16) for word in re.findall(r"0x[0-9a-f]{2}", array)) == model
    report = (package.path / "report.html").read_text()
    assert "policy_tflm.cc" in report
    assert "crazyflie_app" not in report
    assert "NaN" not in re.sub(r"with NaN or", "", report)
    assert "no cycle model of TFLM’s kernels" in report
    assert "no cycle model of this core" not in report
    assert facts["machine_code"] is None
    assert facts["crazyflie_app"] is False
    opened = open_package(package.path)
    for take in (lambda: opened.elf, lambda: opened.app):
        with pytest.raises(HilError, match="has the tflm backend, without the device contract"):
            take()


@installed
@pytest.mark.usefixtures("fake_run")
def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        compile_policy(request(tmp_path / name, architecture=(8,), precision="i8")) for name in "ab"
    )
    assert first.manifest["hashes"] == second.manifest["hashes"]


@installed
@pytest.mark.usefixtures("fake_run")
def test_over_the_budget(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"64,64 does not fit: it needs .* KiB of memory"):
        compile_policy(request(tmp_path / "p", architecture=(64, 64)))
    error = one_line_error(invoke("--budget-kb", "1", "--out", str(tmp_path / "p")))
    assert "no architecture fits" in error
    assert list(tmp_path.iterdir()) == []


WRONG = {  # what is wrong -> (function, what it returns, the error)
    "an action": ("Interpreter.forward", 2e-5, "TFLM's interpreter differ by"),
    "the arena": ("Interpreter.used", None, "allocates differently"),
}


@installed
@pytest.mark.usefixtures("fake_run")
@pytest.mark.parametrize("what", WRONG)
def test_what_differs_stops_everything(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, off, message = WRONG[what]
    function = name.split(".")[1]
    real = getattr(candidate_tflm.Interpreter, function)

    def wrong(*arguments: Any) -> Any:
        if off is None:
            return (0, 0)
        return real(*arguments) + np.float32(off)

    monkeypatch.setattr(f"compile.candidate_tflm.{name}", wrong)
    with pytest.raises(CompileError, match=message):
        compile_policy(request(tmp_path / "p", architecture=(4,)))
    assert list(tmp_path.iterdir()) == []


@installed
@pytest.mark.usefixtures("fake_run")
def test_a_quantised_policy_beyond_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = candidate_tflm.Interpreter.forward
    monkeypatch.setattr(
        "compile.candidate_tflm.Interpreter.forward",
        lambda self, x: np.where(np.arange(4) == 2, np.float32(0.9), real(self, x)),
    )
    with pytest.raises(CompileError, match="more than its quantisation explains"):
        compile_policy(request(tmp_path / "p", architecture=(4,), precision="i16"))
    assert list(tmp_path.iterdir()) == []


@installed
@pytest.mark.parametrize("precision", ["f32", "i8"])
def test_an_onnx_file(precision: str, make_network: MakeNetwork, tmp_path: Path) -> None:
    """Unbounded actions, and layers without a bias, as others export them."""
    network = make_network((24, 16), obs_dim=11, act_dim=3, activation="relu", output="identity")
    bare = tuple(replace(layer, bias=np.zeros_like(layer.bias)) for layer in network.layers)
    export_onnx(replace(network, layers=bare), tmp_path / "walker.onnx", {})
    seen = np.random.default_rng(0).standard_normal((1000, 11)).astype(np.float32)
    np.save(tmp_path / "seen.npy", seen)
    files = {"onnx": tmp_path / "walker.onnx", "calibration": tmp_path / "seen.npy"}
    package = compile_policy(request(tmp_path / "p", precision=precision, **files))
    facts = load_package(package.path).manifest
    assert (facts["backend"], facts["precision"]) == ("tflm", precision)
    assert facts["onnx"]["file"] == "walker.onnx"
    assert facts["numerics"]["onnxruntime_vs_tflm"] > 0
    if precision == "i8":
        assert facts["quantization"]["return_fixed"] is None
        assert 0 < facts["quantization"]["error_share"] < 0.1
        assert facts["quantization"]["error_max"] <= facts["quantization"]["error_bound"]
    report = (package.path / "report.html").read_text()
    assert "walker.onnx" in report
    assert "None" not in report


@installed
def test_an_onnx_file_that_is_not_quantised(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network((8,), activation="elu")
    export_onnx(network, tmp_path / "e.onnx", {})
    np.save(tmp_path / "seen.npy", np.random.default_rng(0).standard_normal((100, 18)))
    files = {"onnx": tmp_path / "e.onnx", "calibration": tmp_path / "seen.npy"}
    with pytest.raises(CompileError, match="no i8 form of elu: take --precision f32"):
        compile_policy(request(tmp_path / "p", precision="i8", **files))
    small = replace(request(tmp_path / "p", **files), budget=Budget(total_bytes=1024))
    with pytest.raises(CompileError, match=r"8 does not fit.*train a smaller network$"):
        compile_policy(small)


@installed
def test_this_machine_is_no_microcontroller() -> None:
    error = one_line_error(invoke("--target", "host", "--budget-kb", "16"))
    assert "--backend tflm is for microcontrollers, which host is not" in error
