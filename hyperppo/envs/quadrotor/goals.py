"""Where the vehicle should be: scenarios of the QuadSwarm simulator for one drone.

Every scenario is a sequence of segments, and a segment is a quadratic Bezier curve
p(s) = c0 + c1 s + c2 s^2 with s = time in the segment / SEGMENT_S. A static goal has c1 = c2 = 0,
so that all scenarios share one batched evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCENARIOS = ("static", "bezier")
SEGMENT_S = 5.0  # QuadSwarm draws a new Bezier curve every 5 s
CENTRE = (0.0, 0.0, 5.0)  # m, middle of the room
STATIC_REACH = 1.0  # m, static goals lie within this of the centre an axis
BEZIER_REACH = 2.0  # m, so do the control points of Bezier curves


@dataclass
class Goal:
    """The current segment of N goals."""

    scenario: Tensor  # (N,) int64, index into SCENARIOS
    coefficients: Tensor  # (9, N) m: c0, c1, c2


def _points(reach: float, count: int, num: int, generator: torch.Generator) -> Tensor:
    """`count` random points around the room's centre, (count, 3, num) m."""
    device = generator.device
    centre = torch.tensor(CENTRE, device=device)[:, None]
    unit = torch.rand((count, 3, num), generator=generator, device=device) * 2 - 1
    return centre + reach * unit


def start(shares: dict[str, float], num: int, generator: torch.Generator) -> Goal:
    """Draw scenarios by their shares, and their first segments, for `num` environments."""
    device = generator.device
    weights = torch.tensor([shares.get(name, 0.0) for name in SCENARIOS], device=device)
    scenario = torch.multinomial(weights, num, replacement=True, generator=generator)
    static = _points(STATIC_REACH, 1, num, generator)[0]
    bezier = _points(BEZIER_REACH, 1, num, generator)[0]
    first = torch.where(scenario == SCENARIOS.index("bezier"), bezier, static)
    zeros = torch.zeros_like(first)
    return next_segment(Goal(scenario, torch.cat((first, zeros, zeros))), generator)


def next_segment(goal: Goal, generator: torch.Generator) -> Goal:
    """The segment that follows, starting where the last one ended."""
    c0, c1, c2 = goal.coefficients.view(3, 3, -1)
    p0 = c0 + c1 + c2
    p1, p2 = _points(BEZIER_REACH, 2, p0.shape[1], generator)
    curve = torch.cat((p0, 2 * (p1 - p0), p0 - 2 * p1 + p2))
    still = torch.cat((p0, torch.zeros_like(p0), torch.zeros_like(p0)))
    return Goal(
        goal.scenario, torch.where(goal.scenario == SCENARIOS.index("bezier"), curve, still)
    )


def evaluate(goal: Goal, segment_time: Tensor) -> tuple[Tensor, Tensor]:
    """Goal position (3, N) m and velocity (3, N) m/s at `segment_time` (N,) s into the segment."""
    c0, c1, c2 = goal.coefficients.view(3, 3, -1)
    s = segment_time * (1 / SEGMENT_S)
    position = torch.addcmul(c0, torch.addcmul(c1, c2, s), s)
    return position, torch.addcmul(c1, c2, s, value=2) * (1 / SEGMENT_S)
