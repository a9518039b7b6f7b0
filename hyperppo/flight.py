"""`hyperppo fly`: one flight of one policy or several, recorded and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyperppo.checkpoint import Run
from hyperppo.envs.quadrotor import QuadrotorEnv
from hyperppo.envs.quadrotor.advance import SETTLED_S
from hyperppo.envs.quadrotor.goals import shares
from hyperppo.envs.quadrotor.plants import plant_options
from hyperppo.envs.registry import make_env
from hyperppo.errors import HyperPPOError
from hyperppo.files import replacing
from hyperppo.space import Architecture, format_architecture


@dataclass(frozen=True)
class Flight:
    """What was flown, sampled at the control rate."""

    architecture: Architecture
    scenario: str
    seed: int
    control_hz: int
    position: NDArray[np.float32]  # (T, 3) m, world
    goal: NDArray[np.float32]  # (T, 3) m, world
    attitude: NDArray[np.float32]  # (T, 4) unit quaternion w x y z, body -> world
    command: NDArray[np.float32]  # (T, 4) fraction of full thrust, M1..M4
    crashed: bool

    @property
    def error_m(self) -> NDArray[np.float32]:
        """Distance to the goal, (T,) m."""
        distance: NDArray[np.float32] = np.linalg.norm(self.position - self.goal, axis=1)
        return distance

    @property
    def tilt_deg(self) -> NDArray[np.float32]:
        """Angle between body z and up, (T,) degrees."""
        up = 1 - 2 * (self.attitude[:, 1] ** 2 + self.attitude[:, 2] ** 2)
        tilt: NDArray[np.float32] = np.degrees(np.arccos(np.clip(up, -1, 1)))
        return tilt

    @property
    def outcome(self) -> str:
        """How it went, in a few words."""
        if self.crashed:
            return f"crashed after {len(self.position) / self.control_hz:.1f} s"
        return f"last 3 s: {self.error_m[-3 * self.control_hz :].mean():.3f} m"


@torch.inference_mode()
def fly(
    run: Run, architecture: Architecture, scenario: str, seed: int, plant: str | None = None
) -> Flight:
    """Fly one episode with deterministic actions on a vehicle drawn from the run's ranges.

    `plant` names other ranges (`plants.py`). Raises HyperPPOError.
    """
    policy = run.policy(architecture)
    options = {**run.config.env, "scenarios": shares(scenario)}
    if plant:
        options |= plant_options(plant)
    env = make_env(run.task, options, 1, seed)
    if not isinstance(env, QuadrotorEnv):
        raise HyperPPOError(f"{run.path} was not trained on the quadrotor: nothing to fly")
    observation, _ = env.reset()
    rows = []
    crashed = False
    for _ in range(env.episode_steps - 1):  # the last step would already show the next episode
        goal, _ = env.goal_now()
        action = policy(observation.t()).t()
        rows.append(
            (
                env.world.state.position[:, 0].numpy(),
                goal[:, 0].numpy(),
                env.world.state.attitude[:, 0].numpy(),
                (action[:, 0].numpy() + 1) / 2,
            )
        )
        step = env.step(action)
        observation = step.observation
        if bool(step.terminated):
            crashed = True
            break
    columns = zip(*rows, strict=True)
    position, goals, attitudes, commands = (np.array(c, dtype=np.float32) for c in columns)
    return Flight(
        architecture,
        scenario,
        seed,
        env.options.control_hz,
        position,
        goals,
        attitudes,
        commands,
        crashed,
    )


def report(flight: Flight) -> dict[str, Any]:
    """Plain data for JSON; the error counts from `SETTLED_S` on."""
    settled = flight.error_m[round(SETTLED_S * flight.control_hz) :]
    return {
        "architecture": format_architecture(flight.architecture),
        "scenario": flight.scenario,
        "seed": flight.seed,
        "seconds": round(len(flight.position) / flight.control_hz, 2),
        "crashed": flight.crashed,
        "tracking_error_m": round(float(settled.mean()), 4) if len(settled) else None,
    }


_COLOURS = ("#1f77b4", "#2ca02c", "#9467bd", "#d62728", "#8c564b", "#17becf")
_MOST_FRAMES_A_SECOND = 50


def draw(flights: Sequence[Flight], path: Path) -> None:
    """Draw the paths against the goal, the errors, tilts and motors, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, alone = flights[0], len(flights) == 1
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1))
    space = figure.add_subplot(grid[:, 0], projection="3d")
    longest = max(flights, key=lambda flight: len(flight.goal))
    space.plot(*longest.goal.T, color="tab:orange", lw=2, label="goal")
    space.scatter(*first.position[0], color="k", s=20, label="start")
    error = figure.add_subplot(grid[0, 1])
    tilt = figure.add_subplot(grid[1, 1], sharex=error)
    motors = figure.add_subplot(grid[2, 1], sharex=error)
    for flight, colour in zip(flights, _COLOURS * len(flights), strict=False):
        t = np.arange(len(flight.position)) / flight.control_hz
        name = format_architecture(flight.architecture)
        label = "flown" if alone else f"{name} ({flight.outcome})"
        space.plot(*flight.position.T, color=colour, lw=1.3, label=label)
        error.plot(t, flight.error_m, color=colour, lw=1)
        tilt.plot(t, flight.tilt_deg, color=colour, lw=1)
        if alone:
            for i in range(4):
                motors.plot(t, flight.command[:, i], lw=0.6, label=f"M{i + 1}")
        else:
            motors.plot(t, flight.command.mean(1), color=colour, lw=0.8)
    space.set(xlabel="x (m)", ylabel="y (m)", zlabel="z (m)")
    space.set_aspect("equal", adjustable="datalim")
    space.legend(loc="upper left", fontsize=8)
    name = f"{format_architecture(first.architecture)} network, " if alone else ""
    end = f" ({first.outcome})" if alone else ""
    space.set_title(f"{name}{first.scenario} goal{end}")
    error.set(ylabel="error (m)", yscale="log")
    tilt.set(ylabel="tilt (deg)")
    of = "motor command" if alone else "mean of motors"
    motors.set(ylabel=of, xlabel="time (s)", ylim=(-0.02, 1.02))
    if alone:
        motors.legend(ncols=4, fontsize=7, loc="upper right")
    for axes in (error, tilt, motors):
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def animate(flights: Sequence[Flight], path: Path) -> None:
    """Write the flights as one HTML file, without network: play, turn and zoom in a browser."""
    every = max(1, round(flights[0].control_hz / _MOST_FRAMES_A_SECOND))

    def plain(values: NDArray[np.float32], digits: int) -> list[list[float]]:
        rounded: list[list[float]] = np.round(values[::every].astype(np.float64), digits).tolist()
        return rounded

    longest = max(flights, key=lambda flight: len(flight.goal))
    data = {
        "scenario": longest.scenario,
        "seed": longest.seed,
        "hz": longest.control_hz / every,
        "goal": plain(longest.goal, 3),
        "flights": [
            {
                "name": format_architecture(flight.architecture),
                "colour": colour,
                "outcome": flight.outcome,
                "crashed": flight.crashed,
                "position": plain(flight.position, 3),
                "attitude": plain(flight.attitude, 4),
                "command": plain(flight.command, 3),
            }
            for flight, colour in zip(flights, _COLOURS * len(flights), strict=False)
        ],
    }
    page = (resources.files("hyperppo") / "templates" / "flight.html").read_text("utf-8")
    filled = page.replace("/*DATA*/null", json.dumps(data, separators=(",", ":")))
    with replacing(path) as temporary:
        temporary.write_text(filled, encoding="utf-8")
