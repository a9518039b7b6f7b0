import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions, goals, observation
from hyperppo.envs.quadrotor.dynamics import GRAVITY
from hyperppo.envs.quadrotor.options import PlantRanges, RewardWeights, SensorNoise
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


def test_leaning_costs_what_the_cosine_lacks_squared_where_gradients_are_taken() -> None:
    options = QuadrotorOptions(spawn_hard=1.0, reward=RewardWeights(tilt=7.0))
    plain, env, after = (QuadrotorEnv(64, options, seed=3) for _ in range(3))
    free = plain.step(torch.zeros(4, 64)).reward
    with env.differentiable():
        costly = env.step(torch.zeros(4, 64)).reward
    _, x, y, _ = env.world.state.attitude.double()
    expected = 7.0 * (2 * (x * x + y * y)) ** 2
    assert expected.max() > 1.0
    assert torch.allclose((free - costly).double(), expected, atol=1e-4)
    with after.differentiable():
        pass
    assert torch.equal(after.step(torch.zeros(4, 64)).reward, free)


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
    goal = goals.start(dict.fromkeys(goals.SCENARIOS, 1.0), 64, g)
    t, dt = torch.full((64,), 2.0), 1e-2
    ahead, back = goals.evaluate(goal, t + dt)[0], goals.evaluate(goal, t - dt)[0]
    torch.testing.assert_close(
        goals.evaluate(goal, t)[1], (ahead - back) / (2 * dt), atol=1e-2, rtol=1e-2
    )
    bezier = goal.scenario == goals.SCENARIOS.index("bezier")
    end, _ = goals.evaluate(goal, goal.duration)
    start, _ = goals.evaluate(goals.next_segment(goal, g), torch.zeros(64))
    torch.testing.assert_close(start[:, bezier], end[:, bezier], atol=1e-5, rtol=1e-5)
    for name in ("static", "dynamic", "takeoff", "throw", "gusts"):
        still = goal.scenario == goals.SCENARIOS.index(name)
        assert (goals.evaluate(goal, t)[1][:, still] == 0).all()


def _one(name: str, num: int, seed: int = 0) -> goals.Goal:
    return goals.start({name: 1.0}, num, torch.Generator().manual_seed(seed))


def test_the_lissajous_figure_is_the_sum_of_quadswarms_increments() -> None:
    goal = _one("lissajous", 1)
    ticks = np.arange(1, 1501) / 100  # s, at 100 Hz
    steps = [0.03 * np.sin(ticks), 0.01 * np.sin(2 * ticks + 90), 0.01 * np.cos(2 * ticks + 90)]
    expected = np.cumsum(steps, axis=1) + np.array([-2.0, 0.0, 5.0])[:, None]
    ours = np.stack([goals.evaluate(goal, torch.tensor([t]))[0][:, 0] for t in ticks], axis=1)
    np.testing.assert_allclose(ours, expected, atol=0.04)  # the sum runs a step of 3 m/s ahead


