"""The run directory as others read it, and as it may be damaged."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperppo.checkpoint import export_run, load_run
from hyperppo.errors import HyperPPOError
from hyperppo.evaluate import evaluate, record_observations
from hyperppo.files import replacing
from hyperppo.pretrained import path as shipped


def test_a_run_gives_any_policy_of_its_space(small_run: Path) -> None:
    run = load_run(small_run)
    policy = run.policy((8, 4))
    assert [tuple(p.shape) for p in policy.parameters()] == [
        (8, 22), (8,), (4, 8), (4,), (4, 4), (4,),
    ]  # fmt: skip
    action = policy(torch.randn(100, 22) * 10)
    assert action.abs().max() <= 1
    with pytest.raises(HyperPPOError, match="outside the search space"):
        run.policy((16,))


def test_the_leaderboard_has_a_row_an_architecture(small_run: Path) -> None:
    run = load_run(small_run)
    board = run.leaderboard()
    assert len(board.params) == len(run.space) == 6
    np.testing.assert_array_equal(board.params, run.space.params)
    assert set(board.metrics) == {"crash_rate", "tracking_error_m", "height_error_m"}
    header = (small_run / "leaderboard.csv").read_text().splitlines()[0]
    assert header.startswith("index,architecture,params,macs,return_mean,return_stderr,episodes")


def test_an_exported_run_is_smaller_and_gives_the_same_policies(
    small_run: Path, tmp_path: Path
) -> None:
    export_run(small_run, tmp_path / "out")
    a, b = load_run(small_run), load_run(tmp_path / "out")
    for x, y in zip(a.policy((8,)).parameters(), b.policy((8,)).parameters(), strict=True):
        assert torch.equal(x, y)
    sizes = [(p / "checkpoint.safetensors").stat().st_size for p in (small_run, tmp_path / "out")]
    assert sizes[1] < sizes[0] / 2


def _edit(key: str, value: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        data = json.loads((run / "config.json").read_text())
        data[key] = value
        (run / "config.json").write_text(json.dumps(data))

    return change


def _cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:keep]) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "no run at"),
        (lambda run: (run / "config.json").write_text("{"), "not a run's configuration"),
        (_edit("format", "other"), "not a run's configuration"),
        (_edit("format_version", 99), "format version 99.*reads 1"),
        (_edit("config", {"task": 3, "nonsense": 1}), "configuration: "),
        (_edit("obs_dim", 7), "do not match"),
        (lambda run: (run / "checkpoint.safetensors").unlink(), "no checkpoint"),
        (_cut("checkpoint.safetensors", 1000), "corrupt"),
        (_cut("checkpoint.safetensors", 0), "corrupt"),
    ],
)
def test_a_damaged_run_is_named(
    small_run: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy)
    damage(copy)
    with pytest.raises(HyperPPOError, match=message) as caught:
        load_run(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", [_cut("leaderboard.csv", 60), lambda run: (run / "leaderboard.csv").unlink()]
)
def test_a_damaged_leaderboard_says_how_to_make_it_again(
    small_run: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy)
    damage(copy)
    with pytest.raises(HyperPPOError, match=r"hyperppo evaluate .* --all"):
        load_run(copy).leaderboard()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(HyperPPOError, match="cannot write"), replacing(Path("/proc/nothing/x")):
        pass


def test_evaluation_equals_flying_one_policy_by_hand(small_run: Path) -> None:
    """Row of a mixed evaluation against the same policy as a module in the same environments."""
    run = load_run(small_run)
    from hyperppo.envs.registry import make_env
    from hyperppo.evaluate import _chunk_seed

    episodes = 8
    board = evaluate(run, [(8, 8)], episodes, seed=3)
    env = make_env("quadrotor", run.config.env, episodes, _chunk_seed(3, 0))
    policy = run.policy((8, 8))
    observation, _ = env.reset()
    total, alive, crashed = torch.zeros(episodes), torch.ones(episodes, dtype=torch.bool), 0
    while alive.any():
        step = env.step(policy(observation.t()).t())
        observation = step.observation
        total += step.reward * alive
        crashed += int((step.terminated & alive).sum())
        alive &= ~(step.terminated | step.truncated)
    assert board.return_mean[0] == pytest.approx(float(total.mean()), rel=1e-3)
    assert board.metrics["crash_rate"][0] == crashed / episodes


def test_rows_keep_their_architecture_whatever_the_number_of_threads(small_run: Path) -> None:
    run = load_run(small_run)
    before = torch.get_num_threads()
    boards = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        boards.append(evaluate(run, run.space.architectures, 64, seed=5))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    np.testing.assert_array_equal(boards[0].return_mean, boards[1].return_mean)
    alone = evaluate(run, [run.space.architectures[3]], 256, seed=6)
    spread = np.hypot(boards[0].return_stderr[3], alone.return_stderr[0])
    assert abs(boards[0].return_mean[3] - alone.return_mean[0]) < 5 * spread


def test_recorded_observations_repeat_and_cover_an_episode(small_run: Path) -> None:
    run = load_run(small_run)
    a, b = (record_observations(run, (4,), 300, seed=1) for _ in range(2))
    assert a.shape == (300, 22)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert len(np.unique(a, axis=0)) == 300


@pytest.mark.parametrize("device", ["banana", "meta:7:1", "cuda"])
@pytest.mark.parametrize(
    "command",
    [
        ["train", "quadrotor", "--steps", "1000", "--out", "OUT"],
        ["experiment", "fig5", "--scale", "0.00001", "--out", "OUT"],
        ["evaluate", str(shipped("crazyflie21")), "--arch", "4"],
    ],
)
def test_a_device_that_is_not_there_is_said_in_one_line(
    command: list[str], device: str, tmp_path: Path
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("it is there")
    given = [str(tmp_path / "run") if word == "OUT" else word for word in command]
    code = f"import sys; sys.argv = {['hyperppo', *given, '--device', device]!r}\n"
    code += "from hyperppo.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert f"error: --device {device}: torch has no such device here" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("run/checkpoint*"))
