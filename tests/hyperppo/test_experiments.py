"""The experiments: by the user's command, in small."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hyperppo.cli import app
from hyperppo.errors import HyperPPOError
from hyperppo.experiments import figures
from hyperppo.experiments.command import Name
from hyperppo.experiments.results import Trained
from hyperppo.experiments.table import EXPERIMENTS
from hyperppo.experiments.trainings import Plan, configurations, train_all
from hyperppo.leaderboard import Leaderboard
from hyperppo.space import SearchSpace
from hyperppo.trainer_state import state_of

from .conftest import small_config

COMMAND = [sys.executable, "-c", "from hyperppo.cli import main; main()", "experiment"]
SMALL = ["--threads", "1", "--episodes", "2", "--json"]
for setting in ("space.widths=4,8", "space.max_depth=2", "ppo.rollout=4", "ppo.minibatches=2"):
    SMALL += ["--set", setting]


def test_one_command_writes_the_figure_its_data_and_a_summary_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "fig6"
    # 1e9 steps of the paper, scale 1e-5: two iterations.
    command = [*COMMAND, "fig6", "--task", "pendulum", "--scale", "1e-5", "--out", str(out)]
    command += [*SMALL, "--evaluations", "2"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)

    first = run()
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert set(result["ours"]) == {"HyperPPO", "PPO 512,512"}
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    with (out / "figure.csv").open() as file:
        rows = list(csv.DictReader(file))
    hyper = [r for r in rows if r["variant"] == "HyperPPO"]
    assert {r["share"] for r in hyper} == {"max", "90%", "80%"}
    assert len({r["steps"] for r in hyper}) == 2
    summary = (out / "summary.md").read_text()
    assert "not known to us" in summary
    assert "not to be compared" in summary  # another task than the paper's

    checkpoints = [Path(p) / "checkpoint.safetensors" for p in result["trainings"]]
    before = [c.stat().st_mtime_ns for c in checkpoints]
    (out / "figure.png").unlink()
    again = run("--seeds", "2")  # one more of each, the others as they are
    assert again.returncode == 0, again.stderr
    assert len(json.loads(again.stdout)["trainings"]) == 4
    assert [c.stat().st_mtime_ns for c in checkpoints] == before
    assert (out / "figure.png").exists()

    other = run("--set", "ppo.gamma=0.9")
    assert other.returncode == 2
    assert "other settings" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - {"fig6"}))
def test_every_experiment_runs(name: str, tmp_path: Path) -> None:
    quadrotor = name == "fig7"
    arguments = ["experiment", name, "--task", "quadrotor" if quadrotor else "pendulum"]
    arguments += ["--steps", "20000", "--out", str(tmp_path), *SMALL, "--evaluations", "2"]
    if quadrotor:
        arguments += ["--set", "env.episode_s=0.2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["ours"]) == list(EXPERIMENTS[name].variants)
    for key in ("picture", "data", "summary"):
        assert Path(found[key]).stat().st_size > 100


def test_the_command_offers_what_the_table_has() -> None:
    assert {name.value for name in Name} == {"mix", *EXPERIMENTS}
    for experiment in EXPERIMENTS.values():
        assert set(experiment.paper) <= set(experiment.variants)


def _plan(out: Path, **changes: object) -> Plan:
    settings = {
        "task": "pendulum", "steps": 4 * 64 * 4, "seeds": [0], "evaluations": 2, "episodes": 2,
        "overrides": ["num_envs=64", "meta_batch=4", "space.widths=4,8", "space.max_depth=1",
                      "ppo.rollout=4", "ppo.minibatches=2"],
    }  # fmt: skip
    return Plan(out, **{**settings, **changes})  # type: ignore[arg-type]


def test_a_half_done_training_is_resumed(tmp_path: Path) -> None:
    """Killed after its first checkpoint, it ends like one that was not."""
    from hyperppo import train as job
    from hyperppo.checkpoint import METRICS, read_checkpoint, save_checkpoint

    experiment, quiet = EXPERIMENTS["fig4-sampling"], Console(quiet=True)
    whole = train_all(experiment, _plan(tmp_path / "whole"), quiet)
    assert whole is not None
    half = _plan(tmp_path / "half")
    path = tmp_path / "half" / "runs" / "biased-seed0"
    trainer = job.start(configurations(experiment, half)["biased", 0], path, "")
    (path / METRICS).write_text(json.dumps({"iteration": 1, **trainer.step()}) + "\n")
    save_checkpoint(path, state_of(trainer))
    resumed = train_all(experiment, half, quiet)
    assert resumed is not None
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a.board.return_mean, b.board.return_mean)
        assert sorted(a.boards) == sorted(b.boards) == [2 * 256, 4 * 256]
        x, y = read_checkpoint(a.path), read_checkpoint(b.path)
        assert all(bool((x[key] == y[key]).all()) for key in x)


def test_what_cannot_be_trained_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HyperPPOError, match="unknown task"):
        configurations(EXPERIMENTS["fig3"], _plan(tmp_path, task="nonsense"))
    assert list(tmp_path.iterdir()) == []


def _trained(returns: list[float], seed: int = 0) -> Trained:
    space = SearchSpace(22, 4, (4, 8), 1)
    board = Leaderboard(
        params=space.params,
        macs=space.macs,
        return_mean=np.array(returns),
        return_stderr=np.zeros(2),
        episodes=np.full(2, 4),
        metrics={},
    )
    return Trained("a", seed, Path(), small_config(), space, {10: board}, {})


def test_headlines_are_the_numbers_of_the_leaderboards() -> None:
    results = [_trained([1.0, 3.0]), _trained([2.0, 6.0], seed=1)]
    rows = figures.distribution_rows(results)
    assert [r["architecture"] for r in rows] == ["8", "4", "8", "4"]
    assert figures.distribution_headline(rows) == {"a": "best 4.50 ± 2.12, median 3.00 ± 1.41"}
    assert figures.means_headline(figures.mean_rows(results)) == {"a": "3.00 ± 1.41"}
    shares = figures.share_rows(results)
    assert [(r["share"], r["architecture"]) for r in shares[:3]] == [
        ("max", "8"), ("90%", "8"), ("80%", "8"),
    ]  # fmt: skip
    assert figures.shares_headline(shares)["a"].startswith("max: 4.50 ± 2.12 (220)")
