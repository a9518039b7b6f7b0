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
    motor_time_constant: Tensor  # (N,) s, of rising thrust
    inertia: Tensor  # (3, N) kg m^2, diagonal
    drag: Tensor  # (N,) 1/s
    torque_to_thrust: Tensor  # (N,) m
    motor_fall_ratio: Tensor | None = None  # (N,) lag of falling thrust over rising; None: 1
    motor_gain: Tensor | None = None  # (4, N) each motor's thrust over the mean motor's; None: 1
    centre_of_mass: Tensor | None = None  # (2, N) m, along body x and y; None: in the middle


def rotation_matrix(attitude: Tensor) -> Tensor:
    """Body -> world rotation, (9, N) row-major, from unit quaternions (4, N)."""
    w, x, y, z = attitude.unbind(0)
    twice = attitude[1:] + attitude[1:]
    wx, wy, wz = (twice * w).unbind(0)
    xx, xy, xz = (twice * x).unbind(0)
    yy, yz = (twice[1:] * y).unbind(0)
    zz = twice[2] * z
    rest = 1 - zz
    rows = (rest - yy, xy - wz, xz + wy, xy + wz, rest - xx, yz - wx)
    return torch.stack((*rows, xz - wy, yz + wx, 1 - (xx + yy)))


def to_body(rotation: Tensor, vector: Tensor) -> Tensor:
    """R^T v: world vectors (3, N) in the body frame, with `rotation` (9, N)."""
    first, second, third = rotation.view(3, 3, -1).unbind(0)
    x, y, z = vector.unbind(0)
    return torch.addcmul(torch.addcmul(first * x, second, y), third, z)


def norm(vector: Tensor) -> Tensor:
    """Euclidean norm (N,) of vectors (3, N) (much faster than `torch.linalg`'s on a CPU)."""
    x, y, z = vector.unbind(0)
    return root(torch.addcmul(torch.addcmul(x * x, y, y), z, z))


