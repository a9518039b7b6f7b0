"""`hyperppo fly`: one flight of one policy, recorded and drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hyperppo.checkpoint import Run
from hyperppo.envs.quadrotor import QuadrotorEnv
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
    tilt_deg: NDArray[np.float32]  # (T,) angle between body z and up
    command: NDArray[np.float32]  # (T, 4) fraction of full thrust, M1..M4
    crashed: bool

    @property
    def error_m(self) -> NDArray[np.float32]:
        """Distance to the goal, (T,) m."""
        distance: NDArray[np.float32] = np.linalg.norm(self.position - self.goal, axis=1)
        return distance


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
        _, x, y, _ = env.world.state.attitude[:, 0].tolist()
        tilt = math.degrees(math.acos(max(-1.0, min(1.0, 1 - 2 * (x * x + y * y)))))
        action = policy(observation.t()).t()
        rows.append(
            (
                env.world.state.position[:, 0].numpy(),
                goal[:, 0].numpy(),
                tilt,
                (action[:, 0].numpy() + 1) / 2,
            )
        )
        step = env.step(action)
        observation = step.observation
        if bool(step.terminated):
            crashed = True
            break
    columns = zip(*rows, strict=True)
    position, goals, tilts, commands = (np.array(c, dtype=np.float32) for c in columns)
    return Flight(
        architecture,
        scenario,
        seed,
        env.options.control_hz,
        position,
        goals,
        tilts,
        commands,
        crashed,
    )


def draw(flight: Flight, path: Path) -> None:
    """Draw the path against the goal, the error, the tilt and the motors, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = np.arange(len(flight.position)) / flight.control_hz
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1))
    space = figure.add_subplot(grid[:, 0], projection="3d")
    space.plot(*flight.goal.T, color="tab:orange", lw=2, label="goal")
    space.plot(*flight.position.T, color="tab:blue", lw=1.3, label="flown")
    space.scatter(*flight.position[0], color="tab:blue", s=25, label="start")
    space.set(xlabel="x (m)", ylabel="y (m)", zlabel="z (m)")
    space.set_aspect("equal", adjustable="datalim")
    space.legend(loc="upper left")
    end = "crashed" if flight.crashed else f"last 3 s: {flight.error_m[-300:].mean():.3f} m"
    space.set_title(
        f"{format_architecture(flight.architecture)} network, {flight.scenario} goal ({end})"
    )
    error = figure.add_subplot(grid[0, 1])
    error.plot(t, flight.error_m, color="tab:red", lw=1)
    error.set(ylabel="error (m)", yscale="log")
    tilt = figure.add_subplot(grid[1, 1], sharex=error)
    tilt.plot(t, flight.tilt_deg, color="tab:purple", lw=1)
    tilt.set(ylabel="tilt (deg)")
    motors = figure.add_subplot(grid[2, 1], sharex=error)
    for i in range(4):
        motors.plot(t, flight.command[:, i], lw=0.6, label=f"M{i + 1}")
    motors.set(ylabel="motor command", xlabel="time (s)", ylim=(-0.02, 1.02))
    motors.legend(ncols=4, fontsize=7, loc="upper right")
    for axes in (error, tilt, motors):
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
