"""Float network -> whole numbers: scales, shifts and bits, from the policy's own observations.

A leaky ReLU passes a scale on, so every row has its own: it is divided out of the next layer's
weights, and costs nothing at run time. A row's scale is the largest with which its weights fit
their type, its sum cannot overflow for any input in the declared range, and the activations that
were seen, with a margin, do not saturate. What is left to choose, the bits of each layer's
activations, is chosen by the error of the action on the recorded observations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compile.activation import Form, activate, output_form, two_shifts
from compile.errors import CompileError
from compile.fixed_point import (
    PRECISIONS,
    SUM_LIMIT,
    TABLE_BITS,
    Activation,
    FixedLayer,
    FixedNetwork,
    Integers,
    result_bound,
)
from compile.network import Layer, Network, folded

Floats = NDArray[np.float64]

MARGIN = 1.25  # on the largest value seen of an observation or an activation
CALIBRATION = 512  # observations that the choice of bits looks at
LARGEST_WEIGHT = {"i16": 32767, "i8": 127 * 256, "i8x": 127}
BITS = range(9, 17)
PLAIN_BITS = 13
FULL_INPUT = ("i16", "i8x")  # observations of 16 bits: their weights leave room in the sums
TABLE_ACTIVATIONS = ("tanh", "sigmoid", "elu", "clip")


@dataclass(frozen=True)
class Plan:
    """What the search chooses."""

    bits: tuple[int, ...]  # of the observation and of each hidden layer's activations
    drop: tuple[int, ...]  # for each hidden layer: finer activations, coarser weights, by so many


def quantize(network: Network, observations: NDArray[np.float32], precision: str) -> FixedNetwork:
    """The best fixed-point form found; (n, obs_dim) observations come from that very policy.

    CompileError when the network has no such form.
    """
    if precision not in PRECISIONS:
        raise CompileError(f"no fixed-point precision {precision!r}: {', '.join(PRECISIONS)}")
    chosen = observations[:: max(1, len(observations) // CALIBRATION)].astype(np.float64)
    largest = _largest(network, observations)
    expected = network.forward(chosen)

    def error(plan: Plan) -> float:
        try:
            fixed = _build(network, largest, precision, plan)
        except CompileError:  # so few bits that a scale leaves its range
            return math.inf
        return float(np.sqrt(((fixed.forward(chosen) - expected) ** 2).mean()))

    depth, full = len(network.layers), precision in FULL_INPUT
    return _build(network, largest, precision, _search(depth, full, error))


def quantize_plainly(
    network: Network, observations: NDArray[np.float32], precision: str
) -> FixedNetwork:
    """A fixed-point form without the search: of the same cost, less exact, in a hundredth of the
    time. Arguments as for `quantize`.
    """
    depth, full = len(network.layers), precision in FULL_INPUT
    plan = Plan((16 if full else PLAIN_BITS, *(PLAIN_BITS,) * (depth - 1)), (0,) * (depth - 1))
    return _build(network, _largest(network, observations), precision, plan)


def _search(depth: int, full_input: bool, error: Callable[[Plan], float]) -> Plan:
    """One number of bits for all, then each by itself, while the error falls by a percent."""
    hidden = (0,) * (depth - 1)
    plans = [Plan((16 if full_input else bits, *(bits,) * (depth - 1)), hidden) for bits in BITS]
    best, least = min(((plan, error(plan)) for plan in plans), key=lambda pair: pair[1])
    for place, step in itertools.product(range(int(full_input), depth), (1, -1)):
        while best.bits[place] + step in BITS:
            bits = (*best.bits[:place], best.bits[place] + step, *best.bits[place + 1 :])
            trial = replace(best, bits=bits)
            found = error(trial)
            if found > 0.99 * least:
                break
            best, least = trial, found
    for place in range(depth - 1):
        trial = replace(best, drop=(*best.drop[:place], 1, *best.drop[place + 1 :]))
        found = error(trial)
        if found < 0.99 * least:
            best, least = trial, found
    return best


def _largest(network: Network, observations: NDArray[np.float32]) -> list[Floats]:
    """(n_in,) largest |input| of every layer that was seen, with the margin."""
    values = observations.astype(np.float64)
    largest = []
    for layer in network.layers:
        largest.append(np.abs(values).max(axis=0) * MARGIN)
        values = replace(network, layers=(layer,)).forward(values)
    return largest


def _build(network: Network, largest: list[Floats], precision: str, plan: Plan) -> FixedNetwork:
    top = 2 ** (plan.bits[0] - 1)
    # An input that was never seen but 0 needs some range: +-1.
    reach = np.where(largest[0] > 0, largest[0], 1.0)
    fraction = np.clip(np.floor(np.log2(top / reach)), 0, 16).astype(int)
    scale = 2.0**fraction  # (n_in,) whole number for each unit of the layer's input
    bound = np.full(network.obs_dim, top)
    curve = _curve(network, largest)
    table = curve.table(plan) if curve else np.zeros(0, np.int64)
    layers = []
    previous = Form()
    for place, layer in enumerate(network.layers[:-1]):
        fixed, scale = _hidden(
            folded(layer, Form(), previous), network, precision, scale, bound,
            largest[place + 1], plan, place, curve,
        )  # fmt: skip
        layers.append(fixed)
        assert fixed.hidden is not None
        bound = result_bound(fixed.hidden, fixed.worst(bound), table)
        tabled = curve is not None and layer.activation == curve.activation
        previous = Form(offset=curve.offset) if curve is not None and tabled else Form()
    last = network.layers[-1]
    last = folded(last, output_form(last.activation, network), previous)
    limit = _row_limits(last, precision, scale, bound).min()
    output_fraction = min(31, math.floor(math.log2(limit)))
    if output_fraction < 1:
        raise CompileError(f"layer {last.name}: its weights are too large for {precision}")
    gain = np.full(last.n_out, 2.0**output_fraction)
    layers.append(_layer(last, precision, scale, gain, 0.0, None))
    return FixedNetwork(
        precision=precision,
        layers=tuple(layers),
        input_fraction=tuple(map(int, fraction)),
        input_bits=plan.bits[0],
        output_fraction=output_fraction,
        output=last.activation,
        clip=network.clip,
        negative_slope=network.negative_slope,
        elu_alpha=network.elu_alpha,
        table=table,
    )


def _hidden(
    layer: Layer,
    network: Network,
    precision: str,
    scale: Floats,
    bound: Integers,
    largest: Floats,
    plan: Plan,
    place: int,
    curve: Curve | None,
) -> tuple[FixedLayer, Floats]:
    """A hidden layer and the scale of its results."""
    limits = _row_limits(layer, precision, scale, bound)
    if curve is not None and layer.activation == curve.activation:
        # The table fixes what a sum means: one power of two for all rows.
        shift = min(31, math.floor(math.log2(limits.min() * curve.reach)) - (TABLE_BITS - 1))
        if shift < 1:
            raise CompileError(f"layer {layer.name}: its sums are too large for a table")
        gain = np.full(layer.n_out, 2.0 ** (shift + TABLE_BITS - 1) / curve.reach)
        hidden = Activation("table", shift, TABLE_BITS)
        one = np.full(layer.n_out, _top(plan) / curve.peak)
        return _layer(layer, precision, scale, gain, 0.0, hidden), one
    bits, drop = plan.bits[place + 1], plan.drop[place]
    slope = {"relu": 0.0, "leaky_relu": network.negative_slope, "identity": 1.0}.get(
        layer.activation, -1.0
    )
    if not 0.0 <= slope <= 1.0:
        raise CompileError(f"layer {layer.name}: no fixed-point form for {layer.activation}")
    kind, lift = _leaky_form(slope)
    gained = 1 + 2**lift if kind == "leaky_shift" else 1
    top = 2 ** (bits - 1) - 1
    needed = np.maximum(largest, 1e-30)
    shift = math.ceil(math.log2((limits * gained * needed / top).max())) - drop
    shift = min(30, max(lift + 1, shift))
    gain = np.minimum(limits, top * 2.0**shift / (gained * needed))
    rounding = 2.0**shift / (gained if kind == "leaky_shift" else 2)
    hidden = Activation(kind, shift, bits, lift, round(slope * 65536) if kind == "leaky" else 0)
    return _layer(layer, precision, scale, gain, rounding, hidden), gain * gained / 2.0**shift


def _leaky_form(slope: float) -> tuple[str, int]:
    """The kind of activation for a slope, and its lift."""
    if slope == 0:
        return "relu", 0
    lift = two_shifts(slope)
    return ("leaky_shift", lift) if lift else ("leaky", 0)


def _row_limits(layer: Layer, precision: str, scale: Floats, bound: Integers) -> Floats:
    """(n_out,) the largest gain with which a row's weights fit and its sum cannot overflow."""
    weight = np.abs(layer.weight.astype(np.float64)) / scale
    largest = np.maximum(weight.max(axis=1), 1e-30)
    fits = LARGEST_WEIGHT[precision] / largest
    # Rounding moves a weight by at most half a unit (i8: half of 256), and the bias holds an
    # offset below 2^30 for the shift's rounding; what is left is shared out.
    slack = {"i16": 0.5, "i8": 128.0, "i8x": 0.5}[precision] * bound.sum()
    room = max(SUM_LIMIT * 0.98 - slack, SUM_LIMIT / 16)
    total = np.maximum(weight @ bound + np.abs(layer.bias.astype(np.float64)), 1e-30)
    return np.asarray(np.minimum(fits, room / total))


