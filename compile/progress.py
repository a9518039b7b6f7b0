"""One line a stage, with its time: what the compiler is doing and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Prints ``stage  finding  seconds`` as each stage ends."""

    def __init__(self, show: Callable[[str], None] = lambda line: None) -> None:
        self._show = show

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Time a stage; what the block appends to the list is shown as its finding."""
        findings: list[str] = []
        start = time.perf_counter()
        yield findings
        seconds = time.perf_counter() - start
        self._show(f"{name:<12} {'; '.join(findings):<72} {seconds:5.2f} s")
