"""Gradients through the simulator.

PPO estimates from noisy actions which way is up; a simulator that can be differentiated says it.
After Xu et al. 2022, "Accelerated Policy Learning with Parallel Differentiable Simulation" (SHAC):
the return of a short flight, and the critic's value of where it ends, differentiated by the weights
of the policies through sensors, delays, motors and physics. What lies beyond the horizon, crashes
above all, is the critic's to tell.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hyperppo.envs.base import Differentiable
from hyperppo.policy import log_prob
from hyperppo.rollout import Where

Value = Callable[[Tensor, Tensor], Tensor]
"""Values (K,) of critic inputs (K, critic_dim), as they are, in environments (K,) int64."""


def fly(
    env: Differentiable,
    start: Where,
    policies: Callable[[Tensor], Tensor],
    log_std: Tensor,
    shift: Tensor,
    scale: Tensor,
    noise: Tensor,
    value: Value,
    gamma: float,
) -> tuple[Tensor, dict[str, Tensor], Where]:
    """Act from `start` with standard normal `noise` (T, M, E, act_dim) for T steps.

    Returns what `rollout.fly` does, without a graph, and before it the objective: the mean over
    environments and steps of what each step brings to the discounted return of its flight, which
    goes on with `value` where the time limit or the horizon cuts it.
    """
    T, M, E, _ = noise.shape
    N = env.num_envs
    std = log_std.exp()[:, None]
    observation, critic_input = start
    discount = torch.ones(N, device=env.device)
    everyone = torch.arange(N, device=env.device)
    objective = discount.new_zeros(())
    cuts: list[tuple[Tensor, Tensor, Tensor]] = []  # critic input, environment, weight
    seen: dict[str, list[Tensor]] = {}
    with env.differentiable():
        for t in range(T):
            normalised = ((observation.t() - shift) * scale).view(M, E, -1)
            mean = policies(normalised)
            action = mean + std * noise[t]
            step = env.step(action.view(N, -1).t())
            objective = objective + (discount * step.reward).sum()
            discount = discount * gamma
            if step.final_critic_input.shape[1] == N:
                cuts.append((step.final_critic_input.t(), everyone, discount * step.truncated))
            else:
                which = step.truncated.nonzero().squeeze(1)
                cuts.append((step.final_critic_input.t(), which, discount[which]))
            discount = torch.where(step.terminated | step.truncated, 1.0, discount)
            record = {
                "raw_observation": observation.t(),
                "critic_input": critic_input.t(),
                "observation": normalised,
                "mean": mean,
                "action": action,
                "reward": step.reward,
                "terminated": step.terminated,
                "truncated": step.truncated,
                **{f"metrics.{name}": values for name, values in step.metrics.items()},
            }
            for name, values in record.items():
                seen.setdefault(name, []).append(values.detach())
            observation, critic_input = step.observation, step.critic_input
        cuts.append((critic_input.t(), everyone, discount))
        inputs, which, weight = (torch.cat(parts) for parts in zip(*cuts, strict=True))
        objective = (objective + (weight * value(inputs, which)).sum()) / (N * T)
    seen["critic_input"].append(critic_input.detach().t())
    fields = {name: torch.stack(values) for name, values in seen.items()}
    fields |= {
        "log_std": log_std,
        "log_prob": log_prob(fields["action"], fields["mean"], log_std[:, None]),
        "final_critic_input": torch.cat([final.detach() for final, _, _ in cuts[:-1]]),
    }
    return objective, fields, (observation.detach(), critic_input.detach())
