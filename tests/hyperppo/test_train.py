"""Runs: stop, kill, resume, refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hyperppo import train as job
from hyperppo.checkpoint import load_run, read_checkpoint, save_checkpoint
from hyperppo.errors import HyperPPOError
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import state_of

from .conftest import small_config

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    "given", [{"algo": "csd"}, {"algo": "vsd"}, {"polish": {"last": 0.5}}, {"polish": {"last": 1}}]
)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(
    tmp_path: Path, given: dict[str, object]
) -> None:
    config = small_config(**given)
    whole = job.start(config, tmp_path / "whole", "")
    job.train(whole, tmp_path / "whole", QUIET)

    halves = job.start(config, tmp_path / "halves", "")
    for _ in range(3):
        halves.step()
    save_checkpoint(tmp_path / "halves", state_of(halves))
    halves.step()  # lost: it came after the checkpoint
    with (tmp_path / "halves" / job.METRICS).open("w") as file:
        file.writelines(f'{{"iteration": {i}}}\n' for i in (1, 2, 3, 4))
        file.write('{"iterat')
    resumed = job.resume(tmp_path / "halves")
    assert resumed.iteration == 3
    job.train(resumed, tmp_path / "halves", QUIET)

    a, b = (read_checkpoint(tmp_path / name) for name in ("whole", "halves"))
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
    lines = (tmp_path / "halves" / job.METRICS).read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_the_same_seed_repeats_a_run_and_another_does_not() -> None:
    def weights(seed: int) -> torch.Tensor:
        trainer: Trainer = job._trainer(small_config(seed=seed))
        trainer.step()
        return trainer.policy.weights.bases["hidden"].weight.detach()  # type: ignore[union-attr,index]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(("num_envs", "minibatches"), [(64, 1), (64, 16), (4, 1)])
def test_the_fewest_and_the_smallest_minibatches_train(num_envs: int, minibatches: int) -> None:
    """One minibatch, one environment of each architecture a minibatch, and both."""
    config = small_config(num_envs=num_envs, ppo={"rollout": 8, "minibatches": minibatches})
    log = job._trainer(config).step()
    assert log["policy_loss"] != 0


def test_a_run_is_not_overwritten_and_takes_one_training_at_a_time(small_run: Path) -> None:
    before = (small_run / "checkpoint.safetensors").read_bytes()
    with pytest.raises(HyperPPOError, match="add --resume"):
        job.start(small_config(), small_run, "")
    with (
        job.locked(small_run),
        pytest.raises(HyperPPOError, match="another training"),
        job.locked(small_run),
    ):
        pass
    assert (small_run / "checkpoint.safetensors").read_bytes() == before


def test_divergence_stops_with_the_last_checkpoint_left_valid(tmp_path: Path) -> None:
    trainer = job.start(small_config(), tmp_path, "")
    trainer.step()
    save_checkpoint(tmp_path, state_of(trainer))
    with torch.no_grad():
        trainer.critic.net[-1].weight.fill_(torch.nan)  # type: ignore[union-attr,operator]
    with pytest.raises(HyperPPOError, match="diverged at iteration 2"):
        job.train(trainer, tmp_path, QUIET)
    assert load_run(tmp_path).iteration == 1


def _wait_for_iterations(run: Path, replaced: int | None = None) -> None:
    """Until a training in another process logs, for a signal before that may be lost.

    One that resumes first replaces the log, whose inode was `replaced`.
    """
    deadline, log = time.monotonic() + 300, run / "metrics.jsonl"

    def state() -> tuple[int, int]:
        return (log.stat().st_ino, log.read_text().count("\n")) if log.exists() else (0, 0)

    while state()[0] in (0, replaced):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    start = state()[1]
    while state()[1] < start + 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on_with_resume(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "run"
    settings = [
        "num_envs=64", "meta_batch=4", "space.widths=4,8", "space.max_depth=2",
        "ppo.rollout=8", "ppo.minibatches=2",
    ]  # fmt: skip
    command = [sys.executable, "-c", "from hyperppo.cli import main; main()", "train", "quadrotor"]
    command += ["--out", str(out), "--threads", "1", "--episodes", "1"]
    fresh = [*command, "--steps", "1000000000"]
    for setting in settings:
        fresh += ["--set", setting]
    process = subprocess.Popen(fresh, stderr=subprocess.PIPE, text=True)
    _wait_for_iterations(out)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in errors
        assert load_run(out).iteration > 0
    replaced = (out / "metrics.jsonl").stat().st_ino
    again = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
    _wait_for_iterations(out, replaced)
    os.kill(again.pid, signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 130
    lines = (out / "metrics.jsonl").read_text().splitlines()
    iterations = [json.loads(line)["iteration"] for line in lines]
    assert iterations == list(range(1, len(iterations) + 1))


TRAIN = """
import sys
from pathlib import Path
from rich.console import Console
from hyperppo import train as job
from hyperppo.errors import HyperPPOError
from hyperppo.processor import set_threads
from tests.hyperppo.conftest import small_config
job._CHECKPOINT_EVERY_S = 0.0  # after every iteration
set_threads(1)
out = Path(sys.argv[1])
{prepare}
try:
    with job.locked(out):
        trainer = job.resume(out) if (out / "config.json").exists() else job.start(
            small_config(), out, "")
        job.train(trainer, out, Console(quiet=True))
except HyperPPOError as error:
    sys.exit(f"error: {{error}}")
"""


def _train_in_a_process(out: Path, prepare: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAIN.format(prepare=prepare), str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


KILLED_WHILE_WRITING = """
import os, signal, hyperppo.checkpoint as checkpoint
whole, calls = checkpoint.save_file, []
def half(tensors, path):
    whole(tensors, path)
    calls.append(path)
    if len(calls) == 3:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
"""


def test_a_kill_while_a_checkpoint_is_written_loses_one_interval(tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    assert _train_in_a_process(out, KILLED_WHILE_WRITING).returncode == -signal.SIGKILL
    assert load_run(out).iteration == 2
    assert list(out.glob(".*.tmp"))
    assert _train_in_a_process(out).returncode == 0
    assert not list(out.glob(".*.tmp"))
    assert _train_in_a_process(whole).returncode == 0
    a, b = read_checkpoint(whole), read_checkpoint(out)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("limit", [3_000, 200_000], ids=["log", "checkpoint"])
def test_a_full_disk_stops_with_one_line_and_the_last_checkpoint(
    tmp_path: Path, limit: int
) -> None:
    """Files may not grow beyond a limit, which a full disk looks like to the one who writes."""
    trainer = job.start(small_config(), tmp_path, "")
    trainer.step()
    save_checkpoint(tmp_path, state_of(trainer))
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    result = _train_in_a_process(tmp_path, full)
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot write ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "make room" in result.stderr
    assert load_run(tmp_path).iteration == 1
    assert not list(tmp_path.glob(".*.tmp"))
