"""Samples of log variables that a device sends by itself, read through stock cflib."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

TIMEOUT_S = 3.0


class LogStream:
    """One log block of at most 26 bytes, sent every `period_ms` inside a with statement."""

    def __init__(self, crazyflie: Any, names: Sequence[str], period_ms: int) -> None:
        from cflib.crazyflie.log import LogConfig

        self._crazyflie = crazyflie
        self._block: Any = LogConfig("hppo", period_ms)
        for name in names:
            self._block.add_variable(name)
        self._samples: deque[tuple[int, dict[str, int]]] = deque()
        self._arrived = threading.Condition()

    def __enter__(self) -> LogStream:
        self._block.data_received_cb.add_callback(self._received)
        self._crazyflie.log.add_config(self._block)
        self._block.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Exception):  # of a link that is gone
            self._block.stop()
            self._block.delete()

    def next(self, timeout_s: float = TIMEOUT_S) -> tuple[int, dict[str, int]]:
        """The next sample: device milliseconds, {name: value}. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: bool(self._samples), timeout_s):
                raise TimeoutError("the device sends no log data")
            return self._samples.popleft()

    def _received(self, stamp: int, values: dict[str, int], _block: Any) -> None:
        with self._arrived:
            self._samples.append((stamp, values))
            self._arrived.notify()
