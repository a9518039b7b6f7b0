"""The quadrotor with its step compiled, against the one that runs operation by operation."""

from __future__ import annotations

import shutil
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.quadrotor import QuadrotorEnv
from hyperppo.envs.quadrotor.compiled import CompiledQuadrotorEnv
from hyperppo.envs.quadrotor.goals import SCENARIOS
from hyperppo.envs.quadrotor.world import tensors
from hyperppo.envs.registry import missing_to_compile, resolve_options
from hyperppo.envs.shards import training_env
from hyperppo.errors import HyperPPOError
from hyperppo.trainer import Trainer

from .test_polish import wide_options

needs_a_compiler = pytest.mark.skipif(missing_to_compile() != "", reason=missing_to_compile())
N, T = 64, 120
EVERYTHING = wide_options(
    scenarios={name: 1.0 for name in SCENARIOS}, episode_s=0.8, reward={"tilt": 3.0}
)


def fly(env: QuadrotorEnv, differentiated: bool) -> tuple[dict[str, Tensor], Tensor | None]:
    """Fly with actions that follow from what was seen; the gradient by what is added to them."""
    env.reset()
    env.desynchronise()
    env.world.segment_time.copy_(torch.linspace(0, 500, N))  # segments end, too
    generator = torch.Generator().manual_seed(0)
    added = torch.rand(T, 4, N, generator=generator) * 0.6 - 0.1
    seen: dict[str, list[Tensor]] = {}
    total = torch.zeros(())
    observation = torch.zeros(4, N)
    with torch.inference_mode():  # as PPO's rollouts, after which gradients are taken
        for t in range(20):
            observation = env.step(added[t] + 0.02 * observation[:4]).observation
    observation = observation.clone()
    with env.differentiable() if differentiated else torch.inference_mode():
        added.requires_grad_(differentiated)
        for t in range(T):
            step = env.step(added[t] + 0.02 * observation[:4])
            observation = step.observation
            of_ended = step.final_critic_input.sum() / N
            total = total + step.reward.mean() + 0.01 * step.critic_input.mean() + of_ended
            for name, values in (vars(step) | step.metrics).items():
                if name != "metrics":
                    seen.setdefault(name, []).append(values.detach())
        if differentiated:
            total.backward()  # type: ignore[no-untyped-call]
    return {name: torch.cat(values, -1) for name, values in seen.items()}, added.grad


@needs_a_compiler
@pytest.mark.parametrize("differentiated", [True, False], ids=["with gradients", "without"])
def test_it_is_the_same_simulator(differentiated: bool) -> None:
    """Everything a step returns, episodes and segments that end included, and the gradients."""
    plain, ours = (make(N, EVERYTHING, 3) for make in (QuadrotorEnv, CompiledQuadrotorEnv))
    expected, slope = fly(plain, differentiated)
    found, compiled_slope = fly(ours, differentiated)
    assert expected["terminated"].sum() > N / 8
    assert expected["truncated"].sum() > N / 8
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], values, rtol=1e-3, atol=1e-3, equal_nan=True, msg=name
        )
    for (name, theirs), (_, here) in zip(tensors(plain.world), tensors(ours.world), strict=True):
        if theirs.numel():
            torch.testing.assert_close(here, theirs.float(), rtol=1e-3, atol=1e-3, msg=name)
    if slope is not None and compiled_slope is not None:
        assert (compiled_slope - slope).norm() < 1e-4 * slope.norm()


@needs_a_compiler
def test_it_goes_on_from_a_saved_state_bit_for_bit() -> None:
    env, other = CompiledQuadrotorEnv(N, EVERYTHING, 3), CompiledQuadrotorEnv(N, EVERYTHING, 3)
    fly(env, False)
    other.load_state_dict({name: x.clone() for name, x in env.state_dict().items()})
    with torch.inference_mode():
        for _ in range(50):
            action = torch.full((4, N), 0.1)
            ours, theirs = env.step(action), other.step(action)
            assert torch.equal(ours.critic_input, theirs.critic_input)
            assert torch.equal(ours.reward, theirs.reward)


@needs_a_compiler
def test_a_run_trains_with_it_as_without() -> None:
    """PPO, then gradients through the simulator: the first iterations differ by rounding."""
    logs = []
    for compiled in (False, True):
        config = make_config(
            {
                "num_envs": N,
                "meta_batch": 4,
                "steps": 4 * N * 32,
                "polish": {"last": 0.5},
                "compile": compiled,
                "env": asdict(EVERYTHING),
            }
        )
        env = training_env(config)
        trainer = Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)
        logs.append([trainer.step() for _ in range(4)])
    assert isinstance(env, CompiledQuadrotorEnv)
    for plain, ours in zip(*logs, strict=True):
        for name in ("reward", "policy_loss", "value_loss", "crash_rate"):
            assert ours[name] == pytest.approx(plain[name], rel=0.02, abs=0.02), name


def test_what_is_missing_to_compile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"num_envs": 64, "meta_batch": 16, "compile": True}
    with pytest.raises(HyperPPOError, match=r"pendulum has no compiled step.*compile=false"):
        training_env(make_config({**given, "task": "pendulum"}))
    config = make_config({**given, "env": resolve_options("quadrotor", {})})
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(HyperPPOError, match=r"C\+\+ compiler.*compile=false"):
        training_env(config)
