"""Two small charts as data for an SVG: a histogram and a time series. No drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 640, 200  # of the drawing, in its own units
LEFT, BOTTOM, TOP, RIGHT = 66, 26, 10, 8
MOST_BINS = 48
MOST_POINTS = 1200


@dataclasses.dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in drawing units."""

    place: float
    label: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """What the template draws: bars (x, y, width, height) or a line, and the axes."""

    bars: tuple[tuple[float, float, float, float], ...]
    line: str  # points of a polyline
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT


def histogram(values: npt.NDArray[np.float64], span: tuple[float, float] | None = None) -> Chart:
    """How often each value occurs; (n,) values, at least one. `span`: of the axis, else theirs."""
    low, high = span or (float(values.min()), float(values.max()))
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = MOST_BINS if span else min(MOST_BINS, max(9, 2 * len(np.unique(values))))
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    x = _Scale(low, high, LEFT, WIDTH - RIGHT)
    y = _Scale(0.0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    bars = tuple(
        (x(start), y(count), max(x(stop) - x(start) - 1.0, 0.5), HEIGHT - BOTTOM - y(count))
        for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    )
    return Chart(bars, "", _ticks(low, high, x), _ticks(0.0, float(counts.max()), y, 3))


def series(values: npt.NDArray[np.float64]) -> Chart:
    """The values in their order; (n,) values. Where they are too many, the largest of each run."""
    group = -(-len(values) // MOST_POINTS)
    starts = np.arange(0, len(values), group)
    peaks = np.maximum.reduceat(values, starts)
    low, high = float(peaks.min()), float(peaks.max())
    margin = 0.1 * (high - low) or 0.5
    x = _Scale(0.0, max(1.0, float(len(values) - 1)), LEFT, WIDTH - RIGHT)
    y = _Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    line = " ".join(
        f"{x(i):.1f},{y(v):.1f}" for i, v in zip(starts.tolist(), peaks.tolist(), strict=True)
    )
    x_ticks = _ticks(0.0, max(1.0, float(len(values) - 1)), x)
    return Chart((), line, x_ticks, _ticks(low - margin, high + margin, y, 3))


@dataclasses.dataclass(frozen=True)
class _Scale:
    """The straight line that takes [low, high] to [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * (self.stop - self.start) / (self.high - self.low)


def _ticks(low: float, high: float, scale: _Scale, wanted: int = 5) -> tuple[Tick, ...]:
    """Round numbers within [low, high], about as many as wanted."""
    rough = max((high - low) / wanted, 1e-9)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    decimals = max(0, -int(np.floor(np.log10(step))))
    places = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return tuple(Tick(scale(float(p)), f"{p:,.{decimals}f}") for p in places)
