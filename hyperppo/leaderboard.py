"""What every architecture of a run is worth: `leaderboard.csv`, one row an architecture."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyperppo.errors import HyperPPOError
from hyperppo.files import replacing
from hyperppo.space import SearchSpace, format_architecture

_FIXED = ("index", "architecture", "params", "macs", "return_mean", "return_stderr", "episodes")


@dataclass(frozen=True)
class Leaderboard:
    """Row i is the architecture of index i."""

    params: NDArray[np.int64]  # (n,)
    macs: NDArray[np.int64]  # (n,)
    return_mean: NDArray[np.float64]  # (n,) sum of rewards an episode
    return_stderr: NDArray[np.float64]  # (n,)
    episodes: NDArray[np.int64]  # (n,)
    metrics: dict[str, NDArray[np.float64]]  # each (n,): tracking_error_m, crash_rate, ...


def write_leaderboard(path: Path, board: Leaderboard, space: SearchSpace) -> None:
    """Write atomically."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIXED, *board.metrics])
        for i, architecture in enumerate(space.architectures):
            measured = [board.return_mean[i], board.return_stderr[i]]
            metrics = [f"{values[i]:.5g}" for values in board.metrics.values()]
            writer.writerow(
                [i, format_architecture(architecture), board.params[i], board.macs[i]]
                + [f"{value:.6g}" for value in measured]
                + [board.episodes[i], *metrics]
            )


def read_leaderboard(path: Path, space: SearchSpace) -> Leaderboard:
    """Read and check against the space; raises HyperPPOError when missing or damaged."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        raise HyperPPOError(
            f"no leaderboard at {path}: run `hyperppo evaluate {path.parent} --all` first"
        ) from None
    try:
        names = [row["architecture"] for row in rows]
        if names != [format_architecture(a) for a in space.architectures]:
            raise ValueError("its rows are not the architectures of the space, in order")
        columns = {
            key: np.array([float(row[key]) for row in rows])
            for key in rows[0]
            if key != "architecture"
        }
        return Leaderboard(
            params=columns["params"].astype(np.int64),
            macs=columns["macs"].astype(np.int64),
            return_mean=columns["return_mean"],
            return_stderr=columns["return_stderr"],
            episodes=columns["episodes"].astype(np.int64),
            metrics={key: values for key, values in columns.items() if key not in _FIXED},
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise HyperPPOError(
            f"{path} is damaged ({error}): run `hyperppo evaluate {path.parent} --all` again"
        ) from None
