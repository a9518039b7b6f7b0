"""The simulator against an independent float64 integrator, and against physics."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyperppo.envs.quadrotor import dynamics
from hyperppo.envs.quadrotor.dynamics import Plant, State

DT = 1 / 200
Array = NDArray[np.float64]


def make(n: int, seed: int = 0) -> tuple[State, Plant]:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g)

    attitude = rand(4, n) * 2 - 1
    state = State(
        position=rand(3, n) * 2 + 2,
        velocity=rand(3, n) * 2 - 1,
        attitude=attitude / attitude.norm(dim=0),
        angular_velocity=rand(3, n) * 8 - 4,
        motor=rand(4, n),
    )
    plant = Plant(
        mass=0.027 + 0.005 * rand(n),
        max_thrust=0.11 + 0.02 * rand(n),
        motor_time_constant=0.03 + 0.12 * rand(n),
        inertia=torch.tensor(dynamics.INERTIA)[:, None] * (0.8 + 0.4 * rand(3, n)),
        drag=0.1 + 0.4 * rand(n),
        torque_to_thrust=0.0058 + 0.0017 * rand(n),
        motor_fall_ratio=1 + 3 * rand(n),
        motor_gain=0.9 + 0.2 * rand(4, n),
        centre_of_mass=0.006 * rand(2, n) - 0.003,
    )
    return state, plant


def double(data: State | Plant) -> dict[str, Tensor]:
    return {f: v.double() for f in data.__dataclass_fields__ if (v := getattr(data, f)) is not None}


def plain() -> Plant:
    """One vehicle, its motors alike, its centre of mass in the middle."""
    drawn = make(1)[1]
    return replace(drawn, motor_fall_ratio=None, motor_gain=None, centre_of_mass=None)


def still(n: int = 1) -> State:
    zeros = torch.zeros(3, n)
    attitude = torch.tensor([1.0, 0, 0, 0])[:, None].expand(4, n)
    return State(zeros, zeros, attitude, zeros, torch.zeros(4, n))


def reference_step(
    p: Array,
    v: Array,
    R: Array,
    w: Array,
    f: Array,
    plant: dict[str, Array],
    u: Array,
    extra: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """One vehicle, float64, rotation matrices and Rodrigues' formula instead of quaternions."""
    lag = np.where(u > f, 1.0, plant["motor_fall_ratio"]) * plant["motor_time_constant"]
    f = u + (f - u) * np.exp(-DT / lag)
    force = np.clip(f + extra, 0, 1) * plant["motor_gain"] * plant["max_thrust"]
    arms = np.array([[1, -1, 0], [-1, -1, 0], [-1, 1, 0], [1, 1, 0]]) * dynamics.MOTOR_OFFSET
    arms = arms - np.array([*plant["centre_of_mass"], 0.0])
    spins = np.array([-1, 1, -1, 1])
    torque = sum(np.cross(r, [0, 0, F]) for r, F in zip(arms, force, strict=True))
    torque = torque + np.array([0, 0, (spins * force).sum() * plant["torque_to_thrust"]])
    J = np.diag(plant["inertia"])
    J_inv = np.linalg.inv(J)

    def spin_rate(w: Array) -> Array:
        return J_inv @ (torque - np.cross(w, J @ w))

    w_new = w + DT * spin_rate(w + 0.5 * DT * spin_rate(w))
    a = R @ np.array([0, 0, force.sum()]) / plant["mass"] - plant["drag"] * v
    v_new = v + DT * (a - np.array([0, 0, dynamics.GRAVITY]))
    turn = 0.5 * DT * (w + w_new)
    angle = np.linalg.norm(turn)
    k = turn / angle
    K = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    R_new = R @ (np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K)
    return p + DT * 0.5 * (v + v_new), v_new, R_new, w_new, f


def test_agrees_with_an_independent_float64_integrator_over_100_steps() -> None:
    n = 6
    state, plant = make(n)
    g = torch.Generator().manual_seed(5)
    commands = torch.rand(100, 4, n, generator=g)
    unsteady = 0.1 * torch.randn(100, 4, n, generator=g).double()
    doubled, plant64 = State(**double(state)), Plant(**double(plant))
    references = []
    for i in range(n):
        constants = {f: getattr(plant64, f)[..., i].numpy() for f in Plant.__dataclass_fields__}
        R = dynamics.rotation_matrix(doubled.attitude)[:, i].view(3, 3).numpy()
        s = (
            doubled.position[:, i].numpy(),
            doubled.velocity[:, i].numpy(),
            R,
            doubled.angular_velocity[:, i].numpy(),
            doubled.motor[:, i].numpy(),
        )
        for u, extra in zip(commands.double(), unsteady, strict=True):
            s = reference_step(*s, constants, u[:, i].numpy(), extra[:, i].numpy())
        references.append(s)
    for u, extra in zip(commands, unsteady, strict=True):
        doubled = dynamics.step(doubled, plant64, u.double(), DT, unsteady=extra)
    for i, (p, v, R, w, f) in enumerate(references):
        np.testing.assert_allclose(doubled.position[:, i], p, atol=1e-5)
        np.testing.assert_allclose(doubled.velocity[:, i], v, atol=1e-5)
        np.testing.assert_allclose(doubled.angular_velocity[:, i], w, atol=1e-5)
        np.testing.assert_allclose(doubled.motor[:, i], f, atol=1e-9)
        ours = dynamics.rotation_matrix(doubled.attitude)[:, i].view(3, 3)
        np.testing.assert_allclose(ours, R, atol=1e-5)


