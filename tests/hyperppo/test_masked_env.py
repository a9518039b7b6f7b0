"""How a quadrotor's episodes end and begin on a GPU (on a CPU here): nothing asks what happened."""

from __future__ import annotations

import copy

import torch

from hyperppo.envs.base import Capturable
from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions
from hyperppo.envs.quadrotor.options import SensorNoise
from hyperppo.envs.quadrotor.world import tensors

QUIET = SensorNoise(position_m=0, velocity_m_s=0, attitude_rad=0, gyro_rad_s=0)
N = 64


def masked(options: QuadrotorOptions, seed: int = 1) -> QuadrotorEnv:
    env = QuadrotorEnv(N, options, seed)
    env._masked = True
    env._spares, env._seen_of_spares = env._draw_spares()
    return env


def test_it_is_the_same_task() -> None:
    """The same flights until they end, the same last view of them, and new starts after that."""
    options = QuadrotorOptions(noise=QUIET, thrust_noise=0.0, episode_s=0.4, spawn_hard=0.5)
    ours, theirs = masked(options), QuadrotorEnv(N, options, 7)
    ours.desynchronise()
    theirs.world = copy.deepcopy(ours.world)
    generator = torch.Generator().manual_seed(0)
    going_on = torch.ones(N, dtype=torch.bool)
    ends = 0
    for _ in range(40):
        action = torch.rand(4, N, generator=generator) * 2 - 1
        here, there = ours.step(action), theirs.step(action)
        assert torch.equal(here.terminated[going_on], there.terminated[going_on])
        assert torch.equal(here.truncated[going_on], there.truncated[going_on])
        torch.testing.assert_close(here.reward[going_on], there.reward[going_on])
        ended = (here.terminated | here.truncated) & going_on
        assert here.final_critic_input.shape == (ours.critic_dim, N)
        last = here.final_critic_input[:, there.truncated]
        both = going_on[there.truncated]
        torch.testing.assert_close(last[:, both], there.final_critic_input[:, both])
        fresh = ours._seen_of_spares[: ours.obs_dim]
        assert torch.equal(here.observation[:, ended], fresh[:, ended])
        assert (ours.world.time[ended] == 0).all()
        going_on &= ~ended
        torch.testing.assert_close(here.observation[:, going_on], there.observation[:, going_on])
        ends += int(ended.sum())
    assert ends == N


def test_goals_go_on_to_their_next_segment() -> None:
    env = masked(QuadrotorOptions(scenarios={"dynamic": 1.0}, noise=QUIET, spawn_hard=0.0))
    env.world.segment_time = env.world.goal.duration * 100 - 0.5
    before = env.goal_now()[0].clone()
    env.step(torch.zeros(4, N))
    moved = (env.goal_now()[0] - before).norm(dim=0)
    assert (env.world.segment_time[moved > 0] == 0).all()
    assert (moved > 0).float().mean() > 0.9  # some may have crashed and begun anew


def test_spare_starts_are_drawn_anew_and_the_state_can_be_held_in_place() -> None:
    env = masked(QuadrotorOptions())
    assert isinstance(env, Capturable)
    spares = dict(tensors(env._spares))
    first = {name: x.clone() for name, x in spares.items()}
    env.refresh()
    assert all(x is spares[name] for name, x in tensors(env._spares))
    position = spares["state.position"]
    assert not torch.equal(position, first["state.position"])

    place = dict(tensors(env.world))
    with env.held():
        for _ in range(5):
            env.step(torch.zeros(4, N))
        after = {name: x.clone() for name, x in tensors(env.world)}
    for name, x in tensors(env.world):
        assert x is place[name], name
        assert torch.equal(x, after[name]), name