def _layer(
    layer: Layer,
    precision: str,
    scale: Floats,
    gain: Floats,
    rounding: float,
    hidden: Activation | None,
) -> FixedLayer:
    ideal = layer.weight.astype(np.float64) / scale * gain[:, None]
    weight, codes = pack_i8(ideal) if precision == "i8" else (np.rint(ideal), np.rint(ideal))
    bias = np.rint(layer.bias.astype(np.float64) * gain + rounding)
    return FixedLayer(
        layer.name,
        layer.activation,
        weight.astype(np.int64),
        codes.astype(np.int64),
        bias.astype(np.int64),
        hidden,
    )


def pack_i8(ideal: Floats) -> tuple[Floats, Floats]:
    """int8 codes of weights in units of 1 / 256, and what the packed kernel multiplies by.

    Of four neighbouring inputs 0..3 a word holds codes 2, 0, 3, 1 from its lowest byte up. SMLAD
    on the word multiplies 0 and 1 with the byte below as a fraction; on the word shifted up by
    eight, 2 and 3. Chosen from the lowest byte up, each code makes up for the fraction that it
    is stuck with, so each weight is within half a code of the ideal.
    """
    n_out, n_in = ideal.shape
    wanted = np.zeros((n_out, -(-n_in // 4), 4))
    wanted.reshape(n_out, -1)[:, :n_in] = ideal
    there = (np.arange(wanted[0].size) < n_in).reshape(-1, 4)  # not padding
    codes, actual = np.zeros_like(wanted), np.zeros_like(wanted)
    below = np.zeros(wanted.shape[:2])
    for place in (2, 0, 3, 1):
        code = np.clip(np.rint((wanted[:, :, place] - below) / 256), -128, 127)
        code *= there[:, place]
        codes[:, :, place] = code
        actual[:, :, place] = 256 * code + below
        below = code % 256
    return actual.reshape(n_out, -1)[:, :n_in], codes.reshape(n_out, -1)[:, :n_in]


@dataclass(frozen=True)
class Curve:
    """The hidden activation that a table of straight pieces stands for; all layers share it.

    The table holds the activation less its value at 0, which goes into the next layer's biases:
    what pads a layer to fours is then 0, as the packed int8 kernel needs it.
    """

    activation: str
    network: Network  # whose alpha and clip shape it
    reach: float  # the table spans sums that mean +- this

    @property
    def offset(self) -> float:
        """The activation of 0."""
        return float(activate(self.activation, np.zeros(1), self.network)[0])

    @property
    def peak(self) -> float:
        """Largest |value| in the table."""
        return float(np.abs(self.values()).max())

    def values(self) -> Floats:
        """(2^TABLE_BITS + 1,) the activation at the edges of the pieces, less the offset."""
        edges = np.linspace(-self.reach, self.reach, 2**TABLE_BITS + 1)
        return activate(self.activation, edges, self.network) - self.offset

    def table(self, plan: Plan) -> Integers:
        """(2^TABLE_BITS,) value << 16 | slope."""
        values = np.rint(_top(plan) / self.peak * self.values()).astype(np.int64)
        left, rise = values[:-1], np.diff(values)
        rise[[0, -1]] = 0  # a sum beyond the table lands here with any place: level
        odd = np.arange(len(rise)) % 2 == 1
        # The kernel's place is 15 bits, less 2^15 in an odd piece (seen from the middle: the
        # parity of the piece's number): there the entry holds the right end.
        start = np.where(odd, left + rise, left)
        start[0], start[-1] = values[0], values[-1]
        return (start << 16) | ((2 * rise) & 0xFFFF)


def _curve(network: Network, largest: list[Floats]) -> Curve | None:
    """The network's curve; None where no layer needs a table. CompileError where two differ.

    A table of tanh reaches to 8, where tanh is 1 - 2e-7; sigmoid is as flat at 16. A clip's kinks
    fall on edges of pieces. ELU goes on above: as far as was seen, with the margin; and to -8.
    """
    names = sorted({layer.activation for layer in network.layers[:-1]} & set(TABLE_ACTIVATIONS))
    if not names:
        return None
    if len(names) > 1:
        raise CompileError(
            f"fixed point has one table, for {names[0]} or {names[1]}: use --precision f32"
        )
    (name,) = names
    seen = max(
        float(found.max())
        for layer, found in zip(network.layers[:-1], largest[1:], strict=True)
        if layer.activation == name
    )
    bound = max(map(abs, network.clip))
    reach = {"tanh": 8.0, "sigmoid": 16.0, "clip": 2 * bound, "elu": max(8.0, seen)}[name]
    return Curve(name, network, reach)


def _top(plan: Plan) -> float:
    """The number that stands for a table's peak."""
    return float(2 ** (min(plan.bits[1:], default=16) - 1) - 1)
