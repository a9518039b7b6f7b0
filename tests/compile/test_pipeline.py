from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile import candidate, device, pipeline, verify
from compile.budget import Budget
from compile.device import Cycles
from compile.errors import CompileError
from compile.package import load_package
from compile.pipeline import Request, compile_policy
from compile.progress import Progress

from .conftest import flies

SMALL = Budget(total_bytes=8 * 1024)


def request(out: Path, **more: Any) -> Request:
    return Request(target="crazyflie21", budget=SMALL, out=out, **more)


@pytest.mark.usefixtures("cross", "fake_run")
def test_the_whole_way(tmp_path: Path) -> None:
    lines: list[str] = []
    package = compile_policy(request(tmp_path / "p"), Progress(lines.append))
    facts = package.manifest
    assert load_package(package.path).manifest == facts
    assert [line.split()[0] for line in lines] == (
        ["load", "filter", "choose", "weights", "observe", "onnx", "host", "device", "package"]
    )
    size = facts["size"]["compiled"]
    assert size["total_bytes"] <= 8 * 1024
    assert size["total_bytes"] == sum(
        size[f"{part}_bytes"] for part in ("text", "rodata", "data", "bss", "stack")
    )
    cycles = facts["cycles"]["emulated"]
    assert cycles["source"] == "model"
    assert 0 < cycles["cycles_p1"] < cycles["cycles_p2"]
    assert cycles["independent_of_data"] is True
    same = cycles["cycles_p2"]
    assert cycles["by_data"] == {"observations": 4, "least": same, "most": same}
    assert cycles["us_p2"] == pytest.approx(cycles["cycles_p2"] / 168)
    assert abs(facts["cycles"]["predicted"]["cycles"] / cycles["cycles_p2"] - 1) < 0.1
    numerics = facts["numerics"]
    assert numerics["observations"] >= 1000
    for name in ("source_vs_onnxruntime", "onnxruntime_vs_host_c", "host_c_vs_target"):
        assert 0 <= numerics[name] <= numerics["tolerance"]
    assert numerics["unsaturated"] > 0.5
    choice = facts["choice"]
    assert choice["considered"] == 2800
    assert 0 < choice["affordable"] < 2800
    assert choice["metrics"]["tracking_error_m"] is None  # NaN in the leaderboard
    data = np.load(package.path / "observations.npz")
    assert data["observations"].shape == (1024, 18)
    assert data["actions"].shape == (1024, 4)
    written = {p.relative_to(package.path).as_posix() for p in package.path.rglob("*")}
    for name in [
        "policy.onnx",
        "policy.h",
        "policy.c",
        "policy_golden.h",
        "pareto.png",
        "report.html",
    ]:
        assert name in written
    assert "bare_metal/policy.elf" in written
    assert "crazyflie_app/src/hppo_device.c" in written
    header = (package.path / "policy.h").read_text()
    assert facts["architecture"]["name"] in header
    assert facts["run"]["checkpoint_sha256"][:16] in header


@pytest.mark.usefixtures("cross", "fake_run")
def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (compile_policy(request(tmp_path / name)) for name in "ab")
    assert first.manifest["hashes"] == second.manifest["hashes"]


@pytest.mark.usefixtures("no_cross", "fake_run")
def test_without_the_cross_compiler(tmp_path: Path) -> None:
    lines: list[str] = []
    package = compile_policy(request(tmp_path / "p"), Progress(lines.append))
    facts = load_package(package.path).manifest
    assert facts["size"]["compiled"] is None
    assert facts["cycles"]["emulated"] is None
    assert facts["numerics"]["host_c_vs_target"] is None
    assert facts["toolchain"] is None
    assert facts["size"]["predicted"]["total_bytes"] > 0
    assert not (package.path / "bare_metal").exists()
    report = (package.path / "report.html").read_text()
    assert "There was no cross-compiler" in report
    assert any("no cross-compiler" in line for line in lines)


@pytest.mark.usefixtures("cross", "fake_run")
def test_weights_in_ram(tmp_path: Path) -> None:
    size = compile_policy(request(tmp_path / "p", weights_in="ram", architecture=(16,))).manifest[
        "size"
    ]
    assert size["compiled"]["data_bytes"] == 4 * (16 * 19 + 4 * 17)
    assert size["compiled"]["ram_bytes"] > size["compiled"]["data_bytes"]
    assert size["predicted"]["ram_bytes"] >= size["compiled"]["ram_bytes"]


@pytest.mark.usefixtures("cross", "fake_run")
def test_a_candidate_over_budget_in_truth_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def slow_once(*_: Any) -> Cycles:
        calls.append(1)
        return Cycles(1, 10_000_000) if len(calls) == 1 else Cycles(1, 2)

    monkeypatch.setattr("compile.device.count_cycles", slow_once)
    facts = compile_policy(request(tmp_path / "p")).manifest
    rejected = facts["choice"]["rejected"]
    assert len(rejected) == 1
    assert rejected[0]["architecture"] != facts["architecture"]["name"]
    assert "of time where crazyflie21 allows 1000" in rejected[0]["why"]
    assert rejected[0]["architecture"] in (tmp_path / "p" / "report.html").read_text()


