"""Learning is tested by learning: a task whose best return is known in closed form."""

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from hyperppo.config import make_config
from hyperppo.envs.base import Step
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
            self.x, self.x, -cost, torch.zeros_like(truncated), truncated, after, metrics={}
        )

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


def test_every_architecture_comes_near_the_optimal_controller() -> None:
    torch.set_num_threads(1)
    space = SearchSpace(2, 1, widths=(4, 16, 64), max_depth=2)
    config = make_config(
        {
            "steps": 1_000_000,
            "num_envs": 384,
            "meta_batch": 6,
            "ppo": {
                "epochs": 4,
                "minibatches": 4,
                "gamma": 0.97,
                "learning_rate_range": [1e-4, 3e-3],
                "average": 0.9,
            },
            "policy": {"min_std": 0.05},
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
            assert total < 1.3 * best, (architecture, total, best)
