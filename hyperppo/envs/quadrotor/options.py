"""Everything about the quadrotor task that can be set, with units and sources."""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

Range = tuple[float, float]
"""Low and high end of a uniform distribution; equal ends fix the value."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PlantRanges:
    """What is randomised about the vehicle, per episode.

    Centres: Crazyflie 2.1 datasheet (27 g, 92 mm motor to motor), Foerster 2015 "System
    Identification of the Crazyflie 2.0 Nano Quadrocopter" (inertia, torque/thrust, thrust), motor
    lag between the published 0.04 and 0.15 s. Thrust/weight covers battery and payload. What is
    neutral by default is drawn by the plants of `plants.py`; docs/plant.md has the whole table.
    """

    mass_kg: Range = (0.027, 0.032)
    thrust_to_weight: Range = (1.6, 2.0)
    motor_time_constant_s: Range = (0.03, 0.15)  # log-uniform
    inertia_scale: Range = (0.8, 1.2)  # per axis, times `INERTIA`
    drag_per_s: Range = (0.1, 0.5)  # linear drag, acceleration = -drag * velocity
    torque_to_thrust_m: Range = (0.0058, 0.0075)
    motor_fall_ratio: Range = (1.0, 1.0)  # lag of falling thrust over that of rising thrust
    motor_spread: float = 0.0  # each motor's thrust is within 1 +- this of the mean
    centre_of_mass_m: float = 0.0  # it is off the middle by at most this along body x and y
    action_delay_steps: tuple[int, int] = (0, 0)  # control steps until a command reaches the motors


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SensorNoise:
    """What sensors do to the observation: white noise by its standard deviation (QuadSwarm's)."""

    position_m: float = 0.005
    velocity_m_s: float = 0.01
    attitude_rad: float = 0.01
    gyro_rad_s: float = 0.02
    scale: Range = (1.0, 1.0)  # of the noise of position and velocity, drawn per episode
    gyro_bias_rad_s: float = 0.0  # standard deviation of a constant offset, drawn per episode
    delay_steps: tuple[int, int] = (0, 0)  # control steps until a measurement is seen, per episode
    dropped: float = 0.0  # share of control steps without a new measurement: the last one stays


# Where a curriculum starts: quick, strong motors, evenly built, nothing late.
EASY = PlantRanges(thrust_to_weight=(1.7, 2.0), motor_time_constant_s=(0.03, 0.08))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RewardWeights:
    """Reward of one control step.

    `alive - distance * min(d, 4) - velocity * |v_rel| - spin * (|w_xy| + |w_z|)
    - smoothness * |a - a_prev|^2 + near * exp(-(d / near_m)^2) + upright * R33
    - tilt * (1 - R33)^2`, with R33 the cosine of the tilt,
    and `-crash` when the episode ends early.

    `tilt` counts only where gradients are taken through the simulator: a crash has none, and what
    stands for it is little where a flight leans and much where it is about to turn over. The one
    PPO that had it from the start never flew.
    """

    alive: float = 2.5
    distance: float = 0.6
    velocity: float = 0.05
    spin: float = 0.03
    smoothness: float = 0.3
    near: float = 0.7
    near_m: float = 0.2
    upright: float = 0.1
    tilt: float = 0.0
    crash: float = 50.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class QuadrotorOptions:
    """The quadrotor task."""

    scenarios: dict[str, float] = field(default_factory=lambda: {"static": 0.5, "bezier": 0.5})
    episode_s: float = 10.0
    physics_hz: int = 200
    control_hz: int = 100
    # The past in the observation; docs/conventions.md has the blocks.
    previous_actions: int = 1  # actions of the last control steps
    action_average_s: tuple[float, ...] = ()  # time constants of averages over the actions
    integral_clip_m_s: float = 0.0  # of the position error's integral; 0: not observed
    integral_leak_per_s: float = 0.0
    position_clip_m: float = 1.0
    velocity_limit_m_s: float = 0.0  # that observed velocity errors stay below; 0: none
    spawn_m: float = 2.0  # distance from the goal an axis
    spawn_hard: float = 0.2  # share of spawns with a large tilt and spin
    max_distance_m: float = 6.5  # beyond: crashed; goals jump by up to 6 m
    max_impact_m_s: float = 1.0  # floor, wall or ceiling hit faster, square to it: crashed
    max_spin_rad_s: float = 20.0  # beyond: crashed
    thrust_noise: float = 0.01  # Ornstein-Uhlenbeck, sigma; theta 0.15; of the commanded thrust
    ramp: Range = (0.0, 0.0)  # shares of training: easy vehicles before, the whole plant after
    plant: PlantRanges = PlantRanges()
    noise: SensorNoise = SensorNoise()
    reward: RewardWeights = RewardWeights()
