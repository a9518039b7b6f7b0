"""What a run's leaderboard looks like: returns over the search space (the paper's figures 5, 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hyperppo.checkpoint import load_run
from hyperppo.files import replacing
from hyperppo.ranking import SHARE_NAMES, SHARES, smallest_within
from hyperppo.space import format_architecture


def draw_space(run: Path, path: Path) -> list[dict[str, Any]]:
    """Draw the returns of all architectures to a PNG: best first, and over parameters.

    Returns the max / 90% / 80% architectures. Raises HyperPPOError without a leaderboard.
    """
    loaded = load_run(run)
    board, space = loaded.leaderboard(), loaded.space
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (ranks, sizes) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    figure.suptitle(f"{run.resolve().name}: all {len(space)} architectures")
    order = np.argsort(-board.return_mean, kind="stable")
    ranks.plot(np.arange(1, len(order) + 1), board.return_mean[order], color="0.3", lw=1)
    for depth in np.unique(space.depths):
        rows = np.flatnonzero(space.depths == depth)
        label = f"{depth} hidden layer{'s' if depth > 1 else ''}"
        sizes.plot(board.params[rows], board.return_mean[rows], ".", ms=3, label=label, alpha=0.6)
    rank_of = np.empty(len(order), dtype=int)
    rank_of[order] = np.arange(1, len(order) + 1)
    chosen = {share: smallest_within(board.return_mean, board.params, share) for share in SHARES}
    for i in dict.fromkeys(chosen.values()):
        shares = ", ".join(SHARE_NAMES[share] for share, own in chosen.items() if own == i)
        text = f"{shares}: {format_architecture(space.architectures[i])}"
        for axis, x in ((ranks, rank_of[i]), (sizes, board.params[i])):
            axis.plot(x, board.return_mean[i], "*", ms=11, color="tab:red", mec="k")
            place = {"xytext": (8, -16), "textcoords": "offset points", "fontsize": 9}
            box = {"facecolor": "w", "alpha": 0.8, "edgecolor": "none", "pad": 1}
            axis.annotate(text, (x, board.return_mean[i]), **place, bbox=box)
    ranks.set(xlabel="rank", ylabel="return an episode")
    sizes.set(xlabel="parameters", xscale="log")
    sizes.legend(fontsize=8, loc="lower right")
    for axis in (ranks, sizes):
        axis.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
    return [
        {
            "share": share,
            "architecture": format_architecture(space.architectures[i]),
            "params": int(board.params[i]),
            "return_mean": float(board.return_mean[i]),
        }
        for share, i in chosen.items()
    ]
