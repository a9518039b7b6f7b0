"""A Crazyflie 2.1 quadrotor in torch: pure functions over (feature, environment) tensors."""

from hyperppo.envs.quadrotor.env import QuadrotorEnv
from hyperppo.envs.quadrotor.options import QuadrotorOptions

__all__ = ["QuadrotorEnv", "QuadrotorOptions"]
