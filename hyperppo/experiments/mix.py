"""Section III-A: PPO on data mixed over architectures collapses to one policy.

Two short trainings with equal settings and seeds, one with every minibatch shuffled over the
architectures. Mixed, every network learns from what the others did, as if it had done it: the
policies become one and the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperppo.config import RunConfig, make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.files import replacing
from hyperppo.policy import forward_mean
from hyperppo.space import SearchSpace
from hyperppo.trainer import Trainer

PROBES = ((4,), (8, 8), (16,), (64,), (64, 64), (128, 16, 64), (256, 256))


@dataclass(frozen=True)
class Curve:
    """One training."""

    mixed: bool
    steps: list[int]
    reward: list[float]  # mean reward a step, over the meta-batch
    spread: list[float]  # how much policies differ: RMS over observations of the std over networks


def run(
    out: Path, steps: int, seed: int, progress: Callable[[float], None] = lambda fraction: None
) -> dict[str, Any]:
    """Train both ways, write `mix.json` and `mix.png` to `out`, return what was found."""
    curves = [_train(mixed, steps, seed, progress) for mixed in (False, True)]
    result = {
        "seed": seed,
        "curves": [asdict(curve) for curve in curves],
        "final_reward": [float(np.mean(c.reward[-10:])) for c in curves],
        "final_spread": [c.spread[-1] for c in curves],
    }
    with replacing(out / "mix.json") as temporary:
        temporary.write_text(json.dumps(result) + "\n")
    _draw(curves, out / "mix.png")
    return result


def _config(mixed: bool, steps: int, seed: int) -> RunConfig:
    # A fixed, small learning rate for both: the KL rule would stop mixed training at once, since a
    # network is far from the ones whose data it is given.
    ppo = {"mix_architectures": mixed, "kl_target": None, "learning_rate": 1e-3}
    env = resolve_options("quadrotor", {"spawn_m": 1.0})
    return make_config({"steps": steps, "seed": seed, "ppo": ppo, "env": env})


def _train(mixed: bool, steps: int, seed: int, progress: Callable[[float], None]) -> Curve:
    config = _config(mixed, steps, seed)
    env = make_env(config.task, config.env, config.num_envs, seed)
    trainer = Trainer(config, SearchSpace(env.obs_dim, env.act_dim), env)
    curve = Curve(mixed, [], [], [])
    for i in range(config.iterations):
        log = trainer.step()
        curve.steps.append(trainer.iteration * config.num_envs * config.ppo.rollout)
        curve.reward.append(log["reward"])
        curve.spread.append(_spread(trainer))
        progress((mixed + (i + 1) / config.iterations) / 2)
    return curve


@torch.no_grad()
def _spread(trainer: Trainer) -> float:
    """How differently the probe architectures act on the same 256 observations."""
    observation = trainer.observation_norm(trainer.where[0][:, :256].t())
    policies, _ = trainer.policy(PROBES)
    means = forward_mean(policies, observation.expand(len(PROBES), -1, -1), trainer.policy.slope)
    return float(means.var(0).mean().sqrt())


def _draw(curves: list[Curve], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for curve in curves:
        name = "mixed over architectures" if curve.mixed else "each its own data (HyperPPO)"
        million = np.array(curve.steps) / 1e6
        left.plot(million, curve.reward, label=name)
        right.plot(million, curve.spread, label=name)
    left.set(xlabel="control steps (million)", ylabel="reward a step", title="Return")
    right.set(
        xlabel="control steps (million)",
        ylabel="std of the action over networks",
        title="How much the policies differ",
        ylim=(0, None),
    )
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