@pytest.mark.usefixtures("cross", "fake_run")
def test_no_candidate_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TRIES", 2)
    monkeypatch.setattr("compile.device.count_cycles", lambda *_: Cycles(1, 10_000_000))
    with pytest.raises(CompileError, match="no candidate holds the budget once compiled"):
        compile_policy(request(tmp_path / "p"))
    assert list(tmp_path.iterdir()) == []


STAGES = {
    "torch and policy.onnx": ("compile.verify.run_onnx", 2e-5),
    "onnxruntime and the host's C": ("compile.candidate.host_policy", 2e-5),
    "the host's C and the machine code": ("compile.device.run_emulated", np.nan),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.usefixtures("cross", "fake_run")
def test_a_form_that_differs_stops_everything(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, error = STAGES[stage]
    owners = {"verify": verify, "device": device, "candidate": candidate}
    _, owner, function = name.split(".")
    real = getattr(owners[owner], function)

    def altered(actions: np.ndarray) -> np.ndarray:
        actions = actions.copy()
        if len(actions) > 100:  # the observations, not the few bad ones
            actions[7, 1] += error
        return actions

    @contextlib.contextmanager
    def wrong_policy(*arguments: Any) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        with real(*arguments) as answer:
            yield lambda observations: altered(answer(observations))

    def wrong(*arguments: Any) -> Any:
        return altered(real(*arguments))

    monkeypatch.setattr(name, wrong_policy if owner == "candidate" else wrong)
    with pytest.raises(CompileError, match=f"{stage} differ by .* observation 7"):
        compile_policy(request(tmp_path / "p"))
    assert list(tmp_path.iterdir()) == []


def test_compare_measures_the_largest_difference() -> None:
    a = np.zeros((3, 2), np.float32)
    b = a.copy()
    b[2, 1] = 5e-6
    assert verify.compare("x and y", a, b) == pytest.approx(5e-6)
    with pytest.raises(CompileError, match="x and y differ"):
        verify.compare("x and y", a, b, tolerance=1e-6)
    with pytest.raises(CompileError, match="shape"):
        verify.compare("x and y", a, b[:2])


@pytest.mark.usefixtures("fake_run", "no_cross")
def test_a_requested_architecture_is_taken_or_refused(tmp_path: Path) -> None:
    facts = compile_policy(request(tmp_path / "p", architecture=(8, 4))).manifest
    assert facts["architecture"]["name"] == "8,4"
    with pytest.raises(CompileError, match=r"64,64 does not fit: it needs .* KiB of memory"):
        compile_policy(request(tmp_path / "q", architecture=(64, 64)))


@pytest.mark.usefixtures("fake_run", "no_cross")
def test_the_report_needs_no_network(tmp_path: Path) -> None:
    package = compile_policy(request(tmp_path / "p"))
    text = (package.path / "report.html").read_text()
    assert not re.search(r"(src|href)=|url\(|@import|<script", text)
    assert "NaN" not in re.sub(r"with NaN or", "", text)
    assert package.manifest["architecture"]["name"] in text
    json.dumps(dict(package.manifest), allow_nan=False)
    picture = (package.path / "pareto.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("precision", ["i16", "i8", "i8x"])
@pytest.mark.usefixtures("cross", "fake_run")
def test_fixed_point_all_the_way(precision: str, tmp_path: Path) -> None:
    package = compile_policy(request(tmp_path / "p", precision=precision, architecture=(16, 8)))
    facts = package.manifest
    assert facts["precision"] == precision
    assert facts["numerics"]["host_c_vs_target"] == 0
    assert facts["numerics"]["tolerance"] == 0
    assert facts["closed_loop"]["return_mean"] == 99.5
    found = facts["quantization"]
    assert 0 < found["error_rms"] <= found["error_max"] < 0.1
    assert found["error_max"] == pytest.approx(facts["numerics"]["onnxruntime_vs_host_c"])
    assert len(found["input_range"]) == 18
    assert found["largest_sum"] < 1
    compiled, predicted = facts["size"]["compiled"], facts["size"]["predicted"]
    assert 0 <= predicted["total_bytes"] - compiled["total_bytes"] < 160
    assert "POLICY_GOLDEN_TOLERANCE 0.0f" in (package.path / "policy_golden.h").read_text()


@pytest.mark.parametrize(
    ("returns", "chosen"),
    [
        ({"i8": 99.5, "i16": 100.0}, "i8"),
        ({"i8": 98.0, "i16": 99.9}, "i16"),
        ({"i8": 98.0, "i16": 50.0}, "f32"),
    ],
)
@pytest.mark.usefixtures("cross", "fake_run")
def test_auto_takes_the_cheapest_that_flies_as_well(
    returns: dict[str, float], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_turn = iter(returns.values())
    monkeypatch.setattr("compile.source_run.fly", flies(lambda: next(in_turn, 100.0)))
    package = compile_policy(request(tmp_path / "p", precision="auto", architecture=(8,)))
    assert package.manifest["precision"] == chosen
    dropped = [entry["why"] for entry in package.manifest["choice"]["rejected"]]
    assert len(dropped) == ["i8", "i16", "f32"].index(chosen)
    assert all("of float32's return" in why for why in dropped)
