"""`hyperppo train`: a run directory that can be stopped, killed and resumed at any time."""

from __future__ import annotations

import fcntl
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hyperppo import parallel
from hyperppo.checkpoint import (
    CHECKPOINT,
    CONFIG,
    EVALUATIONS,
    LOCK,
    METRICS,
    check_device,
    read_checkpoint,
    read_config,
    run_space,
    save_checkpoint,
    write_config,
)
from hyperppo.config import RunConfig
from hyperppo.envs.shards import training_env
from hyperppo.errors import HyperPPOError
from hyperppo.files import replacing
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import restore, state_of
from hyperppo.watch import progress_figures, watch

_CHECKPOINT_EVERY_S = 30.0


def start(config: RunConfig, out: Path, command: str) -> Trainer:
    """Make a new run directory and its trainer. Raises HyperPPOError when `out` holds a run."""
    if has_run(out):
        raise HyperPPOError(
            f"{out} already holds a run: add --resume to go on with it, or choose another --out"
        )
    trainer = _trainer(config)
    exact = bool(trainer.env.state_dict())
    parallel.wait()  # everyone has looked
    if parallel.is_first():
        conventions = trainer.env.conventions()
        write_config(out, config, trainer.space, conventions, command, exact_resume=exact)
    return trainer


def has_run(out: Path) -> bool:
    """Whether a training began there."""
    return (out / CONFIG).exists()


def check_resumable(out: Path) -> None:
    """Raise HyperPPOError when there is no run at `out`, before anything is written there."""
    read_config(out)


def resume(out: Path) -> Trainer:
    """The trainer of an existing run directory, at its last checkpoint.

    A task that saves no state starts new episodes, other ones than at the start of the run.
    """
    data, config = read_config(out)
    if not (out / CHECKPOINT).exists():
        trainer = _trainer(config)
    else:
        state = read_checkpoint(out)
        try:
            exact = data.get("exact_resume", True)  # the same environments, or other ones
            trainer = _trainer(config, 0 if exact else int(state["trainer.scalars"][0]))
            restore(trainer, state)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise HyperPPOError(
                f"{out / CHECKPOINT} cannot be resumed ({reason}): it is damaged, or was exported "
                "for use only"
            ) from None
    for log in (METRICS, EVALUATIONS) if parallel.is_first() else ():
        _forget_after(out / log, trainer.iteration)
    return trainer


def _trainer(config: RunConfig, iteration: int = 0) -> Trainer:
    check_device(config.device)
    env = training_env(config, iteration)
    return Trainer(config, run_space(config, env.obs_dim, env.act_dim), env)


def _forget_after(log: Path, iteration: int) -> None:
    """Drop lines that were logged after the checkpoint: they will be logged again."""
    if not log.exists():
        return
    lines = log.read_text().splitlines()
    kept = [line for line in lines if _iteration_of(line) <= iteration]
    with replacing(log) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def _iteration_of(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError):
        return math.inf  # half a line: the process was killed while writing it


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the run directory: a second training into it is refused.

    What a killed training was writing at its last moment is removed. Of several processes the first
    holds it for all.
    """
    if not parallel.is_first():
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HyperPPOError(
                f"another training is writing to {out}: choose another --out"
            ) from None
        for left_over in out.glob(f".{CHECKPOINT}.*.tmp"):
            left_over.unlink()
        try:
            yield
        finally:
            if not (out / CONFIG).exists():  # nothing was begun
                (out / LOCK).unlink()
                with suppress(OSError):
                    out.rmdir()


Look = Callable[[Trainer, Path, int], object]
"""What is done with a training from time to time: (trainer, run directory, control steps)."""


def train(
    trainer: Trainer, out: Path, console: Console, evaluate_every: int = 0, look: Look = watch
) -> bool:
    """Train to the end, with a progress bar; False when Ctrl-C stopped it at a checkpoint.

    Every `evaluate_every` steps (0: never) and at the end there is a `look`: by default a sample of
    architectures is evaluated into `evaluations.jsonl`. Raises HyperPPOError when the losses are
    not finite, or when the disk is full; the last checkpoint is valid then.
    """
    try:
        return _train(trainer, out, console, evaluate_every, look)
    except OSError as error:
        raise HyperPPOError(
            f"cannot write to {out}: {error.strerror or error}; the last checkpoint is valid: "
            f"make room, then go on with --resume"
        ) from None


def _train(trainer: Trainer, out: Path, console: Console, evaluate_every: int, look: Look) -> bool:
    config = trainer.config
    per_iteration = config.num_envs * config.ppo.rollout
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}% {task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        write = stack.enter_context(_log(out, trainer.iteration * per_iteration))
        bar = stack.enter_context(Progress(*columns, console=console))
        task = bar.add_task(
            out.name, total=config.iterations, completed=trainer.iteration, figures=""
        )
        asked_to_stop = stack.enter_context(_graceful_stop())
        saved, stop = time.monotonic(), False
        while trainer.iteration < config.iterations and not stop:
            began = time.monotonic()
            log = trainer.step()
            speed = per_iteration / (time.monotonic() - began)
            steps = trainer.iteration * per_iteration
            write({"iteration": trainer.iteration, "steps": steps, **log, "steps_per_s": speed})
            bar.update(task, completed=trainer.iteration, figures=progress_figures(log, speed))
            last = trainer.iteration == config.iterations
            if evaluate_every and (last or steps % evaluate_every < per_iteration):
                look(trainer, out, steps)
            late = time.monotonic() - saved > _CHECKPOINT_EVERY_S
            late, stop = parallel.any_of(late, asked_to_stop())
            if late:
                _save(trainer, out)
                saved = time.monotonic()
        _save(trainer, out)
    return trainer.iteration >= config.iterations


def _save(trainer: Trainer, out: Path) -> None:
    state = state_of(trainer)  # of all processes
    if parallel.is_first():
        save_checkpoint(out, state)


@contextmanager
def _log(out: Path, purge_step: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Give what writes a line to `metrics.jsonl` and to TensorBoard's events."""
    if not parallel.is_first():
        yield lambda line: None
        return
    # TensorBoard would import TensorFlow where it is installed: seconds, and many lines of noise.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from torch.utils.tensorboard import SummaryWriter

    with (
        SummaryWriter(str(out), purge_step=purge_step) as board,
        (out / METRICS).open("a", buffering=1) as metrics,
    ):

        def write(line: dict[str, float]) -> None:
            metrics.write(json.dumps(_finite(line)) + "\n")
            for name in line.keys() - {"iteration", "steps", "steps_per_s"}:
                board.add_scalar(name, line[name], int(line["steps"]))

        yield write


@contextmanager
def _graceful_stop() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a question to ask between iterations."""
    stopped: list[int] = []
    previous: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(number, previous[number])  # the second one stops at once

    for watched in (signal.SIGINT, signal.SIGTERM):
        previous[watched] = signal.signal(watched, on_signal)
    try:
        yield lambda: bool(stopped)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """NaN has no JSON: a figure that does not exist is null."""
    return {k: v if math.isfinite(v) else None for k, v in line.items()}
