"""What a microcontroller is: one TOML file a target, read and checked here."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.cycle_model import CoreTiming
from targets.errors import TargetError

WEIGHTS_IN = ("flash", "ram")


@dataclasses.dataclass(frozen=True)
class Memory:
    """A memory region: origin address, bytes in all and left free by the stock firmware."""

    origin: int
    size_bytes: int
    free_bytes: int
    wait_states: int

    def holds(self, address: int) -> bool:
        """Whether the address lies in this region."""
        return self.origin <= address < self.origin + self.size_bytes


@dataclasses.dataclass(frozen=True)
class Target:
    """A board that policies are compiled for. Times in microseconds, sizes in bytes."""

    name: str
    description: str
    core: str  # folder under targets/cores
    isa_flags: tuple[str, ...]
    clock_hz: int
    memories: Mapping[str, Memory]  # "flash", "ram" and whatever else there is
    weights_in: str  # default placement: "flash" or "ram"
    deadline_us: float
    control_hz: int
    toolchain: str  # prefix of the cross-compiler's commands
    optimise: tuple[str, ...]
    timing: CoreTiming
    error_band: float  # relative error of the cycle model
    gate_margin: float  # factor on modelled time before it is compared with a time budget
    fit: Mapping[str, Mapping[str, float]]  # fitted constants by "f32.flash" and the like

    def with_flash_wait_states(self, wait_states: int) -> Target:
        """The same board with other flash wait states (0 models code and weights in SRAM)."""
        flash = dataclasses.replace(self.memories["flash"], wait_states=wait_states)
        return dataclasses.replace(self, memories={**self.memories, "flash": flash})


def targets_folder() -> Path:
    """The folder that holds one TOML file a target."""
    return Path(__file__).parent


def known_targets() -> tuple[str, ...]:
    """Names of the targets that come with the package, sorted."""
    return tuple(sorted(path.stem for path in targets_folder().glob("*.toml")))


def load_target(name: str) -> Target:
    """Reads a target by name. TargetError when it is unknown or its file is not valid."""
    if name not in known_targets():
        raise TargetError(f"unknown target {name!r}: choose one of {', '.join(known_targets())}")
    return read_target(targets_folder() / f"{name}.toml")


def read_target(path: Path) -> Target:
    """Reads a target file. TargetError names the file, the field and what it should be."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"{path}: not a readable TOML file ({error})") from None
    return _Reader(str(path)).target(document)


class _Reader:
    """Takes typed fields out of TOML tables, with errors that name file and field."""

    def __init__(self, path: str) -> None:
        self._path = path

    def target(self, document: dict[str, Any]) -> Target:
        memories = {
            name: self._record(Memory, entry, f"memories.{name}.")
            for name, entry in self._table(document, "memories").items()
        }
        for needed in ("flash", "ram"):
            if needed not in memories:
                self._fail(f"memories.{needed}", "is missing")
        for name, memory in memories.items():
            if not 0 <= memory.free_bytes <= memory.size_bytes:
                self._fail(f"memories.{name}.free_bytes", "must lie within 0..size_bytes")
        timing = self._record(CoreTiming, self._table(document, "timing"), "timing.")
        if timing.cache_line_bytes < 1:
            self._fail("timing.cache_line_bytes", "must be positive")
        if timing.taken_branch_max < timing.taken_branch_min:
            self._fail("timing.taken_branch_max", "must be at least timing.taken_branch_min")
        weights_in = self._text(document, "weights_in")
        if weights_in not in WEIGHTS_IN:
            self._fail("weights_in", f"must be one of {', '.join(WEIGHTS_IN)}")
        core = self._text(document, "core")
        if not (targets_folder() / "cores" / core).is_dir():
            self._fail("core", f"has no folder targets/cores/{core}")
        return Target(
            name=self._text(document, "name"),
            description=self._text(document, "description"),
            core=core,
            isa_flags=self._flags(document, "isa_flags"),
            clock_hz=int(self._positive(document, "clock_hz", whole=True)),
            memories=memories,
            weights_in=weights_in,
            deadline_us=self._positive(document, "deadline_us"),
            control_hz=int(self._positive(document, "control_hz", whole=True)),
            toolchain=self._text(document, "toolchain"),
            optimise=self._flags(document, "optimise"),
            timing=timing,
            error_band=self._positive(document, "error_band"),
            gate_margin=self._positive(document, "gate_margin"),
            fit=self._fit(document.get("fit", {})),
        )

    def _fail(self, field: str, problem: str) -> None:
        raise TargetError(f"{self._path}: {field} {problem}")

    def _get(self, table: dict[str, Any], key: str) -> Any:
        if key not in table:
            self._fail(key, "is missing")
        return table[key]

    def _table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        value = self._get(table, key)
        if not isinstance(value, dict):
            self._fail(key, "must be a table")
        return dict(value)

    def _text(self, table: dict[str, Any], key: str) -> str:
        value = self._get(table, key)
        if not isinstance(value, str) or not value:
            self._fail(key, "must be a non-empty string")
        return str(value)

    def _flags(self, table: dict[str, Any], key: str) -> tuple[str, ...]:
        value = self._get(table, key)
        if not isinstance(value, list) or not all(isinstance(flag, str) for flag in value):
            self._fail(key, "must be a list of strings")
        return tuple(value)

    def _positive(self, table: dict[str, Any], key: str, whole: bool = False) -> float:
        value = self._get(table, key)
        allowed = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e12:
            self._fail(key, f"must be a positive {'whole ' if whole else ''}number")
        return float(value)

    def _record(self, kind: type[Any], table: Any, prefix: str) -> Any:
        """A dataclass of whole numbers and booleans from a table with exactly its fields."""
        if not isinstance(table, dict):
            self._fail(prefix.rstrip("."), "must be a table")
        fields = {field.name: field.type for field in dataclasses.fields(kind)}
        for name in table.keys() - fields.keys():
            self._fail(prefix + name, "is not known")
        for name, declared in fields.items():
            if name not in table:
                self._fail(prefix + name, "is missing")
            value = table[name]
            if declared == "bool":
                if not isinstance(value, bool):
                    self._fail(prefix + name, "must be true or false")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
                self._fail(prefix + name, "must be a whole number, not negative")
        return kind(**table)

    def _fit(self, table: Any) -> dict[str, dict[str, float]]:
        """[fit.PRECISION.PLACEMENT] tables of numbers, keyed "PRECISION.PLACEMENT"."""
        fits: dict[str, dict[str, float]] = {}
        if not isinstance(table, dict):
            self._fail("fit", "must be a table")
        for precision, placements in table.items():
            if not isinstance(placements, dict):
                self._fail(f"fit.{precision}", "must be a table")
            for placement, constants in placements.items():
                key = f"{precision}.{placement}"
                if not isinstance(constants, dict) or not all(
                    isinstance(number, (int, float)) and not isinstance(number, bool)
                    for number in constants.values()
                ):
                    self._fail(f"fit.{key}", "must be a table of numbers")
                fits[key] = {name: float(number) for name, number in constants.items()}
        return fits
