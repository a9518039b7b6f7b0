"""One training by two processes (gloo), by the user's command, against one process."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperppo import parallel
from hyperppo import train as job
from hyperppo.checkpoint import read_checkpoint
from hyperppo.envs.shards import Shards, training_env
from hyperppo.errors import HyperPPOError
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import restore, state_of

from .conftest import small_config

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = ["--threads", "1", "--episodes", "2", "--num-envs", "64", "--seed", "1"]
for setting in (
    "space.widths=4,8", "space.max_depth=2", "ppo.rollout=8", "ppo.minibatches=2",
    "env.episode_s=0.5",
    # At the default rates these tiny batches make training chaotic: what rounding differs by grows
    # tenfold an iteration.
    "ppo.learning_rate_range=1e-5,3e-4",
):  # fmt: skip
    SMALL += ["--set", setting]


def _run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment
    )


def _lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["csd", "vsd", "ppo", "polished"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of 20 iterations by one process, and the same by two."""
    folder = tmp_path_factory.mktemp("pair")
    algo, more = request.param, []
    if algo == "polished":  # from the middle on, by gradients through the simulator
        algo = "csd"
        more = ["--set", "polish.last=0.5", "--set", "polish.learning_rate=1e-3"]
    train = ["-m", "hyperppo", "train", "quadrotor", "--algo", algo, *SMALL, *more]
    train += ["--steps", str(20 * 64 * 8)]
    train += ["--arch", "8,8"] if request.param == "ppo" else ["--meta-batch", "4"]
    alone = ["--set", "shards=2"]
    if request.param == "ppo":
        alone += ["--meta-batch", "2"]
    for start, out, more in (([sys.executable], "one", alone), (TORCHRUN, "two", [])):
        result = _run([*start, *train, "--out", str(folder / out), *more])
        assert result.returncode == 0, result.stderr
    return [folder / "one", folder / "two"]


def test_two_processes_train_like_one(pair: list[Path]) -> None:
    """Every figure of every iteration; what differs is the order of additions."""
    one, two = (_lines(run) for run in pair)
    assert [line["iteration"] for line in two] == list(range(1, 21))
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"steps_per_s"}:
            if a[name] is None:
                assert b[name] is None
            else:
                assert b[name] == pytest.approx(a[name], rel=2e-3, abs=2e-4), (a["iteration"], name)
    assert read_config(pair[0]) == read_config(pair[1])
    a, b = (read_checkpoint(run) for run in pair)
    assert a.keys() == b.keys()
    for key in (k for k in a if k.startswith(("policy.", "critic.", "observation_norm."))):
        torch.testing.assert_close(a[key], b[key], rtol=2e-3, atol=1e-3)


def read_config(run: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((run / "config.json").read_text())["config"]
    return config


def test_a_run_of_two_processes_goes_on_in_one(pair: list[Path], tmp_path: Path) -> None:
    shutil.copytree(pair[1], tmp_path / "run")
    trainer = job.resume(tmp_path / "run")
    assert trainer.iteration == 20
    assert trainer.env.num_envs == 64
    saved, again = read_checkpoint(pair[1]), state_of(trainer)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    assert np.isfinite(trainer.step()["policy_loss"])


def test_evaluation_is_the_same_by_two_processes(pair: list[Path], tmp_path: Path) -> None:
    boards = []
    for start, name in (([sys.executable], "one"), (TORCHRUN, "two")):
        shutil.copytree(pair[0], tmp_path / name)
        command = ["-m", "hyperppo", "evaluate", str(tmp_path / name), "--all", "--json"]
        result = _run([*start, *command, "--episodes", "3", "--threads", "1"])
        assert result.returncode == 0, result.stderr
        assert len(json.loads(result.stdout)) == 3  # printed once
        with (tmp_path / name / "leaderboard.csv").open() as file:
            boards.append(list(csv.reader(file)))
    assert boards[0] == boards[1]


DYING = """
import os, signal
from hyperppo import parallel, train as job
from hyperppo.trainer import Trainer
job._CHECKPOINT_EVERY_S = 0.0  # after every iteration
first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
step = Trainer.step
def dying(self):
    if self.iteration == 3 and parallel.number() == 1 and first_time:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self)
Trainer.step = dying
from hyperppo.cli import main
main()
"""


def test_a_killed_process_is_replaced_and_training_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    train = ["train", "quadrotor", *SMALL, "--meta-batch", "4", "--steps", str(6 * 64 * 8)]
    killed = [*TORCHRUN, "--max-restarts", "1", str(script), *train, "--out", str(tmp_path / "a")]
    # Without it torch 2.13 hands the dead process's address to the new ones (docs/scaling.md).
    result = _run(killed, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    assert result.returncode == 0, result.stderr
    assert "SIGKILL" in result.stderr or "-9" in result.stderr  # one was killed
    whole = _run([*TORCHRUN, "-m", "hyperppo", *train, "--out", str(tmp_path / "b")])
    assert whole.returncode == 0, whole.stderr
    assert [line["iteration"] for line in _lines(tmp_path / "a")] == [1, 2, 3, 4, 5, 6]
    a, b = (read_checkpoint(tmp_path / name) for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


ENDING = """
import atexit, pathlib
@atexit.register  # before all others, so it runs after them
def left():
    names = {path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")}
    print("left:", *names)
from hyperppo.cli import main
main()
"""


def test_no_thread_of_gloo_is_left_when_a_process_ends(tmp_path: Path) -> None:
    script = tmp_path / "ending.py"
    script.write_text(ENDING)
    train = ["train", "quadrotor", *SMALL, "--meta-batch", "4", "--steps", str(2 * 64 * 8)]
    result = _run([*TORCHRUN, str(script), *train, "--out", str(tmp_path / "run")])
    assert result.returncode == 0, result.stderr
    left = [line for line in result.stdout.splitlines() if line.startswith("left:")]
    assert len(left) == 2
    assert "gloo" not in "".join(left)


def test_shards_are_independent_and_go_on_bit_for_bit() -> None:
    config = small_config(shards=2)
    env = training_env(config)
    assert isinstance(env, Shards)
    assert env.num_envs == 64
    first, second = env.reset()[0].split(32, -1)
    assert not torch.equal(first, second)

    def trainer() -> Trainer:
        fresh: Trainer = job._trainer(config)
        return fresh

    whole, resumed = trainer(), trainer()
    for _ in range(2):
        whole.step()
    restore(resumed, {key: value.clone() for key, value in state_of(whole).items()})
    assert whole.step() == pytest.approx(resumed.step(), nan_ok=True, rel=0, abs=0)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HyperPPOError, match="multiple of shards, 3"):
        small_config(shards=3)
    with pytest.raises(HyperPPOError, match="mix_architectures"):
        small_config(shards=2, ppo={"mix_architectures": True})
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    with pytest.raises(HyperPPOError, match="3 processes cannot share 4 shards"):
        parallel.share(range(4))
