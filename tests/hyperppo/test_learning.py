"""Learning is tested by learning: given policies, a task with a known best return, Pendulum-v1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from hyperppo.checkpoint import Run, run_space
from hyperppo.config import GHNConfig, make_config
from hyperppo.envs.base import Step
from hyperppo.envs.registry import make_env
from hyperppo.evaluate import evaluate
from hyperppo.ghn import GHN
from hyperppo.policy import forward_mean
from hyperppo.space import SearchSpace
from hyperppo.trainer import Trainer

DT = 0.1
A = np.array([[1.0, DT], [0.0, 0.9]])
B = np.array([[0.5 * DT * DT], [DT]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])
STEPS = 50


class PointMass:
    """A cart on a rail that should stand at 0: linear, quadratic cost, so LQR is the answer."""

    obs_dim, act_dim, critic_dim, episode_steps = 2, 1, 2, STEPS
    device = torch.device("cpu")

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs = num_envs
        self.generator = torch.Generator().manual_seed(seed)

    def _start(self, n: int) -> Tensor:
        return torch.rand((2, n), generator=self.generator) - 0.5

    def reset(self) -> tuple[Tensor, Tensor]:
        self.x = self._start(self.num_envs)
        self.time = torch.zeros(self.num_envs, dtype=torch.int64)
        return self.x, self.x

    def desynchronise(self) -> None:
        self.time = torch.randint(STEPS, (self.num_envs,), generator=self.generator)

    def step(self, action: Tensor) -> Step:
        u = action.clamp(-1, 1)
        cost = (torch.tensor(Q, dtype=torch.float32) @ self.x * self.x).sum(0) + R.item() * u[
            0
        ] ** 2
        after = torch.tensor(A, dtype=torch.float32) @ self.x
        after = after + torch.tensor(B, dtype=torch.float32) @ u
        self.time += 1
        truncated = self.time >= STEPS
        self.x = torch.where(truncated, self._start(self.num_envs), after)
        self.time[truncated] = 0
        return Step(
            self.x,
            self.x,
            -cost,
            torch.zeros_like(truncated),
            truncated,
            after[:, truncated],
            metrics={},
        )

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        self.x = self.x.detach().clone()
        yield
        self.x = self.x.detach()

    def conventions(self) -> dict[str, object]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


def optimal_cost(x: np.ndarray) -> float:
    """Mean cost of the LQR law over an episode of STEPS steps from the columns of x."""
    P = solve_discrete_are(A, B, Q, R)
    K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    total = 0.0
    for _ in range(STEPS):
        u = np.clip(-K @ x, -1, 1)
        total += float(np.mean((x * (Q @ x)).sum(0) + R.item() * u[0] ** 2))
        x = A @ x + B @ u
    return total


@pytest.mark.parametrize(
    ("steps", "polish", "above_best"),
    [(1_000_000, 0.0, 1.3), (1_000_000, 1.0, 1.1)],
    ids=["PPO", "gradients through the simulator"],
)
def test_every_architecture_comes_near_the_optimal_controller(
    steps: int, polish: float, above_best: float
) -> None:
    torch.set_num_threads(1)
    space = SearchSpace(2, 1, widths=(4, 16, 64), max_depth=2)
    config = make_config(
        {
            "steps": steps,
            "num_envs": 384,
            "meta_batch": 6,
            "ppo": {
                "epochs": 4,
                "minibatches": 4,
                "gamma": 0.97,
                "learning_rate_range": [1e-5, 1e-3],
                "average": 0.9,
            },
            "policy": {"min_std": 0.05},
            "polish": {"last": polish},
        }
    )
    trainer = Trainer(config, space, PointMass(config.num_envs, 0))
    for _ in range(config.iterations):
        trainer.step()

    test = PointMass(500, 1)
    start = test._start(500)
    best = optimal_cost(start.double().numpy())
    with torch.no_grad():
        for architecture in space.architectures:
            policies, _ = trainer.averaged([architecture])
            test.reset()
            test.x, total = start.clone(), 0.0
            for _ in range(STEPS):
                x = trainer.observation_norm(test.x.t())[None]
                mean = forward_mean(policies, x, trainer.policy.slope)
                total -= float(test.step(mean[0].t()).reward.mean())
            assert total < above_best * best, (architecture, total, best)


def test_the_ghn_fits_a_policy_of_its_own_for_each_of_20_architectures() -> None:
    """Random teachers, one an architecture, on random inputs, all fitted by one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = SearchSpace(6, 2)
    chosen = np.random.default_rng(0).choice(len(space), 20, replace=False)
    architectures = [space.architectures[i] for i in chosen]
    w1, w2 = torch.randn(20, 6, 8) / 6**0.5, torch.randn(20, 8, 2) / 8**0.5
    ghn = GHN(space, GHNConfig())
    optimizer = torch.optim.Adam(ghn.parameters())

    def errors(x: Tensor) -> Tensor:
        """Mean squared error of each policy as a share of its teacher's variance, (20,)."""
        policies, _ = ghn(architectures)
        wanted = torch.tanh(1.5 * x @ w1) @ w2
        error = forward_mean(policies, x, 0.2) - wanted
        return error.square().mean((1, 2)) / wanted.var((1, 2))

    with torch.no_grad():
        before = errors(torch.randn(20, 512, 6))
    steps = 300
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - k / steps)
        optimizer.zero_grad()
        errors(torch.randn(20, 64, 6)).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(ghn.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        after = errors(torch.randn(20, 512, 6))
    assert before.mean() > 0.9
    assert after.mean() < 0.15, after
    assert after.max() < 0.3, after


def test_pendulum_is_learned_by_small_and_larger_architectures_together() -> None:
    torch.set_num_threads(1)
    config = make_config(
        {
            "task": "pendulum",
            "steps": 1_600_000,
            "num_envs": 512,
            "space": {"widths": [4, 16, 64], "max_depth": 2},
            "ppo": {
                "epochs": 6,
                "minibatches": 4,
                "gamma": 0.95,
                "critic_learning_rate": 1e-3,
                "learning_rate_range": [1e-5, 1e-3],
                "average": 0.9,
            },
        }
    )
    env = make_env("pendulum", {}, config.num_envs, config.seed)
    trainer = Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)
    for _ in range(config.iterations):
        trainer.step()
    run = Run(Path(), config, trainer.space, {}, trainer.averaged, trainer.observation_norm, 0)
    board = evaluate(run, [(16,), (64, 64)], episodes=256, seed=1)
    assert (board.return_mean >= -250).all(), board
