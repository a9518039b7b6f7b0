"""A policy in whole numbers: the exact reference of the fixed-point C, in numpy.

An observation becomes int16 numbers, a layer sums products of int16 pairs in 32 bits, a shift or
a table makes int16 activations of the sums, and the last layer's sums become floats. Every step
here gives the very bits that policy.c gives on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.activation import Form, activate, output_form
from compile.errors import CompileError

Integers = NDArray[np.int64]

PRECISIONS = ("i16", "i8", "i8x")
"""int16 weights; int8 weights, packed; int8 weights, exact. Activations are int16 in all."""
SUM_LIMIT = 2**31
TABLE_BITS = 9  # a table has 2^TABLE_BITS pieces


@dataclass(frozen=True)
class Activation:
    """What makes int16 numbers of a hidden layer's sums.

    ``kind``: ``relu``, ``leaky_shift`` (the sum's two shifts added: 1 / slope = 1 + 2^lift),
    ``leaky`` (the larger of x and x slope) or ``table``.
    """

    kind: str
    shift: int
    bits: int  # the result saturates to that many
    lift: int = 0  # of leaky_shift
    slope: int = 0  # of leaky, in 1 / 65536

    def apply(self, sums: Integers, table: Integers) -> Integers:
        """int16 results of 32-bit sums; ``table`` is used by kind ``table`` only."""
        top = 2 ** (self.bits - 1)
        x = sums >> self.shift
        if self.kind == "relu":
            return _within(x, 0, top - 1)
        if self.kind == "leaky_shift":
            positive = _within(sums >> (self.shift - self.lift), 0, top - 1)
            return _within(_within(x, -top // 2, top // 2 - 1) + positive, -(2**15), 2**15 - 1)
        if self.kind == "leaky":
            x = _within(x, -top, top - 1)
            return np.asarray(np.maximum(x, (x * self.slope) >> 16))
        half = 2 ** (TABLE_BITS - 1)
        entry = table[_within(x, -half, half - 1) + half]
        place = _signed(sums << 15 >> self.shift, 16)
        return _signed(entry + _signed(entry, 16) * place, 32) >> 16


@dataclass(frozen=True)
class FixedLayer:
    """One layer: ``sums = weight @ x + bias`` in 32 bits, and what follows."""

    name: str
    activation: str  # of the float layer, for comments
    weight: Integers  # (n_out, n_in) as multiplied; i8: int8 codes x 256 with their neighbours
    codes: Integers  # (n_out, n_in) as stored
    bias: Integers  # (n_out,) with the shift's rounding in it
    hidden: Activation | None  # None behind the output layer

    @property
    def n_in(self) -> int:
        """Inputs of the layer."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Units of the layer."""
        return int(self.weight.shape[0])

    def worst(self, bound: Integers) -> Integers:
        """Largest |sum| (n_out,), and partial sum, that inputs |x| <= bound (n_in,) can give."""
        return np.asarray(np.abs(self.weight) @ bound + np.abs(self.bias), dtype=np.int64)

    def sums(self, x: Integers) -> Integers:
        """(n, n_in) -> (n, n_out); exact: products and sums stay below 2^53."""
        product = x.astype(np.float64) @ self.weight.T.astype(np.float64)
        return product.astype(np.int64) + self.bias


@dataclass(frozen=True)
class FixedNetwork:
    """A policy in whole numbers; construction proves that no sum can overflow."""

    precision: str
    layers: tuple[FixedLayer, ...]
    input_fraction: tuple[int, ...]  # fraction bits of each observation, 0..16
    input_bits: int  # each observation saturates to that many
    output_fraction: int  # fraction bits of the last layer's sums, 1..31
    output: str  # the last layer's activation, on floats
    clip: tuple[float, float]
    negative_slope: float
    elu_alpha: float
    table: Integers  # (2^TABLE_BITS,) value << 16 | slope, or empty

    def __post_init__(self) -> None:
        for layer, worst in zip(self.layers, self.worst_sums, strict=True):
            if worst >= SUM_LIMIT:
                raise CompileError(f"layer {layer.name}: a sum can reach {worst}, over 2^31")

    @property
    def worst_sums(self) -> tuple[int, ...]:
        """By layer: the largest |sum|, and partial sum, that any observation can give."""
        bound = np.full(self.obs_dim, 2 ** (self.input_bits - 1))
        found = []
        for layer in self.layers:
            worst = layer.worst(bound)
            found.append(int(worst.max()))
            if layer.hidden is not None:
                bound = result_bound(layer.hidden, worst, self.table)
        return tuple(found)

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        return self.layers[0].n_in

    @property
    def act_dim(self) -> int:
        """Length of the action."""
        return self.layers[-1].n_out

    @property
    def output_form(self) -> Form:
        """How the last layer's activation is computed; the layer's weights allow for it."""
        return output_form(self.output, self)

    @property
    def input_range(self) -> NDArray[np.float64]:
        """(obs_dim,): observations beyond +- this saturate."""
        return np.asarray(2.0 ** (self.input_bits - 1 - np.array(self.input_fraction)))

    def observe(self, observation: NDArray[np.floating]) -> Integers:
        """(n, obs_dim) floats -> whole numbers: towards zero, then saturated."""
        scaled = np.asarray(observation, np.float64) * 2.0 ** np.array(self.input_fraction)
        top = 2 ** (self.input_bits - 1)
        return np.trunc(np.clip(scaled, -top, top - 1)).astype(np.int64)

    def forward(self, observation: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n, obs_dim) finite observations -> (n, act_dim) actions, the bits that policy.c gives.

        The functions behind the last layer (tanh, sigmoid, ELU) are the C kernels' only within
        5e-7: they are taken from numpy here.
        """
        x = self.observe(observation)
        for layer in self.layers:
            x = layer.sums(x)
            if layer.hidden is not None:
                x = layer.hidden.apply(x, self.table)
        value = x.astype(np.float32) * np.float32(2.0**-self.output_fraction)
        form = self.output_form
        if form.function:
            value = activate(self.output, value.astype(np.float64) / form.before, self)
        elif form.leak:
            value = value + np.float32(form.leak) * np.abs(value)
        elif self.output == "clip":
            value = np.clip(value, *map(np.float32, self.clip))
        return np.asarray(value, dtype=np.float32)


def result_bound(hidden: Activation, worst: Integers, table: Integers) -> Integers:
    """Largest |result| (n,) of an activation whose sums lie within +-worst (n,)."""
    if hidden.kind == "table":
        return np.full(len(worst), np.abs(table >> 16).max() + 1)
    ends = hidden.apply(np.stack([worst, -worst]), table)  # it rises, so its ends bound it
    return np.asarray(np.abs(ends).max(axis=0))


def _within(value: Integers, low: int, high: int) -> Integers:
    return np.asarray(np.clip(value, low, high))


def _signed(value: Integers, bits: int) -> Integers:
    """The lowest bits as a signed number."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half
