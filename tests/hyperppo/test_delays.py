"""Late actions and measurements against plain lists."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions, delays
from hyperppo.envs.quadrotor.options import PlantRanges, SensorNoise


def quiet(**changes: object) -> SensorNoise:
    still = {"position_m": 0.0, "velocity_m_s": 0.0, "attitude_rad": 0.0, "gyro_rad_s": 0.0}
    return SensorNoise(**{**still, **changes})  # type: ignore[arg-type]


def make_env(noise: SensorNoise, plant: PlantRanges) -> QuadrotorEnv:
    """200 flights that start alike whatever the delays: those are drawn after the rest."""
    options = QuadrotorOptions(
        scenarios={"static": 1.0}, spawn_hard=0.0, noise=noise, plant=plant, thrust_noise=0.0
    )
    env = QuadrotorEnv(200, options, seed=0)
    env.generator.manual_seed(7)
    return env


def flights(noise: SensorNoise, steps: int) -> tuple[QuadrotorEnv, list[torch.Tensor]]:
    """Measured observations (18, 200) of some steps at hover thrust."""
    env = make_env(noise, PlantRanges())
    seen = [env.reset()[0][:18].clone()]
    hover = (env.world.plant.mass * 9.81 / 4 / env.world.plant.max_thrust).expand(4, 200) * 2 - 1
    seen += [env.step(hover).observation[:18].clone() for _ in range(steps)]
    return env, seen


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_delay_is_a_queue_a_channel(low: int, more: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    delay = delays.draw((low, low + more), dim, 9, generator)
    if delay is None:
        assert low + more == 0
        return
    lags = delay.share.argmax(0)
    assert ((lags >= low) & (lags <= low + more)).all()
    values = list(torch.randn(6, dim, 9, generator=generator))
    delays.fill(delay, values[0])
    for t, value in enumerate(values):
        out = delays.send(delay, value)
        for n in range(9):
            expected = values[max(0, t - int(lags[n]))][:, n]
            torch.testing.assert_close(out[:, n], expected)


def test_measurements_are_seen_late_and_past_actions_are_not() -> None:
    _, prompt = flights(quiet(), 8)
    env, late = flights(quiet(delay_steps=(1, 2)), 8)
    delay = env.world.sensors.delay
    assert delay is not None
    lags = delay.share.argmax(0)
    assert set(lags.tolist()) == {1, 2}
    for t in range(9):
        for lag in (1, 2):
            expected = prompt[max(0, t - lag)][:, lags == lag]
            torch.testing.assert_close(late[t][:, lags == lag], expected, atol=1e-5, rtol=1e-5)


def test_a_dropped_update_leaves_the_last_measurement() -> None:
    _, seen = flights(quiet(dropped=0.3), 20)
    same = torch.stack([(a == b).all(0) for a, b in itertools.pairwise(seen)])
    assert float(same.float().mean()) == pytest.approx(0.3, abs=0.03)


def test_a_gyro_has_its_own_bias_for_an_episode() -> None:
    env, seen = flights(quiet(gyro_bias_rad_s=0.1), 5)
    bias = env.world.sensors.gyro_bias
    assert bias is not None
    assert float(bias.std()) == pytest.approx(0.1, rel=0.15)
    error = seen[-1][15:18] - env.world.state.angular_velocity
    torch.testing.assert_close(error, bias, atol=1e-5, rtol=1e-4)


def test_noise_scales_by_vehicle() -> None:
    _, still = flights(quiet(), 0)
    _, noisy = flights(SensorNoise(scale=(4.0, 4.0)), 0)
    difference = noisy[0] - still[0]
    assert float(difference[3:6].std()) == pytest.approx(4 * 0.01, rel=0.2)
    assert float(difference[15:18].std()) == pytest.approx(0.02, rel=0.2)  # the gyro's does not


def test_commands_reach_the_motors_late() -> None:
    motors = []
    for delay in ((0, 0), (2, 2)):
        env = make_env(quiet(), PlantRanges(action_delay_steps=delay))
        env.reset()
        motors.append([env.world.state.motor])
        for _ in range(4):
            env.step(torch.ones(4, 200))
            motors[-1].append(env.world.state.motor)
    prompt, late = motors
    torch.testing.assert_close(late[2], late[0])  # until now, what was on its way before
    torch.testing.assert_close(late[3], prompt[1])
    torch.testing.assert_close(late[4], prompt[2])
    assert (prompt[1] > prompt[0]).all()


def test_a_saved_state_with_delays_goes_on_bit_for_bit() -> None:
    options = QuadrotorOptions(
        episode_s=0.3,
        noise=SensorNoise(delay_steps=(0, 2), dropped=0.1, scale=(1.0, 4.0), gyro_bias_rad_s=0.02),
        plant=PlantRanges(
            action_delay_steps=(0, 2),
            motor_fall_ratio=(1.0, 3.0),
            motor_spread=0.1,
            centre_of_mass_m=0.003,
        ),
    )
    actions = torch.rand(60, 4, 64, generator=torch.Generator().manual_seed(9))
    a, b = QuadrotorEnv(64, options, 5), QuadrotorEnv(64, options, 5)
    a.reset(), b.reset(), b.reset()
    for action in actions[:30]:
        a.step(action)
    b.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for action in actions[30:]:
        assert torch.equal(a.step(action).observation, b.step(action).observation)