def test_neutral_particulars_change_nothing() -> None:
    state, plant = make(5)
    without = replace(plant, motor_fall_ratio=None, motor_gain=None, centre_of_mass=None)
    ones = torch.ones(5)
    neutral = replace(
        plant,
        motor_fall_ratio=ones,
        motor_gain=ones.expand(4, 5),
        centre_of_mass=torch.zeros(2, 5),
    )
    command = torch.rand(4, 5, generator=torch.Generator().manual_seed(3))
    a, b = (dynamics.step(state, p, command, DT, 20) for p in (without, neutral))
    for f in State.__dataclass_fields__:
        torch.testing.assert_close(getattr(a, f), getattr(b, f), atol=1e-5, rtol=1e-5)


def test_several_steps_at_once_are_one_after_the_other() -> None:
    state, plant = make(5)
    command = torch.rand(4, 5, generator=torch.Generator().manual_seed(3))
    wind = torch.tensor([[2.0], [-1.0], [0.0]]).expand(3, 5)
    together = dynamics.step(state, plant, command, DT, 3, wind)
    for _ in range(3):
        state = dynamics.step(state, plant, command, DT, wind=wind)
    for f in State.__dataclass_fields__:
        torch.testing.assert_close(getattr(together, f), getattr(state, f), atol=1e-6, rtol=1e-6)


def test_free_fall_is_a_parabola() -> None:
    state, plant = still(), replace(plain(), drag=torch.zeros(1))
    for _ in range(200):
        state = dynamics.step(state, plant, torch.zeros(4, 1), DT)
    assert state.position[2].item() == pytest.approx(-dynamics.GRAVITY / 2, rel=1e-3)
    assert state.velocity[2].item() == pytest.approx(-dynamics.GRAVITY, rel=1e-4)


def test_without_forces_energy_and_angular_momentum_are_conserved() -> None:
    state, plant = make(16)
    state, plant = State(**double(state)), Plant(**double(plant))
    state.motor = torch.zeros_like(state.motor)

    def momentum(s: State) -> Tensor:
        R = dynamics.rotation_matrix(s.attitude).view(3, 3, -1)
        return (R * (plant.inertia * s.angular_velocity)[None]).sum(1)

    def energy(s: State) -> Tensor:
        return (plant.inertia * s.angular_velocity.square()).sum(0)

    before = momentum(state), energy(state)
    for _ in range(400):  # 2 s at up to 7 rad/s
        state = dynamics.step(state, plant, torch.zeros(4, 16, dtype=torch.float64), DT)
    torch.testing.assert_close(energy(state), before[1], rtol=2e-4, atol=0)
    scale = before[0].norm(dim=0).max().item()
    torch.testing.assert_close(momentum(state), before[0], rtol=0, atol=5e-3 * scale)
    torch.testing.assert_close(state.attitude.norm(dim=0), torch.ones(16, dtype=torch.float64))


@pytest.mark.parametrize(
    ("motors", "axis", "sign"),
    [
        ((2, 3), 0, 1),  # left side up: rolls right, positive about x
        ((1, 2), 1, 1),  # back up: nose down, positive about y
        ((1, 3), 2, 1),  # clockwise rotors faster: body turns counter-clockwise
        ((0, 1), 0, -1),
        ((0, 3), 1, -1),
        ((0, 2), 2, -1),
    ],
)
def test_motors_turn_the_body_the_way_a_crazyflie_does(
    motors: tuple[int, int], axis: int, sign: int
) -> None:
    command = torch.full((4, 1), 0.4)
    command[list(motors)] = 0.5
    state = dynamics.step(still(), plain(), command, DT)
    spin = state.angular_velocity[:, 0]
    assert spin[axis].item() * sign > 0
    assert spin.abs().argmax().item() == axis


def test_the_room_stops_vehicles_at_its_surfaces() -> None:
    state = still(3)
    state.position = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, -0.2, 12.0]])
    state.velocity = torch.ones(3, 3)
    kept = dynamics.keep_in_room(state)
    assert kept.position.t().tolist() == [[5.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 10.0]]
    assert kept.velocity.t().tolist() == [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]


def test_gradients_flow_through_a_flight() -> None:
    state, plant = make(4)
    command = torch.full((4, 4), 0.5, requires_grad=True)
    for _ in range(20):
        state = dynamics.step(state, plant, command, DT)
    (gradient,) = torch.autograd.grad(state.position[2].sum(), command)
    assert gradient.isfinite().all()
    assert (gradient.abs() > 0).all()
