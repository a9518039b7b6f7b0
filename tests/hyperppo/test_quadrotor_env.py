import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions, goals, observation
from hyperppo.envs.quadrotor.options import SensorNoise
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.errors import HyperPPOError

QUIET = SensorNoise(position_m=0, velocity_m_s=0, attitude_rad=0, gyro_rad_s=0)


def test_the_observation_is_what_the_conventions_say() -> None:
    env = QuadrotorEnv(32, QuadrotorOptions(noise=QUIET, previous_actions=1), seed=3)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        action = torch.rand(4, 32, generator=generator) * 0.4
        step = env.step(action)
    goal_position, goal_velocity = (x.double().numpy() for x in env.goal_now())
    for i in range(32):
        w, x, y, z = env.world.state.attitude[:, i].double().tolist()
        # Independent: the columns of R are the rotated unit vectors, by quaternion products.
        R = np.array(
            [
                [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
            ]
        )
        error = env.world.state.position[:, i].double().numpy() - goal_position[:, i]
        if np.linalg.norm(error) > 1:
            error = error / np.linalg.norm(error)
        relative = env.world.state.velocity[:, i].double().numpy() - goal_velocity[:, i]
        expected = [R.T @ error, R.T @ relative, R.ravel(), env.world.state.angular_velocity[:, i]]
        expected.append(action[:, i] * (env.world.time[i] > 0))  # zeros after a reset
        np.testing.assert_allclose(step.observation[:, i], np.concatenate(expected), atol=2e-6)


def test_noise_has_the_stated_size_and_keeps_the_rotation_a_rotation() -> None:
    noise = SensorNoise(position_m=0.01, velocity_m_s=0.02, attitude_rad=0.01, gyro_rad_s=0.03)
    seen = []
    for options in (QuadrotorOptions(noise=noise), QuadrotorOptions(noise=QUIET)):
        env = QuadrotorEnv(4000, options, seed=0)
        seen.append(env.reset()[0])
    difference = seen[0] - seen[1]
    near = seen[1][:3].norm(dim=0) < 0.9  # where the clip does not act
    assert near.sum() > 100
    assert difference[:3, near].std().item() == pytest.approx(0.01, rel=0.3)
    assert difference[15:18].std().item() == pytest.approx(0.03, rel=0.1)
    R = seen[0][6:15].view(3, 3, -1)
    product = torch.einsum("ijn,kjn->ikn", R, R)
    assert (product - torch.eye(3)[..., None]).abs().max() < 5e-3


def test_an_episode_ends_by_crash_or_by_time_and_starts_again() -> None:
    env = QuadrotorEnv(256, QuadrotorOptions(episode_s=0.5, spawn_hard=0.5), seed=1)
    env.reset()
    crashed = truncated = 0
    for t in range(50):
        before = env.world.time.clone()
        step = env.step(torch.full((4, 256), 0.1))
        ended = step.terminated | step.truncated
        assert not (step.terminated & step.truncated).any()
        assert (env.world.time[ended] == 0).all()
        assert (env.world.time[~ended] == before[~ended] + 1).all()
        if ended.any():
            assert step.final_critic_input.shape == (env.critic_dim, int(step.truncated.sum()))
        crashed += int(step.terminated.sum())
        truncated += int(step.truncated.sum())
        assert truncated == 0 or t >= 49
    assert crashed > 0
    assert truncated > 0
    assert crashed + truncated >= 256


def test_a_crash_costs_and_hovering_at_the_goal_pays() -> None:
    env = QuadrotorEnv(8, QuadrotorOptions(spawn_m=0.0, spawn_hard=0.0), seed=2)
    env.reset()
    hover = (env.world.plant.mass * 9.81 / 4 / env.world.plant.max_thrust).expand(4, 8)
    env.world.state.motor = hover.clone()
    near = env.step(hover * 2 - 1).reward
    env.world.state.attitude[:, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # upside down
    step = env.step(hover * 2 - 1)
    assert (near > 2.5).all()
    assert step.terminated[0]
    assert step.reward[0] < -40


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_goals_are_continuous_and_their_velocity_is_their_derivative(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    goal = goals.start({"static": 0.5, "bezier": 0.5}, 64, g)
    t, dt = torch.full((64,), 2.0), 1e-2
    ahead, back = goals.evaluate(goal, t + dt)[0], goals.evaluate(goal, t - dt)[0]
    torch.testing.assert_close(
        goals.evaluate(goal, t)[1], (ahead - back) / (2 * dt), atol=1e-2, rtol=1e-2
    )
    end, _ = goals.evaluate(goal, torch.full((64,), goals.SEGMENT_S))
    start, _ = goals.evaluate(goals.next_segment(goal, g), torch.zeros(64))
    torch.testing.assert_close(start, end, atol=1e-5, rtol=1e-5)
    static = goal.scenario == goals.SCENARIOS.index("static")
    assert (goals.evaluate(goal, t)[1][:, static] == 0).all()


def test_the_same_seed_gives_the_same_flight_and_a_saved_state_goes_on_bit_for_bit() -> None:
    def roll(env: QuadrotorEnv, steps: int, start: int) -> list[torch.Tensor]:
        actions = torch.rand(60, 4, 64, generator=torch.Generator().manual_seed(9))
        return [env.step(actions[start + k]).observation for k in range(steps)]

    options = QuadrotorOptions(episode_s=0.3)
    a, b = QuadrotorEnv(64, options, 5), QuadrotorEnv(64, options, 5)
    a.reset(), b.reset()
    for x, y in zip(roll(a, 30, 0), roll(b, 30, 0), strict=True):
        assert torch.equal(x, y)
    c = QuadrotorEnv(64, options, 5)
    c.reset(), c.reset()  # elsewhere, until it is told where
    c.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for x, y in zip(roll(a, 30, 30), roll(c, 30, 30), strict=True):
        assert torch.equal(x, y)


def test_the_position_error_is_clipped_by_its_norm() -> None:
    far = torch.tensor([[3.0], [0.0], [4.0]])
    eye = torch.eye(3).reshape(9, 1)
    built = observation.build(
        far, torch.zeros(3, 1), eye, torch.zeros(3, 1), 1.0, torch.zeros(0, 1)
    )
    torch.testing.assert_close(built[0][:, 0], torch.tensor([0.6, 0.0, 0.8]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenarios": {"looping": 1}}, "unknown scenario looping: choose from static, bezier"),
        ({"scenarios": {}}, "none given"),
        ({"control_hz": 70}, "multiple"),
        ({"plant": {"weight": [1, 2]}}, "env.plant.weight"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(HyperPPOError, match=message):
        make_env("quadrotor", options, 4, 0)


def test_unknown_tasks_are_refused_with_the_known_ones() -> None:
    with pytest.raises(HyperPPOError, match="known tasks are quadrotor, pendulum"):
        resolve_options("ant", {})
