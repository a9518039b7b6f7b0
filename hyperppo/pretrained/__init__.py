"""Runs that ship with the package."""

from __future__ import annotations

from pathlib import Path

from hyperppo.errors import HyperPPOError


def path(name: str) -> Path:
    """The directory of a shipped run; raises HyperPPOError when there is none of that name."""
    directory = Path(__file__).parent / name
    if not (directory / "config.json").is_file():
        known = sorted(p.parent.name for p in Path(__file__).parent.glob("*/config.json"))
        raise HyperPPOError(f"no shipped run '{name}': there is {', '.join(known) or 'none'}")
    return directory
