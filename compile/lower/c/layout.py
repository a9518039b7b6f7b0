"""How a network lies in memory in C: folded scales, panels of rows, buffers and calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.activation import Form, Parameters, hidden_form, output_form
from compile.network import Network, folded

PANEL = 8  # rows a panel: with 8 sums, 8 inputs and 16 weights the 32 FPU registers are full
TAIL = 4  # rows of the smaller last panel


@dataclass(frozen=True)
class Panel:
    """Rows computed together: one sequential stream of weights."""

    first_row: int
    rows: int  # PANEL or TAIL, zero padded
    stream: NDArray[np.float32]  # (1 + n_in, rows): the biases, then one line per input


@dataclass(frozen=True)
class LayerLayout:
    """One layer as C: its constants and the calls that compute it."""

    name: str  # C identifier made of the ONNX node's name
    n_in: int
    n_out: int
    activation: str
    panels: tuple[Panel, ...]
    calls: tuple[str, ...]
    finish: tuple[str, ...]  # calls behind the sums: an activation of its own
    kernels: frozenset[str]  # names of the kernels that the calls use

    @property
    def constants(self) -> int:
        """Number of floats in the stream, padding included."""
        return sum(panel.stream.size for panel in self.panels)

    @property
    def padded_out(self) -> int:
        """Floats that the layer writes: a multiple of TAIL."""
        return sum(panel.rows for panel in self.panels)


def lay_out(network: Network) -> tuple[LayerLayout, ...]:
    """The layers in C's terms. CompileError where the C lowering has no form for a layer."""
    layouts: list[LayerLayout] = []
    previous = Form()
    source = "observation"
    for index, layer in enumerate(network.layers):
        last = index == len(network.layers) - 1
        form = (output_form if last else hidden_form)(layer.activation, network)
        own = folded(layer, form, previous)
        panels = _panels(own.weight, own.bias)
        name = identifier(layer.name, index)
        destination = ("even", "odd")[index % 2]
        leak = float_literal(np.float32(form.leak))
        calls = _dense_calls(name, panels, source, destination, layer.n_in, leak)
        rows = sum(panel.rows for panel in panels)
        finish = function_call(form, destination, rows, network)
        layouts.append(
            LayerLayout(
                name=name,
                n_in=layer.n_in,
                n_out=layer.n_out,
                activation=layer.activation,
                panels=panels,
                calls=tuple(calls),
                finish=finish,
                kernels=frozenset(call.split("(")[0] for call in [*calls, *finish]),
            )
        )
        source, previous = destination, form
    return tuple(layouts)


def function_call(form: Form, where: str, n: int, of: Parameters) -> tuple[str, ...]:
    """The call that applies a form's function to n floats in place; none without a function."""
    arguments = {
        "clip_f32": [where, where, f"{n}", *map(float_literal, map(np.float32, of.clip))],
        "elu_f32": [where, f"{n}", float_literal(np.float32(of.elu_alpha))],
    }.get(form.function, [where, f"{n}"])
    return (f"{form.function}({', '.join(arguments)});",) if form.function else ()


def buffer_sizes(layouts: tuple[LayerLayout, ...]) -> dict[str, int]:
    """Floats of the two buffers that layers write in turn; the second one is not always there."""
    return {
        name: max(layout.padded_out for layout in layouts[parity::2])
        for parity, name in enumerate(("even", "odd"))
        if layouts[parity::2]
    }


def _panels(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[Panel, ...]:
    """Panels of eight rows; a rest of at most four makes one panel of four."""
    n_out, n_in = weight.shape
    panels = []
    first = 0
    while first < n_out:
        rows = TAIL if n_out - first <= TAIL else PANEL
        real = min(rows, n_out - first)
        stream = np.zeros((1 + n_in, rows), np.float32)
        stream[0, :real] = bias[first : first + real]
        stream[1:, :real] = weight[first : first + real].T
        panels.append(Panel(first, rows, stream))
        first += rows
    return tuple(panels)


def _dense_calls(
    name: str, panels: tuple[Panel, ...], source: str, destination: str, n_in: int, leak: str
) -> list[str]:
    eights = sum(panel.rows == PANEL for panel in panels)
    calls = []
    if eights:
        calls.append(
            f"dense8_f32({name}_weights, {source}, {destination}, {n_in}, {eights}, {leak});"
        )
    if eights < len(panels):
        rows = eights * PANEL
        weights = f"{name}_weights" + (f" + {rows * (1 + n_in)}" if rows else "")
        result = destination + (f" + {rows}" if rows else "")
        calls.append(f"dense4_f32({weights}, {source}, {result}, {n_in}, {leak});")
    return calls


def identifier(name: str, index: int) -> str:
    """A layer's C identifier: unique by its index, and it still names the ONNX node."""
    clean = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_")
    return clean if clean == f"layer_{index}" else f"layer_{index}_{clean}".rstrip("_")


def float_literal(value: np.float32) -> str:
    """The shortest decimal that reads back as the same float32."""
    text = str(np.float32(value))
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"
