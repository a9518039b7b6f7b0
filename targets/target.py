"""What a microcontroller is: one TOML file a target, read and checked here."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.cycle_model import CoreTiming
from targets.errors import TargetError
from targets.shapes import PRECISIONS

WEIGHTS_IN = ("flash", "ram")
NO_FIRMWARE = "none"  # what a file says of a board without stock firmware
NATIVE = "native"
CORES = ("cortex_m0plus", "cortex_m4f", "cortex_m7", NATIVE)
"""Cores that code is built for. Kernels of its own lie in targets/cores/CORE/kernels; a core
without that folder runs the portable C. `native` is the processor that this program runs on."""

FITTED_FOR = ("core", "isa_flags", "optimise", "timing")
"""Fields that a fit depends on, besides the wait states: a file based on another one that changes
any of them does not inherit its fit."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """A memory region: origin address, bytes in all and left free by the stock firmware."""

    origin: int
    size_bytes: int
    free_bytes: int
    wait_states: int | None = None  # only a cycle model needs them

    def holds(self, address: int) -> bool:
        """Whether the address lies in this region."""
        return self.origin <= address < self.origin + self.size_bytes


@dataclasses.dataclass(frozen=True)
class Target:
    """A board that policies are compiled for. Times in microseconds, sizes in bytes."""

    name: str
    description: str
    core: str  # one of CORES
    isa_flags: tuple[str, ...]
    clock_hz: int | None  # None on the native core
    memories: Mapping[str, Memory]  # "flash", "ram" and whatever else there is; none if native
    weights_in: str  # default placement: "flash" or "ram"
    precisions: tuple[str, ...]  # what its policies may be computed in, the default first
    deadline_us: float
    control_hz: int
    toolchain: str  # prefix of the cross-compiler's commands; empty: this machine's compiler
    optimise: tuple[str, ...]
    firmware: str | None  # stock firmware that packages carry an app for
    platform: str | None  # what that firmware calls this board
    run: str  # the shipped run that is compiled when none is given
    timing: CoreTiming | None  # None: no cycle model of this core exists
    error_band: float  # relative error of the cycle model; 0 without one
    gate_margin: float  # factor on modelled time before it is compared with a time budget
    fit: Mapping[str, Mapping[str, float]]  # fitted constants by "f32.flash" and the like

    @property
    def native(self) -> bool:
        """Whether this machine is the target: its compiler builds the code, which runs here."""
        return self.core == NATIVE

    @property
    def portable(self) -> bool:
        """Whether its core has no kernels of its own: it runs the portable C."""
        return not (Path(__file__).parent / "cores" / self.core / "kernels").is_dir()

    def modelled(self) -> tuple[CoreTiming, int]:
        """The cycle model's numbers and the clock in Hz. TargetError when there is no model."""
        if self.timing is None or self.clock_hz is None:
            raise TargetError(f"{self.name} has no cycle model: its times are not known")
        return self.timing, self.clock_hz

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
    return _Reader(str(path)).target(_document(path))


