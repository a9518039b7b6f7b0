"""The text of policy_tflm.h, policy_tflm.cc and policy.h, from templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jinja2
import numpy as np
from numpy.typing import NDArray

import hyperppo
from compile.lower.c import rejected_action
from compile.lower.c.layout import float_literal
from compile.lower.tflm.arena import arena, target_arena
from compile.lower.tflm.interpret import Policy
from compile.lower.tflm.model import RESOLVER_CALL
from compile.network import Network

TEMPLATES = ("policy.h", "policy_tflm.h", "policy_tflm.cc")
C_TYPE = {"float32": "float", "int8": "int8_t", "int16": "int16_t"}


def sources(
    network: Network, policy: Policy, title: str, essentials: Sequence[str]
) -> Mapping[str, str]:
    """File name -> text. ``essentials``: lines for the header comments, below the title."""
    source, result = policy.source, policy.result
    quantized = source.scale is not None
    bounds = None if policy.clip is None else tuple(map(_literal, policy.clip))
    limits = np.iinfo(source.dtype) if quantized else None
    reserved = target_arena(policy.model)
    rules = arena(policy.model, pointer=4, recording=False).peak
    values = {
        "version": hyperppo.__version__,
        "title": title,
        "essentials": essentials,
        "obs_dim": network.obs_dim,
        "act_dim": network.act_dim,
        "rejected": _literal(rejected_action(network)),
        "action_range": "" if policy.clip is None else " in [{:g}, {:g}]".format(*policy.clip),
        "arena": reserved,
        "rules": rules,
        "margin": reserved - rules,
        "model": policy.content,
        "calls": [RESOLVER_CALL[kind] for kind in policy.model.kinds],
        "type": C_TYPE[source.dtype],
        "quantized": quantized,
        "bounds": bounds,
        "gain": policy.gain,
        "source": source,
        "result": result,
        "scale": _literal(result.scale or 1.0),
        "lowest": limits.min if limits else 0,
        "highest": limits.max if limits else 0,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compile", "lower/tflm"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(bytes=_bytes, floats=_floats)
    return {name: environment.get_template(f"{name}.j2").render(values) for name in TEMPLATES}


def _literal(value: float) -> str:
    return float_literal(np.float32(value))


def _bytes(content: bytes) -> str:
    rows = [content[i : i + 16] for i in range(0, len(content), 16)]
    return "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)


def _floats(row: NDArray[np.float32]) -> str:
    words = [float_literal(value) for value in row]
    lines = [words[i : i + 8] for i in range(0, len(words), 8)]
    return ",\n".join("    " + ", ".join(line) for line in lines)
