"""How a process uses the CPU: its threads, and the memory that it keeps."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")

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
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // processes))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not everywhere: musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BLOCKS_UP_TO)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_IN_ALL)
        mallopt(_M_TOP_PAD, _KEEP_BLOCKS_UP_TO)


def side_by_side(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """Results of independent tasks, run in as many Python threads as torch may use, a core each.

    Torch's own threads would meet after every one of thousands of short operations, and wait there
    whenever another process holds a core.
    """
    threads = torch.get_num_threads()
    if min(threads, len(tasks)) == 1:
        return [task() for task in tasks]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)
