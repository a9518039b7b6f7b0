"""A policy under construction: layers, then an affine map that no activation has closed yet.

Scales, shifts and selections of values are affine: they are folded, in float64, into the layer
before or behind them, and become a layer of their own only where an activation stands between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compile.network import Layer, Network, the_one

Floats = NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)  # exporters write "no bound" of a clip so


@dataclass(frozen=True)
class Activation:
    """One of `compile.network.ACTIVATIONS` with its own numbers."""

    kind: str = "identity"
    parameter: float = 0.0  # slope of a leaky_relu, alpha of an elu
    low: float = -math.inf  # of a clip
    high: float = math.inf

    @property
    def range(self) -> tuple[float, float]:
        """What its results lie within."""
        return {
            "tanh": (-1.0, 1.0),
            "sigmoid": (0.0, 1.0),
            "relu": (0.0, math.inf),
            "elu": (-abs(self.parameter), math.inf),
            "clip": (self.low, self.high),
        }.get(self.kind, (-math.inf, math.inf))


@dataclass(frozen=True)
class Stage:
    """``activation(weight @ x + bias)`` in float64."""

    name: str
    weight: Floats  # (out, in)
    bias: Floats  # (out,)
    activation: Activation


@dataclass(frozen=True)
class Chain:
    """Finished stages, and the map that follows: ``weight @ x + bias``."""

    weight: Floats  # (out, in), or (n,): x is scaled
    bias: Floats  # (out,)
    name: str = ""  # of what made the map
    stages: tuple[Stage, ...] = ()

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.bias)

    @property
    def is_open(self) -> bool:
        """Whether the map changes anything."""
        return self.weight.ndim == 2 or bool((self.weight != 1).any() or (self.bias != 0).any())


def start(size: int) -> Chain:
    """The observation itself."""
    return Chain(np.ones(size), np.zeros(size))


def scaled(chain: Chain, scale: Floats, shift: Floats, name: str) -> Chain:
    """``scale * values + shift``, both (n,)."""
    weight = chain.weight * (scale[:, None] if chain.weight.ndim == 2 else scale)
    return replace(chain, weight=weight, bias=chain.bias * scale + shift, name=chain.name or name)


def multiplied(chain: Chain, weight: Floats, name: str) -> Chain:
    """``weight @ values``; (out, n). Two products become one unless that one is larger."""
    out, n = weight.shape
    if chain.weight.ndim == 1:
        return replace(chain, weight=weight * chain.weight, bias=weight @ chain.bias, name=name)
    if out * chain.weight.shape[1] > out * n + chain.weight.size:  # a bottleneck
        return multiplied(activated(chain, Activation(), name), weight, name)
    return replace(chain, weight=weight @ chain.weight, bias=weight @ chain.bias, name=name)


def activated(chain: Chain, activation: Activation, name: str) -> Chain:
    """The activation of every value. A clip with one bound is a ReLU, moved and turned."""
    if activation.kind == "clip":
        low, high = activation.low, activation.high
        before = Activation().range
        if chain.stages and not chain.is_open:
            before = chain.stages[-1].activation.range
        if low <= before[0] and before[1] <= high:
            return chain
        if math.isinf(low) or math.isinf(high):
            bound, sign = (low, 1.0) if math.isinf(high) else (high, -1.0)
            turned = _uniform(chain, sign, -sign * bound, name)
            return _uniform(activated(turned, Activation("relu"), name), sign, bound, name)
    dense = chain.weight if chain.weight.ndim == 2 else np.diag(chain.weight)
    stage = Stage(chain.name or name, dense, chain.bias, activation)
    return Chain(np.ones(chain.size), np.zeros(chain.size), "", (*chain.stages, stage))


def finished(chain: Chain) -> Network:
    """The network in float32. CompileError on two slopes or alphas, or weights out of range."""
    if chain.is_open or not chain.stages:
        chain = activated(chain, Activation(), chain.name or "output")
    stages = _with_one_clip(chain.stages)

    def numbers(kind: str) -> set[float]:
        return {s.activation.parameter for s in stages if s.activation.kind == kind}

    names = _unique([stage.name for stage in stages])
    with np.errstate(over="ignore"):  # Network says it in words
        layers = tuple(
            Layer(name, s.weight.astype(np.float32), s.bias.astype(np.float32), s.activation.kind)
            for name, s in zip(names, stages, strict=True)
        )
    clips = {(s.activation.low, s.activation.high) for s in stages if s.activation.kind == "clip"}
    return Network(
        layers,
        negative_slope=the_one(numbers("leaky_relu"), "leaky ReLU slope", 0.2),
        clip=the_one(clips, "clip range", (-1.0, 1.0)),
        elu_alpha=the_one(numbers("elu"), "ELU alpha", 1.0),
    )


def _uniform(chain: Chain, scale: float, shift: float, name: str) -> Chain:
    return scaled(chain, np.full(chain.size, scale), np.full(chain.size, shift), name)


def _unique(names: list[str]) -> list[str]:
    """Nodes may share a name, layers may not."""
    return [f"{n}_{i}" if names.count(n) > 1 or not n else n for i, n in enumerate(names)]


def _with_one_clip(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """All clips with the range of the last one: the weights around them take the difference."""
    clips = [s.activation for s in stages if s.activation.kind == "clip"]
    moved, scale, shift = [], 1.0, 0.0  # what the stage before still owes
    for stage in stages:
        bias = stage.bias + stage.weight.sum(axis=1) * shift if shift else stage.bias
        weight = stage.weight * scale
        scale, shift, activation = 1.0, 0.0, stage.activation
        if activation.kind == "clip" and activation != clips[-1]:
            low, high = clips[-1].low, clips[-1].high
            scale = (activation.high - activation.low) / (high - low)
            shift = activation.low - scale * low
            weight, bias, activation = weight / scale, (bias - shift) / scale, clips[-1]
        moved.append(Stage(stage.name, weight, bias, activation))
    return tuple(moved)
