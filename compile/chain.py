"""A policy under construction: layers, then an affine map that no activation has closed yet.

Scales, shifts and selections of values are affine: they are folded, in float64, into the layer
before or behind them, and become a layer of their own only where an activation stands between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError
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
    """The activation of every value. A clip changes nothing within the range of what is before."""
    if activation.kind == "clip" and chain.stages and not chain.is_open:
        last = chain.stages[-1]
        low, high = activation.low, activation.high
        if low <= last.activation.range[0] and last.activation.range[1] <= high:
            return chain
        if last.activation.kind == "clip":
            ends = [min(max(end, low), high) for end in last.activation.range]
            both = Activation("clip", low=ends[0], high=ends[1])
            return replace(chain, stages=(*chain.stages[:-1], replace(last, activation=both)))
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


def _unique(names: list[str]) -> list[str]:
    """Nodes may share a name, layers may not."""
    return [f"{n}_{i}" if names.count(n) > 1 or not n else n for i, n in enumerate(names)]


def _with_one_clip(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """All clips with the range of the last one; those with one bound as ReLUs, moved and turned.

    The weights before and behind take the difference. CompileError for a clip to one number.
    """
    clips = [s.activation for s in stages if s.activation.kind == "clip"]
    wanted = next((a for a in reversed(clips) if math.isfinite(a.high - a.low)), Activation())
    moved, scale, shift = [], 1.0, 0.0  # scale and shift: what the stage before still owes
    for stage in stages:
        bias = stage.bias + stage.weight.sum(axis=1) * shift if shift else stage.bias
        weight, activation = stage.weight * scale, stage.activation
        scale, shift = 1.0, 0.0
        if activation.kind == "clip" and activation != wanted:
            if activation.low >= activation.high:
                raise CompileError(f"layer {stage.name} is clipped to one number")
            if math.isfinite(activation.high - activation.low):
                scale = (activation.high - activation.low) / (wanted.high - wanted.low)
                shift = activation.low - scale * wanted.low
                activation = wanted
            else:
                below = math.isinf(activation.high)
                scale, shift = (1.0, activation.low) if below else (-1.0, activation.high)
                activation = Activation("relu")
            weight, bias = weight / scale, (bias - shift) / scale
        moved.append(Stage(stage.name, weight, bias, activation))
    if scale != 1 or shift != 0:
        n = len(bias)
        moved.append(Stage("output", scale * np.eye(n), np.full(n, shift), Activation()))
    return tuple(moved)
