"""Every target in every precision that it supports, from a run to code that has passed its test."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile import candidate, device
from compile.budget import Budget
from compile.errors import CompileError
from compile.machine_code import link
from compile.manifest import cost_rows
from compile.package import load_package
from compile.pipeline import Request, compile_policy
from targets.emulator import Emulator
from targets.image import read_image
from targets.target import known_targets, load_target, targets_folder

EVERY = [(name, p) for name in known_targets() for p in load_target(name).precisions]
NO_MODEL = [name for name in known_targets() if load_target(name).timing is None]
OBSERVATIONS = 64
pytestmark = pytest.mark.usefixtures("cross", "fake_run")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer observations and no pictures: these tests look at the machine code."""
    monkeypatch.setattr("compile.verify.OBSERVATIONS", OBSERVATIONS)
    monkeypatch.setattr("compile.pipeline.write_reports", lambda *_: None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_compiled_and_self_tested(name: str, precision: str, tmp_path: Path) -> None:
    target = load_target(name)
    out = tmp_path / "p"
    package = compile_policy(Request(name, architecture=(8, 4), precision=precision, out=out))
    facts = load_package(package.path).manifest
    exact = precision != "f32"
    assert facts["numerics"]["observations"] == OBSERVATIONS
    assert 0 <= facts["numerics"]["host_c_vs_target"] <= (0 if exact else 1e-5)
    size, predicted = facts["size"]["compiled"], facts["size"]["predicted"]
    constants = size["rodata_bytes"] + size["data_bytes"]
    assert min(size["text_bytes"], constants, size["bss_bytes"]) > 0
    most = 1500 if name == "host" else 600  # a PC's compiler unrolls as it likes
    assert 0 <= predicted["total_bytes"] - size["total_bytes"] < most
    assert set(target.isa_flags) <= set(facts["toolchain"]["flags"])
    assert (facts["cycles"]["emulated"] is not None) == (target.timing is not None)
    program = package.path / facts["machine_code"]["program"]
    assert (package.path / "crazyflie_app").is_dir() == (target.firmware is not None)
    if target.native:
        assert subprocess.run([program], check=False).returncode == 0
        assert facts["machine_code"]["ran"] == "on this machine"
    elif target.firmware is None:
        assert device.call(program, target, "main") == 0
    else:
        bare = dataclasses.replace(target, firmware=None)  # the same code without the contract
        link(package.path, bare, package.manifest["weights_in"], tmp_path / "bare.elf")
        assert device.call(tmp_path / "bare.elf", bare, "main") == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["rp2040", "stm32h743", "host"])
def test_a_failed_self_test_leaves_no_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = candidate.write_vectors

    def with_one_wrong(folder: Path, *arguments: Any) -> None:
        real(folder, *arguments)
        golden = folder / "policy_golden.h"
        head, name, actions = golden.read_text().rpartition("policy_golden_actions[POLICY")
        assert name
        golden.write_text(head + name + actions.replace("    {\n", "    {\n9.0f + ", 1))

    monkeypatch.setattr("compile.candidate.write_vectors", with_one_wrong)
    with pytest.raises(CompileError, match="self-test fails on 1 golden vectors as machine code"):
        compile_policy(Request(name, architecture=(4,), out=tmp_path / "p"))
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("quick")
def test_soft_float_counts_as_the_policy_s(tmp_path: Path) -> None:
    target = load_target("rp2040")
    package = compile_policy(Request("rp2040", architecture=(8,), out=tmp_path / "p"))
    facts = package.manifest
    elf = package.path / "bare_metal" / "policy.elf"
    functions = read_image(elf).functions
    assert {"__aeabi_fadd", "__aeabi_i2f"} <= functions.keys()
    section = subprocess.run(
        [f"{target.toolchain}size", "-A", elf], capture_output=True, text=True, check=True
    ).stdout
    sizes = {
        line.split()[0]: int(line.split()[1]) for line in section.splitlines() if "." in line[:1]
    }
    assert sizes[".policy_runtime"] > 500
    own = sizes[".policy_text"] + sizes[".policy_runtime"]
    assert facts["size"]["compiled"]["text_bytes"] == own
    core = Emulator(elf, target, timed=False)
    core.paint_stack()
    core.call("main")
    deepest = core.stack_depth()  # main's own frame included
    assert 0 < facts["size"]["compiled"]["stack_bytes"] <= deepest + 32


