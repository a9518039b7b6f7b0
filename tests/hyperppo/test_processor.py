"""Independent tasks on the cores of a machine."""

import threading
import time
from functools import partial

import pytest
import torch

from hyperppo.processor import set_threads, side_by_side, spread


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_give_their_results_in_order_and_threads_are_as_before(threads: int) -> None:
    before = torch.get_num_threads()
    set_threads(threads)
    try:
        results = side_by_side([partial(pow, 3, k) for k in range(5)])
        assert results == [1, 3, 9, 27, 81]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("torchs", [1, 2])
def test_two_tasks_run_at_the_same_time(torchs: int) -> None:
    """On two cores, also where torch's operations have one thread, as beside JAX."""
    before = torch.get_num_threads()
    set_threads(2)
    torch.set_num_threads(torchs)
    try:
        meeting = threading.Barrier(2, timeout=20)  # breaks unless both tasks reach it
        assert sorted(side_by_side([meeting.wait, meeting.wait])) == [0, 1]
    finally:
        torch.set_num_threads(before)


def test_a_failing_task_fails_the_whole() -> None:
    before = torch.get_num_threads()
    set_threads(2)
    try:
        with pytest.raises(ValueError, match="invalid literal"):
            side_by_side([partial(int, "1"), partial(int, "x")])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_work_is_spread_and_comes_back_in_order(threads: int) -> None:
    before = torch.get_num_threads()
    set_threads(threads)
    x = torch.ones(3, requires_grad=True)
    by: dict[int, str] = {}

    def work(i: int) -> tuple[int, bool]:
        by[i] = threading.current_thread().name
        return i * i, (x * i).requires_grad

    try:
        with torch.no_grad():
            found = spread(work, [5.0, 1.0, 1.0, 1.0, 1.0])
        twice = partial(spread, work, [1.0, 2.0, 3.0])
        within = [[i for i, _ in squares] for squares in side_by_side([twice, twice])]
        assert found == [(i * i, False) for i in range(5)]
        assert within == [[0, 1, 4]] * 2
        assert len(set(by.values())) >= threads
    finally:
        set_threads(before)


def test_heavy_work_has_a_core_of_its_own() -> None:
    before = torch.get_num_threads()
    set_threads(2)
    meeting = threading.Barrier(2, timeout=20)  # breaks unless 0 and 2 are on different cores
    try:
        names = spread(
            lambda i: (i == 1 or meeting.wait() >= 0) and threading.current_thread().name, [9, 1, 5]
        )
        assert names[1] == names[2] != names[0]
    finally:
        set_threads(before)


def test_work_is_spread_only_where_a_core_is_idle() -> None:
    before = torch.get_num_threads()
    set_threads(2)
    both, over = threading.Barrier(2, timeout=20), threading.Event()

    def name(_: int) -> str:
        return threading.current_thread().name

    def long() -> list[set[str]]:
        both.wait()
        alone = set(spread(name, [1.0] * 4))  # the short task still has the other core
        over.set()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(names := set(spread(name, [1.0] * 4))) == 2:
                return [alone, names]
        return [alone]

    def short() -> list[set[str]]:
        both.wait()
        over.wait(20)
        return []

    try:
        alone, helped = side_by_side([long, short])[0]
        assert len(alone) == 1
        assert len(helped) == 2
    finally:
        set_threads(before)
