"""Where the vehicle should be: the QuadSwarm simulator's scenarios for one drone, and more.

A scenario is a sequence of segments. In each the goal moves by

    p(t) = c0 + c1 s + c2 s^2 + a sin(r t + b),   s = t / duration,

so that all scenarios share one batched evaluation: a static goal has nothing but c0, a quadratic
Bezier curve no sine, a Lissajous figure nothing but c0 and the sine. Facts about QuadSwarm are
those of its scenario files (gym_art/quadrotor_multi/scenarios, July 2025). For a single drone its
static "same goal" and "different goal" are one scenario.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

SCENARIOS = (
    "static",  # stay at a point
    "bezier",  # QuadSwarm's ep_rand_bezier: a new quadratic curve every 5 s
    "dynamic",  # QuadSwarm's dynamic_same_goal: a point that jumps every 4 to 6 s
    "lissajous",  # QuadSwarm's ep_lissajous3D: up to 3 m/s
    "figure8",  # a lemniscate 2 m long, at 1 m/s in the mean
    "figure8_fast",  # the same at 2 m/s
    "takeoff",  # from the floor, motors off, to a point about 1 m above it
    "throw",  # a static goal, from any attitude and spinning
    "gusts",  # a static goal in wind that comes and goes
)
MIX = ("static", "dynamic", "lissajous", "bezier")
"""QuadSwarm's scenarios for one drone: `mix` is all of them evenly."""

CENTRE = (0.0, 0.0, 5.0)  # m, middle of the room
STATIC_REACH = (1.0, 1.0, 1.0)  # m, static goals lie within this of the centre an axis
BEZIER_REACH = (2.0, 2.0, 2.0)  # m, so do the control points of Bezier curves
DYNAMIC_REACH = (2.0, 2.0, 1.0)  # m, and goals that jump (QuadSwarm: x, y in +-2, z in 1..3)
BEZIER_S = 5.0
DYNAMIC_S = (4.0, 6.0)
TAKEOFF_HEIGHT_M = (0.5, 1.5)
GUST_S = (2.0, 4.0)
GUST_M_S = 4.0  # peak wind an axis, horizontal: with drag 0.5 /s a push of 0.2 g
_LISSAJOUS = ((3.0, 0.5, 0.5), (1.0, 2.0, 2.0))  # amplitude m, rate rad/s
_LISSAJOUS_PHASE = (-math.pi / 2, 90 - math.pi / 2, 90.0)  # QuadSwarm's 90 is in radians
_FIGURE8_M = (1.0, 0.5, 0.0)
_FIGURE8_MEAN = 0.9704  # mean over u of sqrt(cos(u)^2 + cos(2 u)^2): speed of the unit figure
_WAVES = ("lissajous", "figure8", "figure8_fast")


@dataclass
class Goal:
    """The current segment of N goals."""

    scenario: Tensor  # (N,) int64, index into SCENARIOS
    duration: Tensor  # (N,) s
    coefficients: Tensor  # (9, N) m: c0, c1, c2
    wave: Tensor | None  # (9, N): a (m), r (rad/s), b (rad); None where no scenario has a sine
    gust: Tensor | None  # (3, N) m/s, the segment's peak wind; None where no scenario has wind


def _box(reach: tuple[float, ...], count: int, num: int, generator: torch.Generator) -> Tensor:
    """`count` random points around the room's centre, (count, 3, num) m."""
    device = generator.device
    unit = torch.rand((count, 3, num), generator=generator, device=device) * 2 - 1
    return _column(CENTRE, device) + _column(reach, device) * unit


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)[:, None]


def _between(low_high: tuple[float, float], num: int, generator: torch.Generator) -> Tensor:
    low, high = low_high
    return low + (high - low) * torch.rand(num, generator=generator, device=generator.device)


def _is(goal: Goal, *names: str) -> Tensor:
    """(N,) bool: the scenarios among `names`."""
    return torch.stack([goal.scenario == SCENARIOS.index(name) for name in names]).any(0)


def shares(name: str) -> dict[str, float]:
    """The scenarios that a user's word stands for: one, or `mix`."""
    return dict.fromkeys(MIX, 1.0) if name == "mix" else {name: 1.0}


def start(scenarios: dict[str, float], num: int, generator: torch.Generator) -> Goal:
    """Draw scenarios by their shares, and their first segments, for `num` environments."""
    device = generator.device
    weights = torch.tensor([scenarios.get(name, 0.0) for name in SCENARIOS], device=device)
    scenario = torch.multinomial(weights, num, replacement=True, generator=generator)
    static = _box(STATIC_REACH, 1, num, generator)[0]
    bezier = _box(BEZIER_REACH, 1, num, generator)[0]
    place = torch.where(scenario == SCENARIOS.index("bezier"), bezier, static)
    zeros = torch.zeros_like(place)
    never = torch.full_like(place[0], math.inf)
    used = {name for name, share in scenarios.items() if share > 0}
    wave = torch.zeros((9, num), device=device) if used & set(_WAVES) else None
    gust = zeros.clone() if "gusts" in used else None
    goal = Goal(scenario, never, torch.cat((place, zeros, zeros)), wave, gust)
    if "takeoff" in used:
        height = _between(TAKEOFF_HEIGHT_M, num, generator)
        goal.coefficients[2] = torch.where(_is(goal, "takeoff"), height, goal.coefficients[2])
    if wave is not None:
        _swing(goal, wave, generator)
    return next_segment(goal, generator)


