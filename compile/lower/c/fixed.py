"""A fixed-point policy as the text of policy.c: packed words, buffers and calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.activation import action_range
from compile.fixed_point import TABLE_BITS, FixedLayer, FixedNetwork, Integers
from compile.lower.c.layout import float_literal, function_call, identifier

Words = NDArray[np.uint32]
ROWS = 4  # of a panel: 4 sums, 4 weights, 2 inputs and 2 pointers fill the core's registers
INPUTS_A_WORD = {"i16": 2, "i8": 4, "i8x": 4}
BYTE_OF_INPUT = (1, 3, 0, 2)  # of a word of four int8 weights, for inputs 0..3
PARAMETERS = {
    "relu": ("int shift", "int bits"),
    "leaky_shift": ("int shift", "int lift", "int bits"),
    "leaky": ("int shift", "int bits", "int32_t slope"),
    "table": ("int shift", "int bits", "const uint32_t *table"),
}
"""What the functions for a kind of hidden activation take besides sums, as C declares it."""


@dataclass(frozen=True)
class FixedLayout:
    """One layer as C."""

    name: str
    n_in: int
    n_out: int
    activation: str
    panels: tuple[str, ...]  # initialisers, one panel each
    constants: int  # words
    call: str


def panel_words(layer: FixedLayer, precision: str) -> Words:
    """(panels, 1 + words of inputs, ROWS): biases, then the weights of each word of inputs."""
    per_word = INPUTS_A_WORD[precision]
    panels, words = -(-layer.n_out // ROWS), -(-layer.n_in // per_word)
    codes = np.zeros((panels * ROWS, words, per_word), np.int64)
    codes.reshape(panels * ROWS, -1)[: layer.n_out, : layer.n_in] = layer.codes
    width = 32 // per_word
    places = (0, 1) if per_word == 2 else BYTE_OF_INPUT
    packed = sum(
        (codes[:, :, k] & (2**width - 1)) << (width * place) for k, place in enumerate(places)
    )
    bias = np.zeros(panels * ROWS, np.int64)
    bias[: layer.n_out] = layer.bias
    stream = np.concatenate([bias[:, None] & 0xFFFFFFFF, packed], axis=1)
    return stream.reshape(panels, ROWS, 1 + words).transpose(0, 2, 1).astype(np.uint32)


def lay_out_fixed(network: FixedNetwork) -> tuple[FixedLayout, ...]:
    """The layers in C's terms."""
    layouts = []
    source = "input"
    for index, layer in enumerate(network.layers):
        name = identifier(layer.name, index)
        stream = panel_words(layer, network.precision)
        destination = ("even", "odd")[index % 2] if layer.hidden else "sums"
        sizes = f"{stream.shape[1] - 1}, {len(stream)}"
        arguments = f"{name}_weights, {source}, {destination}, {sizes}"
        if layer.hidden is None:
            call = f"last_layer({arguments});"
        else:
            values = [_value(name, layer) for name in parameter_names(layer.hidden.kind)]
            call = f"{layer.hidden.kind}_layer({', '.join([arguments, *values])});"
        layouts.append(
            FixedLayout(
                name=name,
                n_in=layer.n_in,
                n_out=layer.n_out,
                activation=layer.activation,
                panels=tuple(_panel(words, number, layer) for number, words in enumerate(stream)),
                constants=stream.size,
                call=call,
            )
        )
        source = destination
    return tuple(layouts)


def buffers(network: FixedNetwork) -> dict[str, int]:
    """Words of the input and of the buffers that hidden layers write in turn."""
    per_word = INPUTS_A_WORD[network.precision]
    sizes = {"input": per_word // 2 * -(-network.obs_dim // per_word)}
    hidden = [layer.n_out for layer in network.layers[:-1]]
    for parity, name in enumerate(("even", "odd")):
        if hidden[parity::2]:
            sizes[name] = ROWS // 2 * -(-max(hidden[parity::2]) // ROWS)
    return sizes


def input_calls(network: FixedNetwork) -> list[str]:
    """Statements that fill `input`."""
    dim, bits = network.obs_dim, network.input_bits
    fractions = [*network.input_fraction, 0]
    calls = []
    for word, k in enumerate(range(0, dim, 2)):
        second = f"observation[{k + 1}]" if k + 1 < dim else "0.0f"
        calls.append(
            f"input[{word}] = input_pair(observation[{k}], {second}, "
            f"{fractions[k]}, {fractions[k + 1]}, {bits}, &sum);"
        )
    return calls


def input_shift(network: FixedNetwork) -> list[str]:
    """By observation, in pairs: how far down its mantissa moves, and its exponent."""
    fractions = [*network.input_fraction, *[0] * (network.obs_dim % 2)]
    return [str(158 - fraction) for fraction in fractions]


def output_calls(network: FixedNetwork) -> list[str]:
    """Statements that turn `sums` into the action."""
    bits, count = network.output_fraction, "POLICY_ACT_DIM"
    form = network.output_form
    padded = result_floats(network)
    where = "result" if padded else "action"
    calls = [f"to_f32(sums, {where}, {padded or count}, {bits});"]
    if form.leak:
        calls.append(f"leak_f32(action, {count}, {float_literal(np.float32(form.leak))});")
    calls += function_call(form, where, padded, network)
    bounds = action_range(network.output, network)
    if bounds is not None:
        low, high = (float_literal(np.float32(end)) for end in bounds)
        calls.append(f"clip_f32({where}, action, {count}, {low}, {high});")
    elif padded:
        calls.append(f"copy_f32(result, action, {count});")
    return calls


def result_floats(network: FixedNetwork) -> int:
    """Floats that the output's function works on, in fours; 0 where there is no function."""
    return ROWS * -(-network.act_dim // ROWS) if network.output_form.function else 0


def kinds(network: FixedNetwork) -> list[str]:
    """Of hidden activations, sorted."""
    return sorted({layer.hidden.kind for layer in network.layers if layer.hidden})


def parameter_names(kind: str) -> list[str]:
    """Of PARAMETERS, without the types."""
    return [declared.split()[-1].lstrip("*") for declared in PARAMETERS[kind]]


def kernels(network: FixedNetwork) -> list[str]:
    """Names of the kernels in use, in an order in which each may use those before it."""
    names = ["fill_f32", "input", f"sums4_{network.precision}"]
    names += [f"{kind}_pair" for kind in kinds(network)]
    called = [call.split("(")[0] for call in output_calls(network)]
    return [*names, *(["tanh_f32"] if "sigmoid_f32" in called else []), *called]


def hexadecimal(words: Sequence[int] | Integers | Words, columns: int) -> str:
    """Words as C initialisers, `columns` a line."""
    return in_columns([f"0x{int(word) & 0xFFFFFFFF:08x}u" for word in words], columns)


def in_columns(texts: Sequence[str], columns: int) -> str:
    """Initialisers, `columns` a line."""
    lines = [texts[i : i + columns] for i in range(0, len(texts), columns)]
    return ",\n".join("    " + ", ".join(line) for line in lines)


def _panel(words: Words, number: int, layer: FixedLayer) -> str:
    last = min(ROWS * number + ROWS, layer.n_out) - 1
    title = f"    /* rows {ROWS * number} to {last}: biases, then inputs in order */\n"
    return title + hexadecimal(words.reshape(-1), 8)


def _value(parameter: str, layer: FixedLayer) -> str:
    """What a layer's call has for a parameter."""
    if parameter == "table":
        return f"{layer.activation}_table + {2 ** (TABLE_BITS - 1)}"
    return str(getattr(layer.hidden, parameter))
