"""Rigid-body dynamics of a quadrotor: pure functions over (feature, N) tensors.

World frame ENU, body frame FLU (x forward, y left, z up), quaternion w x y z body -> world.
Motors M1..M4 as on a Crazyflie: front right, back right, back left, front left; seen from above
M1 and M3 turn counter-clockwise, M2 and M4 clockwise.

Vectors are computed row by row: a row of N numbers is what a processor's vector unit and cache
like best, and nothing is copied before the result is stacked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GRAVITY = 9.81  # m/s^2
MOTOR_OFFSET = 0.0325  # m, along body x and y (92 mm motor to motor: datasheet)
INERTIA = (1.55e-5, 1.55e-5, 2.6e-5)  # kg m^2; middle of the published 1.4-1.7e-5, 2.2-3.0e-5
ROOM_HALF_WIDTH = 5.0  # m
ROOM_HEIGHT = 10.0  # m


@dataclass
class State:
    """The moving parts of N vehicles."""

    position: Tensor  # (3, N) m, world
    velocity: Tensor  # (3, N) m/s, world
    attitude: Tensor  # (4, N) unit quaternion w x y z, body -> world
    angular_velocity: Tensor  # (3, N) rad/s, body
    motor: Tensor  # (4, N) thrust as a fraction of full thrust


@dataclass
class Plant:
    """The constants of N vehicles, drawn per episode."""

    mass: Tensor  # (N,) kg
    max_thrust: Tensor  # (N,) N, one motor at full thrust
    motor_time_constant: Tensor  # (N,) s
    inertia: Tensor  # (3, N) kg m^2, diagonal
    drag: Tensor  # (N,) 1/s
    torque_to_thrust: Tensor  # (N,) m


def rotation_matrix(attitude: Tensor) -> Tensor:
    """Body -> world rotation, (9, N) row-major, from unit quaternions (4, N)."""
    w, x, y, z = attitude.unbind(0)
    x2, y2, z2 = x + x, y + y, z + z
    wx, wy, wz = w * x2, w * y2, w * z2
    xx, xy, xz = x * x2, x * y2, x * z2
    yy, yz, zz = y * y2, y * z2, z * z2
    rows = (1 - yy - zz, xy - wz, xz + wy, xy + wz, 1 - xx - zz, yz - wx)
    return torch.stack((*rows, xz - wy, yz + wx, 1 - xx - yy))


def to_body(rotation: Tensor, vector: Tensor) -> Tensor:
    """R^T v: world vectors (3, N) in the body frame, with `rotation` (9, N)."""
    r11, r12, r13, r21, r22, r23, r31, r32, r33 = rotation.unbind(0)
    x, y, z = vector.unbind(0)
    return torch.stack(
        (r11 * x + r21 * y + r31 * z, r12 * x + r22 * y + r32 * z, r13 * x + r23 * y + r33 * z)
    )


def norm(vector: Tensor) -> Tensor:
    """Euclidean norm along the first axis (much faster there than `torch.linalg`'s on a CPU)."""
    return (vector * vector).sum(0).sqrt()


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis."""
    ax, ay, az = a.unbind(0)
    bx, by, bz = b.unbind(0)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def rotate(attitude: Tensor, angle: Tensor) -> Tensor:
    """Turn attitudes (4, N) by body rotation vectors (3, N) rad: q * exp(angle / 2), normalised.

    The exponential is a Taylor series (error below 1e-9 up to 0.2 rad, 40 rad/s at 200 Hz).
    """
    ax, ay, az = angle.unbind(0)
    squared = ax * ax + ay * ay + az * az
    c = 1 - squared * (1 / 8 - squared * (1 / 384))
    s = 0.5 - squared * (1 / 48 - squared * (1 / 3840))
    ax, ay, az = ax * s, ay * s, az * s
    w, x, y, z = attitude.unbind(0)
    rw = w * c - x * ax - y * ay - z * az
    rx = x * c + w * ax + y * az - z * ay
    ry = y * c + w * ay + z * ax - x * az
    rz = z * c + w * az + x * ay - y * ax
    return torch.stack((rw, rx, ry, rz)) * torch.rsqrt(rw * rw + rx * rx + ry * ry + rz * rz)


def step(state: State, plant: Plant, command: Tensor, dt: float) -> State:
    """One physics step of `dt` s with motor commands (4, N) as fractions of full thrust.

    Motors follow a first-order lag (solved exactly), angular velocity the Euler equations
    J w' = tau - w x J w by the midpoint rule, velocity semi-implicitly, position and attitude with
    the mean velocity of the step.
    """
    keep = torch.exp(plant.motor_time_constant.reciprocal() * -dt)
    motor = command + (state.motor - command) * keep
    f1, f2, f3, f4 = motor.unbind(0)
    right, left, front, back = f1 + f2, f3 + f4, f1 + f4, f2 + f3
    lever = plant.max_thrust * MOTOR_OFFSET
    tx, ty = (left - right) * lever, (back - front) * lever
    # A rotor that turns counter-clockwise pushes the body clockwise.
    tz = ((f2 + f4) - (f1 + f3)) * (plant.max_thrust * plant.torque_to_thrust)

    jx, jy, jz = plant.inertia.unbind(0)
    zy, xz, yx = jz - jy, jx - jz, jy - jx  # w x J w = (zy wy wz, xz wz wx, yx wx wy)
    ix, iy, iz = dt / jx, dt / jy, dt / jz
    wx, wy, wz = state.angular_velocity.unbind(0)
    mx = wx + 0.5 * ix * (tx - zy * wy * wz)
    my = wy + 0.5 * iy * (ty - xz * wz * wx)
    mz = wz + 0.5 * iz * (tz - yx * wx * wy)
    angular_velocity = torch.stack(
        (
            wx + ix * (tx - zy * my * mz),
            wy + iy * (ty - xz * mz * mx),
            wz + iz * (tz - yx * mx * my),
        )
    )
    w, x, y, z = state.attitude.unbind(0)
    lift = (left + right) * plant.max_thrust / plant.mass  # m/s^2 along body z
    twice = lift + lift
    thrust = torch.stack(
        (
            (x * z + w * y) * twice,
            (y * z - w * x) * twice,
            lift - (x * x + y * y) * twice - GRAVITY,
        )
    )
    velocity = state.velocity + (thrust - plant.drag * state.velocity) * dt
    position = state.position + (state.velocity + velocity) * (0.5 * dt)
    attitude = rotate(state.attitude, (state.angular_velocity + angular_velocity) * (0.5 * dt))
    return State(position, velocity, attitude, angular_velocity, motor)


def keep_in_room(state: State) -> State:
    """Stop vehicles at the floor, the walls and the ceiling: inelastic, velocity into them lost."""
    horizontal = state.position[:2].clamp(-ROOM_HALF_WIDTH, ROOM_HALF_WIDTH)
    position = torch.cat((horizontal, state.position[2:].clamp(0.0, ROOM_HEIGHT)))
    velocity = state.velocity * (position == state.position)
    return State(position, velocity, state.attitude, state.angular_velocity, state.motor)
