"""Plain PPO on Brax's environments, ours and Brax's own: seconds an iteration, and returns.

    python benchmarks/brax_ppo.py [--task ant] [--envs 64 256 1024] [--repeats 5] [--json FILE]
    python benchmarks/brax_ppo.py --task inverted_pendulum --envs 64 --steps 500000 --seeds 3

Equal environments, rollout, minibatches, epochs and networks (64,64), on all cores of the CPU.
Without --steps iterations are timed: Brax says how long each of its own took, and between two of
them ours has its turn; the first two of each, which compile, do not count. With --steps both train,
with equal learning rates and discounts, and fly 64 episodes with mean actions.

Brax 0.14.2's PPO does not run with JAX 0.10 or newer:

    pip install -c constraints.txt -e '.[brax]' && pip install 'jax<0.10' 'flax<0.12.8'
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from brax import envs
from brax.training.agents.ppo import train
from brax.training.agents.ppo.networks import make_ppo_networks
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import run_space
from hyperppo.config import PPOConfig, make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.policy import as_module
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

HIDDEN = (64, 64)
LEARNING_RATE, MAX_GRAD_NORM = 1e-3, 1.0
SETTINGS = PPOConfig(
    shuffle=True,
    learning_rate=LEARNING_RATE,
    critic_learning_rate=LEARNING_RATE,
    max_grad_norm=MAX_GRAD_NORM,
    critic_hidden=HIDDEN,
    kl_target=None,
    decay_last=0.0,
    average=0.0,
)
WARM_UP = 2
EPISODES = 64


def ours(task: str, num_envs: int, steps: int, seed: int) -> Trainer:
    name = f"brax:{task}"
    config = make_config(
        {
            "task": name, "algo": "ppo", "architecture": HIDDEN, "meta_batch": 1, "seed": seed,
            "steps": steps, "num_envs": num_envs, "ppo": vars(SETTINGS),
            "env": resolve_options(name, {}),
        }
    )  # fmt: skip
    env = make_env(name, config.env, num_envs, seed)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)


def brax(task: str, num_envs: int, steps: int, seed: int, **others: Any) -> dict[str, Any]:
    """Brax's training; returns its last metrics."""
    *_, metrics = train.train(
        environment=envs.get_environment(task),
        num_timesteps=steps,
        num_envs=num_envs,
        episode_length=1000,
        unroll_length=SETTINGS.rollout,
        batch_size=num_envs // SETTINGS.minibatches,
        num_minibatches=SETTINGS.minibatches,
        num_updates_per_batch=SETTINGS.epochs,
        normalize_observations=True,
        learning_rate=LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        entropy_cost=0.0,
        discounting=SETTINGS.gamma,
        gae_lambda=SETTINGS.gae_lambda,
        clipping_epsilon=SETTINGS.clip,
        network_factory=partial(
            make_ppo_networks,
            policy_hidden_layer_sizes=HIDDEN,
            value_hidden_layer_sizes=HIDDEN,
        ),
        seed=seed,
        **others,
    )
    return dict(metrics)


def seconds(task: str, num_envs: int, repeats: int) -> dict[str, float]:
    """Median seconds of an iteration of each."""
    turns = repeats + WARM_UP
    batch = num_envs * SETTINGS.rollout
    trainer = ours(task, num_envs, batch * turns, 0)
    seen: dict[str, list[float]] = {"ours": [], "brax": []}

    def turn(_: int, metrics: dict[str, Any]) -> None:
        seen["brax"].append(batch / float(metrics["training/sps"]))
        start = time.perf_counter()
        trainer.step()
        seen["ours"].append(time.perf_counter() - start)

    evaluations = {"num_evals": turns + 1, "num_eval_envs": 1, "run_evals": False}
    brax(task, num_envs, batch * turns, 0, **evaluations, progress_fn=turn)
    return {name: statistics.median(times[WARM_UP:]) for name, times in seen.items()}


def return_of_ours(task: str, num_envs: int, steps: int, seed: int) -> float:
    trainer = ours(task, num_envs, steps, seed)
    while trainer.iteration < trainer.config.iterations:
        trainer.step()
    with torch.no_grad():
        (weights,), _ = trainer.policy([HIDDEN])
    norm = trainer.observation_norm
    policy = as_module(weights, trainer.policy.slope, norm.mean, norm.std)
    env = make_env(trainer.config.task, trainer.config.env, EPISODES, seed + 10**6)
    observation, _ = env.reset()
    total, alive = torch.zeros(EPISODES), torch.ones(EPISODES, dtype=torch.bool)
    while alive.any():
        with torch.no_grad():
            step = env.step(policy(observation.t()).t())
        total += step.reward * alive
        alive &= ~(step.terminated | step.truncated)
        observation = step.observation
    return float(total.mean())


def return_of_brax(task: str, num_envs: int, steps: int, seed: int) -> float:
    evaluations = {"num_evals": 2, "num_eval_envs": EPISODES, "deterministic_eval": True}
    return float(brax(task, num_envs, steps, seed, **evaluations)["eval/episode_reward"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="ant")
    parser.add_argument("--envs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="train this long and compare returns")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(None)
    task, rows = arguments.task, []
    table = Table(title=f"PPO (64,64) on brax:{task}")
    learn = arguments.steps is not None
    columns = ("return by seed",) if learn else ("s an iteration", "steps/s")
    for column in ("environments", "trainer", *columns):
        table.add_column(column, justify="left" if column == "trainer" else "right")
    for num_envs in arguments.envs:
        if learn:
            trainers: dict[str, Callable[..., float]]
            trainers = {"ours": return_of_ours, "brax": return_of_brax}
            for name, train_and_fly in trainers.items():
                given = (task, num_envs, arguments.steps)
                returns = [train_and_fly(*given, seed) for seed in range(arguments.seeds)]
                rows.append({"environments": num_envs, "trainer": name, "returns": returns})
                table.add_row(str(num_envs), name, ", ".join(f"{r:.0f}" for r in returns))
            continue
        for name, median in seconds(task, num_envs, arguments.repeats).items():
            rate = num_envs * SETTINGS.rollout / median
            row = {"environments": num_envs, "trainer": name}
            rows.append({**row, "seconds": median, "steps_per_s": rate})
            table.add_row(str(num_envs), name, f"{median:.2f}", f"{rate:,.0f}")
    Console().print(table)
    if arguments.json:
        text = json.dumps([{"task": task, **row} for row in rows], indent=1)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
