"""What a leaderboard decides: how sure a crash rate is, the best for their size, the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hyperppo.errors import HyperPPOError
from hyperppo.leaderboard import Leaderboard

SHARES = (1.0, 0.9, 0.8)
SHARE_NAMES = {1.0: "max", 0.9: "90%", 0.8: "80%"}
_Z = 1.96  # two-sided 95% of a normal distribution
_PRIOR_EPISODES = 8  # what the common spread weighs against an architecture's own


def wilson(
    rate: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95% interval of rates measured over `count` trials (Wilson 1927): low, high."""
    z2 = _Z**2 / count
    centre = (rate + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * np.sqrt(rate * (1 - rate) / count + z2 / (4 * count))
    return np.clip(centre - half, 0.0, rate), np.clip(centre + half, rate, 1.0)


def smallest_within(
    return_mean: NDArray[np.float64], params: NDArray[np.int64], share: float
) -> int:
    """Row of the smallest architecture whose min-max-normalised return is at least `share`.

    `share` 1, 0.9 and 0.8 give the paper's max, 90% and 80% architectures. Of equally small ones
    the best counts.
    """
    low, high = return_mean.min(), return_mean.max()
    good = np.flatnonzero(return_mean >= low + share * (high - low))
    if not len(good):  # share 1, and rounding
        good = np.flatnonzero(return_mean == high)
    return int(good[np.lexsort((-return_mean[good], params[good]))[0]])


def bounds(board: Leaderboard) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% interval of each mean return: low, high.

    The spread of a few episodes is itself unsure (four without a crash look safe), so each
    variance is drawn towards the mean variance as if that had been seen in a few more episodes.
    Raises HyperPPOError for single episodes, which have no spread.
    """
    if board.episodes.min() < 2:
        raise HyperPPOError("telling architectures apart needs --episodes 2 or more")
    own = board.return_stderr**2 * board.episodes
    freedom = board.episodes - 1
    variance = (freedom * own + _PRIOR_EPISODES * own.mean()) / (freedom + _PRIOR_EPISODES)
    half = _Z * np.sqrt(variance / board.episodes)
    return board.return_mean - half, board.return_mean + half


def front(board: Leaderboard) -> NDArray[np.bool_]:
    """(n,) whether no other architecture has at least the return for at most the parameters."""
    ahead = _best_of_no_more_params(board.return_mean, board.params)
    return board.return_mean > ahead


def undecided(board: Leaderboard) -> NDArray[np.bool_]:
    """(n,) whether an architecture may or may not be on the front: its interval touches it.

    Decided are those surely beaten (some architecture of no more parameters has a lower bound
    above their upper bound) and those surely on it (no upper bound reaches their lower one).
    """
    low, high = bounds(board)
    beaten = high < _best_of_no_more_params(low, board.params)
    first = low > _best_of_no_more_params(high, board.params)
    return ~beaten & ~first


def _best_of_no_more_params(
    values: NDArray[np.float64], params: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Highest value (n,) among the others with at most as many parameters; -inf for none."""
    order = np.argsort(params, kind="stable")
    sizes, first = np.unique(params[order], return_index=True)
    group = np.searchsorted(sizes, params)
    best = np.maximum.accumulate(np.maximum.reduceat(values[order], first))
    result = best[group]
    # Where an architecture is itself the best, the answer is the runner-up.
    for i in np.flatnonzero(values == result):
        others = (params <= params[i]) & (np.arange(len(values)) != i)
        result[i] = values[others].max(initial=-math.inf)
    return result


def merged(board: Leaderboard, rows: Sequence[int], more: Leaderboard) -> Leaderboard:
    """`board` with the further episodes `more` of its `rows` added, as if flown in one go."""
    at = np.asarray(rows)
    a, b = board.episodes[at], more.episodes
    total = a + b
    both = (a * board.return_mean[at] + b * more.return_mean) / total
    squares = sum(
        (n - 1) * n * stderr**2 + n * (mean - both) ** 2
        for n, mean, stderr in (
            (a, board.return_mean[at], board.return_stderr[at]),
            (b, more.return_mean, more.return_stderr),
        )
    )

    def put(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
        changed = old.copy()
        changed[at] = new
        return changed

    def pooled(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
        weighted = (a * old + b * new) / total
        return np.where(np.isnan(old), new, np.where(np.isnan(new), old, weighted))

    episodes = board.episodes.copy()
    episodes[at] = total
    return replace(
        board,
        return_mean=put(board.return_mean, both),
        return_stderr=put(board.return_stderr, np.sqrt(squares / (total - 1) / total)),
        episodes=episodes,
        metrics={
            name: put(values, pooled(values[at], more.metrics[name][:]))
            for name, values in board.metrics.items()
        },
    )


def halve(
    board: Leaderboard,
    fly: Callable[[Sequence[int], int, int], Leaderboard],
    most_episodes: int,
) -> Leaderboard:
    """Spend episodes where the Pareto front (return against parameters) is decided.

    Successive halving (Jamieson and Talwalkar 2016): every round doubles the episodes of the
    undecided architectures by `fly(rows, episodes, call)`, `call` counting from 1, but of at most
    half as many as the round before: those that stand out most above what is no larger. Ends when
    nothing is left to decide, all that is left has `most_episodes`, or one was left.
    """
    call, limit = 0, len(board.params) // 2
    while limit:
        ahead = board.return_mean - _best_of_no_more_params(board.return_mean, board.params)
        open_ = np.flatnonzero(undecided(board) & (board.episodes * 2 <= most_episodes))
        chosen = open_[np.argsort(-ahead[open_], kind="stable")][:limit]
        # A candidate may come back after others went ahead: equal counts fly together.
        for episodes in np.unique(board.episodes[chosen]):
            rows = np.sort(chosen[board.episodes[chosen] == episodes]).tolist()
            call += 1
            board = merged(board, rows, fly(rows, int(episodes), call))
        limit //= 2
    return board
