"""Independent tasks on the cores of a machine."""

import threading
from functools import partial

import pytest
import torch

from hyperppo.processor import set_threads, side_by_side


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


def test_two_tasks_run_at_the_same_time() -> None:
    before = torch.get_num_threads()
    set_threads(2)
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
