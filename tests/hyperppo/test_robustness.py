"""Maps of the vehicles that a policy flies on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hyperppo import robustness
from hyperppo.cli import app
from hyperppo.pretrained import path


def test_the_maps_show_where_the_shipped_policy_flies_and_where_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (weight, lag), (delay, noise) = robustness.MAPS
    small = (
        (replace(weight, values=(1.8, 2.0)), replace(lag, values=(0.05, 0.5))),
        (replace(delay, values=(0, 8)), replace(noise, values=(1.0,))),
    )
    monkeypatch.setattr(robustness, "MAPS", small)
    picture = tmp_path / "map.png"
    result = CliRunner().invoke(
        app,
        f"robustness {path('crazyflie21')} --arch 16 --episodes 8 --json --threads 1 "
        f"--out {picture}",
    )
    assert result.exit_code == 0, result.output
    motors, senses = json.loads(result.stdout)["maps"]
    places = [(cell["x"], cell["y"]) for cell in motors["cells"]]
    assert places == [(1.8, 0.05), (2.0, 0.05), (1.8, 0.5), (2.0, 0.5)]
    crash = [cell["crash_rate"] for cell in motors["cells"]]
    assert max(crash[:2]) <= 0.25
    assert min(crash[2:]) >= 0.5  # far slower than it was trained on
    now, late = (cell["crash_rate"] for cell in senses["cells"])
    assert now <= 0.25
    assert late >= 0.75  # 80 ms
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_another_task_has_no_map(small_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for file in small_run.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config["config"]["task"] = "pendulum"
    config["config"]["env"] = {}
    (copy / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(app, ["robustness", str(copy), "--arch", "4"])
    assert result.exception is not None
    assert "nothing to map" in str(result.exception)
