from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compile.budget import (
    Budget,
    Costs,
    parse_budget,
    smallest_that_would,
    why_over,
    within,
)
from compile.errors import CompileError
from compile.select import normalised, pareto_front, ranking
from targets.target import Target, load_target

numbers = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 2))


@st.composite
def clouds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 40))
    cost = draw(hnp.arrays(np.float64, n, elements=st.integers(1, 50).map(float)))
    returns = draw(hnp.arrays(np.float64, n, elements=numbers))
    return cost, returns


def costs(*totals: int, us: float = 10.0) -> Costs:
    total = np.array(totals)
    return Costs(total, total - 8, np.full_like(total, 8), np.full(len(totals), us))


def test_kilobytes_are_1024_bytes() -> None:
    assert parse_budget("16", "1.5", None, "20") == Budget(16384, 1536, None, 20.0)
    assert parse_budget(None, None, None, None) == Budget()


@pytest.mark.parametrize("text", ["abc", "", "-1", "0", "nan", "inf", "1e400", "16kb"])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(CompileError, match="--budget-kb takes a positive number of KiB"):
        parse_budget(text, None, None, None)
    with pytest.raises(CompileError, match="--max-us takes a positive number of microseconds"):
        parse_budget(None, None, None, text)


def test_filter_counts_each_limit(target: Target) -> None:
    found = within(costs(1000, 1024, 1025, 9000), Budget(total_bytes=1024), target)
    assert found.mask.tolist() == [True, True, False, False]
    assert found.over == {"memory": 2, "ram": 0, "flash": 0, "cycles": 0}


def test_time_is_compared_with_the_margin_on_top(target: Target) -> None:
    assert target.gate_margin > 1
    at_the_edge = 100.0 / target.gate_margin
    assert within(costs(1, us=at_the_edge), Budget(max_us=100.0), target).mask.all()
    assert not within(costs(1, us=at_the_edge * 1.001), Budget(max_us=100.0), target).mask.any()


def test_the_target_s_own_limits_always_hold(target: Target) -> None:
    flash = target.memories["flash"].free_bytes
    found = within(costs(flash + 9), Budget(flash_bytes=10 * flash), target)
    assert not found.mask.any()
    assert target.name in why_over(found.limits, 0)
    late = within(costs(1, us=target.deadline_us), Budget(max_us=1e9), target)
    assert late.over["cycles"] == 1


def test_this_machine_has_no_limits_of_its_own() -> None:
    host = load_target("host")
    timeless = dataclasses.replace(costs(10, 1 << 40), us=None)
    assert within(timeless, Budget(), host).mask.tolist() == [True, True]
    assert within(timeless, Budget(ram_bytes=8), host).over == {"ram": 0}
    assert within(timeless, Budget(flash_bytes=9), host).mask.tolist() == [True, False]
    with pytest.raises(CompileError, match="host has no cycle model"):
        within(timeless, Budget(max_us=1.0), host)


def test_nothing_fits_says_what_would(target: Target) -> None:
    found = within(costs(3000, 2000, 4000), Budget(total_bytes=1024), target)
    message = smallest_that_would(found.limits, ("a", "b", "c"))
    assert "the closest, b, needs 2.0 KiB of memory where --budget-kb allows 1.0 KiB" in message
    assert message.endswith("the smallest that would do: --budget-kb 2")
    needed = float(message.split()[-1])
    enough = within(costs(2000), parse_budget(str(needed), None, None, None), target)
    assert enough.mask.all()


@given(clouds())
def test_ranking_takes_the_best_then_goes_down(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    cost, returns = cloud
    everyone = np.ones(len(cost), bool)
    order = ranking(returns, cost, everyone)
    assert sorted(order.tolist()) == list(range(len(cost)))
    assert (np.diff(returns[order]) <= 0).all()
    assert cost[order[0]] == cost[returns == returns.max()].min()


@given(clouds(), st.floats(0.05, 1.0))
def test_at_least_takes_the_cheapest_that_is_good_enough(
    cloud: tuple[np.ndarray, np.ndarray], share: float
) -> None:
    cost, returns = cloud
    affordable = cost <= np.median(cost)
    order = ranking(returns, cost, affordable, share)
    assert set(order.tolist()) == set(np.flatnonzero(affordable).tolist())
    score = normalised(returns)
    good = affordable & (score >= share * score[affordable].max())
    assert good[order[0]]
    assert cost[order[0]] == cost[good].min()


def test_normalised_is_over_the_whole_space() -> None:
    returns = np.array([-10.0, 0.0, 10.0, np.nan])
    assert normalised(returns)[:3].tolist() == [0.0, 0.5, 1.0]
    # The best affordable one scores 0.5, so 90% of it is 0.45: only itself.
    affordable = np.array([True, True, False, True])
    assert ranking(returns, np.arange(4.0), affordable, 0.9).tolist() == [1, 0]
    with pytest.raises(CompileError, match="hyperppo evaluate"):
        normalised(np.array([np.nan]))


@given(clouds())
def test_pareto_front_is_what_nothing_beats(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    cost, returns = cloud
    front = pareto_front(cost, returns)
    beaten = [
        any(
            (cost[j] <= cost[i] and returns[j] >= returns[i])
            and (cost[j] < cost[i] or returns[j] > returns[i])
            for j in range(len(cost))
        )
        for i in range(len(cost))
    ]
    unbeaten = {(cost[i], returns[i]) for i in range(len(cost)) if not beaten[i]}
    assert {(cost[i], returns[i]) for i in front} == unbeaten
    assert len(front) == len(unbeaten)
