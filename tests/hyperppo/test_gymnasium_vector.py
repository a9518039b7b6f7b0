"""A VectorEnv that a Gymnasium id registers: steps, ends and cuts by hand; and it trains."""

from __future__ import annotations

import json
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import register
from gymnasium.vector import AutoresetMode, VectorEnv

from hyperppo import cli
from hyperppo.checkpoint import load_run
from hyperppo.envs.registry import make_env
from hyperppo.errors import HyperPPOError

N = 6


class Walks(VectorEnv[Any, Any, Any]):
    """Walks of one number that should stay at 0; they end beyond 2. Told to reset, or resets."""

    def __init__(self, num_envs: int, mode: AutoresetMode, max_episode_steps: int = 9) -> None:
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        self.single_action_space = gymnasium.spaces.Box(-0.5, 1.0, (1,))
        self.x, self.time = np.zeros(num_envs), np.zeros(num_envs)

    def _seen(self) -> Any:
        return np.stack((self.x, self.time), 1)

    def _restart(self, which: Any) -> None:
        self.x[which] = self.np_random.uniform(-1, 1, int(which.sum()))
        self.time[which] = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._restart((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        self.x += actions[:, 0]
        self.time += 1
        reward = -(self.x**2)
        terminated, truncated = np.abs(self.x) > 2, self.time >= self.limit
        info: dict[str, Any] = {}
        over = terminated | truncated
        if self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP and over.any():
            info = {"final_obs": np.empty(self.num_envs, object), "_final_obs": over}
            for i in over.nonzero()[0]:
                info["final_obs"][i] = self._seen()[i]
            self._restart(over)
        return self._seen(), reward, terminated, truncated, info


@pytest.fixture(autouse=True)
def walks() -> None:
    for mode in AutoresetMode:
        name = f"Walks{mode.value}-v0"
        if name not in gymnasium.registry:
            given = {"vector_entry_point": Walks, "kwargs": {"mode": mode}}
            register(name, **given, max_episode_steps=9)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["Disabled", "SameStep"])
def test_steps_ends_and_cuts_are_those_of_the_walks(mode: str) -> None:
    env = make_env(f"gymnasium:Walks{mode}-v0", {}, N, 3)
    assert (env.obs_dim, env.act_dim, env.episode_steps) == (2, 1, 9)
    observation, _ = env.reset()
    x, time = observation[0].double().numpy().copy(), np.zeros(N)
    rng = np.random.default_rng(0)
    cuts = ends = 0
    for _ in range(60):
        action = rng.uniform(-1.2, 1.2, (1, N))
        step = env.step(torch.tensor(action, dtype=torch.float32))
        x += -0.5 + (np.clip(action[0], -1, 1) + 1) / 2 * 1.5
        time += 1
        np.testing.assert_allclose(step.reward, -(x**2), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(step.terminated, np.abs(x) > 2)
        np.testing.assert_array_equal(step.truncated, (time == 9) & (np.abs(x) <= 2))
        last = np.stack((x, time))[:, step.truncated.numpy()]
        np.testing.assert_allclose(step.final_critic_input, last, rtol=1e-4, atol=1e-5)
        over = (step.terminated | step.truncated).numpy()
        seen = step.observation.numpy()
        assert (np.abs(seen[0, over]) <= 1).all()
        assert (seen[1, over] == 0).all()
        np.testing.assert_allclose(
            seen[:, ~over], np.stack((x, time))[:, ~over], rtol=1e-4, atol=1e-5
        )
        x[over], time[over] = seen[0, over], 0
        cuts, ends = cuts + int(step.truncated.sum()), ends + int(step.terminated.sum())
    assert min(cuts, ends) > 3


def test_a_seed_repeats_it() -> None:
    starts = [make_env("WalksDisabled-v0", {}, N, seed).reset()[0] for seed in (1, 1, 2)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_another_time_limit() -> None:
    for mode in ("Disabled", "SameStep"):
        env = make_env(f"Walks{mode}-v0", {"episode_steps": 4}, N, 3)
        env.reset()
        steps = [env.step(torch.full((1, N), -1 / 3)) for _ in range(4)]
        assert [bool(step.truncated.all()) for step in steps] == [False] * 3 + [True]


def test_what_cannot_be_used_says_why() -> None:
    with pytest.raises(HyperPPOError, match="autoreset_mode"):
        make_env("WalksNextStep-v0", {}, N, 0)
    with pytest.raises(HyperPPOError, match=r"cannot make WalksDisabled-v0.*moody"):
        make_env("WalksDisabled-v0", {"kwargs": {"moody": 1}}, N, 0)
    with pytest.raises(HyperPPOError, match=r"cannot make WalksDisabled-v0"):
        make_env("WalksDisabled-v0", {"workers": 1}, N, 0)  # it has no single environment
    with pytest.raises(HyperPPOError, match="only boxes"):
        make_env("CartPole-v1", {}, N, 0)


def test_it_trains_and_is_ranked(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From about -0.5 a step to nearly standing still at 0."""
    out = tmp_path / "run"
    arguments = [
        "train", "gymnasium:WalksDisabled-v0", "--num-envs", "64", "--meta-batch", "4",
        "--steps", "60000", "--episodes", "20", "--threads", "1", "--out", str(out), "--json",
        "--set", "space.widths=4,8", "--set", "space.max_depth=1", "--set", "ppo.rollout=16",
        "--set", "ppo.average=0.8",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["hyperppo", *arguments])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert json.loads(capsys.readouterr().out)
    board = load_run(out).leaderboard()
    assert board.return_mean.max() > -1.0
