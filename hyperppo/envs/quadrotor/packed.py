"""Worlds packed into two tensors.

A compiled step is quick, and then what counts is how many tensors go in and out, and how many
operations it takes to start some of N flights anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyperppo.envs.quadrotor.delays import Delay
from hyperppo.envs.quadrotor.dynamics import Plant, State
from hyperppo.envs.quadrotor.goals import Goal
from hyperppo.envs.quadrotor.memory import Memory
from hyperppo.envs.quadrotor.world import Sensors, World, tensors

_FIXED = ("plant.", "goal.", "sensors.scale", "sensors.gyro_bias")  # and every delay's `share`

Rows = tuple[tuple[str, int, bool], ...]
"""What lies in the rows of a packed tensor: name, how many rows, whether it is a vector (N,)."""


@dataclass(frozen=True)
class Layout:
    """Where the parts of a World lie."""

    moving: Rows  # what a step changes
    fixed: Rows  # what is drawn for an episode or a segment


def layout_of(world: World) -> Layout:
    """The layout for worlds like this one."""
    moving: list[tuple[str, int, bool]] = []
    fixed: list[tuple[str, int, bool]] = []
    for name, tensor in tensors(world):
        if tensor.numel():
            rows = fixed if name.startswith(_FIXED) or name.endswith(".share") else moving
            rows.append((name, 1 if tensor.ndim == 1 else len(tensor), tensor.ndim == 1))
    return Layout(tuple(moving), tuple(fixed))


def pack(world: World, rows: Rows) -> Tensor:
    """The parts of `world` that are listed, (rows, N) float32."""
    parts = dict(tensors(world))
    return torch.cat([parts[name].float().view(count, -1) for name, count, _ in rows])


def columns(layout: Layout, moving: Tensor, fixed: Tensor) -> World:
    """The World of packed tensors, (rows, N) each: views of them."""
    parts: dict[str, Tensor] = {}
    for rows, packed in ((layout.moving, moving), (layout.fixed, fixed)):
        start = 0
        for name, count, is_vector in rows:
            parts[name] = packed[start] if is_vector else packed[start : start + count]
            start += count
    nothing = moving[:0]  # a memory of no past action has no rows

    def delay(name: str) -> Delay | None:
        share = parts.get(f"{name}.share")
        return None if share is None else Delay(share, parts[f"{name}.waiting"])

    return World(
        state=State(
            parts["state.position"],
            parts["state.velocity"],
            parts["state.attitude"],
            parts["state.angular_velocity"],
            parts["state.motor"],
        ),
        plant=Plant(
            parts["plant.mass"],
            parts["plant.max_thrust"],
            parts["plant.motor_time_constant"],
            parts["plant.inertia"],
            parts["plant.drag"],
            parts["plant.torque_to_thrust"],
            parts.get("plant.motor_fall_ratio"),
            parts.get("plant.motor_gain"),
            parts.get("plant.centre_of_mass"),
        ),
        goal=Goal(
            parts["goal.scenario"],
            parts["goal.duration"],
            parts["goal.coefficients"],
            parts.get("goal.wave"),
            parts.get("goal.gust"),
        ),
        time=parts["time"],
        segment_time=parts["segment_time"],
        action=parts["action"],
        disturbance=parts["disturbance"],
        memory=Memory(
            parts.get("memory.history", nothing),
            parts.get("memory.average"),
            parts.get("memory.integral"),
        ),
        sensors=Sensors(
            parts.get("sensors.scale"),
            parts.get("sensors.gyro_bias"),
            delay("sensors.delay"),
            parts.get("sensors.held"),
        ),
        command_delay=delay("command_delay"),
    )