def _document(path: Path) -> dict[str, Any]:
    """A file's fields; those it does not set come from the file that `based_on` names."""
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"{path}: not a readable TOML file ({error})") from None
    if "based_on" not in own:
        return own
    base = own.pop("based_on")
    if base not in known_targets():
        raise TargetError(f"{path}: based_on must be one of {', '.join(known_targets())}")
    base_path = targets_folder() / f"{base}.toml"
    document = tomllib.loads(base_path.read_text(encoding="utf-8"))
    if "based_on" in document:
        raise TargetError(f"{path}: based_on {base}, which is itself based on another target")
    merged = _merge(document, own)
    if "fit" not in own and _fitted_for(merged) != _fitted_for(document):
        merged.pop("fit", None)
    return merged


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `own`, tables field by field."""
    merged = dict(base)
    for key, value in own.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _fitted_for(document: dict[str, Any]) -> list[Any]:
    memories = document.get("memories")
    regions = memories if isinstance(memories, dict) else {}
    waits = {name: isinstance(m, dict) and m.get("wait_states") for name, m in regions.items()}
    return [waits, *(document.get(field) for field in FITTED_FOR)]


class _Reader:
    """Takes typed fields out of TOML tables, with errors that name file and field."""

    def __init__(self, path: str) -> None:
        self._path = path

    def target(self, document: dict[str, Any]) -> Target:
        core = self._one_of(document, "core", CORES)
        machine = self._native(document) if core == NATIVE else self._board(document)
        firmware = self._text(document, "firmware")
        known = {field.name for field in dataclasses.fields(Target)}
        for name in document.keys() - known:
            self._fail(name, "is not known")
        return Target(
            name=self._text(document, "name"),
            description=self._text(document, "description"),
            core=core,
            isa_flags=self._flags(document, "isa_flags"),
            weights_in=self._one_of(document, "weights_in", WEIGHTS_IN),
            precisions=self._precisions(document),
            deadline_us=self._positive(document, "deadline_us"),
            control_hz=int(self._positive(document, "control_hz", whole=True)),
            optimise=self._flags(document, "optimise"),
            firmware=None if firmware == NO_FIRMWARE else firmware,
            platform=None if firmware == NO_FIRMWARE else self._text(document, "platform"),
            run=self._text(document, "run"),
            fit=self._fit(document.get("fit", {})),
            **machine,
        )

    def _board(self, document: dict[str, Any]) -> dict[str, Any]:
        """Fields of a microcontroller: its memories, its clock, and its cycle model if any."""
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
        timing, band, margin = None, 0.0, 1.0
        if "timing" in document:
            timing = self._timing(document)
            band = self._positive(document, "error_band")
            margin = self._positive(document, "gate_margin")
            for name, memory in memories.items():
                if memory.wait_states is None:
                    self._fail(f"memories.{name}.wait_states", "is missing")
        else:
            self._without(document, ("error_band", "gate_margin"), "needs a [timing] table")
        return {
            "clock_hz": int(self._positive(document, "clock_hz", whole=True)),
            "memories": memories,
            "toolchain": self._text(document, "toolchain"),
            "timing": timing,
            "error_band": band,
            "gate_margin": margin,
        }

    def _native(self, document: dict[str, Any]) -> dict[str, Any]:
        """What the native core has instead: nothing that is known before it runs."""
        unknown = ("clock_hz", "memories", "toolchain", "timing", "error_band", "gate_margin")
        self._without(document, unknown, f"has no meaning for core {NATIVE!r}")
        return {
            "clock_hz": None,
            "memories": {},
            "toolchain": "",
            "timing": None,
            "error_band": 0.0,
            "gate_margin": 1.0,
        }

    def _timing(self, document: dict[str, Any]) -> CoreTiming:
        timing: CoreTiming = self._record(CoreTiming, self._table(document, "timing"), "timing.")
        if timing.cache_line_bytes < 1:
            self._fail("timing.cache_line_bytes", "must be positive")
        if timing.taken_branch_max < timing.taken_branch_min:
            self._fail("timing.taken_branch_max", "must be at least timing.taken_branch_min")
        return timing

    def _fail(self, field: str, problem: str) -> None:
        raise TargetError(f"{self._path}: {field} {problem}")

    def _without(self, document: dict[str, Any], fields: tuple[str, ...], why: str) -> None:
        for name in fields:
            if name in document:
                self._fail(name, why)

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

    def _one_of(self, table: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
        value = self._text(table, key)
        if value not in choices:
            self._fail(key, f"must be one of {', '.join(choices)}")
        return value

    def _flags(self, table: dict[str, Any], key: str) -> tuple[str, ...]:
        value = self._get(table, key)
        if not isinstance(value, list) or not all(isinstance(flag, str) for flag in value):
            self._fail(key, "must be a list of strings")
        return tuple(value)

    def _precisions(self, document: dict[str, Any]) -> tuple[str, ...]:
        chosen = self._flags(document, "precisions")
        if not chosen or set(chosen) - set(PRECISIONS) or len(set(chosen)) < len(chosen):
            self._fail("precisions", f"must list some of {', '.join(PRECISIONS)}, each once")
        return chosen

    def _positive(self, table: dict[str, Any], key: str, whole: bool = False) -> float:
        value = self._get(table, key)
        allowed = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e12:
            self._fail(key, f"must be a positive {'whole ' if whole else ''}number")
        return float(value)

    def _record(self, kind: type[Any], table: Any, prefix: str) -> Any:
        """A dataclass of whole numbers and booleans from a table with its fields alone."""
        if not isinstance(table, dict):
            self._fail(prefix.rstrip("."), "must be a table")
        fields = {field.name: field for field in dataclasses.fields(kind)}
        for name in table.keys() - fields.keys():
            self._fail(prefix + name, "is not known")
        for name, field in fields.items():
            if name not in table:
                if field.default is not dataclasses.MISSING:
                    continue
                self._fail(prefix + name, "is missing")
            value = table[name]
            if field.type == "bool":
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