@pytest.mark.parametrize(("name", "speed"), [("figure8", 1.0), ("figure8_fast", 2.0)])
def test_a_figure_8_is_flown_at_its_speed_in_the_mean(name: str, speed: float) -> None:
    goal = _one(name, 3)
    times = torch.linspace(0, 2 * np.pi * 0.9704 / speed, 2001)[:-1]
    velocity = torch.stack([goals.evaluate(goal, t.expand(3))[1] for t in times])
    torch.testing.assert_close(
        velocity.norm(dim=1).mean(0), torch.full((3,), speed), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(velocity.mean(0), torch.zeros(3, 3), atol=2e-3, rtol=0)  # closed


def test_a_dynamic_goal_jumps_every_four_to_six_seconds() -> None:
    goal = _one("dynamic", 500)
    after = goals.next_segment(goal, torch.Generator().manual_seed(1))
    assert 4.0 <= float(after.duration.min()) < 4.1 < 5.9 < float(after.duration.max()) <= 6.0
    moved = (after.coefficients[:3] - goal.coefficients[:3]).norm(dim=0)
    assert float(moved.mean()) > 1.0
    away = (after.coefficients[:3] - torch.tensor(goals.CENTRE)[:, None]).abs().amax(1)
    assert (away <= torch.tensor(goals.DYNAMIC_REACH)).all()


def test_a_gust_rises_and_falls_and_pushes_the_vehicle() -> None:
    goal = _one("gusts", 200)
    start, middle, end = (goals.wind(goal, goal.duration * share) for share in (0.0, 0.5, 1.0))
    assert start is not None
    assert middle is not None
    assert end is not None
    torch.testing.assert_close(middle, goal.gust)
    assert start.abs().max() == 0
    assert end.abs().max() < 1e-4
    assert (middle[2] == 0).all()
    assert float(middle.abs().max()) > 0.9 * goals.GUST_M_S
    assert goals.wind(_one("static", 4), torch.ones(4)) is None
    plant = PlantRanges(drag_per_s=(0.5, 0.5))
    options = QuadrotorOptions({"gusts": 1.0}, spawn_hard=0.0, thrust_noise=0.0, plant=plant)
    env = QuadrotorEnv(8000, options, seed=4)
    env.reset()
    gust = env.world.goal.gust
    assert gust is not None
    towards = gust[:2] / gust[:2].norm(dim=0)

    def leeward() -> float:
        return float((env.world.state.velocity[:2] * towards).sum(0).mean())

    assert abs(leeward()) < 0.02  # wherever they go at first
    for _ in range(60):
        env.step(torch.zeros((4, 8000)))
    assert leeward() > 0.05


def test_a_takeoff_starts_on_the_floor_below_its_goal() -> None:
    env = QuadrotorEnv(100, QuadrotorOptions(scenarios={"takeoff": 1.0}), seed=0)
    env.reset()
    goal, _ = env.goal_now()
    state = env.world.state
    assert (state.position[2] == 0).all()
    assert (state.motor == 0).all()
    assert (state.velocity == 0).all()
    assert ((goal[2] >= 0.5) & (goal[2] <= 1.5)).all()
    assert (goal - state.position)[:2].abs().max() <= 0.5
    for _ in range(50):
        assert not env.step(torch.full((4, 100), -1.0)).terminated.any()  # it just stands there
    assert (env.world.state.position[2] == 0).all()


def test_a_thrown_vehicle_may_be_upside_down_for_a_while() -> None:
    env = QuadrotorEnv(2000, QuadrotorOptions(scenarios={"throw": 1.0}), seed=0)
    env.reset()
    spin = env.world.state.angular_velocity.norm(dim=0)
    assert 9.5 < float(spin.max()) <= 10.0
    _, x, y, _ = env.world.state.attitude
    upright = 1 - 2 * (x * x + y * y)
    assert abs(float(upright.mean())) < 0.05  # any attitude: R33 is uniform in [-1, 1]
    assert float(upright.std()) == pytest.approx(3**-0.5, rel=0.05)
    falling = torch.full((4, 2000), -1.0)
    crashed = torch.stack([env.step(falling).terminated for _ in range(220)])
    assert not crashed[:50].any()
    assert crashed[199:].sum() > 100  # still upside down when the time is over


def test_thrust_is_unsteady_in_parts_of_what_is_commanded() -> None:
    """An Ornstein-Uhlenbeck process, theta 0.15: standard deviation sigma / sqrt(1 - 0.85^2)."""
    plant = PlantRanges(motor_time_constant_s=(1e-3, 1e-3), drag_per_s=(0.0, 0.0))
    options = QuadrotorOptions(noise=QUIET, thrust_noise=0.01, spawn_hard=0.0, plant=plant)
    env = QuadrotorEnv(2000, options, seed=0)
    env.reset()
    world = env.world
    lift = 4 * world.plant.max_thrust / world.plant.mass
    flown = []
    for _ in range(40):
        before = world.state.velocity.clone()
        env.step(torch.tensor([-0.2, 0.2] * 1000).repeat(4, 1))  # 0.4 and 0.6 of full thrust
        pulled = world.state.velocity - before + torch.tensor([[0], [0], [GRAVITY / 100]])
        flown.append(pulled.norm(dim=0) * 100 / lift)
    share = torch.stack(flown)[20:]  # of full thrust, over the four motors; (20, 2000)
    for part, command in ((share[:, ::2], 0.4), (share[:, 1::2], 0.6)):
        expected = command * 0.01 / (1 - 0.85**2) ** 0.5 / 2  # four independent motors' mean
        assert float(part.mean()) == pytest.approx(command, rel=2e-3)
        assert float(part.std()) == pytest.approx(expected, rel=0.05)
        centred = part - command
        later = (centred[1:] * centred[:-1]).mean() / centred.square().mean()
        assert float(later) == pytest.approx(0.85, abs=0.02)


def test_who_hits_the_floor_crashes_and_who_touches_it_does_not() -> None:
    options = QuadrotorOptions(scenarios={"static": 1.0}, spawn_hard=0.0, thrust_noise=0.0)
    env = QuadrotorEnv(2, options, seed=0)
    env.reset()
    state = env.world.state
    state.position[2] = 0.001
    state.velocity.zero_()
    state.velocity[2] = torch.tensor([-0.5, -1.5])
    assert env.step(torch.full((4, 2), -1.0)).terminated.tolist() == [False, True]
    assert float(env.world.state.velocity[2, 0]) == 0.0


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
    far = torch.tensor([[3.0, 0.3], [0.0, 0.0], [4.0, 0.4]])
    near = torch.tensor([[0.6, 0.3], [0.0, 0.0], [0.8, 0.4]])
    torch.testing.assert_close(observation.clip(far, 1.0), near)


def test_what_the_past_looks_like_in_numpy() -> None:
    """Averages and integral over 60 steps, against their definition in float64."""
    options = QuadrotorOptions(
        noise=QUIET,
        previous_actions=2,
        action_average_s=(0.05, 0.2),
        integral_clip_m_s=0.1,
        integral_leak_per_s=0.5,
        spawn_hard=0.0,
        thrust_noise=0.0,
    )
    env = QuadrotorEnv(5, options, seed=1)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    average, integral = np.zeros((2, 4, 5)), np.zeros((3, 5))
    for _ in range(60):
        error = (env.world.state.position - env.goal_now()[0]).double().numpy()
        error *= np.minimum(1.0, 1.0 / np.linalg.norm(error, axis=0))
        integral = integral * (1 - 0.005) + error * 0.01
        integral *= np.minimum(1.0, 0.1 / np.linalg.norm(integral, axis=0))
        action = torch.rand((4, 5), generator=generator) * 0.2
        for average_k, constant in zip(average, (0.05, 0.2), strict=True):
            average_k += (action.numpy() - average_k) * (1 - np.exp(-0.01 / constant))
        seen = env.step(action).observation.numpy()
        rotation = seen[6:15].reshape(3, 3, 5)
        body = np.einsum("ijn,in->jn", rotation, integral)
        np.testing.assert_allclose(seen[18:21], body, atol=2e-6)
        np.testing.assert_allclose(seen[21:25], action.numpy(), atol=1e-7)
        np.testing.assert_allclose(seen[29:], average.reshape(8, 5), atol=1e-6)


def test_a_curriculum_begins_with_easy_vehicles_and_ends_with_all() -> None:
    options = QuadrotorOptions(
        ramp=(0.2, 0.6),
        plant=PlantRanges(
            thrust_to_weight=(1.4, 2.1),
            motor_time_constant_s=(0.03, 0.2),
            motor_spread=0.05,
            action_delay_steps=(0, 2),
        ),
    )
    env = QuadrotorEnv(4096, options, seed=0)
    for progress, slowest, weakest, late in (
        (0.2, 0.08, 1.7, 0),
        (0.4, 0.14, 1.55, 1),
        (0.6, 0.2, 1.4, 2),
    ):
        env.set_progress(progress)
        env.reset()
        plant, delay = env.world.plant, env.world.command_delay
        assert delay is not None
        assert plant.motor_gain is not None
        ratio = plant.max_thrust * 4 / (plant.mass * 9.81)
        assert float(plant.motor_time_constant.max()) == pytest.approx(slowest, rel=0.01)
        assert float(ratio.min()) == pytest.approx(weakest, rel=0.01)
        assert int(delay.share.argmax(0).max()) == late
        spread = float((plant.motor_gain - 1).abs().max())
        assert spread == pytest.approx(0.05 * (progress - 0.2) / 0.4, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scenarios": {"looping": 1}},
            "unknown scenario looping: choose from static, bezier, dynamic",
        ),
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


def test_gradients_flow_through_averages_after_an_evaluation() -> None:
    """The two share what the averages move by, and an evaluation's tensors have no gradients."""
    env = QuadrotorEnv(2, QuadrotorOptions(action_average_s=(0.07, 0.21)), 0)
    with torch.inference_mode():
        env.step(torch.zeros(4, 2))
    env = QuadrotorEnv(2, QuadrotorOptions(action_average_s=(0.07, 0.21)), 0)
    action = torch.zeros((4, 2), requires_grad=True)
    with env.differentiable():
        seen = env.step(action).observation
    seen[-8:].sum().backward()
    assert action.grad is not None
    moved = 2 - np.exp(-0.01 / 0.07) - np.exp(-0.01 / 0.21)
    np.testing.assert_allclose(action.grad.numpy(), moved, rtol=1e-5)
