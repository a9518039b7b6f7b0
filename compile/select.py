"""Which of the affordable architectures: ranking by return, and the Pareto front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError


def normalised(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Min-max-normalised return over the whole space: 0 the worst architecture, 1 the best.

    The scale on which the paper states its 80% and 90% architectures (HyperPPO, section IV).
    Architectures without a finite return become NaN.
    """
    finite = returns[np.isfinite(returns)]
    if finite.size == 0:
        raise CompileError("the run's leaderboard has no return; run hyperppo evaluate --all")
    spread = finite.max() - finite.min()
    result: NDArray[np.float64] = (returns - finite.min()) / (spread if spread > 0 else 1.0)
    return np.where(np.isfinite(returns), result, np.nan)


def ranking(
    returns: NDArray[np.float64],
    cost: NDArray[np.float64],
    affordable: NDArray[np.bool_],
    at_least: float = 1.0,
) -> NDArray[np.int64]:
    """Indices of the affordable architectures in the order in which to try them.

    First those with at least ``at_least`` times the best affordable normalised return, cheapest
    first (with 1.0: the best one alone), then the others by falling return. Ties go to the
    cheaper one.
    """
    score = normalised(returns)
    candidates = np.flatnonzero(affordable & np.isfinite(score))
    if candidates.size == 0:
        raise CompileError("no affordable architecture has a return in the run's leaderboard")
    good = score[candidates] >= at_least * score[candidates].max()
    enough, rest = candidates[good], candidates[~good]
    enough = enough[np.lexsort((-score[enough], cost[enough]))]
    rest = rest[np.lexsort((cost[rest], -score[rest]))]
    return np.concatenate([enough, rest])


def pareto_front(cost: NDArray[np.float64], returns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices that no other point beats (cheaper and as good, or better at no more cost).

    Ordered by rising cost, and so by rising return; of equal points the first is kept.
    """
    order = np.lexsort((-returns, cost))
    order = order[np.isfinite(returns[order])]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], returns[order]]))
    return order[returns[order] > best[:-1]]
