"""The vectorised pendulum against Gymnasium's own, from equal states, step by step."""

import gymnasium
import numpy as np
import pytest
import torch

from hyperppo.envs.pendulum import MAX_TORQUE, PendulumEnv, PendulumOptions
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.errors import HyperPPOError

N = 16


def test_an_episode_equals_gymnasiums_step_by_step() -> None:
    ours = PendulumEnv(N, PendulumOptions(), seed=0)
    ours.angle, ours.velocity = ours.angle.double(), ours.velocity.double()
    theirs = [gymnasium.make("Pendulum-v1") for _ in range(N)]
    for i, env in enumerate(theirs):
        env.reset(seed=i)
        state = np.array([float(ours.angle[i]), float(ours.velocity[i])])
        env.unwrapped.state = state  # type: ignore[attr-defined]
    # Gentle, hard and out-of-range actions, in float64: the swing amplifies rounding.
    generator = torch.Generator().manual_seed(1)
    actions = torch.randn((200, 1, N), generator=generator, dtype=torch.float64)
    for t, action in enumerate(actions):
        if t == 199:  # the new episodes start in float32
            ours.angle, ours.velocity = ours.angle.float(), ours.velocity.float()
            action = action.float()
        step = ours.step(action)
        assert not step.terminated.any()
        seen = step.final_critic_input if t == 199 else step.observation
        for i, env in enumerate(theirs):
            torque = action[:, i].numpy() * MAX_TORQUE
            expected, reward, terminated, truncated, _ = env.step(torque)
            assert not terminated
            assert truncated == (t == 199) == bool(step.truncated[i])
            np.testing.assert_allclose(seen[:, i], expected, atol=2e-6)  # seen in float32
            assert float(step.reward[i]) == pytest.approx(float(reward), rel=1e-5)


def test_single_steps_equal_gymnasiums_to_rounding() -> None:
    ours = PendulumEnv(N, PendulumOptions(), seed=2)
    ours.angle = torch.linspace(-12.0, 12.0, N)  # several turns
    ours.velocity = torch.linspace(8.0, -8.0, N)  # to the speed limit
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    actions = torch.linspace(-1.5, 1.5, N)[None]
    angle, velocity = ours.angle.double().numpy(), ours.velocity.double().numpy()
    step = ours.step(actions)
    for i in range(N):
        env.state = np.array([angle[i], velocity[i]])  # type: ignore[attr-defined]
        expected, reward, *_ = env.step(actions[:, i].double().numpy() * MAX_TORQUE)
        np.testing.assert_allclose(step.observation[:, i], expected, atol=1e-5)
        assert float(step.reward[i]) == pytest.approx(float(reward), rel=1e-5, abs=1e-5)


def test_starts_are_spread_as_gymnasiums() -> None:
    env = PendulumEnv(20_000, PendulumOptions(), seed=3)
    env.reset()
    assert float(env.angle.min()) == pytest.approx(-np.pi, abs=0.01)
    assert float(env.angle.max()) == pytest.approx(np.pi, abs=0.01)
    assert float(env.velocity.abs().max()) == pytest.approx(1.0, abs=0.01)
    assert abs(float(env.angle.mean())) < 0.05


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    options = PendulumOptions(episode_steps=7)
    a, b = (PendulumEnv(N, options, seed) for seed in (4, 5))
    actions = torch.randn(20, 1, N)
    for action in actions[:10]:
        a.step(action)
    b.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for action in actions[10:]:
        assert torch.equal(a.step(action).observation, b.step(action).observation)


def test_the_task_is_known_by_name_and_its_options_are_checked() -> None:
    assert resolve_options("pendulum", {}) == {"episode_steps": 200}
    assert make_env("pendulum", {}, 3, 0).num_envs == 3
    with pytest.raises(HyperPPOError, match=r"pendulum options: env\.gravity"):
        resolve_options("pendulum", {"gravity": 1})
