"""On-policy data: every architecture acts in its own environments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperppo.envs.base import VectorEnv
from hyperppo.errors import HyperPPOError
from hyperppo.policy import Policies, forward_mean, log_prob


@dataclass
class Rollout:
    """T steps of M architectures with E environments each, N = M E; architecture-major columns."""

    observation: Tensor  # (T, M, E, obs_dim) normalised
    action: Tensor  # (T, M, E, act_dim)
    mean: Tensor  # (T, M, E, act_dim) of the policy that acted
    log_prob: Tensor  # (T, M, E)
    log_std: Tensor  # (M, act_dim)
    critic_input: Tensor  # (T + 1, N, critic_dim), one more than there are steps
    reward: Tensor  # (T, N)
    terminated: Tensor  # (T, N) bool
    truncated: Tensor  # (T, N) bool
    final_critic_input: Tensor  # (K, critic_dim), before the reset, of the K truncated steps
    raw_observation: Tensor  # (T, N, obs_dim), for the normaliser
    metrics: dict[str, Tensor]  # each (T, N)


Where = tuple[Tensor, Tensor]
"""Where environments stand: observation (obs_dim, N), critic input (critic_dim, N)."""


@torch.inference_mode()
def fly(
    env: VectorEnv,
    start: Where,
    policies: Policies,
    log_std: Tensor,
    slope: float,
    shift: Tensor,
    scale: Tensor,
    noise: Tensor,
) -> tuple[dict[str, Tensor], Where]:
    """Act from `start` with standard normal `noise` (T, M, E, act_dim) for T steps.

    Policies see (observation - shift) * scale, both (obs_dim,). Returns the fields of a Rollout,
    its metrics as `metrics.NAME`, and where the environments stand now. `final_critic_input` may
    be (T N, critic_dim), of all steps.
    """
    T, M, E, _ = noise.shape
    N = env.num_envs
    device = env.device
    observation, critic_input = start
    raw = torch.empty((T, N, env.obs_dim), device=device)
    normalised = torch.empty((T, M, E, env.obs_dim), device=device)
    critic_inputs = torch.empty((T + 1, N, env.critic_dim), device=device)
    mean = torch.empty_like(noise)
    action = torch.empty_like(noise)
    std = log_std.exp()[:, None]
    seen: dict[str, list[Tensor]] = {}
    finals = []
    for t in range(T):
        raw[t] = observation.t()
        critic_inputs[t] = critic_input.t()
        normalised[t] = ((raw[t] - shift) * scale).view(M, E, -1)
        mean[t] = forward_mean(policies, normalised[t], slope)
        action[t] = mean[t] + std * noise[t]
        step = env.step(action[t].view(N, -1).t())
        observation, critic_input = step.observation, step.critic_input
        finals.append(step.final_critic_input.t())
        metrics = {f"metrics.{name}": values for name, values in step.metrics.items()}
        for name in ("reward", "terminated", "truncated"):
            metrics[name] = getattr(step, name)
        for name, values in metrics.items():
            seen.setdefault(name, []).append(values)
    critic_inputs[T] = critic_input.t()
    fields = {
        "observation": normalised,
        "action": action,
        "mean": mean,
        "log_prob": log_prob(action, mean, log_std[:, None]),
        "log_std": log_std,
        "critic_input": critic_inputs,
        "final_critic_input": torch.cat(finals),
        "raw_observation": raw,
        **{name: torch.stack(values) for name, values in seen.items()},
    }
    return fields, (observation, critic_input)


@torch.inference_mode()
def as_rollout(fields: dict[str, Tensor]) -> Rollout:
    """What `fly` returned. Raises HyperPPOError when a task answered finite actions with numbers
    that are not.
    """
    metrics = {n.removeprefix("metrics."): x for n, x in fields.items() if n.startswith("metrics.")}
    plain = {name: x for name, x in fields.items() if not name.startswith("metrics.")}
    rollout = Rollout(**plain, metrics=metrics)
    truncated = rollout.truncated.flatten()
    if len(rollout.final_critic_input) == len(truncated):
        rollout.final_critic_input = rollout.final_critic_input[truncated]
    acted = _first_not_finite(rollout.action)  # a policy that diverged is the trainer's to tell
    for name, values, until in (
        # The action answers the observation of its step.
        ("observation", rollout.raw_observation, acted + 1),
        ("critic input", rollout.critic_input, acted + 1),
        ("reward", rollout.reward, acted),
    ):
        if (t := _first_not_finite(values)) < min(until, len(values)):
            bad = (~values[t].isfinite()).nonzero()[0].tolist()
            which = " ".join([name, *map(str, bad[1:])])
            raise HyperPPOError(
                f"the task gave {float(values[t][tuple(bad)])} as {which} of environment {bad[0]}, "
                f"{t} steps into the rollout: it must stay finite"
            )
    return rollout


def _first_not_finite(values: Tensor) -> int:
    """The first row of (T, ...) with a NaN or an infinity; T when there is none."""
    bad = ~values.isfinite().flatten(1).all(1)
    return int(bad.int().argmax()) if bool(bad.any()) else len(values)
