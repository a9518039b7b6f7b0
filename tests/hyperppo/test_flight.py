"""`hyperppo fly`: what it records, draws and animates."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hyperppo.checkpoint import load_run
from hyperppo.cli import app
from hyperppo.envs.quadrotor.plants import PLANTS, plant_options
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.flight import animate, fly
from hyperppo.pretrained import path

RUN = path("crazyflie21")


def test_all_networks_of_a_comparison_fly_the_same_goal_from_the_same_start() -> None:
    run = load_run(RUN)
    first, second = (fly(run, a, "bezier", 3) for a in ((4,), (16,)))
    np.testing.assert_array_equal(first.goal[:400], second.goal[:400])
    np.testing.assert_array_equal(first.position[0], second.position[0])
    assert not np.array_equal(first.position[50], second.position[50])
    np.testing.assert_allclose(np.linalg.norm(first.attitude, axis=1), 1, atol=1e-5)


def test_the_command_draws_a_picture_and_an_animation(tmp_path: Path) -> None:
    picture = tmp_path / "f.png"
    arguments = ["fly", str(RUN), "--arch", "4", "--compare", "16 8,8", "--compare", "64"]
    asked = [*arguments, "--scenario", "static", "--plant", "nominal", "--out", str(picture)]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [flight["architecture"] for flight in found["flights"]] == ["4", "16", "8,8", "64"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = Path(found["animation"]).read_text("utf-8")
    assert "http" not in page  # one file, without network
    data = json.loads(page.split("const data = ")[1].split(";\n")[0])
    assert [flight["name"] for flight in data["flights"]] == ["4", "16", "8,8", "64"]
    for flight, told in zip(data["flights"], found["flights"], strict=True):
        assert len(flight["position"]) == len(flight["attitude"]) == len(flight["command"])
        assert len(flight["position"]) / data["hz"] == pytest.approx(told["seconds"], abs=0.02)


def test_an_animation_shows_what_was_flown(tmp_path: Path) -> None:
    flight = fly(load_run(RUN), (16,), "lissajous", 1)
    animate([flight], tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text("utf-8")
    data = json.loads(text.split("const data = ")[1].split(";\n")[0])
    np.testing.assert_allclose(data["flights"][0]["position"], flight.position[::2], atol=6e-4)
    np.testing.assert_allclose(data["goal"], flight.goal[::2], atol=6e-4)


@pytest.mark.parametrize("name", PLANTS)
def test_every_named_plant_makes_vehicles(name: str) -> None:
    options = resolve_options("quadrotor", plant_options(name))
    env = make_env("quadrotor", options, 3, 0)
    observation, _ = env.reset()
    assert observation.isfinite().all()
