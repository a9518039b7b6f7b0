"""A user's own task: found, checked, trained."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hyperppo import cli
from hyperppo.checkpoint import load_run, read_checkpoint
from hyperppo.envs.registry import make_env, resolve_options
from hyperppo.episodes import fly_episodes
from hyperppo.errors import HyperPPOError

PAGE = Path(__file__).parents[2] / "docs" / "own-task.md"
SMALL = [
    "--num-envs", "64", "--meta-batch", "4", "--threads", "1", "--episodes", "16",
    "--set", "space.widths=[4,8]", "--set", "space.max_depth=2", "--set", "ppo.rollout=8",
    "--set", "ppo.minibatches=2",
]  # fmt: skip


@pytest.fixture
def rail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's example as rail.py in the working directory: its text."""
    text = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert text is not None
    (tmp_path / "rail.py").write_text(text[1])
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield text[1]
    sys.path[:] = path
    for name in ("rail", "broken"):
        sys.modules.pop(name, None)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of `hyperppo ...`."""
    monkeypatch.setattr(sys, "argv", ["hyperppo", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_pages_example_learns(
    rail: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "rail:make_env", *SMALL, "--set", "env.max_acceleration=3", "--out", "run"]
    assert command(monkeypatch, *train, "--steps", "40000") == 0
    run = load_run(Path("run"))
    assert run.config.env == {"max_acceleration": 3.0}
    assert run.conventions["observation"] == ["position_m", "velocity_m_s"]
    board = run.leaderboard()
    idle = fly_episodes(make_env("rail:make_env", {}, 1000, 0), lambda x: torch.zeros(1, 1000))
    assert board.return_mean.max() > 80 > 1.5 * idle.returns.mean()


def test_it_resumes_bit_for_bit(rail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (make_env("rail:make_env", {}, 8, seed) for seed in (0, 1))
    actions = torch.randn(300, 1, 8)
    for action in actions[:150]:
        a.step(action)
    b.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for action in actions[150:]:
        assert torch.equal(a.step(action).observation, b.step(action).observation)


def test_a_task_without_a_state_resumes_with_new_episodes(
    rail: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"own = \{.*\n.*\n", "return {}\n", rail)
    assert "return {}" in text
    Path("rail.py").write_text(text)
    train = ["train", "rail:make_env", *SMALL, "--out", "run"]
    assert command(monkeypatch, *train, "--steps", "1024") == 0
    assert '"exact_resume": false' in Path("run/config.json").read_text()
    config = Path("run/config.json")
    config.write_text(config.read_text().replace('"steps": 1024', '"steps": 4096'))
    assert command(monkeypatch, "train", "rail:make_env", "--resume", "--out", "run",
                   "--threads", "1", "--episodes", "1") == 0  # fmt: skip
    assert "going on with new episodes" in capsys.readouterr().err
    assert read_checkpoint(Path("run"))["trainer.scalars"][0] == 8


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("railway:make_env", None, r"no module railway in .* or on Python's path"),
        ("rail:make", None, "rail has no function 'make'"),
        ("rail:", None, "rail has no function ''"),
        ("rail.cart:make_env", None, "no module rail.cart"),
        ("rail:make_env", ("import torch", "import torch, nothing_like_it"), "cannot be imported"),
        ("rail:make_env", ("import torch", "import torch ("), "SyntaxError"),
        ("rail:make_env", ("make_env(num_envs, seed", "make_env(seed, num_envs"), "write it as"),
        ("rail:make_env", ("float = 2.0", "float"), "what follows with defaults"),
        ("rail:make_env", ("float = 2.0", "float = 'x'"), r"env\.max_acceleration: .* number"),
        ("rail:make_env", ("obs_dim, act_dim,", "obs_dim, act_dims,"), "has no act_dim"),
        ("rail:make_env", ("= 2, 1, 2, 100", "= 3, 1, 2, 100"), r"\(2, 64\), not .* \(3, 64\)"),
        ("rail:make_env", ("= 2, 1, 2, 100", "= 2, 1, 2, 0"), "episode_steps must be a positive"),
        ("rail:make_env",
         ("final, ended = self.state[:, truncated]", "final, ended = self.state[:, :3]"),
         r"final_critic_input is float32 of shape \(2, 3\), not float32 of shape \(2, 0\)"),
        ("rail:make_env", ("terminated, truncated, final", "terminated.float(), truncated, final"),
         "terminated is float32"),
        ("rail:make_env", ("reward = torch.exp(-", "reward = torch.exp(1e3 + "), "not finite"),
        ("rail:make_env",
         ("self.time += 1", "self.time += 1; self.state[0, self.time > 5] = torch.nan"),
         "the task gave nan as observation 0 of environment"),
        ("rail:make_env", ('"observation": [', '"seen": ['), "a list of names"),
        ("rail:make_env", ('"control_hz": 20', '"control_hz": self.device'), "no plain data"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    rail: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    change: tuple[str, str] | None,
    message: str,
) -> None:
    if change is not None:
        assert change[0] in rail
        Path("rail.py").write_text(rail.replace(*change))
    assert command(monkeypatch, "train", task, *SMALL, "--steps", "9000", "--out", "run") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, errors[-1]), errors
    assert errors[-1].startswith("error: ")
    if "gave nan" not in message:  # nothing was begun
        assert len(errors) == 1
        assert not Path("run").exists()


def test_options_are_checked(rail: str) -> None:
    assert resolve_options("rail:make_env", {}) == {"max_acceleration": 2.0}
    with pytest.raises(HyperPPOError, match=r"rail:make_env options: env\.force"):
        resolve_options("rail:make_env", {"force": 1})
