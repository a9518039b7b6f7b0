"""How a process uses the CPU: its threads, and the memory that it keeps."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_T = TypeVar("_T")
_helpers: ThreadPoolExecutor | None = None  # a thread a core but one, for `spread`
_cores = 1
_working = 1  # threads at work: more than one within `side_by_side`
_counting = threading.Lock()

# mallopt(3) of glibc; 32 MiB is the highest threshold that it takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BLOCKS_UP_TO = 32 << 20
_KEEP_IN_ALL = (1 << 31) - 1


def set_threads(threads: int | None) -> None:
    """Use this many CPU threads, and keep freed memory for the next tensor.

    By default all cores, shared by the processes that torchrun started on this machine.

    Left alone, glibc gives a large block back to the kernel when it is freed, and the next tensor
    of that size pays for every page again: a third of the time of GAE and normalisation.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    global _helpers, _cores
    _cores = threads or max(1, (os.cpu_count() or 1) // processes)
    torch.set_num_threads(_cores)
    _helpers = ThreadPoolExecutor(_cores - 1, initializer=_alone) if _cores > 1 else None
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not everywhere: musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BLOCKS_UP_TO)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_IN_ALL)
        mallopt(_M_TOP_PAD, _KEEP_BLOCKS_UP_TO)


def cores() -> int:
    """How many cores this process may use, torch's own threads aside."""
    return max(_cores, torch.get_num_threads())


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this, torch's operations are too short to be shared: its threads only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _alone() -> None:
    torch.set_num_threads(1)


def spread(work: Callable[[int], _T], costs: Sequence[float]) -> list[_T]:
    """Results of work(0), work(1), ..., shared out over idle cores by their costs; no gradients.

    Also from within `side_by_side`, once it has fewer tasks left than cores: two threads on one
    core, and three that want Python's lock, would take longer than one.
    """
    cores = _cores - _working + 1
    if _helpers is None or min(cores, len(costs)) < 2:
        return [work(i) for i in range(len(costs))]
    shares: list[list[int]] = [[] for _ in range(cores)]
    loads = [0.0] * cores
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        core = loads.index(min(loads))
        shares[core].append(i)
        loads[core] += costs[i]

    @torch.no_grad()  # each thread has a mode of its own
    def run(share: Sequence[int]) -> list[tuple[int, _T]]:
        return [(i, work(i)) for i in share]

    others = [_helpers.submit(run, share) for share in shares[1:]]
    done = run(shares[0])
    for other in others:
        done += other.result()
    return [result for _, result in sorted(done, key=lambda pair: pair[0])]


def side_by_side(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Results of independent tasks, run in as many Python threads as there are cores to use.

    Torch's own threads would meet after every one of thousands of short operations, and wait there
    whenever another process holds a core.
    """
    threads, torchs = cores(), torch.get_num_threads()
    if min(threads, len(tasks)) == 1:
        return [task() for task in tasks]
    left = len(tasks)

    def run(task: Callable[[], _T]) -> _T:
        global _working
        nonlocal left
        try:
            return task()
        finally:
            with _counting:
                left -= 1
                _working = max(1, min(threads, left))

    global _working
    _working = min(threads, left)
    try:
        with ThreadPoolExecutor(threads, initializer=_alone) as pool:
            return list(pool.map(run, tasks))
    finally:
        torch.set_num_threads(torchs)