def root(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0: a vehicle at rest is no reason for infinities."""
    return (squared.clamp(min=1e-12) if squared.requires_grad else squared).sqrt()


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis."""
    ax, ay, az = a.unbind(0)
    bx, by, bz = b.unbind(0)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def rotate(attitude: Tensor, angle: Tensor) -> Tensor:
    """Turn attitudes (4, N) by body rotation vectors (3, N) rad: q * exp(angle / 2), normalised.

    Only the direction of the exponential matters: (1, angle tan(|angle| / 2) / |angle|), its
    tangent as a series (error below 1e-8 rad up to 0.2 rad, 40 rad/s at 200 Hz).
    """
    ax, ay, az = angle.unbind(0)
    squared = torch.addcmul(torch.addcmul(ax * ax, ay, ay), az, az)
    tangent = torch.add(torch.add(squared, 10.0) * squared, 120.0)  # 240 tan(a / 2) / a
    ax, ay, az = (angle * (tangent * (1 / 240))).unbind(0)
    w, x, y, z = attitude.unbind(0)
    rw = _minus(_minus(_minus(w, x, ax), y, ay), z, az)
    rx = _minus(torch.addcmul(torch.addcmul(x, w, ax), y, az), z, ay)
    ry = _minus(torch.addcmul(torch.addcmul(y, w, ay), z, ax), x, az)
    rz = _minus(torch.addcmul(torch.addcmul(z, w, az), x, ay), y, ax)
    squared = torch.addcmul(torch.addcmul(torch.addcmul(rw * rw, rx, rx), ry, ry), rz, rz)
    return torch.stack((rw, rx, ry, rz)) * torch.rsqrt(squared)


def _minus(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The difference a - b c, in one pass over memory."""
    return torch.addcmul(a, b, c, value=-1)


def step(
    state: State,
    plant: Plant,
    command: Tensor,
    dt: float,
    count: int = 1,
    wind: Tensor | None = None,
    unsteady: Tensor | None = None,
) -> State:
    """`count` physics steps of `dt` s with motor commands (4, N) as fractions of full thrust.

    `wind` (3, N) m/s, world frame: drag is relative to it. `unsteady` (4, N): what each rotor's
    thrust has too much, as a fraction of full thrust; within 0 and full thrust.

    Motors follow a first-order lag (solved exactly), angular velocity the Euler equations
    J w' = tau - w x J w by the midpoint rule, velocity semi-implicitly, position and attitude with
    the mean velocity of the step.
    """
    keep = torch.exp(plant.motor_time_constant.reciprocal() * -dt)
    inverse = dt / plant.inertia
    lever = plant.max_thrust * MOTOR_OFFSET
    leverage = inverse * torch.stack((lever, lever, plant.max_thrust * plant.torque_to_thrust))
    jx, jy, jz = plant.inertia.unbind(0)
    # w x J w = (zy wy wz, xz wz wx, yx wx wy)
    gyro = inverse * torch.stack((jz - jy, jx - jz, jy - jx))
    lift = plant.max_thrust / plant.mass * (2 * dt)  # m/s, twice what one motor adds in a step
    fade = 1 - plant.drag * dt
    kept_falling = None
    if plant.motor_fall_ratio is not None:
        falling = plant.motor_time_constant * plant.motor_fall_ratio
        kept_falling = torch.exp(falling.reciprocal() * -dt)
    blown = None if wind is None else wind * (plant.drag * dt)
    position, velocity, attitude = state.position, state.velocity, state.attitude
    spin, motor = state.angular_velocity, state.motor
    for _ in range(count):
        if kept_falling is None:
            motor = torch.lerp(command, motor, keep)
        else:
            ahead = motor - command
            above, below = ahead.clamp(min=0.0), ahead.clamp(max=0.0)
            motor = torch.addcmul(torch.addcmul(command, above, kept_falling), below, keep)
        thrusts = motor if unsteady is None else (motor + unsteady).clamp(0.0, 1.0)
        if plant.motor_gain is not None:
            thrusts = thrusts * plant.motor_gain
        f1, f2, f3, f4 = thrusts.unbind(0)
        right, left, front, back = f1 + f2, f3 + f4, f1 + f4, f2 + f3
        # A rotor that turns counter-clockwise pushes the body clockwise.
        yaw = (f2 + f4) - (f1 + f3)
        roll, pitch = left - right, back - front
        if plant.centre_of_mass is not None:  # r x F of the whole lift, about the centre of mass
            x, y = (plant.centre_of_mass * (1 / MOTOR_OFFSET)).unbind(0)
            roll = _minus(roll, y, left + right)
            pitch = torch.addcmul(pitch, x, left + right)
        turn = torch.stack((roll, pitch, yaw)) * leverage
        half = torch.add(spin, _spun(spin, gyro, turn), alpha=0.5)
        turned = spin + _spun(half, gyro, turn)
        w, x, y, z = attitude.unbind(0)
        twice = (left + right) * lift
        kick = torch.stack(
            (
                torch.addcmul(x * z, w, y) * twice,
                _minus(y * z, w, x) * twice,
                _minus(twice * 0.5 - GRAVITY * dt, torch.addcmul(x * x, y, y), twice),
            )
        )
        pushed = torch.addcmul(kick if blown is None else kick + blown, velocity, fade)
        position = torch.add(position, velocity + pushed, alpha=0.5 * dt)
        attitude = rotate(attitude, (spin + turned) * (0.5 * dt))
        velocity, spin = pushed, turned
    return State(position, velocity, attitude, spin, motor)


def _spun(spin: Tensor, gyro: Tensor, turn: Tensor) -> Tensor:
    """What a step adds to the angular velocity: `turn` less the gyroscopic part, all (3, N)."""
    wx, wy, wz = spin.unbind(0)
    return _minus(turn, gyro, torch.stack((wy * wz, wz * wx, wx * wy)))


def keep_in_room(state: State) -> State:
    """Stop vehicles at the floor, the walls and the ceiling: inelastic, velocity into them lost."""
    x, y, z = state.position.unbind(0)
    position = torch.stack(
        (
            x.clamp(-ROOM_HALF_WIDTH, ROOM_HALF_WIDTH),
            y.clamp(-ROOM_HALF_WIDTH, ROOM_HALF_WIDTH),
            z.clamp(0.0, ROOM_HEIGHT),
        )
    )
    # Nearly always on a CPU, where the comparison below is slow; a GPU is not asked, nor can a
    # compiled step be.
    asks = position.is_cpu and not torch.compiler.is_compiling()
    if asks and torch.equal(position, state.position):
        return state
    velocity = state.velocity.masked_fill(position != state.position, 0.0)
    return State(position, velocity, state.attitude, state.angular_velocity, state.motor)
