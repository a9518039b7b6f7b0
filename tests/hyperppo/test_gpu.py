"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.policy import forward_mean
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import restore, state_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trainer(device: str = "cuda", **given) -> Trainer:
    data = {"device": device, "num_envs": 256, "steps": 2_000_000, **given}
    data["env"] = resolve_options("quadrotor", data.get("env", {}))
    config = make_config(data)
    env = make_env("quadrotor", config.env, config.num_envs, 0, device)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)


@pytest.mark.parametrize(
    "given", [{}, {"algo": "vsd"}, {"algo": "ppo", "architecture": (64, 64), "meta_batch": 1}]
)
def test_a_captured_training_is_the_one_launched_step_by_step(given):
    captured, plain = trainer(**given), trainer(**given)
    plain._fly, plain._policy_step = plain._fly_dense, plain._improve_dense
    plain._critic_step = plain._improve_critic
    for _ in range(5):
        ours, theirs = captured.step(), plain.step()
    assert captured._policy_step._graph is not None
    for name in ("reward", "kl", "value_loss", "std", "learning_rate"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.02, abs=1e-4), name


def test_captured_gradients_through_the_simulator_are_those_launched_step_by_step():
    given = {"polish": {"last": 1.0}, "env": {"noise": {"delay_steps": [0, 1]}}}
    captured, plain = trainer(**given), trainer(**given)
    plain.polisher._step = plain.polisher._dense
    for _ in range(5):
        ours, theirs = captured.step(), plain.step()
    assert captured.polisher._step._graph is not None
    for name in ("reward", "policy_loss", "value_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.02, abs=1e-3), name


def test_training_falls_back_within_a_captured_step():
    ours = trainer(polish={"last": 1.0})
    for _ in range(5):
        ours.step()
    before = [p.clone() for p in ours.policy.parameters()]
    assert ours.polisher.fall_back(ours.averaged, 1e6, 1.0)
    assert not all(torch.equal(a, b) for a, b in zip(before, ours.policy.parameters(), strict=True))
    assert abs(ours.step()["policy_loss"]) < 1e3


def test_policies_are_the_ones_that_a_cpu_has():
    on_gpu, on_cpu = trainer(), trainer("cpu")
    architectures = on_cpu.sampler.draw(16)
    observation = torch.randn(16, 8, on_cpu.env.obs_dim)
    with torch.no_grad():
        policies, _ = on_cpu.policy(architectures)
        expected = forward_mean(policies, observation, on_cpu.policy.slope)
        on_gpu.policy.load_state_dict(on_cpu.policy.state_dict())
        policies, _ = on_gpu.policy.dense(on_gpu.policy.tell(architectures), architectures)
        mean = forward_mean(policies, observation.cuda(), on_gpu.policy.slope)
    torch.testing.assert_close(mean.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_training_learns_and_goes_on_from_a_checkpoint():
    first = trainer(num_envs=1024, steps=20_000_000)
    begin = first.step()["reward"]
    for _ in range(60):
        log = first.step()
    assert log["reward"] > begin + 1.0
    state = state_of(first)
    second = trainer(num_envs=1024, steps=20_000_000)
    restore(second, state)
    assert second.iteration == first.iteration
    assert second.step()["reward"] == pytest.approx(first.step()["reward"], abs=0.2)


def test_gradients_through_the_simulator_go_on_after_ppo():
    """A GPU's episodes end without being asked, and its policies are padded."""
    ours = trainer(num_envs=1024, steps=3_300_000, polish={"last": 0.4})
    logs = [ours.step() for _ in range(ours.config.iterations)]
    last_of_ppo = [log for log in logs if "kl" in log][-1]
    assert logs[-1]["reward"] > last_of_ppo["reward"]