def _swing(goal: Goal, wave: Tensor, generator: torch.Generator) -> None:
    """Give the scenarios with a sine theirs, in place."""
    device, num = wave.device, wave.shape[1]
    amplitude, rate = (_column(values, device) for values in _LISSAJOUS)
    lissajous = torch.cat((amplitude, rate, _column(_LISSAJOUS_PHASE, device))).expand(9, num)
    chosen = _is(goal, "lissajous")
    wave.copy_(torch.where(chosen, lissajous, wave))
    # QuadSwarm starts 2 m beside the centre, from where x swings 6 m.
    begin = _column(CENTRE, device) - _column((2.0, 0.0, 0.0), device)
    centre = begin - amplitude * torch.sin(_column(_LISSAJOUS_PHASE, device))
    goal.coefficients[:3] = torch.where(chosen, centre, goal.coefficients[:3])
    phase = _between((0.0, 2 * math.pi), num, generator)
    for name, speed in (("figure8", 1.0), ("figure8_fast", 2.0)):
        omega = torch.full_like(phase, speed / _FIGURE8_MEAN)
        size = _column(_FIGURE8_M, device).expand(3, num)
        rates = torch.stack((omega, 2 * omega, omega))
        figure = torch.cat((size, rates, torch.stack((phase, 2 * phase, phase))))
        wave.copy_(torch.where(_is(goal, name), figure, wave))


def next_segment(goal: Goal, generator: torch.Generator) -> Goal:
    """The segment that follows: where the goal was at the end of this one, a jump if `dynamic`."""
    c0, c1, c2 = goal.coefficients.view(3, 3, -1)
    p0 = c0 + c1 + c2
    num = p0.shape[1]
    p1, p2 = _box(BEZIER_REACH, 2, num, generator)
    curve = torch.cat((p0, 2 * (p1 - p0), p0 - 2 * p1 + p2))
    still = torch.cat((p0, torch.zeros_like(p0), torch.zeros_like(p0)))
    jump = torch.cat((_box(DYNAMIC_REACH, 1, num, generator)[0], still[3:]))
    bezier, dynamic, gusts = _is(goal, "bezier"), _is(goal, "dynamic"), _is(goal, "gusts")
    lasting = torch.full_like(goal.duration, math.inf)
    for chosen, duration in (
        (bezier, torch.full_like(lasting, BEZIER_S)),
        (dynamic, _between(DYNAMIC_S, num, generator)),
        (gusts, _between(GUST_S, num, generator)),
    ):
        lasting = torch.where(chosen, duration, lasting)
    gust = goal.gust
    if gust is not None:
        peak = torch.rand((3, num), generator=generator, device=p0.device) * 2 - 1
        peak = peak * _column((GUST_M_S, GUST_M_S, 0.0), p0.device)
        gust = torch.where(gusts, peak, torch.zeros_like(peak))
    coefficients = torch.where(bezier, curve, torch.where(dynamic, jump, still))
    return Goal(goal.scenario, lasting, coefficients, goal.wave, gust)


def evaluate(goal: Goal, segment_time: Tensor) -> tuple[Tensor, Tensor]:
    """Goal position (3, N) m and velocity (3, N) m/s at `segment_time` (N,) s into the segment."""
    c0, c1, c2 = goal.coefficients.view(3, 3, -1)
    rate = goal.duration.reciprocal()
    s = segment_time * rate
    position = torch.addcmul(c0, torch.addcmul(c1, c2, s), s)
    velocity = torch.addcmul(c1, c2, s, value=2) * rate
    if goal.wave is not None:
        amplitude, omega, phase = goal.wave.view(3, 3, -1)
        angle = torch.addcmul(phase, omega, segment_time)
        position = torch.addcmul(position, amplitude, torch.sin(angle))
        velocity = torch.addcmul(velocity, amplitude * omega, torch.cos(angle))
    return position, velocity


def wind(goal: Goal, segment_time: Tensor) -> Tensor | None:
    """Wind (3, N) m/s, world frame: one gust a segment, a raised cosine (MIL-F-8785C's shape)."""
    if goal.gust is None:
        return None
    turn = segment_time * goal.duration.reciprocal() * (2 * math.pi)
    return goal.gust * (0.5 - 0.5 * torch.cos(turn))
