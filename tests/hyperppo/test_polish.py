"""Gradients through the simulator against finite differences, and by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hyperppo import polish
from hyperppo import train as job
from hyperppo.config import make_config
from hyperppo.envs.base import Differentiable, Step
from hyperppo.envs.quadrotor import QuadrotorEnv, QuadrotorOptions
from hyperppo.envs.quadrotor.plants import plant_options
from hyperppo.envs.quadrotor.world import copy_over, tensors
from hyperppo.envs.registry import resolve_options
from hyperppo.errors import HyperPPOError
from hyperppo.ghn import GHN, Weights
from hyperppo.space import SearchSpace
from hyperppo.unrolled import Unrolled

from .conftest import small_config

SLOPE = 0.2
ARCHITECTURES = [(4,), (16, 8), (8, 16, 64, 4)]


def wide_options(**given: Any) -> QuadrotorOptions:
    """Every block of the observation, every disturbance, every delay."""
    data = {
        "previous_actions": 1,
        "action_average_s": [0.1, 0.8],
        "integral_clip_m_s": 0.5,
        "integral_leak_per_s": 0.1,
        "scenarios": {"static": 0.5, "bezier": 0.25, "takeoff": 0.25},
        **given,
    }
    data |= plant_options("wide")
    return QuadrotorOptions(**resolve_options("quadrotor", data))


def policies(obs_dim: int, seed: int = 0) -> list[Weights]:
    torch.manual_seed(seed)
    space = SearchSpace(obs_dim, 4)
    with torch.no_grad():
        weights, _ = GHN(space, make_config({}).ghn)(ARCHITECTURES)
    return [[(w.clone(), b.clone()) for w, b in policy] for policy in weights]


def plainly(weights: list[Weights], observation: Tensor) -> Tensor:
    """The same networks, operation by operation."""
    means = []
    for x, layers in zip(observation, weights, strict=True):
        for w, b in layers[:-1]:
            x = F.leaky_relu(F.linear(x, w, b), SLOPE)
        means.append(F.linear(x, *layers[-1]))
    return torch.stack(means)


def test_unrolled_policies_have_autograds_gradients() -> None:
    """Five steps of a feedback loop, so that every step's gradient goes through later ones."""
    weights = policies(6)
    parameters = [p.requires_grad_() for layers in weights for layer in layers for p in layer]
    mix, start = torch.randn(4, 6), torch.randn(3, 32, 6)
    start.requires_grad_()

    def loss(act: Callable[[Tensor], Tensor]) -> Tensor:
        x, total = start, torch.zeros(())
        for _ in range(5):
            x = torch.tanh(x + act(x) @ mix)
            total = total + x.square().mean()
        return total

    expected = torch.autograd.grad(loss(lambda x: plainly(weights, x)), [start, *parameters])
    found = torch.autograd.grad(loss(Unrolled(weights, SLOPE)), [start, *parameters])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["as on a CPU", "as on a GPU"])
