from pathlib import Path

import pytest
from rich.console import Console

from hyperppo import train as job
from hyperppo.config import RunConfig, make_config
from hyperppo.envs.registry import resolve_options
from hyperppo.evaluate import rank

SMALL = {
    "steps": 64 * 8 * 6,
    "num_envs": 64,
    "meta_batch": 4,
    "space": {"widths": [4, 8], "max_depth": 2},
    "ppo": {"rollout": 8, "minibatches": 2, "average": 0.5},
    "env": {"episode_s": 0.3},
}


def small_config(**changes: object) -> RunConfig:
    data = {**SMALL, **changes}
    return make_config({**data, "env": resolve_options("quadrotor", data["env"])})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run: six architectures, a few iterations, a leaderboard."""
    out = tmp_path_factory.mktemp("runs") / "small"
    console = Console(quiet=True)
    assert job.train(job.start(small_config(), out, "test"), out, console)
    rank(out, 2, 0, console)
    return out
