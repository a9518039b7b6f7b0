"""HyperPPO, Algorithm 1 of the paper (Hegde, Huang, Sukhatme 2023)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hyperppo import parallel, ppo
from hyperppo.batch import Batch, cut, minibatches, mix
from hyperppo.config import RunConfig
from hyperppo.critic import Critic, architecture_features
from hyperppo.descent import descend
from hyperppo.envs.base import Hardening, VectorEnv
from hyperppo.envs.shards import capturable, held, refresh, shard_seed, shards_of
from hyperppo.errors import HyperPPOError
from hyperppo.ghn import TOLD, Told
from hyperppo.graphs import Replayed
from hyperppo.groups import by_group, totals
from hyperppo.normalizer import RunningNorm
from hyperppo.policy import HyperPolicy, Policies, forward_mean, log_prob
from hyperppo.polish import Polisher
from hyperppo.processor import cores, side_by_side
from hyperppo.rollout import Rollout, Where, as_rollout, fly
from hyperppo.sampling import ArchitectureSampler
from hyperppo.space import Architecture, SearchSpace

_TELLTALES = ("reward", "policy_loss", "value_loss", "kl")  # not finite where training diverged


class Trainer:
    """Everything that changes while a run trains."""

    def __init__(self, config: RunConfig, space: SearchSpace, env: VectorEnv) -> None:
        self.config, self.space, self.env = config, space, env
        self.device = env.device
        self.on_cpu = self.device.type == "cpu"  # else nothing of the device is asked in a loop
        self.iteration = 0
        torch.manual_seed(config.seed)
        self.policy = HyperPolicy(space, config).to(self.device)
        self.averaged = copy.deepcopy(self.policy).requires_grad_(False)
        features = space.max_depth + 2
        self.critic = Critic(env.critic_dim + features, config.ppo.critic_hidden).to(self.device)
        self.observation_norm = RunningNorm(env.obs_dim).to(self.device)
        self.critic_norm = RunningNorm(env.critic_dim).to(self.device)
        self.return_norm = RunningNorm(1).to(self.device)
        self.discounted_return = torch.zeros(env.num_envs, device=self.device)
        adam = partial(torch.optim.Adam, fused=True, capturable=not self.on_cpu)
        self.policy_optimizer = adam(self.policy.parameters())
        self.critic_optimizer = adam(self.critic.parameters())
        polishes = config.polish.last > 0
        self.polisher = Polisher(config, env, self.policy, self.critic) if polishes else None
        # A tensor: to follow the KL divergence it need not leave the device.
        self.learning_rate = torch.tensor(config.ppo.learning_rate, dtype=torch.float64).to(
            self.device
        )
        sampled = config.space.sampling, config.seed, config.space.depth_bias
        self.sampler = ArchitectureSampler(space, *sampled)
        self.shards = dict(zip(parallel.share(range(config.shards)), shards_of(env), strict=True))
        self.action_generators = [
            torch.Generator(self.device).manual_seed(shard_seed(config, number) + 1)
            for number in self.shards
        ]
        for module in self.modules().values():
            parallel.same(module)
        self._drawn: Sequence[Architecture] = ()
        self._fly: Callable[..., tuple[dict[str, Tensor], Where]] = self._fly_dense
        self._policy_step: Callable[..., tuple[Tensor, Tensor]] = self._improve_dense
        self._critic_step: Callable[..., Tensor] = self._improve_critic
        if self.device.type == "cuda":
            self._capture()
        self.where = env.reset()
        env.desynchronise()

    def _capture(self) -> None:
        """Launch as whole CUDA graphs what asks nothing of the host, in between or of others."""
        if self.config.ghn.kind == "original" or parallel.processes() > 1:
            return
        self._policy_step = Replayed(self._improve_dense)
        self._critic_step = Replayed(self._improve_critic)
        if shards := capturable(self.env):
            self._fly = Replayed(self._fly_dense, [shard.generator for shard in shards])
        if self.polisher is not None:
            self.polisher.capture()

    def step(self) -> dict[str, float]:
        """One iteration of Algorithm 1; returns what there is to log."""
        for shard in self.shards.values():
            if isinstance(shard, Hardening):
                shard.set_progress(self.iteration / self.config.iterations)
        for policy in (self.policy, self.averaged):
            policy.min_log_std.fill_(math.log(self.config.min_std(self.iteration)))
        drawn = self.sampler.draw(self.config.meta_batch)  # a meta-batch of the space
        architectures = parallel.share(drawn)  # what this process trains: all, if it is alone
        if self.iteration == 0:  # the first statistics come from a rollout that is thrown away
            self.observation_norm.update(self._act(architectures).raw_observation.flatten(0, 1))
        if not self.config.polishes(self.iteration):
            rollout = self.collect(architectures)  # estimate their weights, act on-policy
            batch, log = self.advantages(rollout, architectures)  # critic: state, architecture
            log |= self.take_note(rollout, drawn)
            log |= self.update(batch, rollout, architectures)  # epochs of the clipped loss
        else:  # not in the paper: the simulator's own gradient
            rollout, improve = self.polish(architectures)
            batch, log = self.advantages(rollout, architectures)
            log |= self.take_note(rollout, drawn)
            log |= self._together(improve, partial(self._update_critic, batch))
        self._average()
        if self.polisher is not None and self.config.polishes(self.iteration):
            given = (self.averaged, log["policy_loss"], float(self.return_norm.std))
            log["fell_back"] = float(self.polisher.fall_back(*given))
        self.iteration += 1
        if not np.isfinite([log.get(name, 0.0) for name in _TELLTALES]).all():
            raise HyperPPOError(
                f"training diverged at iteration {self.iteration} (its losses are not finite): "
                "resume from the last checkpoint with a smaller learning rate, "
                "for example --set ppo.learning_rate_range=1e-5,3e-3"
            )
        return log

    def collect(self, architectures: Sequence[Architecture]) -> Rollout:
        """Estimate the policies once and let each act in its own environments."""
        rollout = self._act(architectures)
        self.observation_norm.update(rollout.raw_observation.flatten(0, 1))
        self.critic_norm.update(rollout.critic_input[:-1].flatten(0, 1))
        return rollout

    def _act(self, architectures: Sequence[Architecture]) -> Rollout:
        given = (*self.observation_norm.shift_and_scale(), self._noise(len(architectures)))
        if self.on_cpu:
            with torch.no_grad():
                policies, log_std = self.policy(architectures)
            slope = self.policy.slope
            fields, self.where = fly(self.env, self.where, policies, log_std, slope, *given)
        else:
            self._drawn = architectures
            refresh(self.env)
            told = vars(self.policy.tell(architectures)).values()
            fields, self.where = self._fly(*told, *self.where, *given)
        return as_rollout(fields)

    def _noise(self, policies: int) -> Tensor:
        """Standard normal, (T, M, E, act_dim), for the actions of a rollout."""
        E = self.env.num_envs // policies
        each = policies // len(self.shards)
        shape = (self.config.ppo.rollout, each, E, self.env.act_dim)
        parts = [
            torch.randn(shape, generator=generator, device=self.device)
            for generator in self.action_generators
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _fly_dense(self, *given: Tensor) -> tuple[dict[str, Tensor], Where]:
        """A rollout on a GPU, of tensors alone: what the policy is told, where, and `fly`'s."""
        *told, observation, critic_input, shift, scale, noise = given
        with held(self.env), torch.no_grad():
            policies, log_std = self.policy.dense(Told(*told), self._drawn)
            where, slope = (observation, critic_input), self.policy.slope
            return fly(self.env, where, policies, log_std, slope, shift, scale, noise)

    @torch.no_grad()
    def advantages(
        self, rollout: Rollout, architectures: Sequence[Architecture]
    ) -> tuple[Batch, dict[str, float]]:
        """Values, scaled rewards and advantages, cut into minibatches."""
        options = self.config.ppo
        T, N = rollout.reward.shape
        M = len(architectures)
        per_env = self._features(architectures)
        critic_input = torch.cat(
            (self.critic_norm(rollout.critic_input), per_env.expand(T + 1, N, -1)), dim=-1
        )
        values = self.critic(critic_input)
        ended = rollout.terminated | rollout.truncated
        final_value = torch.zeros_like(rollout.reward)
        if len(rollout.final_critic_input):
            columns = rollout.truncated.nonzero()[:, 1]
            final = (self.critic_norm(rollout.final_critic_input), per_env[columns])
            final_value[rollout.truncated] = self.critic(torch.cat(final, dim=-1))
        reward = rollout.reward * self._reward_scale(rollout.reward, ended)
        advantage = ppo.gae(
            reward,
            values[:T],
            values[T],
            rollout.terminated,
            rollout.truncated,
            final_value,
            options.gamma,
            options.gae_lambda,
        )
        target = advantage + values[:T]
        mean, std = parallel.mean_and_std(advantage)  # also the critic's error
        _, spread = parallel.mean_and_std(target)
        normalised = (advantage - mean) / (std + 1e-8)
        J = options.minibatches
        batch = Batch(
            observation=cut(rollout.observation.flatten(1, 2), M, J),
            action=cut(rollout.action.flatten(1, 2), M, J),
            mean=cut(rollout.mean.flatten(1, 2), M, J),
            log_prob=cut(rollout.log_prob.flatten(1, 2), M, J),
            critic_input=cut(critic_input[:T], M, J),
            advantage=cut(normalised, M, J),
            value=cut(values[:T], M, J),
            target=cut(target, M, J),
        )
        if options.mix_architectures:
            batch = mix(batch, self.action_generators[0])
        return batch, {"explained_variance": float(1 - (std / spread) ** 2)}

    def polish(
        self, architectures: Sequence[Architecture]
    ) -> tuple[Rollout, Callable[[], dict[str, float]]]:
        """Act for a while; returns also what goes down the gradient of the return of that.

        The critic, whose values go on beyond the horizon, may change before.
        """
        assert self.polisher is not None
        settings = self.config.polish
        rate = self.learning_rate.new_tensor(settings.learning_rate)
        rate *= self.config.decay(self.iteration)
        (loss, fields, self.where), descend = self.polisher.fly(
            architectures,
            rate,
            self._features(architectures),
            *self.critic_norm.shift_and_scale(),
            self.return_norm.std.float(),
            *self.observation_norm.shift_and_scale(),
            self._noise(len(architectures)),
            *self.where,
        )

        def improve() -> dict[str, float]:
            descend()
            found = float(parallel.mean(loss.detach()))
            return {"policy_loss": found, "learning_rate": float(rate)}

        rollout = as_rollout(fields)
        rollout.reward = rollout.reward - settings.end_cost * rollout.terminated
        self.critic_norm.update(rollout.critic_input[:-1].flatten(0, 1))
        return rollout, improve

    def _features(self, architectures: Sequence[Architecture]) -> Tensor:
        """What the critic is told of the architecture that acts in each environment, (N, F)."""
        features = architecture_features(self.space, architectures).to(self.device)
        if not self.config.ppo.critic_sees_architecture:
            features = torch.zeros_like(features)
        return features.repeat_interleave(self.env.num_envs // len(architectures), 0)

    def take_note(self, rollout: Rollout, drawn: list[Architecture]) -> dict[str, float]:
        """Tell the sampler how the whole meta-batch did; returns what there is to log of it."""
        own = {
            "reward": rollout.reward,
            **rollout.metrics,
            "crash": rollout.terminated.float(),
            "end": (rollout.terminated | rollout.truncated).float(),
        }
        mine = len(parallel.share(drawn))
        every = torch.stack([totals(figure, mine) for figure in own.values()])  # (figures, 2, M)
        figures = dict(zip(own, parallel.gather(every, 2).cpu(), strict=True))
        (crashes, _), (ends, _) = figures.pop("crash"), figures.pop("end")
        sums, counts = figures["reward"]
        self.sampler.learn(drawn, (sums / counts).numpy())
        return {
            **{name: float(sums.sum() / counts.sum()) for name, (sums, counts) in figures.items()},
            "crash_rate": float(crashes.sum() / ends.sum().clamp(min=1)),
            **by_group(figures, drawn, self.space),
        }

    def _reward_scale(self, reward: Tensor, ended: Tensor) -> Tensor:
        """1 / running std of the discounted return; updates it with this rollout."""
        returns = []
        for t in range(reward.shape[0]):
            self.discounted_return = self.discounted_return * self.config.ppo.gamma + reward[t]
            returns.append(self.discounted_return)
            self.discounted_return = self.discounted_return * ~ended[t]
        self.return_norm.update(torch.stack(returns).reshape(-1, 1))
        return (1 / self.return_norm.std).to(reward.dtype)

    def update(
        self, batch: Batch, rollout: Rollout, architectures: Sequence[Architecture]
    ) -> dict[str, float]:
        """Epochs of minibatch gradient steps: on the GHN and the stds, and on the critic."""
        return self._together(
            partial(self._update_policy, batch, rollout, architectures),
            partial(self._update_critic, batch),
        )

    def _together(self, *tasks: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Results of two tasks of which neither needs the other's: on a CPU each gets a core.

        But where several processes train, they exchange gradients in one order.
        """
        together = self.on_cpu and parallel.processes() == 1 and cores() > 1
        first, second = side_by_side(tasks) if together else [task() for task in tasks]
        return first | second

    def _update_policy(
        self, batch: Batch, rollout: Rollout, architectures: Sequence[Architecture]
    ) -> dict[str, float]:
        told = () if self.on_cpu else tuple(vars(self.policy.tell(architectures)).values())
        improve = partial(self._improve_policy, partial(self.policy, architectures))
        decay = torch.tensor(
            self.config.decay(self.iteration), dtype=torch.float64, device=self.device
        )
        figures = []
        for part in self._minibatches(batch):
            data = (part.observation, part.action, part.mean, part.log_prob, part.advantage)
            given = (*data, rollout.log_std[:, None], self.learning_rate, decay)
            found, rate = improve(*given) if self.on_cpu else self._policy_step(*told, *given)
            figures.append(found.clone())
            self.learning_rate = rate.clone()
        loss, kls, skips, stds = parallel.mean(torch.stack(figures, 1)).tolist()
        skipped = sum(skips) / len(skips)
        return {
            "policy_loss": sum(loss) / max(1.0, len(loss) - sum(skips)),
            "kl": kls[-1],
            "learning_rate": float(self.learning_rate) * self.config.decay(self.iteration),
            "skipped": skipped,
            "std": stds[-1],
        }

    def _improve_dense(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """`_improve_policy` on a GPU, of tensors alone."""
        told = Told(*given[:TOLD])
        return self._improve_policy(partial(self.policy.dense, told, self._drawn), *given[TOLD:])

    def _improve_policy(
        self,
        estimate: Callable[[], tuple[Policies, Tensor]],
        observation: Tensor,
        action: Tensor,
        old_mean: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        old_log_std: Tensor,
        learning_rate: Tensor,
        decay: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One gradient step of the clipped objective on the GHN and the stds.

        Returns loss, KL divergence, whether the step was skipped and the mean std, (4,), and the
        learning rate that the divergence asks for.
        """
        options = self.config.ppo
        policies, log_std = estimate()
        mean = forward_mean(policies, observation, self.policy.slope)
        with torch.no_grad():
            drift = ppo.gaussian_kl(old_mean, old_log_std, mean, log_std[:, None])
            kl = parallel.mean(drift)
            if options.kl_target is not None:
                limits = options.learning_rate_range
                learning_rate = ppo.adapted_rate(learning_rate, kl, options.kl_target, limits)
            skip = ppo.too_far(kl, options.kl_target)
        loss = torch.zeros_like(kl)
        if not (self.on_cpu and bool(skip)):
            ratio = torch.exp(log_prob(action, mean, log_std[:, None]) - old_log_prob)
            loss = ppo.policy_loss(ratio, advantage, options.clip)
            descend(
                self.policy_optimizer,
                self.policy,
                loss - options.entropy * log_std.sum(-1).mean(),
                learning_rate * decay,
                options.max_grad_norm,
                skip,
            )
        loss = torch.where(skip, 0.0, loss.detach())
        std = log_std.detach().exp().mean()
        return torch.stack((loss, kl, skip.to(kl.dtype), std)), learning_rate

    def _update_critic(self, batch: Batch) -> dict[str, float]:
        rate = self.config.ppo.critic_learning_rate * self.config.decay(self.iteration)
        rates = self.learning_rate.new_tensor(rate)
        losses = []
        for part in self._minibatches(batch):
            given = (part.critic_input, part.value, part.target, rates)
            losses.append(self._critic_step(*given).clone())
        return {"value_loss": float(parallel.mean(torch.stack(losses).mean()))}

    def _improve_critic(
        self, critic_input: Tensor, old_value: Tensor, target: Tensor, learning_rate: Tensor
    ) -> Tensor:
        """One gradient step of the critic; returns its loss."""
        options = self.config.ppo
        loss = ppo.value_loss(self.critic(critic_input), old_value, target, options.value_clip)
        descend(self.critic_optimizer, self.critic, loss, learning_rate, options.max_grad_norm)
        return loss.detach()

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        """The minibatches of all epochs, in order; the same for policy and critic."""
        seed = None
        if self.config.ppo.shuffle:
            entropy = (self.config.seed, self.iteration)
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return minibatches(batch, self.config.ppo.epochs, seed)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged policy towards the current one."""
        # A younger run averages over less, so that the start is forgotten.
        decay = min(self.config.ppo.average, self.iteration / (self.iteration + 10))
        for slow, fast in zip(self.averaged.parameters(), self.policy.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)

    def modules(self) -> dict[str, nn.Module]:
        """All that learns or keeps count, by name."""
        last_good = {} if self.polisher is None else {"last_good": self.polisher.last_good}
        return {
            **last_good,
            "policy": self.policy,
            "averaged": self.averaged,
            "critic": self.critic,
            "observation_norm": self.observation_norm,
            "critic_norm": self.critic_norm,
            "return_norm": self.return_norm,
        }

    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """By name."""
        polish = {} if self.polisher is None else {"polish_optimizer": self.polisher.optimizer}
        return {
            "policy_optimizer": self.policy_optimizer,
            "critic_optimizer": self.critic_optimizer,
            **polish,
        }