def test_the_quadrotors_gradient_is_that_of_finite_differences(masked: bool) -> None:
    """Of the return of 12 steps by all weights, along itself, episodes' ends included."""
    options = wide_options(episode_s=0.1)
    N, T = 48, 12

    def objective(weights: list[Weights]) -> tuple[Tensor, QuadrotorEnv, dict[str, Tensor]]:
        env = QuadrotorEnv(N, options, 3)
        env._masked = masked
        env._spares, env._seen_of_spares = env._draw_spares()
        start = env.reset()
        env.desynchronise()
        noise = torch.randn((T, 3, N // 3, 4), generator=torch.Generator().manual_seed(1))
        shift, scale = torch.zeros(env.obs_dim), torch.ones(env.obs_dim)
        row = torch.linspace(-0.1, 0.1, env.critic_dim)
        value = lambda critic_input, which: critic_input @ row + which / N  # noqa: E731
        given = (Unrolled(weights, SLOPE), torch.full((3, 4), -3.0), shift, scale, noise)
        assert isinstance(env, Differentiable)
        found, fields, _ = polish.fly(env, start, *given, value, 0.99)
        return found, env, fields

    weights = policies(QuadrotorEnv(1, options, 0).obs_dim)
    parameters = [p.requires_grad_() for layers in weights for layer in layers for p in layer]
    found, env, fields = objective(weights)
    gradients = torch.autograd.grad(found, parameters)
    assert fields["truncated"].any()
    assert not any(tensor.requires_grad for _, tensor in tensors(env.world))
    assert not any(tensor.requires_grad for tensor in fields.values())

    direction = [g / torch.cat([g.flatten() for g in gradients]).norm() for g in gradients]
    predicted = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    ends = []
    for step in (2e-3, -2e-3):
        with torch.no_grad():
            moved = iter([p + step * d for p, d in zip(parameters, direction, strict=True)])
            there = [[(next(moved), next(moved)) for _ in layers] for layers in weights]
            ends.append(float(objective(there)[0].double()))
    assert predicted > 1e-3
    assert (ends[0] - ends[1]) / 4e-3 == pytest.approx(predicted, rel=0.02)


def test_a_vehicle_at_rest_has_a_gradient() -> None:
    """Nothing moves at the start of a take-off: the norms' slopes there are infinite."""
    env = QuadrotorEnv(8, wide_options(scenarios={"takeoff": 1.0}), 0)
    env.reset()
    action = torch.full((4, 8), -1.0, requires_grad=True)
    with env.differentiable():
        total = env.step(action).reward.sum()
        total = total + env.step(action).reward.sum()
    (gradient,) = torch.autograd.grad(total, action)
    assert gradient.isfinite().all()


class Counter:
    """One number an environment that grows by the action; the reward is it. Ends by the clock."""

    obs_dim = act_dim = critic_dim = 1
    episode_steps, device = 100, torch.device("cpu")

    def __init__(self, ends: dict[tuple[int, int], str]) -> None:
        self.num_envs, self.ends, self.time = 2, ends, 0
        self.x = torch.zeros(1, 2)

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        yield

    def step(self, action: Tensor) -> Step:
        x = self.x + action
        ended = {
            kind: torch.tensor([self.ends.get((self.time, i)) == kind for i in range(2)])
            for kind in ("crash", "limit")
        }
        self.x = torch.where(ended["crash"] | ended["limit"], 0.0, x)
        self.time += 1
        last = x[:, ended["limit"]]
        return Step(self.x, self.x, x[0], ended["crash"], ended["limit"], last, {})


def test_the_objective_by_hand() -> None:
    """Environment 0 crashes in step 1, environment 1 is cut in step 2; four steps of gain 1."""
    gamma, T = 0.5, 4
    env = Counter({(1, 0): "crash", (2, 1): "limit"})
    a = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)  # (env, t)
    step = iter(range(T))
    given = (torch.zeros(1, 1), torch.zeros(1), torch.ones(1), torch.zeros(T, 1, 2, 1))
    value = lambda critic_input, which: 10 * critic_input[:, 0] + 100 * which  # noqa: E731
    start = (env.x, env.x)
    objective, fields, _ = polish.fly(  # type: ignore[misc]
        env,
        start,
        lambda x: a[:, next(step)][None, :, None],
        *given,
        value,
        gamma,  # type: ignore[arg-type]
    )
    # Rewards: 1, 2 | 1, 2, value 20 beyond; and 2, 4, 6, value 60 + 100 | 2, value 20 + 100.
    first = 1 + gamma * 2 + (1 + gamma * 2 + gamma**2 * 20)
    second = 2 + gamma * 4 + gamma**2 * 6 + gamma**3 * 160 + (2 + gamma * 120)
    assert float(objective.detach()) == pytest.approx((first + second) / (2 * T))
    (gradient,) = torch.autograd.grad(objective, a)
    by_first = [1 + gamma, gamma, 1 + gamma + gamma**2 * 10, gamma + gamma**2 * 10]
    tail = gamma**2 + gamma**3 * 10
    by_second = [1 + gamma + tail, gamma + tail, tail, 1 + gamma * 10]
    np.testing.assert_allclose(gradient * 2 * T, [by_first, by_second], rtol=1e-6)
    assert fields["critic_input"].shape == (T + 1, 2, 1)
    assert fields["final_critic_input"].tolist() == [[6.0]]


def test_polishing_begins_where_the_config_says() -> None:
    config = small_config(polish={"last": 0.5})
    assert [config.polishes(i) for i in range(6)] == [False] * 3 + [True] * 3
    assert not small_config().polishes(6)  # nor does PPO alone, beyond its end
    trainer = job._trainer(config)
    logs = [trainer.step() for _ in range(6)]
    assert ["kl" in log for log in logs] == [True] * 3 + [False] * 3
    assert trainer.polisher is not None
    assert trainer.polisher.optimizer.state  # and nothing moved the stds
    assert all(np.isfinite(log["policy_loss"]) for log in logs)


def test_a_gpus_way_down_the_gradient_leads_up() -> None:
    """On a CPU here: padded policies, episodes that end unasked, the state kept in its place."""
    trainer = job._trainer(small_config(polish={"last": 1.0}))
    env, polisher = trainer.env, trainer.polisher
    assert isinstance(env, QuadrotorEnv)
    assert polisher is not None
    polisher.on_cpu, env._masked = False, True
    env._spares, env._seen_of_spares = env._draw_spares()
    architectures = trainer.sampler.draw(4)
    given = (
        trainer._features(architectures),
        *trainer.critic_norm.shift_and_scale(),
        torch.tensor(1.0),
        *trainer.observation_norm.shift_and_scale(),
        torch.zeros(8, 4, 16, env.act_dim),
        *trainer.where,
    )
    place, world = env.world.state.position, copy.deepcopy(env.world)
    chance = env.generator.get_state()
    losses = []
    for _ in range(4):  # the same flight again, by better and better policies
        copy_over(env.world, world)
        env.generator.set_state(chance)
        (loss, _, _), _ = polisher.fly(architectures, torch.tensor(1e-3), *given)
        losses.append(float(loss))
        assert env.world.state.position is place
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_the_standard_deviations_stay_as_ppo_left_them() -> None:
    trainer = job._trainer(small_config(algo="vsd", polish={"last": 1.0}))
    before = trainer.policy.log_std.clone()
    trainer.step()
    assert torch.equal(before, trainer.policy.log_std)


def _without_a_graph(fly: Callable[..., Any]) -> Callable[..., Any]:
    def flown(*given: Any) -> Any:
        objective, *rest = fly(*given)
        return objective.detach(), *rest

    return flown


def test_a_task_without_gradients_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = job._trainer(small_config(polish={"last": 1}))
    monkeypatch.setattr(polish, "fly", _without_a_graph(polish.fly))
    with pytest.raises(HyperPPOError, match="no gradient leads"):
        trainer.step()
    config = make_config({"task": "pendulum", "polish": {"last": 0.1}})
    with pytest.raises(HyperPPOError, match="no gradients"):
        job._trainer(config)
    with pytest.raises(HyperPPOError, match="from 0 to 1"):
        small_config(polish={"last": 1.5})


def test_a_true_end_costs_more_while_polishing() -> None:
    """Nothing but what the critic is told of it."""
    easy, strict = (
        job._trainer(
            small_config(polish={"last": 1.0, "end_cost": cost}, env={"max_spin_rad_s": 2})
        )
        for cost in (0.0, 100.0)
    )
    logs = [trainer.step() for trainer in (easy, strict)]
    assert logs[0]["policy_loss"] == logs[1]["policy_loss"]
    assert logs[0]["reward"] > logs[1]["reward"]
