"""The run directory: its files, how they are written, and how a run is loaded."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hyperppo import __version__
from hyperppo.config import RunConfig, make_config
from hyperppo.errors import HyperPPOError
from hyperppo.files import replacing
from hyperppo.leaderboard import Leaderboard, read_leaderboard
from hyperppo.normalizer import RunningNorm
from hyperppo.policy import HyperPolicy, as_module
from hyperppo.space import Architecture, SearchSpace

FORMAT = "hyperppo-run"
FORMAT_VERSION = 1
CONFIG, CHECKPOINT, LEADERBOARD = "config.json", "checkpoint.safetensors", "leaderboard.csv"
METRICS, EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"
BEST = "best.safetensors"  # what evaluations along the way liked best; used before the last state
LOCK = ".lock"  # held by the training that writes here
_EXPORTED_LINES = 500  # of a log, at most
_POLICY_PREFIXES = ("averaged.", "observation_norm.", "trainer.scalars")


@dataclass(frozen=True)
class Run:
    """A trained (or training) run, ready to be asked for any policy of its space."""

    path: Path
    config: RunConfig
    space: SearchSpace
    conventions: dict[str, Any]
    hyper_policy: HyperPolicy
    observation_norm: RunningNorm
    iteration: int

    activation = "leaky_relu"
    output = "clip"

    @property
    def task(self) -> str:
        """The task's name."""
        return self.config.task

    @property
    def negative_slope(self) -> float:
        """Slope of the leaky ReLU below 0."""
        return self.config.policy.negative_slope

    @property
    def device(self) -> torch.device:
        """Where the GHN is, and where its policies are flown."""
        return self.observation_norm.mean.device

    @cached_property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of the file that the weights came from, hexadecimal."""
        return hashlib.sha256((self.path / weights_file(self.path)).read_bytes()).hexdigest()

    def policy(self, architecture: Architecture) -> nn.Sequential:
        """The policy of one architecture, estimated in one GHN pass.

        An ordinary module: raw observation (n, obs_dim) float32 -> action (n, act_dim) in [-1, 1],
        the observation normaliser folded into its first layer. Raises HyperPPOError outside the
        space.
        """
        self.space.index(architecture)
        with torch.no_grad():
            (weights,), _ = self.hyper_policy([architecture])
        norm = self.observation_norm
        return as_module(weights, self.negative_slope, norm.mean, norm.std)

    def leaderboard(self) -> Leaderboard:
        """What every architecture is worth; raises HyperPPOError when missing or damaged."""
        return read_leaderboard(self.path / LEADERBOARD, self.space)


def write_config(
    path: Path,
    config: RunConfig,
    space: SearchSpace,
    conventions: dict[str, Any],
    command: str,
    exact_resume: bool,
) -> None:
    """Write `config.json`, atomically."""
    data = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "hyperppo_version": __version__,
        "torch_version": torch.__version__,
        "command": command,
        "exact_resume": exact_resume,  # False: with new episodes
        "obs_dim": space.obs_dim,
        "act_dim": space.act_dim,
        "conventions": conventions,
        "config": config.to_dict(),
    }
    with replacing(path / CONFIG) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n")


def save_checkpoint(path: Path, state: dict[str, Tensor], name: str = CHECKPOINT) -> None:
    """Write `checkpoint.safetensors`, or another of that kind, atomically."""
    contiguous = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with replacing(path / name) as temporary:
        try:
            save_file(contiguous, temporary)
        except SafetensorError as error:
            raise HyperPPOError(
                f"cannot write {path / name}: {error}; the last one is kept: make room first"
            ) from None


def save_best(path: Path, state: dict[str, Tensor]) -> None:
    """Keep this state's policy as the one to use."""
    save_checkpoint(path, _for_use(state), BEST)


def weights_file(path: Path) -> str:
    """Name of the file in a run directory whose policy is used."""
    return BEST if (path / BEST).is_file() else CHECKPOINT


def _for_use(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(_POLICY_PREFIXES)}


