"""The text of policy.h, policy.c and policy_golden.h, from templates and kernel snippets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

import hyperppo
from compile.activation import action_range
from compile.fixed_point import SUM_LIMIT, FixedNetwork
from compile.lower.c import fixed
from compile.lower.c.layout import Panel, buffer_sizes, float_literal, lay_out
from compile.network import Network

FROM_C = "this very C code gave for them on the host"
_KERNEL_ORDER = (
    "fill_f32", "dense8_f32", "dense4_f32", "tanh_f32", "sigmoid_f32", "elu_f32", "clip_f32",
    "finite_f32",
)  # fmt: skip


@dataclass(frozen=True)
class CoreKernels:
    """Kernels written for one core; each replaces the portable one of its name."""

    guard: str = "0"  # preprocessor condition that holds on that core
    sources: Mapping[str, str] = field(default_factory=dict)  # kernel name -> C text


def core_kernels(core: str) -> CoreKernels:
    """The kernels under targets/cores/CORE/kernels; none where the core has no such folder."""
    folder = resources.files("targets") / "cores" / core / "kernels"
    if not folder.is_dir():
        return CoreKernels()
    sources = {
        entry.name.removesuffix(".c"): entry.read_text(encoding="utf-8").rstrip()
        for entry in folder.iterdir()
        if entry.name.endswith(".c")
    }
    return CoreKernels((folder / "guard.txt").read_text(encoding="utf-8").strip(), sources)


def policy_header(network: Network, title: str, essentials: Sequence[str]) -> str:
    """policy.h. ``essentials``: lines for the header comment, below the title."""
    bounded = _bounds(network) is not None
    return _render(
        "policy.h.j2",
        network=network,
        title=title,
        essentials=essentials,
        bounded=bounded,
        rejected=float_literal(np.float32(rejected_action(network))),
        action_range=_range_text(network),
    )


def policy_source(
    network: Network,
    title: str,
    essentials: Sequence[str],
    weights_in: str,
    kernels: CoreKernels,
) -> str:
    """policy.c, with the weights in "flash" or "ram" and a core's kernels beside the portable."""
    layouts = lay_out(network)
    bounds = _bounds(network)
    used = {name for layout in layouts for name in layout.kernels}
    used |= {"fill_f32", "clip_f32" if bounds else "finite_f32"}
    used |= {"tanh_f32"} if "sigmoid_f32" in used else set()
    return _render(
        "policy.c.j2",
        title=title,
        essentials=essentials,
        layers=layouts,
        weights_in=weights_in,
        buffers=buffer_sizes(layouts),
        result=("even", "odd")[(len(layouts) - 1) % 2],
        guard=kernels.guard,
        kernels=[
            {"portable": _portable(name), "core": kernels.sources.get(name)}
            for name in _KERNEL_ORDER
            if name in used
        ],
        bounds=bounds,
    )


def fixed_source(
    network: FixedNetwork,
    title: str,
    essentials: Sequence[str],
    weights_in: str,
    kernels: CoreKernels,
) -> str:
    """policy.c of a fixed-point network; arguments as for `policy_source`."""
    names = fixed.kernels(network)
    return _render(
        "policy_fixed.c.j2",
        title=title,
        essentials=essentials,
        precision=network.precision,
        step=fixed.INPUTS_A_WORD[network.precision] // 2,
        layers=fixed.lay_out_fixed(network),
        weights_in=weights_in,
        weights_type="WEIGHTS" if weights_in == "ram" else "static const uint32_t",
        table=list(network.table),
        table_name=next(
            (x.activation for x in network.layers if x.hidden and x.hidden.kind == "table"), ""
        ),
        buffers=fixed.buffers(network),
        sums=4 * -(-network.act_dim // 4),
        absolute=bool({"leak_f32", "elu_f32"} & set(names)),
        worst=max(network.worst_sums) / SUM_LIMIT,
        guard=kernels.guard,
        core=[kernels.sources.get(name, _portable(name)) for name in names if kernels.sources],
        portable=[_portable(name) for name in names],
        kinds=[
            (kind, fixed.PARAMETERS[kind], fixed.parameter_names(kind))
            for kind in fixed.kinds(network)
        ],
        input_calls=fixed.input_calls(network),
        input_shift=fixed.input_shift(network),
        input_bits=network.input_bits,
        output_calls=fixed.output_calls(network),
        result=fixed.result_floats(network),
    )


def golden_header(
    observations: NDArray[np.float32],
    actions: NDArray[np.float32],
    tolerance: float,
    origin: str = FROM_C,
) -> str:
    """policy_golden.h: (n, obs_dim) observations, (n, act_dim) actions, absolute tolerance.

    ``origin``: the end of the sentence that says what gave the actions.
    """
    return _render(
        "policy_golden.h.j2",
        observations=observations,
        actions=actions,
        origin=origin,
        tolerance=float_literal(np.float32(tolerance)),
    )


def _bounds(network: Network) -> tuple[str, str] | None:
    """C literals of the action's range, None where the output layer has no bound."""
    bounds = action_range(network.layers[-1].activation, network)
    if bounds is None:
        return None
    return float_literal(np.float32(bounds[0])), float_literal(np.float32(bounds[1]))


def rejected_action(network: Network) -> float:
    """Every action's value after a bad observation: the range's lower end; 0 without a range."""
    bounds = action_range(network.layers[-1].activation, network)
    return 0.0 if bounds is None else float(np.float32(bounds[0]))


def _range_text(network: Network) -> str:
    bounds = _bounds(network)
    return "" if bounds is None else f" in [{bounds[0].rstrip('f')}, {bounds[1].rstrip('f')}]"


def _portable(name: str) -> str:
    path = resources.files("compile") / "lower" / "c" / "kernels" / f"{name}.c"
    return path.read_text(encoding="utf-8").rstrip()


def _floats(row: NDArray[np.float32], indent: int = 4, columns: int = 8) -> str:
    """Numbers as C initialisers, ``columns`` a line."""
    words = [float_literal(value) for value in row]
    lines = [words[i : i + columns] for i in range(0, len(words), columns)]
    return ",\n".join(" " * indent + ", ".join(line) for line in lines)


def _panel(panel: Panel, layer: Any) -> str:
    last = min(panel.first_row + panel.rows, layer.n_out) - 1
    title = f"    /* rows {panel.first_row} to {last}: biases, then one line per input */\n"
    return title + _floats(panel.stream.reshape(-1), columns=panel.rows)


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compile", "lower/c"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(floats=_floats, panel=_panel)
    environment.filters.update(words=fixed.hexadecimal, columns=fixed.in_columns)
    return environment.get_template(template).render(version=hyperppo.__version__, **values)
