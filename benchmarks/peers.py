"""Plain PPO of other libraries on our simulator: each a function that returns "do one iteration".

Same environments, rollout, minibatches, epochs and hidden layers as `PPOConfig`'s; observations and
rewards (where the library does it) are normalised as ours are. Stable-Baselines3 gives policy and
critic the same observation; rsl_rl and we give the critic the privileged one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hyperppo.config import PPOConfig
from hyperppo.envs.base import VectorEnv
from hyperppo.envs.registry import make_env

HIDDEN = [64, 64]
SETTINGS = PPOConfig()


def rsl_rl(num_envs: int) -> Callable[[], object]:
    from rsl_rl.env import VecEnv
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    class Wrapped(VecEnv):
        def __init__(self, env: VectorEnv) -> None:
            self.env, self.num_envs, self.num_actions = env, env.num_envs, env.act_dim
            self.max_episode_length, self.device, self.cfg = env.episode_steps, env.device, {}
            self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
            self.seen = self._pack(*env.reset())
            env.desynchronise()

        def _pack(self, observation: torch.Tensor, critic: torch.Tensor) -> TensorDict:
            parts = {"policy": observation.t().contiguous(), "critic": critic.t().contiguous()}
            return TensorDict(parts, batch_size=[num_envs])

        def get_observations(self) -> TensorDict:
            return self.seen

        def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, Any]:
            step = self.env.step(actions.t())
            self.seen = self._pack(step.observation, step.critic_input)
            done = (step.terminated | step.truncated).long()
            return self.seen, step.reward, done, {"time_outs": step.truncated}

    model = {"class_name": "MLPModel", "hidden_dims": HIDDEN, "obs_normalization": True}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5, "std_type": "log"}
    config = {
        "num_steps_per_env": SETTINGS.rollout,
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
        "actor": {**model, "activation": "lrelu", "distribution_cfg": gaussian},
        "critic": {**model, "activation": "tanh"},
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": SETTINGS.epochs,
            "num_mini_batches": SETTINGS.minibatches,
            "gamma": SETTINGS.gamma,
            "lam": SETTINGS.gae_lambda,
            "clip_param": SETTINGS.clip,
            "entropy_coef": 0.0,
            "desired_kl": SETTINGS.kl_target,
            "use_clipped_value_loss": False,
        },
    }
    with contextlib.redirect_stdout(io.StringIO()):
        runner = OnPolicyRunner(Wrapped(make_env("quadrotor", {}, num_envs, 0)), config)

    def iteration() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            runner.learn(1)

    return iteration


def stable_baselines3(num_envs: int) -> Callable[[], object]:
    from gymnasium.spaces import Box
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

    class Wrapped(VecEnv):
        def __init__(self, env: VectorEnv) -> None:
            self.env = env
            observed = Box(-np.inf, np.inf, (env.obs_dim,), np.float32)
            super().__init__(env.num_envs, observed, Box(-1, 1, (env.act_dim,), np.float32))

        def reset(self) -> Any:
            self.seen = self.env.reset()[0].t().contiguous().numpy()
            self.env.desynchronise()  # type: ignore[attr-defined]
            return self.seen

        def step_async(self, actions: Any) -> None:
            self.actions = torch.from_numpy(actions).t()

        def step_wait(self) -> Any:
            before, step = self.seen, self.env.step(self.actions)
            self.seen = step.observation.t().contiguous().numpy()
            done = (step.terminated | step.truncated).numpy()
            infos: list[dict[str, Any]] = [{}] * num_envs
            for i in np.flatnonzero(done):
                cut = bool(step.truncated[i])
                infos[i] = {"terminal_observation": before[i], "TimeLimit.truncated": cut}
            return self.seen, step.reward.numpy(), done, infos

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            pass

        def env_method(self, name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
            return [None] * num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * num_envs

    batch = num_envs * SETTINGS.rollout
    model = PPO(
        "MlpPolicy",
        VecNormalize(Wrapped(make_env("quadrotor", {}, num_envs, 0)), gamma=SETTINGS.gamma),
        n_steps=SETTINGS.rollout,
        batch_size=batch // SETTINGS.minibatches,
        n_epochs=SETTINGS.epochs,
        gamma=SETTINGS.gamma,
        gae_lambda=SETTINGS.gae_lambda,
        clip_range=SETTINGS.clip,
        max_grad_norm=SETTINGS.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": HIDDEN, "vf": HIDDEN},
            "activation_fn": torch.nn.LeakyReLU,
        },
        device="cpu",
        seed=0,
    )
    return lambda: model.learn(batch, reset_num_timesteps=False)
