"""A policy that torch exported, to a package, to the virtual device: as a user does it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compile.package import load_package


def command(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from {module} import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_exported_policy_to_virtual_device(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(13, 32), nn.ELU(), nn.Linear(32, 4), nn.Tanh()).eval()
    policy, seen, out = tmp_path / "hover.onnx", tmp_path / "seen.npy", tmp_path / "p"
    torch.onnx.export(module, (torch.zeros(1, 13),), str(policy), dynamo=False)
    np.save(seen, np.random.default_rng(0).standard_normal((500, 13)).astype(np.float32))
    common = ["--onnx", policy, "--target", "crazyflie21", "--out", out]

    done = command("compile.cli", *common, "--budget-kb", "1")
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()

    done = command(
        "compile.cli", *common, "--budget-kb", "16", "--calibration", seen, "--precision", "i16"
    )
    assert done.returncode == 0, done.stderr
    assert "hover.onnx" in done.stdout
    facts = load_package(out).manifest
    assert facts["precision"] == "i16"
    assert facts["crazyflie_app"] is False
    if shutil.which("arm-none-eabi-gcc") is None:
        return
    done = command("hil.cli", "run", out, "--inferences", "200", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert report["outputs"]["max_error"] <= 1e-6  # a tanh at the end is float32
    for arguments in (["fly", out], ["flash", out, "--firmware", tmp_path]):
        refused = command("hil.cli", *arguments, *(["--uri", "radio://0"] * ("flash" in arguments)))
        assert refused.returncode == 2, refused.stdout
        assert "ONNX file" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
