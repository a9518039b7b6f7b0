"""What a leaderboard decides, against definitions by plain loops and scipy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hyperppo.errors import HyperPPOError
from hyperppo.leaderboard import Leaderboard
from hyperppo.ranking import bounds, front, halve, merged, smallest_within, undecided, wilson


def board_of(samples: Sequence[np.ndarray], params: Sequence[int]) -> Leaderboard:
    """Leaderboard of episode returns, one array an architecture."""
    sizes = np.array(params, dtype=np.int64)
    return Leaderboard(
        params=sizes,
        macs=sizes,
        return_mean=np.array([s.mean() for s in samples]),
        return_stderr=np.array([s.std(ddof=1) / np.sqrt(len(s)) for s in samples]),
        episodes=np.array([len(s) for s in samples], dtype=np.int64),
        metrics={"crash_rate": np.array([(s < 0).mean() for s in samples])},
    )


@pytest.mark.parametrize(("crashes", "count"), [(0, 4), (1, 16), (7, 10), (16, 16), (40, 1024)])
def test_crash_intervals_equal_scipys(crashes: int, count: int) -> None:
    low, high = wilson(np.array([crashes / count]), np.array([count]))
    expected = binomtest(crashes, count).proportion_ci(0.95, method="wilson")
    assert low[0] == pytest.approx(expected.low, abs=1e-4)
    assert high[0] == pytest.approx(expected.high, abs=1e-4)


@given(st.integers(0, 10_000), st.sampled_from([1.0, 0.9, 0.8]))
@settings(max_examples=50, deadline=None)
def test_the_papers_choice_is_the_smallest_that_is_good_enough(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    returns, params = rng.normal(size=30), rng.integers(1, 10, 30)
    scaled = (returns - returns.min()) / (returns.max() - returns.min())
    chosen = smallest_within(returns, params, share)
    assert scaled[chosen] >= share - 1e-12
    for other in range(30):
        if scaled[other] >= share:
            assert params[other] >= params[chosen]


def test_equal_returns_and_single_architectures_have_a_choice_too() -> None:
    assert smallest_within(np.array([3.0, 3.0]), np.array([7, 5]), 0.9) == 1
    assert smallest_within(np.array([3.0]), np.array([7]), 1.0) == 0


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_the_front_and_who_is_undecided_follow_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = rng.integers(1, 12, 25)
    board = board_of([rng.normal(p / 3, 1, 6) for p in params], params.tolist())
    low, high = bounds(board)
    on_front, is_open = front(board), undecided(board)
    for i in range(25):
        others = [j for j in range(25) if j != i and params[j] <= params[i]]
        assert on_front[i] == all(board.return_mean[j] < board.return_mean[i] for j in others)
        beaten = any(low[j] > high[i] for j in others)
        first = all(high[j] < low[i] for j in others)
        assert is_open[i] == (not beaten and not first)


def test_added_episodes_count_as_if_flown_in_one_go() -> None:
    rng = np.random.default_rng(0)
    a = [rng.normal(size=n) for n in (4, 4, 4)]
    b = [rng.normal(3, 2, size=8) for _ in range(2)]
    once = board_of([np.concatenate((a[0], b[0])), a[1], np.concatenate((a[2], b[1]))], [1, 2, 3])
    twice = merged(board_of(a, [1, 2, 3]), [0, 2], board_of(b, [1, 3]))
    np.testing.assert_allclose(twice.return_mean, once.return_mean)
    np.testing.assert_allclose(twice.return_stderr, once.return_stderr)
    np.testing.assert_array_equal(twice.episodes, once.episodes)
    np.testing.assert_allclose(twice.metrics["crash_rate"], once.metrics["crash_rate"])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    board = board_of([rng.normal(0, 1, 4) for _ in range(4000)], [1] * 4000)
    low, high = bounds(board)
    assert ((low < 0) & (high > 0)).mean() > 0.93
    with pytest.raises(HyperPPOError, match="--episodes 2"):
        bounds(replace(board, episodes=np.ones(4000, dtype=np.int64)))


def test_episodes_go_where_the_front_is_decided() -> None:
    """Return grows with size, but four in five are plainly worse than a smaller one."""
    rng = np.random.default_rng(2)
    params = np.arange(1, 401)
    truth = np.sqrt(params) * 2.0
    truth[rng.random(400) < 0.8] -= 15.0

    def fly(rows: Sequence[int], episodes: int, call: int = 0) -> Leaderboard:
        samples = [rng.normal(truth[i], 3.0, episodes) for i in rows]
        return board_of(samples, [int(params[i]) for i in rows])

    first = fly(range(400), 4)
    board = halve(first, fly, 256)
    assert board.episodes.sum() <= 400 * 4 * (1 + 8 / 2)  # 8 rounds of half the cost at most
    assert (board.episodes <= 256).all()
    beaten = np.array([truth[i] + 5 < truth[: i + 1].max() for i in range(400)])
    assert beaten.sum() > 250
    assert board.episodes[front(board)].mean() > 5 * board.episodes[beaten].mean()
    assert not front(board)[beaten].any()
    true_front = truth > np.array([truth[:i].max(initial=-np.inf) for i in range(400)])
    found = [(front(b) & true_front).sum() for b in (first, board)]
    assert found[1] > 1.2 * found[0], found
