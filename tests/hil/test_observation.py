"""The C observation builder against an independent numpy version, over random attitudes."""

from __future__ import annotations

import ctypes
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile.package import convention_lines
from targets.toolchain import HOST_FLAGS, compile_host_library

SOURCES = Path(str(resources.files("hil") / "crazyflie_app" / "src"))


class Flight(ctypes.Structure):
    _fields_ = [
        ("position", ctypes.c_float * 3),
        ("velocity", ctypes.c_float * 3),
        ("quaternion", ctypes.c_float * 4),
        ("gyro", ctypes.c_float * 3),
        ("goal_position", ctypes.c_float * 3),
        ("goal_velocity", ctypes.c_float * 3),
        ("previous_action", ctypes.c_float * 4),
        ("action_average", ctypes.c_float * 4),
        ("integral", ctypes.c_float * 3),
    ]


@pytest.fixture(scope="module")
def observe(host_package: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compile_host_library(
        [SOURCES / "hppo_observation.c"],
        tmp_path_factory.mktemp("observation") / "observation.so",
        include=[host_package / "crazyflie_app" / "src"],
        flags=(*HOST_FLAGS, "-fno-math-errno"),
    )
    loaded = ctypes.CDLL(str(library))
    loaded.hppo_observe.restype = ctypes.c_bool
    loaded.hppo_body_to_world.restype = ctypes.c_bool
    return loaded


def build(library: ctypes.CDLL, **fields: np.ndarray) -> tuple[bool, np.ndarray]:
    past = {"previous_action": np.zeros(4), "action_average": np.zeros(4), "integral": np.zeros(3)}
    fields = past | fields
    flight = Flight(*(tuple(map(float, fields[field[0]])) for field in Flight._fields_))
    observation = (ctypes.c_float * 18)()
    good = bool(library.hppo_observe(ctypes.byref(flight), observation))
    return good, np.array(observation[:])


def euler_rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Body to world, from the firmware's angles: degrees, and pitch positive with the nose up."""
    r, p, y = np.radians([roll, -pitch, yaw])  # right-handed about y (left) is nose down
    about_x = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    about_y = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    about_z = np.array([[np.cos(y), -np.sin(y), 0], [np.sin(y), np.cos(y), 0], [0, 0, 1]])
    rotation: np.ndarray = about_z @ about_y @ about_x
    return rotation


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of quaternions w x y z."""
    w = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate([[w], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])


def euler_quaternion(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """The same attitude as the firmware's quaternion, x y z w."""
    whole = np.array([1.0, 0, 0, 0])
    for axis, angle in ((2, yaw), (1, -pitch), (0, roll)):
        turn = np.zeros(4)
        turn[0], turn[1 + axis] = np.cos(np.radians(angle) / 2), np.sin(np.radians(angle) / 2)
        whole = multiply(whole, turn)
    return np.roll(whole, -1)


angles = st.floats(-180, 180)
vectors = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3).map(np.array)


@given(angles, st.floats(-90, 90), angles, st.floats(0.9, 1.1), *[vectors] * 5)
def test_against_numpy_over_the_attitude_sphere(
    observe: ctypes.CDLL,
    roll: float,
    pitch: float,
    yaw: float,
    length: float,
    position: np.ndarray,
    velocity: np.ndarray,
    goal_position: np.ndarray,
    goal_velocity: np.ndarray,
    gyro: np.ndarray,
) -> None:
    rotation = euler_rotation(roll, pitch, yaw)
    error = rotation.T @ (position - goal_position)
    error = error / max(1.0, float(np.linalg.norm(error)))
    velocity_error = rotation.T @ (velocity - goal_velocity)
    expected = np.concatenate([error, velocity_error, rotation.ravel(), np.radians(gyro)])
    good, observation = build(
        observe,
        position=position,
        velocity=velocity,
        quaternion=length * euler_quaternion(roll, pitch, yaw),
        gyro=gyro,
        goal_position=goal_position,
        goal_velocity=goal_velocity,
    )
    assert good
    np.testing.assert_allclose(observation, expected, atol=3e-5, rtol=2e-6)


@given(angles, st.floats(-90, 90), angles, vectors)
def test_body_velocity_setpoints_are_turned_into_the_world(
    observe: ctypes.CDLL, roll: float, pitch: float, yaw: float, body: np.ndarray
) -> None:
    quaternion = (ctypes.c_float * 4)(*euler_quaternion(roll, pitch, yaw))
    world = (ctypes.c_float * 3)()
    assert observe.hppo_body_to_world(quaternion, (ctypes.c_float * 3)(*body), world)
    np.testing.assert_allclose(world[:], euler_rotation(roll, pitch, yaw) @ body, atol=3e-5)


