"""Settings of whole runs, as data: `FAMILY.toml`, a table a preset, sources beside the values.

A preset's `base` names another one, over which its own settings go.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from hyperppo.envs.registry import family
from hyperppo.errors import HyperPPOError

DEFAULT = "default"


def preset(task: str, name: str) -> dict[str, Any]:
    """A preset of a task as plain data for `make_config`, the task's name not in it.

    A task of one's own has no more than the default, which is `RunConfig`'s. Raises HyperPPOError
    for an unknown preset.
    """
    file = resources.files(__name__) / f"{family(task)}.toml"
    known: dict[str, Any] = _with_none(tomllib.loads(file.read_text())) if file.is_file() else {}
    known.setdefault(DEFAULT, {})
    if name not in known:
        raise HyperPPOError(f"{task} has no preset '{name}': it has {', '.join(sorted(known))}")
    return _whole(known, name)


def _whole(known: dict[str, Any], name: str) -> dict[str, Any]:
    own = dict(known[name])
    base = own.pop("base", None)
    return own if base is None else _over(_whole(known, base), own)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, those of `above` where both have one."""
    both = below.keys() & above.keys()
    return {
        **below,
        **above,
        **{k: _over(below[k], above[k]) for k in both if isinstance(above[k], dict)},
    }


def _with_none(data: Any) -> Any:
    """TOML has no null: it is written "none"."""
    if isinstance(data, dict):
        return {key: _with_none(value) for key, value in data.items()}
    return None if data == "none" else data
