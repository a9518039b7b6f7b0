"""Seconds of an iteration of plain PPO on Brax's environments: ours and Brax's own, turn by turn.

    python benchmarks/brax_ppo.py [--task ant] [--envs 64 256 1024] [--repeats 5] [--json FILE]

Equal environments, rollout, minibatches, epochs and networks, on all cores of the CPU. Brax says
how long each of its iterations took, and between two of them ours has its turn; the first two of
each, which compile, do not count. Brax 0.14.2's PPO does not run with JAX 0.10 or newer:

    pip install -c constraints.txt -e '.[brax]' && pip install 'jax<0.10' 'flax<0.12.8'
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from brax import envs
from brax.training.agents.ppo import train
from brax.training.agents.ppo.networks import make_ppo_networks
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import run_space
from hyperppo.config import PPOConfig, make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

HIDDEN = (64, 64)
SETTINGS = PPOConfig()
WARM_UP = 2


def ours(task: str, num_envs: int) -> Trainer:
    plain = {"algo": "ppo", "architecture": HIDDEN, "meta_batch": 1, "ppo": {"shuffle": True}}
    given = {
        "task": f"brax:{task}",
        "num_envs": num_envs,
        "env": resolve_options(f"brax:{task}", {}),
    }
    config = make_config({**plain, **given})
    env = make_env(config.task, config.env, num_envs, 0)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)


def measure(task: str, num_envs: int, repeats: int) -> dict[str, float]:
    """Median seconds of an iteration of each."""
    batch = num_envs * SETTINGS.rollout
    trainer = ours(task, num_envs)
    seen: dict[str, list[float]] = {"ours": [], "brax": []}

    def turn(_: int, metrics: dict[str, Any]) -> None:
        seen["brax"].append(batch / float(metrics["training/sps"]))
        start = time.perf_counter()
        trainer.step()
        seen["ours"].append(time.perf_counter() - start)

    turns = repeats + WARM_UP
    train.train(
        environment=envs.get_environment(task),
        num_timesteps=batch * turns,
        num_evals=turns + 1,
        run_evals=False,
        progress_fn=turn,
        num_envs=num_envs,
        num_eval_envs=1,
        episode_length=trainer.env.episode_steps,
        unroll_length=SETTINGS.rollout,
        batch_size=num_envs // SETTINGS.minibatches,
        num_minibatches=SETTINGS.minibatches,
        num_updates_per_batch=SETTINGS.epochs,
        normalize_observations=True,
        network_factory=partial(
            make_ppo_networks,
            policy_hidden_layer_sizes=HIDDEN,
            value_hidden_layer_sizes=SETTINGS.critic_hidden,
        ),
    )
    return {name: statistics.median(times[WARM_UP:]) for name, times in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="ant")
    parser.add_argument("--envs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(None)
    rows = []
    table = Table(title=f"PPO (64,64) on brax:{arguments.task}")
    for column in ("environments", "trainer", "s an iteration", "steps/s"):
        table.add_column(column, justify="left" if column == "trainer" else "right")
    for num_envs in arguments.envs:
        for name, seconds in measure(arguments.task, num_envs, arguments.repeats).items():
            rate = num_envs * SETTINGS.rollout / seconds
            row = {"task": arguments.task, "environments": num_envs, "trainer": name}
            rows.append({**row, "seconds": seconds, "steps_per_s": rate})
            table.add_row(str(num_envs), name, f"{seconds:.2f}", f"{rate:,.0f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