def read_config(path: Path) -> tuple[dict[str, Any], RunConfig]:
    """`config.json` as plain data and as a RunConfig; raises HyperPPOError."""
    file = path / CONFIG
    if not file.is_file():
        raise HyperPPOError(f"no run at {path}: {CONFIG} is missing (train one: hyperppo train)")
    try:
        data = json.loads(file.read_text())
        if data["format"] != FORMAT:
            raise KeyError("format")
        version = data["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HyperPPOError(f"{file} is not a run's configuration ({error!r})") from None
    if version != FORMAT_VERSION:
        raise HyperPPOError(
            f"{path} is a run of format version {version}, this program reads {FORMAT_VERSION}: "
            f"use the hyperppo version that wrote it ({data.get('hyperppo_version', 'unknown')}) "
            "or train again"
        )
    try:
        return data, make_config(data["config"])
    except KeyError as error:
        raise HyperPPOError(f"{file} is damaged: {error} is missing") from None


def read_checkpoint(path: Path, name: str = CHECKPOINT) -> dict[str, Tensor]:
    """Flat tensors of a checkpoint; raises HyperPPOError when it is missing or corrupt."""
    file = path / name
    if not file.is_file():
        raise HyperPPOError(f"no checkpoint at {file}: the run has not saved one yet")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise HyperPPOError(f"{file} is corrupt ({error}): restore it or train again") from None


def load_run(path: Path, device: str = "cpu") -> Run:
    """Load a run directory; raises HyperPPOError (missing, corrupt, of another version; no such
    device).
    """
    check_device(device)
    data, config = read_config(path)
    tensors = read_checkpoint(path, weights_file(path))
    try:
        space = run_space(config, data["obs_dim"], data["act_dim"])
        policy = HyperPolicy(space, config)
        norm = RunningNorm(space.obs_dim)
        for module, prefix in ((policy, "averaged."), (norm, "observation_norm.")):
            module.load_state_dict(
                {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            )
        iteration = int(tensors["trainer.scalars"][0])
        policy.min_log_std.fill_(math.log(config.min_std(iteration)))
        conventions = data["conventions"]
    except (KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise HyperPPOError(f"{path}: checkpoint and config do not match ({reason})") from None
    if not all(bool(p.isfinite().all()) for p in policy.parameters()):
        raise HyperPPOError(
            f"{path / weights_file(path)} is corrupt: it holds weights that are not finite"
        )
    policy = policy.requires_grad_(False).to(device)
    return Run(path, config, space, conventions, policy, norm.to(device), iteration)


def check_device(device: str) -> None:
    """Raise HyperPPOError for a device that torch does not have here."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device not in ("cpu", *gpus, *(["cuda"] if gpus else [])):
        raise HyperPPOError(f"--device {device}: torch has no such device here: use --device cpu")


def run_space(config: RunConfig, obs_dim: int, act_dim: int) -> SearchSpace:
    """The search space of a run: for plain PPO just its one architecture."""
    if config.architecture is None:
        return SearchSpace(obs_dim, act_dim, config.space.widths, config.space.max_depth)
    return SearchSpace(
        obs_dim, act_dim, config.architecture, len(config.architecture), config.architecture
    )


def export_run(source: Path, destination: Path) -> None:
    """Copy what is needed to use a run (not to resume it): no optimiser, critic or simulator.

    Of its log some hundred lines are kept: enough to draw.
    """
    load_run(source)
    kept = _for_use(read_checkpoint(source, weights_file(source)))
    destination.mkdir(parents=True, exist_ok=True)
    log = source / METRICS
    if log.is_file():
        lines = log.read_text().splitlines(keepends=True)
        step = -(-len(lines) // _EXPORTED_LINES) or 1
        with replacing(destination / METRICS) as temporary:
            temporary.write_text("".join(lines[step - 1 :: step]))
    for name in (CONFIG, LEADERBOARD, EVALUATIONS):
        if (source / name).is_file():
            with replacing(destination / name) as temporary:
                shutil.copyfile(source / name, temporary)
    save_checkpoint(destination, kept)
