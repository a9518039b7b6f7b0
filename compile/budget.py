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

    Time is compared with the target's gate margin on top, because it is modelled. CompileError
    when the budget caps the time of a target without a cycle model.
    """
    if budget.max_us is not None and costs.us is None:
        raise CompileError(
            f"{target.name} has no cycle model, so --max-us cannot be held: leave it out, or time "
            "the policy on the device"
        )
    limits = _limits(costs, budget, target)
    fits = [limit.need <= limit.cap for limit in limits]
    return Affordable(
        mask=np.logical_and.reduce([np.ones(len(costs.total_bytes), bool), *fits]),
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
    own = {name: float(memory.free_bytes) for name, memory in target.memories.items()}
    own["cycles"] = target.deadline_us
    needs = {"ram": costs.ram_bytes.astype(float), "flash": costs.flash_bytes.astype(float)}
    if costs.us is not None:
        needs["cycles"] = costs.us * target.gate_margin
    limits = []
    if budget.total_bytes is not None:
        limits.append(
            Limit("memory", budget.total_bytes, costs.total_bytes.astype(float), "--budget-kb")
        )
    for name, asked, option in (
        ("ram", budget.ram_bytes, "--ram-kb"),
        ("flash", budget.flash_bytes, "--flash-kb"),
        ("cycles", budget.max_us, "--max-us"),
    ):
        caps = {option: asked, target.name: own.get(name)}  # this machine has no end of memory
        known = [(float(cap), source) for source, cap in caps.items() if cap is not None]
        if name in needs and known:
            cap, source = min(reversed(known), key=lambda pair: pair[0])
            limits.append(Limit(name, cap, needs[name], source))
    return tuple(limits)
