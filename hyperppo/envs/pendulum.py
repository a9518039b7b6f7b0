"""Pendulum-v1 of Gymnasium, vectorised: swing a pendulum up with too weak a motor and hold it.

Physics, reward, starts and the time limit of 200 steps are Gymnasium's; a test steps both side by
side.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from hyperppo.envs.base import Step

DT = 0.05  # s, semi-implicit Euler
GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0  # m/s^2, kg, m
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PendulumOptions:
    """The pendulum task."""

    episode_steps: int = 200


class PendulumEnv:
    """N pendulums.

    Observation (3, N): cosine and sine of the angle (0 is upright), angular velocity in rad/s; the
    critic sees the same. Action (1, N): torque as a fraction of `MAX_TORQUE`. Reward:
    -(angle^2 + 0.1 velocity^2 + 0.001 torque^2), angle in [-pi, pi]. No early end.
    """

    obs_dim, act_dim, critic_dim = 3, 1, 3

    def __init__(
        self,
        num_envs: int,
        options: PendulumOptions,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.episode_steps = options.episode_steps
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.reset()

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start every episode anew: any angle, at most 1 rad/s."""
        self.angle, self.velocity = self._start(self.num_envs)
        self.time = torch.zeros(self.num_envs, device=self.device)
        observation = self._look()
        return observation, observation.clone()

    def desynchronise(self) -> None:
        """Spread the episodes' phases."""
        phase = torch.rand(self.num_envs, generator=self.generator, device=self.device)
        self.time = (phase * self.episode_steps).floor()

    def step(self, action: Tensor) -> Step:
        """One step; episodes at their time limit are truncated and start anew."""
        torque = action[0].clamp(-1.0, 1.0) * MAX_TORQUE
        from_top = torch.remainder(self.angle + math.pi, 2 * math.pi) - math.pi
        cost = from_top**2 + 0.1 * self.velocity**2 + 0.001 * torque**2
        gravity = 1.5 * GRAVITY / LENGTH * torch.sin(self.angle)
        acceleration = gravity + 3 / (MASS * LENGTH**2) * torque
        self.velocity = (self.velocity + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED)
        self.angle = self.angle + self.velocity * DT
        self.time = self.time + 1

        truncated = self.time >= self.episode_steps
        ended = torch.nonzero(truncated).squeeze(1)
        final = self._look()[:, ended]
        if len(ended):
            self.angle[ended], self.velocity[ended] = self._start(len(ended))
            self.time[ended] = 0
        observation = self._look()
        return Step(
            observation=observation,
            critic_input=observation.clone(),
            reward=-cost,
            terminated=torch.zeros_like(truncated),
            truncated=truncated,
            final_critic_input=final,
            metrics={},
        )

    def _start(self, count: int) -> tuple[Tensor, Tensor]:
        drawn = torch.rand((2, count), generator=self.generator, device=self.device) * 2 - 1
        return drawn[0] * math.pi, drawn[1]

    def _look(self) -> Tensor:
        return torch.stack((torch.cos(self.angle), torch.sin(self.angle), self.velocity))

    def conventions(self) -> dict[str, Any]:
        """What the numbers mean."""
        return {
            "observation": ["cos_angle", "sin_angle", "angular_velocity"],
            "control_hz": round(1 / DT),
            "action": "[-1, 1]: torque as a fraction of 2 N m",
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All state, the random generator's included."""
        return {
            "generator": self.generator.get_state(),
            "angle": self.angle,
            "velocity": self.velocity,
            "time": self.time,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.generator.set_state(state["generator"].cpu())
        self.angle, self.velocity, self.time = (
            state[name].to(self.device) for name in ("angle", "velocity", "time")
        )
