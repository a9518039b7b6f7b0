"""Brax's tasks against Brax's own step, environment by environment."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from hyperppo import train as job
from hyperppo.checkpoint import read_checkpoint, save_checkpoint
from hyperppo.config import make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.errors import HyperPPOError
from hyperppo.processor import set_threads
from hyperppo.trainer_state import state_of

N, LIMIT = 4, 4
OPTIONS = {"episode_steps": LIMIT, "backend": "spring"}  # the backend that compiles fastest


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "brax.envs", None)
    with pytest.raises(HyperPPOError, match=r"brax:ant needs Brax: pip install .*\[brax\]"):
        make_env("brax:ant", {}, 1, 0)


@pytest.fixture(scope="module")
def env() -> Any:
    """Two parts, stepped by a thread each."""
    pytest.importorskip("brax")
    return in_parts(2)


def in_parts(count: int) -> Any:
    threads = torch.get_num_threads()
    set_threads(count)
    try:
        env = make_env("brax:ant", OPTIONS, N, 0)
    finally:
        set_threads(threads)
    assert len(env._parts) == count
    return env


def test_in_parts_they_are_the_same_environments(env: Any) -> None:
    whole, parted = in_parts(1), in_parts(2)
    actions = torch.rand((2 * LIMIT, env.act_dim, N), generator=torch.Generator().manual_seed(1))
    for one in (whole, parted):
        one.reset()
        one.desynchronise()
    for action in actions:
        a, b = whole.step(action), parted.step(action)
        assert torch.equal(a.truncated, b.truncated)
        assert torch.equal(a.terminated, b.terminated)
        for name in ("observation", "reward", "final_critic_input"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-3)
    saved = {name: tensor.clone() for name, tensor in parted.state_dict().items()}
    assert saved.keys() == whole.state_dict().keys()
    whole.load_state_dict(saved)  # on another number of cores
    a, b = whole.step(actions[0]), parted.step(actions[0])
    torch.testing.assert_close(a.observation, b.observation, rtol=1e-3, atol=1e-3)


def test_steps_cuts_and_last_observations_are_braxs(env: Any) -> None:
    """Every step of every environment is Brax's own from the same state."""
    import jax
    from brax import envs

    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    plain = jax.jit(envs.get_environment("ant", backend="spring").step)
    env.reset()
    starts = torch.from_dlpack(env._starts.obs).clone()
    actions = torch.rand((2 * LIMIT, env.act_dim, N), generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    for t, action in enumerate(3 * actions - 1.5):
        before = env._state
        step = env.step(action)
        for i in range(N):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], before)
            after = plain(own, action[:, i].clamp(-1, 1).numpy())
            expected = np.asarray(after.obs)
            assert bool(step.terminated[i]) == bool(after.done)
            assert bool(step.truncated[i]) == ((t + 1) % LIMIT == 0 and not bool(after.done))
            assert float(step.reward[i]) == pytest.approx(float(after.reward), rel=1e-3, abs=1e-3)
            if step.truncated[i]:
                last = step.final_critic_input[:, i]
                np.testing.assert_allclose(last, expected, rtol=1e-3, atol=1e-3)
                assert any(torch.equal(step.observation[:, i], start) for start in starts)
            elif not step.terminated[i]:
                np.testing.assert_allclose(step.observation[:, i], expected, rtol=1e-3, atol=1e-3)
        assert step.final_critic_input.shape == (env.critic_dim, env.num_envs)
        seen.append(step.observation.clone())
        if len(seen) > 1:  # what was handed over is not written to afterwards
            assert not torch.equal(seen[-1], seen[-2])


def test_nothing_is_copied_on_the_way_to_torch(env: Any) -> None:
    env.reset()
    for state, _ in env._parts:
        observation = torch.from_dlpack(state.obs)
        assert observation.data_ptr() == state.obs.unsafe_buffer_pointer()


def test_a_fall_ends_an_episode_without_a_last_observation(env: Any) -> None:
    """An ant that is lifted off its healthy height is done at the next step."""
    env.reset()
    import jax

    state = env._state
    pipeline = state.pipeline_state
    # What the spring pipeline goes on from are the bodies' centres of mass.
    centres = pipeline.x_i
    high = pipeline.replace(x_i=centres.replace(pos=centres.pos.at[1, :, 2].add(9.0)))
    assert jax.tree.structure(high) == jax.tree.structure(pipeline)
    env._hold(state.replace(pipeline_state=high), env._time)
    step = env.step(torch.zeros((env.act_dim, N)))
    assert step.terminated.tolist() == [False, True, False, False]
    assert not step.truncated.any()
    assert env._time.tolist() == [1, 0, 1, 1]


def test_training_resumes_bit_for_bit(env: Any, tmp_path: Path) -> None:
    config = make_config(
        {
            "task": "brax:ant",
            "steps": N * 4 * 4,
            "num_envs": N,
            "meta_batch": N,
            "space": {"widths": [4], "max_depth": 1},
            "ppo": {"rollout": 4, "minibatches": 1},
            "env": resolve_options("brax:ant", OPTIONS),
        }
    )
    whole = job.start(config, tmp_path / "whole", "")
    job.train(whole, tmp_path / "whole", Console(quiet=True))
    half = job.start(config, tmp_path / "half", "")
    half.step()
    half.step()
    save_checkpoint(tmp_path / "half", state_of(half))
    job.train(job.resume(tmp_path / "half"), tmp_path / "half", Console(quiet=True))
    a, b = (read_checkpoint(tmp_path / name) for name in ("whole", "half"))
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_what_brax_has_not_is_said_in_one_line(env: Any) -> None:
    with pytest.raises(HyperPPOError, match="Brax has no task 'cat': it has ant"):
        make_env("brax:cat", {}, 1, 0)
    with pytest.raises(HyperPPOError, match=r"brax:ant options: env\.speed"):
        make_env("brax:ant", {"speed": 1}, 1, 0)
    if not torch.cuda.is_available():
        with pytest.raises(HyperPPOError, match="JAX has no cuda"):
            make_env("brax:ant", OPTIONS, 1, 0, "cuda")
