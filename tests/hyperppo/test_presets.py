"""Presets: each is a whole valid run, and says where each value comes from."""

import dataclasses
import re
from importlib import resources
from typing import Any

import pytest

from hyperppo.checkpoint import read_config
from hyperppo.config import RunConfig, make_config
from hyperppo.envs.quadrotor.plants import plant_options
from hyperppo.envs.registry import family, resolve_options
from hyperppo.errors import HyperPPOError
from hyperppo.presets import preset
from hyperppo.pretrained import path

TASKS = ("quadrotor", "pendulum", "mujoco:HalfCheetah-v5", "Pendulum-v1", "brax:ant", "mine:make")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algo", ["csd", "ppo"])
def test_the_default_preset_trains_every_algorithm(task: str, algo: str) -> None:
    plain = {"architecture": [64, 64], "meta_batch": 1} if algo == "ppo" else {}
    config = make_config({**preset(task, "default"), "task": task, "algo": algo, **plain})
    assert (config.task, config.algo) == (task, algo)
    # Whole environments for every architecture and minibatch, and at least one iteration.
    assert config.num_envs % config.meta_batch == 0
    assert (config.num_envs // config.meta_batch) % config.ppo.minibatches == 0
    assert config.iterations >= 1


@pytest.mark.parametrize("task", ["quadrotor", "mujoco:HalfCheetah-v5", "brax:ant"])
def test_the_papers_batch_and_minibatch(task: str) -> None:
    config = make_config({**preset(task, "paper"), "task": task})
    batch = config.num_envs * config.ppo.rollout
    expected = {"quadrotor": 8192, "mujoco:HalfCheetah-v5": 2048, "brax:ant": 65_536}
    assert batch // config.ppo.minibatches == expected[task]
    assert config.ghn.kind == "original"
    overridden = make_config({**preset(task, "paper"), "task": task}, ["ppo.epochs=3"])
    assert overridden.ppo == dataclasses.replace(config.ppo, epochs=3)


def test_the_quadrotors_default_is_run_configs() -> None:
    assert make_config({**preset("quadrotor", "default")}) == RunConfig()


def test_every_value_of_the_paper_has_its_source_beside_it() -> None:
    for name in ("quadrotor", "gymnasium", "brax"):
        text = (resources.files("hyperppo.presets") / f"{name}.toml").read_text()
        table = ""
        for line in text.splitlines():
            if line.startswith("["):
                table = line
            elif "=" in line and table.startswith("[paper") and not line.startswith("#"):
                assert re.search(r"#\s+\S", line), f"{name}: {line}"


def test_the_shipped_run_is_the_preset_robust_on_the_wider_plant() -> None:
    given = preset("quadrotor", "robust") | {"task": "quadrotor"}
    env = {**given["env"], **plant_options("wider")}
    config = make_config({**given, "env": resolve_options("quadrotor", env)})
    assert read_config(path("crazyflie21"))[1].to_dict() == config.to_dict()


def test_a_preset_goes_over_its_base() -> None:
    base, whole = preset("quadrotor", "robust"), preset("quadrotor", "robust-gpu")
    assert (whole["num_envs"], "base" in whole) == (16_384, False)
    for room, own in (
        ("polish", {"last": 0.65}),
        ("env", {"ramp": [0.03, 0.25]}),
        ("ppo", {"decay_last": 0.49}),
        ("policy", {}),
    ):
        assert whole[room] == {**base[room], **own}


@pytest.mark.parametrize("task", ["mine:make", "pendulum"])
def test_an_unknown_preset_is_said_in_one_line(task: str) -> None:
    with pytest.raises(HyperPPOError, match=f"{task} has no preset 'paper': it has default"):
        preset(task, "paper")


def test_families() -> None:
    names: dict[str, Any] = dict(zip(TASKS, map(family, TASKS), strict=True))
    assert list(names.values()) == [
        "quadrotor",
        "pendulum",
        "gymnasium",
        "gymnasium",
        "brax",
        "own",
    ]
    assert family("gymnasium:module:Name-v0") == "gymnasium"
    assert family("module:Name-v0") == "gymnasium"  # Gymnasium's own way to import what registers
    assert family("nonsense") == ""
