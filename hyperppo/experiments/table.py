"""The experiments, as data: what is trained, where it is evaluated, what is drawn.

What the paper's figures show is known to us from its abstract and introduction, from the authors'
public repository (github.com/hegde95/HyperPPO: launch scripts, evaluation code, notebooks); the
paper's other text and its figures were not to be had. `source` says for each experiment which of it
is known and which is our design.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hyperppo.experiments import figures
from hyperppo.experiments.results import Row, Trained


@dataclass(frozen=True)
class Variant:
    """One kind of training within an experiment."""

    settings: dict[str, Any]  # what differs from the task's own configuration
    steps: float = 1.0  # of the experiment's


@dataclass(frozen=True)
class Figure:
    """Rows first, and the picture from nothing but the rows: the CSV is what is drawn."""

    rows: Callable[[Sequence[Trained]], list[Row]]
    draw: Callable[[list[Row], Any], None]  # rows, an empty matplotlib figure
    headline: Callable[[list[Row]], dict[str, str]]  # variant -> its result in words
    measure: str  # what the headline says


@dataclass(frozen=True)
class Experiment:
    """One figure or table."""

    title: str
    source: str
    task: str  # the paper's
    steps: int  # of one training, at scale 1
    seeds: int  # the paper's
    variants: dict[str, Variant]
    figure: Figure
    evaluations: int = 1  # of every architecture along the way at scale 1, the last at the end
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)  # env options at the end
    paper: dict[str, str] = field(default_factory=dict)  # the paper's headline, by variant


SHARES = Figure(
    figures.share_rows, figures.draw_shares, figures.shares_headline, "return (parameters)"
)
LEARNING = Figure(
    figures.mean_rows, figures.draw_means, figures.means_headline, "mean return, all architectures"
)
DISTRIBUTION = Figure(
    figures.distribution_rows,
    figures.draw_distribution,
    figures.distribution_headline,
    "return of the best and of the median architecture",
)
CONDITIONS = Figure(
    figures.condition_rows,
    figures.draw_conditions,
    figures.conditions_headline,
    "return in each scenario, max architecture",
)
PRICE = Figure(
    figures.price_rows, figures.draw_price, figures.price_headline, "mean return, million steps / s"
)


def _ppo(*widths: int) -> Variant:
    return Variant({"algo": "ppo", "architecture": list(widths), "meta_batch": 1})


_CSD, _VSD = Variant({"algo": "csd"}), Variant({"algo": "vsd"})
_SCENARIOS = ("static", "dynamic", "lissajous", "bezier")  # QuadSwarm's, for one drone
_EVERY_SCENARIO = {"scenarios": dict.fromkeys(_SCENARIOS, 0.25)}
_SIZES = "the smallest architecture within 100%, 90% and 80% of min-max-normalised return"

EXPERIMENTS: dict[str, Experiment] = {
    "fig3": Experiment(
        "Return and size of the best architectures while training, beside plain PPO",
        "Known: four Brax tasks, 8 seeds, 1e9 steps, every architecture evaluated along the way, "
        f"{_SIZES}, plain PPO on the same tasks. Our design: PPO's network, 256,256,256.",
        "brax:ant",
        1_000_000_000,
        8,
        {"HyperPPO": _VSD, "PPO 256,256,256": _ppo(256, 256, 256)},
        SHARES,
        evaluations=20,
    ),
    "fig4-std": Experiment(
        "Where the action's standard deviation comes from",
        "Known: one for all (CSD) against one an architecture (VSD), 8 seeds, Brax humanoid, 1e9 "
        "steps. Our design: what is drawn, and the variant predicted by the hypernetwork.",
        "brax:humanoid",
        1_000_000_000,
        8,
        {
            "CSD": _CSD,
            "VSD": _VSD,
            "predicted": Variant({"algo": "csd", "policy": {"std": "ghn"}}),
        },
        LEARNING,
        evaluations=20,
    ),
    "fig4-sampling": Experiment(
        "Which architectures are sampled",
        "Known: biased (uniform over depth, then within) against uniform, 8 seeds, Brax humanoid, "
        "1e9 steps. Our design: what is drawn.",
        "brax:humanoid",
        1_000_000_000,
        8,
        {
            "biased": Variant({"algo": "vsd", "space": {"sampling": "biased"}}),
            "uniform": Variant({"algo": "vsd", "space": {"sampling": "uniform"}}),
        },
        LEARNING,
        evaluations=20,
    ),
    "fig5": Experiment(
        "How many architectures reach a return, by the number of parallel environments",
        "Known from the authors' notebook make_cdf.ipynb and its stored picture: MuJoCo "
        "HalfCheetah, 256 to 2048 environments, 4 seeds, three hours each or 100 million steps "
        "(they came to 19, 61-97, 61 and 90-98 million). Ours: as many iterations for each, so "
        "that steps are in proportion to environments. The paper's numbers are read off by eye.",
        "mujoco:HalfCheetah-v5",
        100_000_000,
        4,
        {str(n): Variant({"num_envs": n}, steps=n / 2048) for n in (256, 512, 1024, 2048)},
        DISTRIBUTION,
        paper={
            "256": "best about 2,600, median about 1,000",
            "512": "best about 4,100, median about 3,000",
            "1024": "best about 4,250, median about 3,200",
            "2048": "best about 5,400, median about 3,950",
        },
    ),
    "fig6": Experiment(
        "Quadrotor: return and size of the best architectures while training",
        "Known: single drone, CSD, biased sampling, 16 architectures an iteration, 4 seeds, 1e9 "
        f"steps, {_SIZES}, PPO with (512,512) as baseline.",
        "quadrotor",
        1_000_000_000,
        4,
        {"HyperPPO": _CSD, "PPO 512,512": _ppo(512, 512)},
        SHARES,
        evaluations=20,
    ),
    "fig7": Experiment(
        "Quadrotor: the scenarios of QuadSwarm",
        "Known: every architecture evaluated on static goals, dynamic goals, Lissajous and Bezier "
        "trajectories. Our design: what is drawn; the paper's own figure may show flights.",
        "quadrotor",
        1_000_000_000,
        4,
        {
            "HyperPPO": Variant({"algo": "csd", "env": _EVERY_SCENARIO}),
            "PPO 512,512": Variant(_ppo(512, 512).settings | {"env": _EVERY_SCENARIO}),
        },
        CONDITIONS,
        conditions={name: {"scenarios": {name: 1.0}} for name in _SCENARIOS},
    ),
    "table1": Experiment(
        "The smallest network at max, 90% and 80% of the return, beside plain PPO",
        f"Known: {_SIZES}. Our design: the rest.",
        "mujoco:HalfCheetah-v5",
        100_000_000,
        3,
        {"HyperPPO": _CSD, "PPO 256,256,256": _ppo(256, 256, 256)},
        SHARES,
    ),
    "ablate-sampling": Experiment(
        "Sampling of architectures: uniform, biased, and more of what does badly",
        "Not in the paper.",
        "quadrotor",
        1_000_000_000,
        3,
        {
            kind: Variant({"space": {"sampling": kind}})
            for kind in ("uniform", "biased", "adaptive")
        },
        LEARNING,
        evaluations=20,
    ),
    "ablate-critic": Experiment(
        "A critic that is told the architecture, and one that is not",
        "Not in the paper.",
        "quadrotor",
        1_000_000_000,
        3,
        {
            "architecture-aware": Variant({}),
            "blind": Variant({"ppo": {"critic_sees_architecture": False}}),
        },
        LEARNING,
        evaluations=20,
    ),
    "ablate-decoder": Experiment(
        "The size of the hypernetwork's decoder against return and time",
        "Not in the paper. `original`: the paper's decoder, 8.5 million parameters.",
        "quadrotor",
        1_000_000_000,
        3,
        {
            **{f"{n} bases": Variant({"ghn": {"bases": n}}) for n in (4, 8, 16, 32)},
            "original": Variant({"ghn": {"kind": "original"}}),
        },
        PRICE,
    ),
}