def test_nose_up_points_the_body_axis_up() -> None:
    assert euler_rotation(0, 30, 0)[2, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (0, 0, 0, 2)])
def test_an_attitude_that_is_none_is_refused(
    observe: ctypes.CDLL, quaternion: tuple[float, ...]
) -> None:
    zeros = np.zeros(3)
    good, _ = build(
        observe,
        position=zeros,
        velocity=zeros,
        quaternion=np.array(quaternion),
        gyro=zeros,
        goal_position=zeros,
        goal_velocity=zeros,
    )
    assert not good


PASTS = [  # what a run may observe of its past
    {"previous_actions": 1},
    {"previous_actions": 3},
    {"previous_actions": 1, "action_average_s": (0.1,), "integral_clip_m_s": 0.2},
    {
        "previous_actions": 0,
        "action_average_s": (0.05, 0.3),
        "integral_clip_m_s": 0.03,
        "integral_leak_per_s": 2.0,
        "velocity_limit_m_s": 0.8,
    },
]


@pytest.mark.parametrize("past", PASTS)
def test_against_the_simulators_builder(tmp_path: Path, past: dict[str, Any]) -> None:
    """Every block over a flight of some steps; in the simulator's order and in another."""
    torch = pytest.importorskip("torch")
    from hyperppo.envs.quadrotor import QuadrotorEnv, dynamics, memory, observation
    from hyperppo.envs.quadrotor.options import QuadrotorOptions

    options = QuadrotorOptions(position_clip_m=0.7, control_hz=50, **past)
    steps, count = 40, 30
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(steps, count, 5, 3)).astype(np.float32)
    numbers[:, ::2] *= 0.1  # half of them within the clip
    quaternion = rng.normal(size=(steps, count, 4)).astype(np.float32)
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    actions = rng.uniform(-1, 1, size=(steps, count, 4)).astype(np.float32)

    def column(values: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values.T))

    remembered = memory.blank(options, count, torch.device("cpu"))
    wholes = []
    for t in range(steps):
        position, velocity, degrees, goal, goal_velocity = numbers[t].transpose(1, 0, 2)
        error = observation.clip(column(position - goal), options.position_clip_m)
        seen = observation.measured(
            error,
            observation.compress(column(velocity - goal_velocity), options.velocity_limit_m_s),
            dynamics.rotation_matrix(column(np.roll(quaternion[t], 1, axis=1))),
            column(np.radians(degrees)),
            remembered,
        )
        wholes.append(torch.cat([*seen, *observation.known(remembered)]).numpy().T)
        memory.integrate(remembered, error, options)
        memory.remember(remembered, column(actions[t]), options)

    blocks = observation.blocks(options)
    names, conventions = list(blocks), QuadrotorEnv(1, options, 0).conventions()
    starts = np.cumsum([0, *blocks.values()])
    dim = starts[-1]
    for order in (names, names[::-1]):
        (tmp_path / "policy.h").write_text(
            f"#define POLICY_OBS_DIM {dim}\n#define POLICY_ACT_DIM 4\n"
        )
        lines = convention_lines({**conventions, "observation": order})
        (tmp_path / "package_hash.h").write_text("\n".join(lines) + "\n")
        library = ctypes.CDLL(
            str(
                compile_host_library(
                    [SOURCES / "hppo_observation.c"],
                    tmp_path / f"{order[0]}.so",
                    include=[tmp_path],
                )
            )
        )
        library.hppo_observe.restype = ctypes.c_bool
        pieces = [slice(starts[names.index(n)], starts[names.index(n) + 1]) for n in order]
        for i in range(count):
            record = np.full(19 + 64, np.nan, np.float32)  # 64: more than any past
            pointer = record.ctypes.data_as(ctypes.c_void_p)
            library.hppo_forget(pointer)
            for t in range(steps):
                now = [*numbers[t, i, :2], quaternion[t, i], *numbers[t, i, 2:]]
                record[:19] = np.concatenate(now)
                found = np.full(dim, np.nan, np.float32)
                assert library.hppo_observe(pointer, found.ctypes.data_as(ctypes.c_void_p))
                wanted = np.concatenate([wholes[t][i, piece] for piece in pieces])
                np.testing.assert_allclose(found, wanted, atol=3e-6)
                library.hppo_remember(pointer, actions[t, i].ctypes.data_as(ctypes.c_void_p))
