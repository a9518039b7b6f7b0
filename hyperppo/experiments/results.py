"""What an experiment has to draw from: finished runs and what all their architectures are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperppo.config import RunConfig
from hyperppo.leaderboard import Leaderboard
from hyperppo.space import SearchSpace

Row = dict[str, Any]
"""One line of a figure's CSV: every row of a figure has the same keys."""


@dataclass(frozen=True)
class Trained:
    """One finished training of an experiment."""

    variant: str
    seed: int
    path: Path
    config: RunConfig
    space: SearchSpace
    boards: dict[int, Leaderboard]  # by control steps, ascending; the last is the finished run's
    conditions: dict[str, Leaderboard]  # the finished run elsewhere, such as other scenarios

    @property
    def board(self) -> Leaderboard:
        """Of the finished run."""
        return self.boards[max(self.boards)]