@pytest.mark.parametrize("name", NO_MODEL)
def test_nothing_invents_a_time(name: str, tmp_path: Path) -> None:
    package = compile_policy(Request(name, Budget(total_bytes=9000), out=tmp_path / "p"))
    facts = package.manifest
    assert facts["cycles"] == {"predicted": None, "emulated": None}
    assert facts["target"]["cycle_model"] is False
    assert cost_rows(facts)[-1] == ("one inference", "no cycle model", "no cycle model")
    report = (package.path / "report.html").read_text()
    assert "no cycle model" in report
    assert "µs" not in report.replace("<th>µs</th>", "")
    assert report.count("<figure>") == 1
    assert (package.path / "pareto.png").stat().st_size > 10_000
    late = Request(name, Budget(max_us=100.0), out=tmp_path / "q")
    with pytest.raises(CompileError, match=f"{name} has no cycle model, so --max-us cannot"):
        compile_policy(late)
    assert not (tmp_path / "q").exists()


@pytest.mark.usefixtures("quick")
def test_the_target_says_which_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = compile_policy(Request("rp2040", architecture=(4,), out=tmp_path / "p"))
    assert chosen.manifest["precision"] == "i16"
    boards = tmp_path / "boards"
    boards.mkdir()
    text = (targets_folder() / "rp2040.toml").read_text()
    text = text.replace('name = "rp2040"', 'name = "toaster"')
    text = text.replace('["i16", "i8", "i8x", "f32"]', '["i8", "i16"]')
    (boards / "toaster.toml").write_text(text)
    monkeypatch.setattr("targets.target.targets_folder", lambda: boards)
    other: dict[str, Any] = {"architecture": (4,), "out": tmp_path / "q"}
    assert compile_policy(Request("toaster", **other)).manifest["precision"] == "i8"
    with pytest.raises(CompileError, match="toaster has no f32: --precision takes one of i8, i16"):
        compile_policy(Request("toaster", precision="f32", **other))


def test_the_emulated_core_is_the_target_s(tmp_path: Path) -> None:
    """A Cortex-M0+ must not run code for a Cortex-M4F: emulating another core proves nothing."""
    from targets.errors import TargetError
    from targets.toolchain import link_image

    (tmp_path / "policy.c").write_text(
        "void policy_step(const float *o, float *a);\n"
        "void policy_step(const float *o, float *a) { a[0] = o[0] * 3.0f; }\n"
    )
    (tmp_path / "main.c").write_text(
        "void policy_step(const float *o, float *a);\nstatic float o, a;\n"
        "int main(void) { policy_step(&o, &a); return 0; }\n"
    )
    m4 = load_target("stm32f4-discovery")
    elf, source = tmp_path / "m4.elf", tmp_path / "policy.c"
    link_image(m4, [tmp_path / "main.c"], elf, policy_source=source)
    x = np.array([[2.0]], np.float32)
    assert device.run_emulated(elf, m4, x, 1) == 6.0
    with pytest.raises(TargetError, match="Invalid instruction"):
        Emulator(elf, dataclasses.replace(m4, core="cortex_m0plus"), timed=False)


def test_without_a_compiler_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERPPO_CROSS", "no-such-prefix-")
    bare = compile_policy(Request("rp2040", architecture=(4,), out=tmp_path / "p")).manifest
    assert bare["size"]["compiled"] is None
    assert bare["machine_code"] is None
    assert shutil.which("cc")
    host = compile_policy(Request("host", architecture=(4,), out=tmp_path / "q")).manifest
    assert host["size"]["compiled"] is not None  # it needs no cross-compiler
