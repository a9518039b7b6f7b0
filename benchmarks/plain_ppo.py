"""Plain PPO beside Stable-Baselines3's: equal environments, steps, network, hyper-parameters.

    python benchmarks/plain_ppo.py [--task Pendulum-v1 HalfCheetah-v5] [--seeds 3] [--steps N]
        [--json FILE]

Ours is what `hyperppo train TASK --algo ppo --arch 64,64` trains; Stable-Baselines3 steps Gymnasium
itself. Both policies are then flown in plain Gymnasium, deterministic actions, equal starts.
Needs `pip install -e '.[mujoco,bench]'`.

What still differs: ours normalises advantages over the batch, Stable-Baselines3 over each
minibatch, and it clips the gradients of policy and critic together.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hyperppo.checkpoint import run_space
from hyperppo.config import make_config
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.policy import as_module
from hyperppo.processor import set_threads
from hyperppo.trainer import Trainer

HIDDEN, SLOPE, STD = (64, 64), 0.2, 0.5
EPISODES = 20
Policy = Callable[[np.ndarray], np.ndarray]  # observation (obs_dim,) to an action in the box


@dataclass(frozen=True)
class Settings:
    """What both are given."""

    steps: int
    num_envs: int
    rollout: int
    minibatches: int
    epochs: int
    gamma: float
    learning_rate: float
    gae_lambda: float = 0.95
    clip: float = 0.2
    max_grad_norm: float = 0.5


TASKS = {
    "Pendulum-v1": Settings(200_000, 16, 128, 8, 10, 0.95, 1e-3),
    "HalfCheetah-v5": Settings(1_000_000, 16, 128, 8, 10, 0.99, 3e-4),
}


def ours(task: str, s: Settings, seed: int) -> Policy:
    ppo = {
        "rollout": s.rollout, "minibatches": s.minibatches, "shuffle": True,
        "epochs": s.epochs, "gamma": s.gamma, "gae_lambda": s.gae_lambda, "clip": s.clip,
        "max_grad_norm": s.max_grad_norm,
        "learning_rate": s.learning_rate, "critic_learning_rate": s.learning_rate,
        "critic_hidden": HIDDEN, "kl_target": None, "decay_last": 0.0, "average": 0.0,
    }  # fmt: skip
    config = make_config(
        {
            "task": task, "algo": "ppo", "architecture": HIDDEN, "meta_batch": 1, "seed": seed,
            "steps": s.steps, "num_envs": s.num_envs, "ppo": ppo,
            "policy": {"init_std": STD, "min_std": 0.01, "negative_slope": SLOPE},
            "env": resolve_options(task, {"workers": 1}),
        }
    )  # fmt: skip
    env = make_env(config.task, config.env, config.num_envs, seed)
    trainer = Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)
    while trainer.iteration < config.iterations:
        trainer.step()
    with torch.no_grad():
        (weights,), _ = trainer.policy([HIDDEN])
    norm = trainer.observation_norm
    module = as_module(weights, SLOPE, norm.mean, norm.std)
    box = gymnasium.make(task).action_space

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            action = module(torch.from_numpy(observation.astype(np.float32))[None])[0].numpy()
        return box.low + (action + 1) / 2 * (box.high - box.low)

    return act


def stable_baselines3(task: str, s: Settings, seed: int) -> Policy:
    # Its TensorBoard would import TensorFlow where that is installed.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    def rescaled() -> gymnasium.Env:
        return gymnasium.wrappers.RescaleAction(gymnasium.make(task), -1.0, 1.0)

    envs = VecNormalize(make_vec_env(rescaled, s.num_envs, seed=seed), gamma=s.gamma)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=s.rollout,
        batch_size=s.num_envs * s.rollout // s.minibatches,
        n_epochs=s.epochs,
        gamma=s.gamma,
        gae_lambda=s.gae_lambda,
        clip_range=s.clip,
        max_grad_norm=s.max_grad_norm,
        learning_rate=s.learning_rate,
        policy_kwargs={
            "net_arch": {"pi": list(HIDDEN), "vf": list(HIDDEN)},
            "activation_fn": lambda: torch.nn.LeakyReLU(SLOPE),
            "log_std_init": math.log(STD),
        },
        device="cpu",
        seed=seed,
    )
    model.learn(s.steps)
    box = gymnasium.make(task).action_space

    def act(observation: np.ndarray) -> np.ndarray:
        action, _ = model.predict(envs.normalize_obs(observation), deterministic=True)
        return box.low + (action.clip(-1, 1) + 1) / 2 * (box.high - box.low)

    return act


def mean_return(task: str, policy: Policy) -> float:
    """Over the same `EPISODES` starts for everyone, none of them seen in training."""
    env = gymnasium.make(task)
    returns = []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=10**6 + episode)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of each task's own")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(1)
    console = Console(width=100)
    rows: list[dict[str, Any]] = []
    for task in arguments.task:
        settings = TASKS[task]
        if arguments.steps:
            settings = Settings(**{**vars(settings), "steps": arguments.steps})
        for seed in range(arguments.seeds):
            for name, train in (("ours", ours), ("stable-baselines3", stable_baselines3)):
                cpu = time.process_time()
                policy = train(task, settings, seed)
                cpu = time.process_time() - cpu
                row = {"task": task, "steps": settings.steps, "trainer": name, "seed": seed}
                rows.append({**row, "return": mean_return(task, policy), "processor_s": cpu})
                console.print(rows[-1])
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title=f"mean return over {EPISODES} episodes, deterministic actions")
    for column in ("task", "steps", "trainer", "return by seed", "mean", "processor s"):
        table.add_column(column, justify="left" if column in ("task", "trainer") else "right")
    for task in arguments.task:
        for name in ("ours", "stable-baselines3"):
            own = [row for row in rows if (row["task"], row["trainer"]) == (task, name)]
            returns = [row["return"] for row in own]
            seconds = np.mean([row["processor_s"] for row in own])
            cells = (task, f"{own[0]['steps']:,}", name, ", ".join(f"{r:.0f}" for r in returns))
            table.add_row(*cells, f"{np.mean(returns):.0f}", f"{seconds:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
