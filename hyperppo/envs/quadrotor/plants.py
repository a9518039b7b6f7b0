"""Named vehicles and the sensors that come with them: what `--plant` chooses from."""

from __future__ import annotations

from typing import Any

from hyperppo.errors import HyperPPOError

_LATE = {"delay_steps": (1, 1)}  # one control step, with the default (QuadSwarm's) noise


def _within_tenth(
    mass_kg: float,
    full_thrust_n: float,
    lag_s: float,
    torque_to_thrust_m: float,
    drag_per_s: float,
    inertia_scale: tuple[float, float],
    fall_ratio: float = 1.0,
) -> dict[str, Any]:
    """One identified vehicle, +-10 % on everything; `full_thrust_n` is one motor's."""

    def around(value: float) -> tuple[float, float]:
        return (round(0.9 * value, 6), round(1.1 * value, 6))

    low, high = inertia_scale
    plant = {
        "mass_kg": around(mass_kg),
        "thrust_to_weight": around(4 * full_thrust_n / (mass_kg * 9.81)),
        "motor_time_constant_s": around(lag_s),
        "motor_fall_ratio": around(fall_ratio),
        "torque_to_thrust_m": around(torque_to_thrust_m),
        "drag_per_s": around(drag_per_s),
        "inertia_scale": (round(0.9 * low, 4), round(1.1 * high, 4)),
    }
    return {"plant": plant, "noise": _LATE}


# Sources. QuadSwarm: gym_art/quadrotor_multi/quad_models.py (thrust/weight 1.9; its inertia comes
# from box shapes, here the middle of the published). learning-to-fly (Eschmann et al. 2024):
# RLtools, l2f/parameters/dynamics/crazyflie.h (thrust curve at full speed 0.1101 N, J 0.94e-5,
# 0.96e-5, 1.75e-5). L250, P250, T350 (three motor-propeller sets of a Crazyflie 2.x): drone-models
# 0.1.0, data/params.toml (thrust_max, 1 / thrust_dyn_coef, thrust2torque, -drag_matrix / mass, J
# 1.68e-5, 1.68e-5, 2.98e-5). Inertia is a range over the axes, times `dynamics.INERTIA`.
PUBLISHED: dict[str, dict[str, Any]] = {
    "quadswarm": _within_tenth(0.028, 0.1305, 0.15, 0.006, 0.0, (1.0, 1.0)),
    "learning-to-fly": _within_tenth(0.0313, 0.1101, 0.0555, 0.004665, 0.0, (0.608, 0.672), 4.5),
    "L250": _within_tenth(0.0319, 0.12, 0.1451, 0.00735, 0.461, (1.084, 1.146)),
    "P250": _within_tenth(0.0318, 0.12, 0.1259, 0.00699, 0.425, (1.084, 1.146)),
    "T350": _within_tenth(0.0379, 0.18, 0.0899, 0.00536, 0.411, (1.084, 1.146)),
}

# All that a Crazyflie might be: battery sag and payload, slow and uneven motors, late commands and
# measurements.
WIDE: dict[str, Any] = {
    "plant": {
        "mass_kg": (0.027, 0.035),
        "thrust_to_weight": (1.4, 2.1),
        "motor_time_constant_s": (0.03, 0.2),
        "motor_fall_ratio": (0.7, 1.5),
        "inertia_scale": (0.75, 1.25),
        "drag_per_s": (0.0, 0.5),
        "torque_to_thrust_m": (0.0045, 0.0078),
        "motor_spread": 0.05,
        "centre_of_mass_m": 0.003,
        "action_delay_steps": (0, 2),
    },
    "noise": {
        "scale": (1.0, 4.0),
        "attitude_rad": 0.0175,
        "gyro_bias_rad_s": 0.02,
        "delay_steps": (0, 1),
        "dropped": 0.02,
    },
}

# What to train on to fly those: where `WIDE` is hardest, motors slow and weak and commands late, is
# not the edge of this one (docs/results/training.md).
WIDER: dict[str, Any] = {
    "plant": {
        **WIDE["plant"],
        "thrust_to_weight": (1.35, 2.15),
        "motor_time_constant_s": (0.035, 0.25),
        "action_delay_steps": (0, 3),
    },
    "noise": WIDE["noise"],
}


def _exactly(noise: dict[str, Any], **plant: float) -> dict[str, Any]:
    """One vehicle, nothing drawn."""
    even = {"motor_spread": 0.0, "centre_of_mass_m": 0.0}
    ranges = {name: (value, value) for name, value in plant.items()}
    return {"plant": {**ranges, **even}, "noise": noise}


# A Crazyflie 2.1 as identified (the mean of L250 and P250), and the two ends of the wide plant.
SINGLE: dict[str, dict[str, Any]] = {
    "nominal": _exactly(
        _LATE,
        mass_kg=0.0319,
        thrust_to_weight=1.54,
        motor_time_constant_s=0.136,
        inertia_scale=1.115,
        drag_per_s=0.44,
        torque_to_thrust_m=0.0072,
    ),
    "weak-and-slow": _exactly(
        WIDE["noise"] | {"delay_steps": (1, 1)},
        mass_kg=0.035,
        thrust_to_weight=1.4,
        motor_time_constant_s=0.2,
        motor_fall_ratio=1.5,
        inertia_scale=0.75,
        drag_per_s=0.0,
        torque_to_thrust_m=0.0045,
        action_delay_steps=2,
    ),
    "strong-and-quick": _exactly(
        WIDE["noise"] | {"delay_steps": (0, 0)},
        mass_kg=0.027,
        thrust_to_weight=2.1,
        motor_time_constant_s=0.03,
        motor_fall_ratio=0.7,
        inertia_scale=0.75,
        drag_per_s=0.0,
        torque_to_thrust_m=0.0078,
        action_delay_steps=0,
    ),
}

PLANTS = {**PUBLISHED, "wide": WIDE, "wider": WIDER, **SINGLE}


def plant_options(name: str) -> dict[str, Any]:
    """The task's options `plant` and `noise` for a named plant. Raises HyperPPOError."""
    if name not in PLANTS:
        raise HyperPPOError(f"unknown plant '{name}': choose from {', '.join(PLANTS)}")
    return PLANTS[name]
