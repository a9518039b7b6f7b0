"""Gymnasium tasks against Gymnasium itself, stepped one by one."""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec, register

from hyperppo import cli
from hyperppo.checkpoint import load_run, read_checkpoint
from hyperppo.envs.base import Step
from hyperppo.envs.registry import find_task, make_env, resolve_options
from hyperppo.errors import HyperPPOError

N = 5


class Walk(gymnasium.Env[Any, Any]):
    """A walk of one number: it ends beyond 3, is cut after `limit` steps, and counts itself."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float64)
    action_space = gymnasium.spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = np.array([[self.np_random.normal()], [0.0]])
        return self.state, {}

    def step(self, action: Any) -> Any:
        self.state[0, 0] += action[0]
        self.state[1, 0] += 1
        return self.state, float(action[1]), abs(self.state[0, 0]) > 3, False, {}


@pytest.fixture(autouse=True)
def walk() -> None:
    """Registered in this process alone: workers do not know it."""
    if "Walk-v0" not in gymnasium.registry:
        register("Walk-v0", entry_point=Walk, max_episode_steps=7)
        register("Endless-v0", entry_point=Walk)


def test_steps_resets_and_cuts_are_those_of_a_plain_loop() -> None:
    env = make_env("gymnasium:Walk-v0", {"workers": 1}, N, 3)
    seeds = np.random.SeedSequence(3).generate_state(N).tolist()
    plain = [Walk() for _ in range(N)]
    expected = [e.reset(seed=s)[0].ravel().copy() for e, s in zip(plain, seeds, strict=True)]
    observation, critic_input = env.reset()
    assert observation.shape == (env.obs_dim, N) == (2, N)
    assert observation.dtype == torch.float32
    np.testing.assert_allclose(observation.t(), expected, rtol=1e-6)
    assert torch.equal(observation, critic_input)
    rng = np.random.default_rng(0)
    time, ends = np.zeros(N), {"terminated": 0, "truncated": 0}
    for _ in range(60):
        action = rng.uniform(-1.5, 1.5, (2, N)).astype(np.float32)
        step = env.step(torch.from_numpy(action))
        inside = action.clip(-1, 1)
        time += 1
        final = []
        for i, e in enumerate(plain):
            seen, reward, terminated, _, _ = e.step((inside[0, i], 5 * (inside[1, i] + 1)))
            seen = seen.ravel().copy()
            truncated = time[i] == 7 and not terminated
            assert bool(step.terminated[i]) == terminated
            assert bool(step.truncated[i]) == truncated
            assert float(step.reward[i]) == pytest.approx(reward, rel=1e-5, abs=1e-6)
            if truncated:
                final.append(seen)
            if truncated or terminated:
                seen, time[i] = e.reset()[0].ravel().copy(), 0
            ends["terminated"] += int(terminated)
            ends["truncated"] += int(truncated)
            np.testing.assert_allclose(step.observation[:, i], seen, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            step.final_critic_input.t(), np.reshape(final, (-1, 2)), 1e-5, 1e-5
        )
    assert min(ends.values()) > 5, ends


def _rollout(env: Any, steps: int) -> list[Step]:
    env.reset()
    env.desynchronise()
    actions = torch.rand((steps, env.act_dim, env.num_envs), generator=_seeded()) * 2 - 1
    return [env.step(action) for action in actions]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_number_of_processes_changes_nothing() -> None:
    """And the first episodes end at different times."""
    rollouts = [
        _rollout(make_env("Pendulum-v1", {"workers": w, "episode_steps": 20}, N, 1), 40)
        for w in (1, 2, 9)
    ]
    for other in rollouts[1:]:
        for a, b in zip(rollouts[0], other, strict=True):
            for name in ("observation", "reward", "truncated", "final_critic_input"):
                assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert max(int(step.truncated.sum()) for step in rollouts[0]) < N
    assert sum(int(step.truncated.sum()) for step in rollouts[0]) >= N


def test_pendulum_is_ours_step_by_step() -> None:
    """The vectorised pendulum, itself tested against Gymnasium, from equal states."""
    theirs = make_env("gymnasium:Pendulum-v1", {"workers": 1}, N, 0)
    ours = make_env("pendulum", {}, N, 0)
    seen, _ = theirs.reset()
    ours.angle, ours.velocity = torch.atan2(seen[1], seen[0]), seen[2].clone()  # type: ignore[attr-defined]
    for action in torch.randn((20, 1, N), generator=_seeded()):
        a, b = theirs.step(action), ours.step(action)
        torch.testing.assert_close(a.observation, b.observation, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(a.reward, b.reward, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("CartPole-v1", {}, r"its action is Discrete\(2\); only boxes"),
        ("Nonsense-v1", {}, "Gymnasium cannot make Nonsense-v1: "),
        ("gymnasium:", {}, "Gymnasium cannot make : "),
        ("nonsense", {}, "unknown task 'nonsense': .*any other Gymnasium id"),
        ("Endless-v0", {}, r"no time limit: give it one, --set env\.episode_steps"),
        ("Pendulum-v1", {"kwargs": {"gravity": 5}}, "Gymnasium cannot make Pendulum-v1: .*gravity"),
        ("Pendulum-v1", {"speed": 1}, r"Pendulum-v1 options: env\.speed"),
        ("gymnasium:no_such_module:X-v0", {}, "no_such_module"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    task: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HyperPPOError, match=message) as caught:
        make_env(task, options, N, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["mujoco", "gymnasium"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == module or "gymnasium_pool" in n]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(HyperPPOError, match=r"HalfCheetah-v5 needs .*: pip install .*\[mujoco\]"):
        make_env("mujoco:HalfCheetah-v5", {}, 1, 0)


def test_what_a_worker_raises_reaches_the_trainer() -> None:
    """Here: a worker has not imported what registers the task."""
    env = make_env("Walk-v0", {"workers": 2}, N, 0)
    with pytest.raises(HyperPPOError, match=r"Walk-v0: NameNotFound: .*env\.workers=1"):
        env.reset()


def test_a_killed_worker_is_an_error_and_none_outlives_its_environments() -> None:
    env: Any = make_env("Pendulum-v1", {"workers": 2}, N, 0)
    env.reset()
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    workers[0].kill()
    workers[0].join()
    with pytest.raises(HyperPPOError, match=r"Pendulum-v1 was killed"):
        env.step(torch.zeros(1, N))
    del env
    workers[1].join(timeout=20)
    assert workers[1].exitcode == 0


def test_cheetahs_steps_are_gymnasiums() -> None:
    pytest.importorskip("mujoco")
    env = make_env("mujoco:HalfCheetah-v5", {"workers": 2}, 3, 0)
    assert (env.obs_dim, env.act_dim, env.episode_steps) == (17, 6, 1000)
    assert env.conventions()["control_hz"] == 20
    seen, _ = env.reset()
    plain = [gymnasium.make("HalfCheetah-v5") for _ in range(3)]
    seeds = np.random.SeedSequence(0).generate_state(3).tolist()
    for i, (e, seed) in enumerate(zip(plain, seeds, strict=True)):
        np.testing.assert_allclose(seen[:, i], e.reset(seed=seed)[0], rtol=1e-6)
    for action in torch.rand((30, 6, 3), generator=_seeded()) * 2 - 1:
        step = env.step(action)
        for i, e in enumerate(plain):
            expected, reward, *_ = e.step(action[:, i].numpy())
            np.testing.assert_allclose(step.observation[:, i], expected, rtol=1e-4, atol=1e-4)
            assert float(step.reward[i]) == pytest.approx(float(reward), rel=1e-4, abs=1e-4)


def test_train_resume_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands on Pendulum-v1; a resumed run goes on with new episodes, not the first ones."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hyperppo", *arguments])
        cli.main()
        return capsys.readouterr().err

    monkeypatch.setattr(cli, "main", lambda: cli.app(standalone_mode=False))
    settings = ("space.widths=[4,8]", "space.max_depth=2", "ppo.rollout=4", "ppo.minibatches=2")
    sets = [part for setting in settings for part in ("--set", setting)]
    common = ["--threads", "1", "--episodes", "2"]
    run("train", "Pendulum-v1", "--steps", "128", "--num-envs", "16", "--meta-batch", "4",
        "--set", "env.episode_steps=20", *sets, *common)  # fmt: skip
    out = tmp_path / "runs" / "Pendulum-v1"
    assert load_run(out).config.env == {"episode_steps": 20, "workers": None, "kwargs": {}}
    data = json.loads((out / "config.json").read_text())
    assert data["exact_resume"] is False
    before = read_checkpoint(out)
    data["config"]["steps"] = 192
    (out / "config.json").write_text(json.dumps(data))
    said = run("train", "Pendulum-v1", "--resume", *common)
    assert "Pendulum-v1 cannot be saved: going on with new episodes" in " ".join(said.split())
    after = read_checkpoint(out)
    assert after["trainer.scalars"][0] == before["trainer.scalars"][0] + 1
    assert after["observation_norm.count"] == before["observation_norm.count"] + 64
    run("evaluate", str(out), "--arch", "4", "--arch", "8,8", "--episodes", "3")
    board = load_run(out).leaderboard()
    run("evaluate", str(out), "--all", *common)
    assert np.isfinite(board.return_mean).all()
    np.testing.assert_array_equal(board.return_mean, load_run(out).leaderboard().return_mean)


def test_evaluation_steps_few_environments_side_by_side() -> None:
    """An environment of MuJoCo takes a megabyte."""
    assert find_task("mujoco:HalfCheetah-v5").side_by_side <= 1024
    assert resolve_options("mujoco:HalfCheetah-v5", {})["episode_steps"] is None
    assert isinstance(gymnasium.spec("Walk-v0"), EnvSpec)
