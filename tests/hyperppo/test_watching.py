"""Runs as they are watched: listed, evaluated along the way, drawn, ranked."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from hyperppo import train as job
from hyperppo import watch as watching
from hyperppo.checkpoint import EVALUATIONS, METRICS, Run, export_run, load_run, read_checkpoint
from hyperppo.cli import app
from hyperppo.errors import HyperPPOError
from hyperppo.evaluate import evaluate
from hyperppo.leaderboard import Leaderboard
from hyperppo.plot import draw_run, draw_runs
from hyperppo.runs import last_lines, list_runs, run_state
from hyperppo.watch import progress_figures

from .conftest import small_config

QUIET = Console(quiet=True)


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_runs_are_listed_with_their_state(small_run: Path, tmp_path: Path) -> None:
    finished, stopped = tmp_path / "finished", tmp_path / "stopped"
    shutil.copytree(small_run, finished)
    shutil.copytree(small_run, stopped)
    lines = (stopped / METRICS).read_text().splitlines(keepends=True)
    (stopped / METRICS).write_text("".join(lines[:4]) + lines[4][:20])  # killed while writing
    shutil.copytree(stopped, tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "not a run").mkdir()
    with job.locked(finished):
        training = run_state(finished)
    assert training.state == "training"
    states = {run.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in states.items()} == {
        "finished": "finished", "stopped": "stopped", "broken": "damaged",
    }  # fmt: skip
    assert (states["stopped"].iteration, states["stopped"].iterations) == (4, 6)
    assert states["stopped"].reward == json.loads(lines[3])["reward"]
    assert states["finished"].age_s is not None
    assert 0 <= states["finished"].age_s < 3600
    rows = json.loads(invoke("runs", tmp_path, "--json"))
    assert {row["name"] for row in rows} == set(states)
    assert "4 of 6" in invoke("runs", tmp_path)
    assert "no runs" in invoke("runs", tmp_path / "not a run")
    with pytest.raises(HyperPPOError, match="not a directory"):
        list_runs(tmp_path / "nowhere")


def test_the_end_of_a_long_log_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file:
        file.writelines(json.dumps({"iteration": i}) + "\n" for i in range(100_000))
    lines = [line["iteration"] for line in last_lines(path)]
    assert 1_000 < len(lines) < 10_000
    assert lines == list(range(100_000 - len(lines), 100_000))


def test_a_watched_run_is_drawn_and_ends_like_one_that_is_not(tmp_path: Path) -> None:
    config = small_config()
    for name, every in (("plain", 0), ("watched", 64 * 8 * 2), ("seldom", 64 * 8 * 4)):
        trainer = job.start(config, tmp_path / name, "")
        assert job.train(trainer, tmp_path / name, QUIET, every)
    a, b = (read_checkpoint(tmp_path / name) for name in ("plain", "watched"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (tmp_path / "plain" / EVALUATIONS).exists()
    for name, seen in (("seldom", [4, 6]), ("watched", [2, 4, 6])):  # the end is always looked at
        text = (tmp_path / name / EVALUATIONS).read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["iteration"] for line in lines] == seen
    best, *others = lines[-1]["shares"]
    assert all(other["params"] <= best["params"] for other in others)
    assert all(other["return_mean"] <= best["return_mean"] for other in others)
    for name, count in (("plain", 0), ("watched", 3)):
        picture = tmp_path / f"{name}.png"
        assert draw_run(tmp_path / name, picture) == {"iterations": 6, "evaluations": count}
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_policy_with_the_best_worst_quarter_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returns of 6 architectures at three evaluations: the best mean is not the best worst two."""
    returns = iter([[1, 1, 1, 1, 1, 1], [3, 2, 5, 5, 5, 5], [0, 1, 9, 9, 9, 9]])
    scores = []

    def fake(run: Run, *arguments: Any, **others: Any) -> Leaderboard:
        board = evaluate(run, *arguments, **others)
        return replace(board, return_mean=np.array(next(returns), dtype=float))

    monkeypatch.setattr(watching, "evaluate", fake)
    trainer = job.start(small_config(), tmp_path / "run", "")
    assert job.train(trainer, tmp_path / "run", QUIET, 64 * 8 * 2)
    for line in (tmp_path / "run" / EVALUATIONS).read_text().splitlines():
        scores.append(json.loads(line)["score"])
    assert scores == [1.0, 2.5, 0.5]
    export_run(tmp_path / "run", tmp_path / "exported")
    for name in ("run", "exported"):
        assert load_run(tmp_path / name).iteration == 4
    assert int(read_checkpoint(tmp_path / "run")["trainer.scalars"][0]) == 6
    tensors = [load_run(tmp_path / n).hyper_policy.state_dict() for n in ("run", "exported")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_seeds_are_drawn_together_as_far_as_all_of_them_have_come(
    small_run: Path, tmp_path: Path
) -> None:
    shorter = tmp_path / "shorter"
    shutil.copytree(small_run, shorter)
    lines = (small_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (shorter / "metrics.jsonl").write_text("".join(lines[:-1]))
    picture = tmp_path / "seeds.png"
    told = json.loads(invoke("plot", small_run, shorter, "--out", picture, "--json"))
    assert told["iterations"] == len(lines) - 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_there_is_nothing_to_draw_before_the_first_iteration(
    small_run: Path, tmp_path: Path
) -> None:
    job.start(small_config(), tmp_path, "")
    with pytest.raises(HyperPPOError, match="nothing to draw"):
        draw_run(tmp_path, tmp_path / "picture.png")
    with pytest.raises(HyperPPOError, match="nothing to draw"):
        draw_runs([small_run, tmp_path], tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


def test_the_progress_line_names_what_the_task_has() -> None:
    log = {"reward": 1.0, "crash_rate": 0.25}
    assert progress_figures(log, 2000.0) == "reward 1.00 crash 25.0% 2k steps/s"
    log |= {"tracking_error_m": 0.5, "tracking_error_m_by_size/over_100k": 0.25}
    assert "error 0.500 m (small to large - - - 0.25)" in progress_figures(log, 2000.0)


def test_evaluate_ranks_deterministic_and_sampled_actions_apart(
    small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    before = (run / "leaderboard.csv").read_bytes()
    arguments = ("evaluate", run, "--all", "--episodes", 3, "--threads", 1, "--json")
    rows = json.loads(invoke(*arguments, "--sampled"))
    assert [row["share"] for row in rows] == [1.0, 0.9, 0.8]
    assert all(row["crash_low"] <= row["crash_rate"] <= row["crash_high"] for row in rows)
    assert (run / "leaderboard.csv").read_bytes() == before
    sampled = (run / "leaderboard_sampled.csv").read_text()
    invoke(*arguments)
    assert (run / "leaderboard.csv").read_text() != sampled
    assert "95% interval" in invoke(*arguments[:-1])


def test_successive_halving_flies_more_where_the_front_is_open(
    small_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    invoke("evaluate", run, "--all", "--episodes", 2, "--successive-halving", "--threads", 1)
    board = load_run(run).leaderboard()
    assert set(board.episodes) <= {2, 4, 8}  # six architectures: a round of three, one of one
    assert board.episodes.max() > 2
    assert (board.episodes > 2).sum() <= 4
    result = CliRunner().invoke(app, ["evaluate", str(run), "--arch", "4", "--successive-halving"])
    assert isinstance(result.exception, HyperPPOError)


def test_the_leaderboard_is_drawn_over_the_space(small_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "space.png"
    told = json.loads(invoke("plot", small_run, "--space", "--out", picture, "--json"))
    board = load_run(small_run).leaderboard()
    best, *others = told["architectures"]
    assert best["return_mean"] == pytest.approx(board.return_mean.max())
    assert all(other["params"] <= best["params"] for other in others)
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(app, ["plot", str(small_run), str(small_run), "--space"])
    assert isinstance(result.exception, HyperPPOError)
