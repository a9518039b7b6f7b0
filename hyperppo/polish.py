"""Gradients through the simulator: how they are flown for, gone down, and left when they diverge.

PPO estimates from noisy actions which way is up; a simulator that can be differentiated says it.
After Xu et al. 2022, "Accelerated Policy Learning with Parallel Differentiable Simulation" (SHAC):
the return of a short flight, and the critic's value of where it ends, differentiated by the weights
of the policies through sensors, delays, motors and physics. What lies beyond the horizon, crashes
above all, is the critic's to tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from hyperppo.config import RunConfig
from hyperppo.critic import Critic
from hyperppo.descent import descend
from hyperppo.envs.base import Differentiable, VectorEnv
from hyperppo.envs.shards import capturable, held, refresh, shards_of
from hyperppo.errors import HyperPPOError
from hyperppo.ghn import TOLD, Told
from hyperppo.graphs import Replayed
from hyperppo.last_good import LastGood
from hyperppo.policy import HyperPolicy, log_prob
from hyperppo.processor import one_thread
from hyperppo.rollout import Where
from hyperppo.space import Architecture
from hyperppo.unrolled import Unrolled

Value = Callable[[Tensor, Tensor], Tensor]
"""Values (K,) of critic inputs (K, critic_dim), as they are, in environments (K,) int64."""

Flown = tuple[Tensor, dict[str, Tensor], Where]
"""Loss, the fields of a Rollout and where the environments stand now."""


class Polisher:
    """Goes down the gradient of the policies' return.

    Raises HyperPPOError when the task has no gradients.
    """

    def __init__(
        self, config: RunConfig, env: VectorEnv, policy: HyperPolicy, critic: Critic
    ) -> None:
        if not all(isinstance(shard, Differentiable) for shard in shards_of(env)):
            raise HyperPPOError(
                f"{config.task} has no gradients to polish with: train it with --set polish.last=0"
            )
        self.config, self.env, self.policy, self.critic = config, env, policy, critic
        self.on_cpu = env.device.type == "cpu"
        # Of its own: the scale of these gradients is another, and they change faster.
        self.optimizer = torch.optim.Adam(
            policy.weights.parameters(), betas=(0.9, 0.99), fused=True, capturable=not self.on_cpu
        )
        self.last_good = LastGood(policy)
        self._drawn: Sequence[Architecture] = ()
        self._step: Callable[..., Flown] = self._dense

    def capture(self) -> None:
        """Launch a flight, the way back and the step as one CUDA graph, if the task can be."""
        if shards := capturable(self.env):
            self._step = Replayed(self._dense, [shard.generator for shard in shards])

    def fly(
        self, architectures: Sequence[Architecture], rate: Tensor, *given: Tensor
    ) -> tuple[Flown, Callable[[], None]]:
        """Act for a while, with `given` as `_loss` takes it; and what goes down the gradient.

        The critic, whose values go on beyond the horizon, may change before.
        """
        if self.on_cpu:
            policies = Unrolled(self.policy(architectures)[0], self.policy.slope)
            with one_thread():
                flown = self._loss(policies, *given)
            return flown, partial(self._descend, flown[0], rate)
        self._drawn = architectures
        refresh(self.env)
        told = vars(self.policy.tell(architectures)).values()
        return self._step(rate, *told, *given), lambda: None

    def _dense(self, rate: Tensor, *given: Tensor) -> Flown:
        """On a GPU, of tensors alone: it goes down the gradient at once."""
        with held(self.env):
            policies, _ = self.policy.dense(Told(*given[:TOLD]), self._drawn)
            loss, fields, now = self._loss(policies, *given[TOLD:])
            self._descend(loss, rate)
        return loss.detach(), fields, now

    def _loss(
        self,
        policies: Callable[[Tensor], Tensor],
        per_env: Tensor,
        critic_shift: Tensor,
        critic_scale: Tensor,
        unit: Tensor,
        shift: Tensor,
        scale: Tensor,
        noise: Tensor,
        *where: Tensor,
    ) -> Flown:
        """Minus the mean return a step, in units of its standard deviation `unit`, of `fly`.

        `per_env` (N, F) is what the critic is told of the architecture in each environment.
        """
        assert isinstance(self.env, Differentiable)
        log_std = torch.full_like(noise[0, :, 0], math.log(self.config.polish.std))
        frozen = {name: p.detach().clone() for name, p in self.critic.named_parameters()}

        def value(critic_input: Tensor, env: Tensor) -> Tensor:
            seen = torch.cat(((critic_input - critic_shift) * critic_scale, per_env[env]), dim=-1)
            scaled: Tensor = functional_call(self.critic, frozen, (seen,))
            return scaled * unit

        given = (policies, log_std, shift, scale, noise, value, self.config.ppo.gamma)
        observation, critic_input = where
        objective, fields, now = fly(self.env, (observation, critic_input), *given)
        if not objective.requires_grad:
            raise HyperPPOError(
                f"{self.config.task}: no gradient leads from its rewards to its actions: "
                "train it with --set polish.last=0"
            )
        return -objective / unit, fields, now

    def _descend(self, loss: Tensor, rate: Tensor) -> None:
        limit = self.config.polish.max_grad_norm
        descend(self.optimizer, self.policy.weights, loss, rate, limit)

    def fall_back(self, averaged: HyperPolicy, loss: float, std: float) -> bool:
        """Go on from policies of before if the gradients have diverged; whether they have.

        `std` is what `loss` was divided by.
        """
        mean = -loss * std * self.config.ppo.rollout
        if not self.last_good.diverged(averaged, mean, std):
            return False
        for policy in (self.policy, averaged):
            policy.load_state_dict(self.last_good.earlier.state_dict())
        for moments in self.optimizer.state.values():
            for moment in moments.values():  # in place: a captured step looks there
                moment.zero_()
        return True


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
