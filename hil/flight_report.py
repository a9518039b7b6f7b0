"""flight.json and flight.png: a flight on a device's answers beside the torch policy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hil.closed_loop import DevicePilot, Flight, mean_interval, share_interval
from hil.contract import Floats, Hello
from hil.errors import HilError
from hil.files import write_text
from hil.package import DevicePackage
from hil.report import summary, timing

if TYPE_CHECKING:
    from hyperppo.episodes import Episodes

Report = dict[str, Any]


def flight_report(
    package: DevicePackage,
    uri: str,
    scenario: str,
    seed: int,
    hello: Hello,
    pilot: DevicePilot,
    flown: Flight,
    by_torch: Flight,
    host_answers: Floats,
    torch_answers: Floats,
) -> Report:
    """What was flown, as plain data.

    The answers are those of the host-compiled policy.c and of the torch policy to the observations
    (T, obs_dim) that the device met: the first must be the device's own, the second differ by the
    precision's error.
    """
    both = min(len(flown.position), len(by_torch.position))
    apart = np.linalg.norm(flown.position[:both] - by_torch.position[:both], axis=1)
    answer_error = float(np.abs(flown.action - host_answers).max())
    precision_error = float(np.abs(flown.action - torch_answers).max())
    cycles = np.asarray(pilot.cycles, dtype=np.float64)
    us = cycles / (hello.clock_hz / 1e6)
    misses = int(np.count_nonzero(us > hello.deadline_us))
    verdict = {
        "flew": not flown.crashed or by_torch.crashed,
        "answers": answer_error <= package.tolerance,
        "deadline": misses == 0,
    }
    return {
        "format": "hyperppo-flight",
        "format_version": 1,
        "passed": all(verdict.values()),
        "verdict": verdict,
        "uri": uri,
        "package": package.package_hash.hex(),
        "architecture": package.manifest["architecture"]["name"],
        "precision": package.manifest["precision"],
        "scenario": scenario,
        "seed": seed,
        "seconds": len(flown.position) / flown.control_hz,
        "device": _outcome(flown),
        "torch": _outcome(by_torch),
        "largest_answer_error": answer_error,
        "tolerance": package.tolerance,
        "largest_precision_error": precision_error,
        "path_difference_m": {"max": float(apart.max()), "mean": float(apart.mean())},
        "timing": timing(package, hello),
        "clock_hz": hello.clock_hz,
        "inference": {
            "cycles": summary(cycles),
            "us": summary(us),
            "timer_us": summary(np.asarray(pilot.timer_us, dtype=np.float64)),
            "deadline_us": hello.deadline_us,
            "misses": misses,
        },
        "step_over_link_ms": summary(np.asarray(pilot.link_ms)),
        "samples": {"cycles": pilot.cycles, "error_m": [round(float(e), 6) for e in flown.error_m]},
    }


def episodes_report(
    package: DevicePackage, scenario: str, seed: int, deployed: Episodes, by_torch: Episodes
) -> Report:
    """The deployed code's worth over many episodes beside the torch policy's."""
    return {
        "format": "hyperppo-episodes",
        "format_version": 1,
        "package": package.package_hash.hex(),
        "architecture": package.manifest["architecture"]["name"],
        "precision": package.manifest["precision"],
        "scenario": scenario,
        "seed": seed,
        "episodes": len(deployed.returns),
        "confidence": 0.95,
        "deployed": _worth(deployed),
        "torch": _worth(by_torch),
        "return_difference": mean_interval(deployed.returns - by_torch.returns),
    }


def write_flight(report: Report, flown: Flight, by_torch: Flight, folder: Path) -> list[Path]:
    """Writes flight.json and flight.png, each whole or not at all. Raises HilError."""
    data, picture = folder / "flight.json", folder / "flight.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(data, json.dumps(report, indent=1, allow_nan=False) + "\n")
        draw(report, flown, by_torch, picture)
    except OSError as error:
        raise HilError(f"cannot write the flight into {folder}: {error.strerror}") from None
    return [picture, data]


def draw(report: Report, flown: Flight, by_torch: Flight, path: Path) -> None:
    """The path against the goal, the error, how far the two flights are apart, and the latency."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from hyperppo.files import replacing

    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1), wspace=0.12)
    space = figure.add_subplot(grid[:, 0], projection="3d")
    space.plot(*flown.goal.T, color="tab:orange", lw=2, label="goal")
    space.plot(*flown.position.T, color="tab:blue", lw=1.4, label="on the device's answers")
    space.plot(*by_torch.position.T, "--", color="black", lw=0.8, label="torch policy, same seed")
    space.scatter(*flown.position[0], color="tab:blue", s=25)
    space.set(xlabel="x (m)", ylabel="y (m)", zlabel="z (m)")
    space.set_aspect("equal", adjustable="datalim")
    space.legend(loc="upper left")
    error = report["device"]["tracking_error_m"]
    ending = "crashed" if flown.crashed else "" if error is None else f"error {100 * error:.1f} cm"
    space.set_title(f"{report['architecture']}, {report['scenario']} goal: {ending}")

    def panel(row: int, values: Floats, color: str, label: str, scale: str = "linear") -> None:
        axes = figure.add_subplot(grid[row, 1])
        axes.plot(np.arange(len(values)) / flown.control_hz, values, color=color, lw=1)
        axes.set(ylabel=label, yscale=scale)
        axes.grid(alpha=0.3)
        if row == 2:
            axes.set_xlabel("time (s)")

    panel(0, flown.error_m, "tab:red", "error (m)", "log")
    both = min(len(flown.position), len(by_torch.position))
    apart = np.linalg.norm(flown.position[:both] - by_torch.position[:both], axis=1)
    panel(1, np.maximum(apart, 1e-9), "tab:purple", "device - torch (m)", "log")
    us = np.asarray(report["samples"]["cycles"]) / (report["clock_hz"] / 1e6)
    model = " (model)" if report["timing"]["source"] == "model" else ""
    panel(2, us, "tab:green", f"µs a step{model}")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _outcome(flight: Flight) -> Report:
    return {
        "crashed": flight.crashed,
        "tracking_error_m": flight.tracking_error_m,
        "largest_error_m": float(flight.error_m.max()),
        "last_error_m": float(flight.error_m[-1]),
    }


def _worth(episodes: Episodes) -> Report:
    count, crashes = len(episodes.returns), int(episodes.crashed.sum())
    error = episodes.metrics["tracking_error_m"]
    settled = error[~np.isnan(error)]
    return {
        "return": mean_interval(episodes.returns),
        "crash_rate": {"crashes": crashes, **share_interval(crashes, count)},
        "tracking_error_m": mean_interval(settled),
    }
