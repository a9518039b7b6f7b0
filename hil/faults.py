"""Faults that a virtual device can be given, to see how its clients bear them.

Loss and delay strike app-channel packets, log data and pings: what a client asks for again or can
do without. cflib reads tables and parameters without asking again, so those always come through.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable

from hil.crtp import APP_CHANNEL, Packet, Port

BOOT_S = 0.5  # a device that reboots is silent for so long


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong. Delays are drawn between 0 and twice `delay_s`, so packets overtake."""

    drop: float = 0.0  # chance that a packet is lost, each way
    delay_s: float = 0.0  # mean delay of an answer
    reboot_after_s: float | None = None  # once, counted from the start
    seed: int = 0


def strikes(packet: Packet) -> bool:
    """Whether loss and delay apply to a packet."""
    if packet.port == Port.PLATFORM:
        return packet.channel == APP_CHANNEL
    return (packet.port, packet.channel) in ((Port.LOG, 2), (Port.LINK, 0))


class FaultyAir:
    """Loses and delays packets on their way; `send` may be called from any thread."""

    def __init__(self, faults: Faults, deliver: Callable[[Packet, tuple[str, int]], None]) -> None:
        self._faults, self._deliver = faults, deliver
        self._random = random.Random(faults.seed)
        self._waiting: list[tuple[float, int, Packet, tuple[str, int]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="faulty air", daemon=True)
        self._thread.start()

    def loses(self, packet: Packet) -> bool:
        """Whether this packet is lost."""
        return strikes(packet) and self._random.random() < self._faults.drop

    def send(self, packet: Packet, to: tuple[str, int]) -> None:
        """Delivers a packet, late or never."""
        if self.loses(packet):
            return
        delay = self._random.uniform(0, 2 * self._faults.delay_s) if strikes(packet) else 0.0
        if delay == 0.0:
            self._deliver(packet, to)
            return
        with self._changed:
            entry = (time.monotonic() + delay, next(self._numbers), packet, to)
            heapq.heappush(self._waiting, entry)
            self._changed.notify()

    def close(self) -> None:
        """Forgets what is on its way."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with self._changed:
            while self._open:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, packet, to = heapq.heappop(self._waiting)
                self._deliver(packet, to)
