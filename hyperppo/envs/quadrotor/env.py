"""The vectorised quadrotor task."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from hyperppo.envs.base import Step
from hyperppo.envs.quadrotor import dynamics, goals, observation
from hyperppo.envs.quadrotor.dynamics import Plant, State
from hyperppo.envs.quadrotor.goals import Goal
from hyperppo.envs.quadrotor.options import PlantRanges, QuadrotorOptions, Range
from hyperppo.errors import HyperPPOError

ACT_DIM = 4
SETTLED_S = 3.0  # the tracking error counts from here on: before it, the vehicle is on its way
_Batch = TypeVar("_Batch", State, Plant, Goal)


def _uniform(low_high: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    low, high = low_high
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def sample_plant(ranges: PlantRanges, num: int, generator: torch.Generator) -> Plant:
    """Draw `num` vehicles."""
    mass = _uniform(ranges.mass_kg, (num,), generator)
    thrust_to_weight = _uniform(ranges.thrust_to_weight, (num,), generator)
    low, high = ranges.motor_time_constant_s
    log_lag = _uniform((math.log(low), math.log(high)), (num,), generator)
    nominal = torch.tensor(dynamics.INERTIA, device=generator.device)[:, None]
    return Plant(
        mass=mass,
        max_thrust=thrust_to_weight * mass * (dynamics.GRAVITY / 4),
        motor_time_constant=log_lag.exp(),
        inertia=nominal * _uniform(ranges.inertia_scale, (3, num), generator),
        drag=_uniform(ranges.drag_per_s, (num,), generator),
        torque_to_thrust=_uniform(ranges.torque_to_thrust_m, (num,), generator),
    )


def _write(batch: _Batch, index: Tensor, values: _Batch) -> None:
    """Overwrite the columns `index` (int64) of every field, in place."""
    for f in fields(batch):
        getattr(batch, f.name)[..., index] = getattr(values, f.name)


class QuadrotorEnv:
    """N quadrotors that fly to goals; see `QuadrotorOptions` for what is randomised and rewarded.

    Episodes end early (`terminated`, a crash) beyond the allowed distance, tilt (90 degrees) or
    spin, and otherwise at the time limit (`truncated`).
    """

    act_dim = ACT_DIM

    def __init__(
        self,
        num_envs: int,
        options: QuadrotorOptions,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        unknown = set(options.scenarios) - set(goals.SCENARIOS)
        if unknown or sum(options.scenarios.values()) <= 0:
            raise HyperPPOError(
                f"unknown scenario {', '.join(sorted(unknown)) or '(none given)'}: "
                f"choose from {', '.join(goals.SCENARIOS)}"
            )
        if options.physics_hz % options.control_hz:
            raise HyperPPOError("physics_hz must be a multiple of control_hz")
        self.num_envs = num_envs
        self.options = options
        self.device = torch.device(device)
        self.obs_dim = observation.observation_dim(options.previous_actions)
        self.critic_dim = 18 + 3 + 4 + ACT_DIM + 7
        self.episode_steps = round(options.episode_s * options.control_hz)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._dt = 1 / options.control_hz

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start every episode anew."""
        everything = self._spawn(self.num_envs)
        self.state, self.plant, self.goal = everything
        self.time = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.action = torch.zeros((ACT_DIM, self.num_envs), device=self.device)
        self.disturbance = torch.zeros_like(self.action)
        k = max(1, self.options.previous_actions)
        self.history = torch.zeros((ACT_DIM * k, self.num_envs), device=self.device)
        rotation, position_error, velocity_error = self._errors()
        return (
            self._observe(rotation, position_error, velocity_error),
            self._critic_input(rotation, position_error, velocity_error),
        )

    def desynchronise(self) -> None:
        """Spread the episodes' phases, so that they do not all end in the same rollout."""
        shape = (self.num_envs,)
        self.time = torch.randint(
            self.episode_steps, shape, generator=self.generator, device=self.device
        )

    def _spawn(self, num: int) -> tuple[State, Plant, Goal]:
        g, options = self.generator, self.options
        plant = sample_plant(options.plant, num, g)
        goal = goals.start(options.scenarios, num, g)
        goal_position, _ = goals.evaluate(goal, torch.zeros(num, device=self.device))
        position = goal_position + _uniform((-options.spawn_m, options.spawn_m), (3, num), g)
        hard = torch.rand(num, generator=g, device=self.device) < options.spawn_hard
        heading = _uniform((-math.pi, math.pi), (num,), g)
        level = torch.stack(
            (
                torch.cos(heading / 2),
                torch.zeros_like(heading),
                torch.zeros_like(heading),
                torch.sin(heading / 2),
            )
        )
        towards = _uniform((-math.pi, math.pi), (num,), g)
        tilt = _uniform((0.0, 1.0), (num,), g) * torch.where(hard, 1.2, 0.2)
        sin_half = torch.sin(tilt / 2)
        tilted = torch.stack(
            (
                torch.cos(tilt / 2),
                sin_half * torch.cos(towards),
                sin_half * torch.sin(towards),
                torch.zeros_like(tilt),
            )
        )
        speed = torch.where(hard, 1.0, 0.3)
        hover = plant.mass * (dynamics.GRAVITY / 4) / plant.max_thrust
        state = State(
            position=position,
            velocity=speed * _uniform((-1.0, 1.0), (3, num), g),
            attitude=_quaternion_product(level, tilted),
            angular_velocity=torch.where(hard, 4.0, 0.5) * _uniform((-1.0, 1.0), (3, num), g),
            motor=hover.expand(4, num) * _uniform((0.0, 1.0), (num,), g),
        )
        return state, plant, goal

    def goal_now(self) -> tuple[Tensor, Tensor]:
        """Goal position (3, N) m and velocity (3, N) m/s, world frame, at this moment."""
        segment_steps = round(goals.SEGMENT_S / self._dt)
        segment_time = (self.time % segment_steps).to(torch.float32) * self._dt
        return goals.evaluate(self.goal, segment_time)

    def _errors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation (9, N), position error (3, N) m and velocity error (3, N) m/s, world frame."""
        goal_position, goal_velocity = self.goal_now()
        return (
            dynamics.rotation_matrix(self.state.attitude),
            self.state.position - goal_position,
            self.state.velocity - goal_velocity,
        )

    def _observe(self, rotation: Tensor, position_error: Tensor, velocity_error: Tensor) -> Tensor:
        """The noisy observation: attitude noise is a small random rotation of the body frame."""
        noise = self.options.noise
        shape = (12, self.num_envs)
        n = torch.randn(shape, generator=self.generator, device=self.device)
        tilt = n[6:9] * noise.attitude_rad
        R = rotation.view(3, 3, -1)
        # R exp(tilt) to first order: each row of R plus row x tilt.
        noisy = torch.stack([R[i] + dynamics.cross(R[i], tilt) for i in range(3)])
        return observation.build(
            position_error + n[0:3] * noise.position_m,
            velocity_error + n[3:6] * noise.velocity_m_s,
            noisy.view(9, -1),
            self.state.angular_velocity + n[9:12] * noise.gyro_rad_s,
            self.options.position_clip_m,
            self.history if self.options.previous_actions else None,
        )

    def _critic_input(
        self, rotation: Tensor, position_error: Tensor, velocity_error: Tensor
    ) -> Tensor:
        """What the critic may know: the true state, the motors and the plant."""
        plant = self.plant
        return torch.cat(
            (
                dynamics.to_body(rotation, position_error),
                dynamics.to_body(rotation, velocity_error),
                rotation,
                self.state.angular_velocity,
                velocity_error - self.state.velocity,
                self.state.motor,
                self.action,
                torch.stack(
                    (
                        plant.max_thrust / plant.mass,
                        plant.motor_time_constant.log(),
                        plant.drag,
                        plant.torque_to_thrust * 100,
                    )
                ),
                plant.inertia * 1e5,
            )
        )

    def step(self, action: Tensor) -> Step:
        """One control step; environments that ended are reset."""
        options, reward_weights = self.options, self.options.reward
        action = action.clamp(-1.0, 1.0)
        command = (action + 1) * 0.5
        if options.thrust_noise > 0:
            normal = torch.randn(command.shape, generator=self.generator, device=self.device)
            self.disturbance = 0.85 * self.disturbance + options.thrust_noise * normal
            command = (command + self.disturbance).clamp(0.0, 1.0)
        state = self.state
        for _ in range(options.physics_hz // options.control_hz):
            state = dynamics.step(state, self.plant, command, 1 / options.physics_hz)
        self.state = dynamics.keep_in_room(state)
        self.time = self.time + 1
        self._advance_goals()

        rotation, position_error, velocity_error = self._errors()
        distance = dynamics.norm(position_error)
        spin = self.state.angular_velocity
        spin_xy = dynamics.norm(spin[:2])
        crashed = (
            (distance > options.max_distance_m)
            | (rotation[8] < 0)
            | (dynamics.norm(spin) > options.max_spin_rad_s)
        )
        truncated = (self.time >= self.episode_steps) & ~crashed
        w = reward_weights
        reward = (
            w.alive
            - w.distance * distance.clamp(max=4.0)
            - w.velocity * dynamics.norm(velocity_error)
            - w.spin * (spin_xy + spin[2].abs())
            - w.smoothness * (action - self.action).square().sum(0)
            + w.near * torch.exp(-(distance / w.near_m).square())
            + w.upright * rotation[8]
            - w.crash * crashed
        )
        settled = self.time > round(SETTLED_S / self._dt)
        self.action = action
        self.history = torch.cat((action, self.history[:-ACT_DIM]))
        final_critic_input = self._critic_input(rotation, position_error, velocity_error)
        critic_input = final_critic_input
        ended = torch.nonzero(crashed | truncated).squeeze(1)
        if len(ended):
            self._restart(ended)
            rotation, position_error, velocity_error = self._errors()
            critic_input = self._critic_input(rotation, position_error, velocity_error)
        return Step(
            observation=self._observe(rotation, position_error, velocity_error),
            critic_input=critic_input,
            reward=reward,
            terminated=crashed,
            truncated=truncated,
            final_critic_input=final_critic_input,
            metrics={"tracking_error_m": torch.where(settled, distance, math.nan)},
        )

    def _advance_goals(self) -> None:
        segment_steps = round(goals.SEGMENT_S / self._dt)
        new = torch.nonzero(self.time % segment_steps == 0).squeeze(1)
        if len(new):
            old = Goal(self.goal.scenario[new], self.goal.coefficients[:, new])
            _write(self.goal, new, goals.next_segment(old, self.generator))

    def _restart(self, index: Tensor) -> None:
        state, plant, goal = self._spawn(len(index))
        _write(self.state, index, state)
        _write(self.plant, index, plant)
        _write(self.goal, index, goal)
        for tensor in (self.time, self.action, self.disturbance, self.history):
            tensor[..., index] = 0

    def conventions(self) -> dict[str, Any]:
        """See docs/conventions.md."""
        return {
            "observation": observation.block_names(self.options.previous_actions),
            "previous_actions": self.options.previous_actions,
            "position_clip_m": self.options.position_clip_m,
            "control_hz": self.options.control_hz,
            "body_frame": "FLU: x forward, y left, z up",
            "world_frame": "ENU: x east, y north, z up",
            "action": "[-1, 1]^4; (a + 1) / 2 = fraction of full motor thrust (0.12 N a motor), "
            "M1..M4 = front right, back right, back left, front left",
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All state, the random generator's included."""
        tensors = {"generator": self.generator.get_state()}
        for name in ("time", "action", "disturbance", "history"):
            tensors[name] = getattr(self, name)
        for group in ("state", "plant", "goal"):
            for f in fields(getattr(self, group)):
                tensors[f"{group}.{f.name}"] = getattr(getattr(self, group), f.name)
        return tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.generator.set_state(state["generator"].cpu())
        for name in ("time", "action", "disturbance", "history"):
            setattr(self, name, state[name].to(self.device).clone())
        for group, kind in (("state", State), ("plant", Plant), ("goal", Goal)):
            values = {
                f.name: state[f"{group}.{f.name}"].to(self.device).clone() for f in fields(kind)
            }
            setattr(self, group, kind(**values))


def _quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of (4, N) quaternions."""
    aw, ax, ay, az = a.unbind(0)
    bw, bx, by, bz = b.unbind(0)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        )
    )


def describe(options: QuadrotorOptions) -> dict[str, Any]:
    """The options as plain data for config.json."""
    return asdict(options)
