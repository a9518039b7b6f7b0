"""Everything that defines a run: written to `config.json`, enough to rebuild it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hyperppo.errors import HyperPPOError
from hyperppo.space import DEFAULT_WIDTHS

_STRICT = ConfigDict(extra="forbid")
Std = Literal["common", "table", "ghn"]


@dataclass(frozen=True, config=_STRICT)
class SpaceConfig:
    """The architectures a run can be asked for."""

    widths: tuple[int, ...] = DEFAULT_WIDTHS
    max_depth: int = 4
    # biased: uniform over depth, then within; adaptive: biased, and more of what does badly
    sampling: Literal["biased", "uniform", "adaptive"] = "biased"
    depth_bias: float = 0.0  # of these two: a depth d is drawn in proportion to d^-depth_bias


@dataclass(frozen=True, config=_STRICT)
class GHNConfig:
    """The graph hypernetwork.

    `original` is the paper's: the sizes below do not apply, they are its own (`chain_ghn.py`).
    """

    kind: Literal["bases", "original"] = "bases"
    hidden: int = 32  # node state
    decoder: tuple[int, ...] = (64, 64)
    bases: int = 16  # shared bases a layer kind
    gain: float = 1.8  # weights are scaled by sqrt(gain / fan_in); 2 is He et al. 2015 for ReLU
    output_scale: float = 0.1  # further scale of the output layer's weights


@dataclass(frozen=True, config=_STRICT)
class PolicyConfig:
    """The estimated policies: Gaussian, leaky ReLU MLP for the mean."""

    negative_slope: float = 0.2
    std: Std | None = None  # None: as the algorithm says (csd: common, vsd: table, ppo: common)
    init_std: float = 0.5
    min_std: float = 0.15
    min_std_end: float | None = None  # where `min_std` has gone at the end; None: nowhere


@dataclass(frozen=True, config=_STRICT)
class PPOConfig:
    """PPO (Schulman et al. 2017) and its schedule."""

    rollout: int = 32  # steps an environment an iteration
    epochs: int = 2
    minibatches: int = 4  # cut along environments
    shuffle: bool = False  # each epoch draws the samples of its minibatches anew
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None  # PPO2's clipped value loss; None: plain squared error
    entropy: float = 0.0
    max_grad_norm: float = 1.0
    learning_rate: float = 1e-3  # where it starts
    learning_rate_range: tuple[float, float] = (1e-5, 4e-3)
    kl_target: float | None = 0.02  # None: fixed learning rate; 4 times this skips a step
    decay_last: float = 0.3  # share of the run over which the learning rate goes to 0
    critic_learning_rate: float = 2e-3
    critic_hidden: tuple[int, ...] = (64, 64)
    critic_sees_architecture: bool = True  # False: an ablation
    mix_architectures: bool = False  # the mistake of section III-A: see experiments/mix.py
    average: float = 0.95  # decay an iteration of the averaged GHN that is evaluated; 0: none


@dataclass(frozen=True, config=_STRICT)
class PolishConfig:
    """Gradients through the simulator after PPO (`polish.py`), for tasks that have them."""

    last: float = 0.0  # share of the run's steps, its end; 0: PPO alone
    learning_rate: float = 7e-3
    std: float = 0.05  # of the actions meanwhile
    # What a true end (a crash) costs on top of the task's own reward: it has no gradient, and only
    # the critic tells of it.
    end_cost: float = 0.0
    max_grad_norm: float = 0.02  # a few times the usual: one vehicle that tumbles can exceed it


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """One training run."""

    task: str = "quadrotor"
    algo: Literal["csd", "vsd", "ppo"] = "csd"
    architecture: tuple[int, ...] | None = None  # algo ppo only
    steps: int = 30_000_000  # control steps, all environments together
    num_envs: int = 1024
    meta_batch: int = 16  # architectures an iteration
    seed: int = 0
    device: str = "cpu"
    compile: bool = False  # on a CPU, the task's step: a minute, worth it in a long training
    shards: int = 1  # groups of environments and architectures that processes can share out
    space: SpaceConfig = SpaceConfig()
    ghn: GHNConfig = GHNConfig()
    policy: PolicyConfig = PolicyConfig()
    ppo: PPOConfig = PPOConfig()
    polish: PolishConfig = PolishConfig()
    env: dict[str, Any] = field(default_factory=dict)  # the task's own options, in full

    @property
    def std(self) -> Std:
        """Where the action's standard deviation comes from."""
        return self.policy.std or ("table" if self.algo == "vsd" else "common")

    @property
    def iterations(self) -> int:
        """Number of iterations, at least one."""
        return max(1, round(self.steps / (self.num_envs * self.ppo.rollout)))

    def polishes(self, iteration: int) -> bool:
        """Whether an iteration takes gradients through the simulator, instead of PPO's."""
        last = self.polish.last
        return last > 0 and iteration >= round((1 - last) * self.iterations)

    def decay(self, iteration: int) -> float:
        """Share of the learning rate that is left: linear to 0 over the last share of the run."""
        share = self.ppo.decay_last
        left = 1 - iteration / self.iterations
        return min(1.0, left / share) if share > 0 else 1.0

    def min_std(self, iteration: int) -> float:
        """Floor of the standard deviation: moves geometrically to its end, as `decay` to 0."""
        begin, end = self.policy.min_std, self.policy.min_std_end
        if end is None:
            return begin
        return float(end * (begin / end) ** self.decay(iteration))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def make_config(data: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Validate plain data, with `key.sub=value` overrides, as a RunConfig.

    Raises HyperPPOError with the offending key.
    """
    data = json.loads(json.dumps(data))
    for override in overrides:
        apply_override(data, override)
    try:
        config = TypeAdapter(RunConfig).validate_python(data)
    except ValidationError as error:
        raise HyperPPOError(f"configuration: {first_error(error)}") from None
    _check(config)
    return config


def first_error(error: ValidationError) -> str:
    """The first complaint of a validation error as `key: what is wrong`."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}"


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put one `key.sub=value` into plain data; raises HyperPPOError when it is not of that form."""
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise HyperPPOError(f"--set {override}: write it as key=value, for example ppo.gamma=0.995")
    *path, last = key.split(".")
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise HyperPPOError(f"--set {override}: {part} has no settings below it")
    try:
        data[last] = json.loads(value)
    except json.JSONDecodeError:
        data[last] = [json.loads(v) for v in value.split(",")] if "," in value else value


def _check(config: RunConfig) -> None:
    if (config.algo == "ppo") != (config.architecture is not None):
        raise HyperPPOError("--algo ppo needs --arch, for example --arch 64,64; others take none")
    groups = config.meta_batch * config.ppo.minibatches
    if config.shards < 1 or config.meta_batch % config.shards:
        raise HyperPPOError(
            f"meta_batch {config.meta_batch} must be a multiple of shards, {config.shards}: "
            "each of the processes gets as many architectures"
        )
    if not 0 <= config.polish.last <= 1:
        raise HyperPPOError("polish.last is a share of the run: from 0 to 1")
    if config.shards > 1 and config.ppo.mix_architectures:
        raise HyperPPOError("ppo.mix_architectures needs shards=1: it mixes all of them")
    if min(config.num_envs, config.meta_batch, config.steps, config.ppo.minibatches) < 1:
        raise HyperPPOError("num_envs, meta_batch, minibatches and steps must be positive")
    if config.num_envs % groups:
        raise HyperPPOError(
            f"num_envs {config.num_envs} must be a multiple of "
            f"meta_batch x minibatches = {config.meta_batch} x {config.ppo.minibatches} = {groups}"
        )
