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
    fields.setdefault("previous_action", np.zeros(4))
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


BLOCKS = ["position_error_body", "velocity_error_body", "rotation", "angular_velocity"]
SIZES = {"position_error_body": 3, "velocity_error_body": 3, "rotation": 9, "angular_velocity": 3}


@pytest.mark.parametrize("steps", [1, 3])
def test_against_the_simulators_builder(tmp_path: Path, steps: int) -> None:
    """Every block, the previous actions and the clip; in the simulator's order and in another."""
    torch = pytest.importorskip("torch")
    from hyperppo.envs.quadrotor import dynamics, observation

    count, clip = 200, 0.7
    rng = np.random.default_rng(steps)
    quaternion = rng.normal(size=(count, 4)).astype(np.float32)
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    numbers = rng.normal(size=(count, 5, 3)).astype(np.float32)
    numbers[::2] *= 0.1  # half of them within the clip
    position, velocity, degrees, goal, goal_velocity = numbers.transpose(1, 0, 2)
    actions = rng.uniform(-1, 1, size=(count, steps + 2, 4)).astype(np.float32)  # oldest first
    newest_first = actions[:, : -steps - 1 : -1].reshape(count, -1)

    def column(values: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values.T))

    blocks = observation.build(
        column(position - goal),
        column(velocity - goal_velocity),
        dynamics.rotation_matrix(column(np.roll(quaternion, 1, axis=1))),
        column(np.radians(degrees)),
        clip,
        column(newest_first),
    )
    whole = torch.cat(blocks).numpy().T

    names = [*BLOCKS, "previous_action"]
    starts = np.cumsum([0, *(SIZES.get(name, 4 * steps) for name in names)])
    for order in (names, names[::-1]):
        (tmp_path / "policy.h").write_text(
            f"#define POLICY_OBS_DIM {18 + 4 * steps}\n#define POLICY_ACT_DIM 4\n"
        )
        lines = convention_lines(
            {"observation": order, "previous_actions": steps, "position_clip_m": clip}
        )
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
        wanted = np.concatenate([whole[:, piece] for piece in pieces], axis=1)
        for i in range(count):
            flight = np.concatenate(
                [position[i], velocity[i], quaternion[i], degrees[i], goal[i], goal_velocity[i]]
            )
            record = np.concatenate([flight, np.full(4 * steps, np.nan)]).astype(np.float32)
            pointer = record.ctypes.data_as(ctypes.c_void_p)
            library.hppo_forget(pointer)
            assert not record[19:].any()
            for action in actions[i]:
                library.hppo_remember(pointer, action.ctypes.data_as(ctypes.c_void_p))
            found = np.full(18 + 4 * steps, np.nan, np.float32)
            assert library.hppo_observe(pointer, found.ctypes.data_as(ctypes.c_void_p))
            np.testing.assert_allclose(found, wanted[i], atol=2e-6)
