"""What a policy may cost: the user's budget, the target's own limits, and who stays within."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compile.errors import CompileError

if TYPE_CHECKING:
    from targets.target import Target

KIB = 1024


@dataclass(frozen=True)
class Budget:
    """The user's caps; None where there is none. ``max_us`` is one inference on the device."""

    total_bytes: int | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    max_us: float | None = None


@dataclass(frozen=True)
class Costs:
    """What each of n candidates costs, or is predicted to."""

    total_bytes: NDArray[np.int64]  # (n,) every byte once: flash and RAM, stack included
    flash_bytes: NDArray[np.int64]  # (n,)
    ram_bytes: NDArray[np.int64]  # (n,) static buffers and stack
    us: NDArray[np.float64] | None  # (n,) modelled, without the safety margin; None: no model


@dataclass(frozen=True)
class Limit:
    """One cap and what each candidate needs of it."""

    name: str  # memory, ram, flash or cycles: the key in the manifest
    cap: float
    need: NDArray[np.float64]  # (n,) in the cap's unit; time includes the safety margin
    source: str  # the option that sets it, or "the target"

    def show(self, value: float) -> str:
        """A figure of this resource as a person reads it."""
        return f"{value:.0f} µs" if self.name == "cycles" else f"{value / KIB:.1f} KiB"


@dataclass(frozen=True)
class Affordable:
    """Who is within all limits, and how many each limit alone turns away."""

    mask: NDArray[np.bool_]  # (n,)
    over: dict[str, int]
    limits: tuple[Limit, ...]


def parse_positive(text: str | None, option: str, unit: str) -> float | None:
    """A positive finite number from the command line. CompileError on anything else."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise CompileError(f"{option} takes a positive number of {unit}, not '{text}'")
    return value


def parse_budget(
    budget_kb: str | None, ram_kb: str | None, flash_kb: str | None, max_us: str | None
) -> Budget:
    """The budget that the options give; kilobytes are KiB, 1024 bytes."""

    def size(text: str | None, option: str) -> int | None:
        value = parse_positive(text, option, "KiB")
        return None if value is None else math.floor(value * KIB)

    return Budget(
        total_bytes=size(budget_kb, "--budget-kb"),
        ram_bytes=size(ram_kb, "--ram-kb"),
        flash_bytes=size(flash_kb, "--flash-kb"),
        max_us=parse_positive(max_us, "--max-us", "microseconds"),
    )


def within(costs: Costs, budget: Budget, target: Target) -> Affordable:
    """Compare the costs with the budget and with what the target has free.

    Time is compared with the target's gate margin on top, because it is modelled; without a model
    it is not compared.
    """
    limits = _limits(costs, budget, target)
    fits = [limit.need <= limit.cap for limit in limits]
    return Affordable(
        mask=np.logical_and.reduce(fits),
        over={limit.name: int((~fit).sum()) for limit, fit in zip(limits, fits, strict=True)},
        limits=limits,
    )


def why_over(limits: tuple[Limit, ...], index: int) -> str:
    """The limits that a candidate exceeds, as text; empty when it is within all."""
    return " and ".join(
        f"needs {limit.show(limit.need[index])} of {_RESOURCE[limit.name]} "
        f"where {limit.source} allows {limit.show(limit.cap)}"
        for limit in limits
        if limit.need[index] > limit.cap
    )


def smallest_that_would(limits: tuple[Limit, ...], names: tuple[str, ...]) -> str:
    """The message when nothing fits: the candidate closest to the limits and what it needs."""
    excess = np.max([limit.need / limit.cap for limit in limits], axis=0)
    closest = int(np.argmin(excess))
    options = ", ".join(
        f"{limit.source} {_option_value(limit, closest)}"
        for limit in limits
        if limit.need[closest] > limit.cap and limit.source.startswith("--")
    )
    hint = f"; the smallest that would do: {options}" if options else ""
    return f"no architecture fits: the closest, {names[closest]}, {why_over(limits, closest)}{hint}"


_RESOURCE = {"memory": "memory", "ram": "RAM", "flash": "flash", "cycles": "time"}


def _option_value(limit: Limit, index: int) -> str:
    need = float(limit.need[index])
    if limit.name == "cycles":
        return str(math.ceil(need))
    return f"{math.ceil(need / KIB * 10) / 10:g}"


def _limits(costs: Costs, budget: Budget, target: Target) -> tuple[Limit, ...]:
    flash, ram = target.memories["flash"].free_bytes, target.memories["ram"].free_bytes
    limits = []
    if budget.total_bytes is not None:
        limits.append(
            Limit("memory", budget.total_bytes, costs.total_bytes.astype(float), "--budget-kb")
        )
    for name, cap, own, need, option in (
        ("ram", budget.ram_bytes, ram, costs.ram_bytes, "--ram-kb"),
        ("flash", budget.flash_bytes, flash, costs.flash_bytes, "--flash-kb"),
        ("cycles", budget.max_us, target.deadline_us, costs.us, "--max-us"),
    ):
        if need is None:
            continue
        users = cap is not None and cap < own
        limits.append(
            Limit(
                name,
                float(cap) if users and cap is not None else float(own),
                need.astype(float) * (target.gate_margin if name == "cycles" else 1.0),
                option if users else target.name,
            )
        )
    return tuple(limits)
