"""A cflib connection to one URI, with what it hears: app packets, pings, and its end."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import struct
import time
from collections.abc import Callable
from typing import Any

from hil.errors import HilError

SILENT_S = 2.0  # nothing heard for so long while connecting over UDP: a datagram was lost


class Connection:
    """A connected device. Raises HilError when none answers within `timeout_s`.

    `on_packet` gets each app-channel packet, `on_ping` each round trip in ms, from cflib's thread.
    """

    def __init__(
        self,
        uri: str,
        timeout_s: float,
        on_packet: Callable[[bytes], None],
        on_ping: Callable[[float], None],
    ) -> None:
        import cflib.crtp
        from cflib.crazyflie import Crazyflie

        logging.getLogger("cflib").setLevel(logging.CRITICAL)  # its warnings are about caches
        cflib.crtp.init_drivers()
        self.uri = uri
        self.lost: str | None = None  # why the link ended
        self.heard = time.monotonic()  # when the latest packet of any kind came
        self._on_ping = on_ping
        self.crazyflie: Any = Crazyflie()
        self.crazyflie.appchannel.packet_received.add_callback(lambda data: on_packet(bytes(data)))
        self.crazyflie.packet_received.add_callback(self._hear)
        self.crazyflie.connection_lost.add_callback(self._was_lost)
        self.crazyflie.add_header_callback(self._ping, 15, 0)
        self._connect(timeout_s)

    def close(self) -> None:
        """Ends the connection; a broken one without complaint."""
        with contextlib.suppress(Exception):  # cflib raises what its driver raised
            self.crazyflie.close_link()

    def _connect(self, timeout_s: float) -> None:
        outcome: queue.SimpleQueue[str] = queue.SimpleQueue()
        callbacks: list[tuple[Any, Callable[..., None]]] = [
            (self.crazyflie.fully_connected, lambda _uri: outcome.put("")),
            (self.crazyflie.connection_failed, lambda _uri, why: outcome.put(why or "refused")),
            (self.crazyflie.connection_lost, lambda _uri, why: outcome.put(why or "lost")),
        ]
        for caller, callback in callbacks:
            caller.add_callback(callback)
        end = time.monotonic() + timeout_s
        problem: str | None = None
        while problem is None and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                while True:
                    outcome.get_nowait()  # of an attempt given up just before it ended
            self.crazyflie.open_link(self.uri)
            problem = self._outcome(outcome, end)
            if problem != "":
                self.close()
        if problem != "":
            silence = f"no device answers within {timeout_s:.0f} s"
            reason = problem.strip().splitlines()[0] if problem else silence
            raise HilError(f"cannot connect to {self.uri}: {reason}; check the URI and the device")

    def _outcome(self, outcome: queue.SimpleQueue[str], end: float) -> str | None:
        """What went wrong, "" when connected; None: silence, and no use in waiting longer.

        Over UDP cflib sends nothing a second time, so that a silence there has to be ended anew.
        """
        patience = SILENT_S if self.uri.startswith("udp://") else math.inf
        self.heard = time.monotonic()
        while (now := time.monotonic()) < min(end, self.heard + patience):
            with contextlib.suppress(queue.Empty):
                return outcome.get(timeout=min(end, self.heard + patience) - now)
        return None

    def _hear(self, _packet: Any) -> None:
        self.heard = time.monotonic()

    def _was_lost(self, _uri: str, message: str) -> None:
        self.lost = message.strip().splitlines()[0] if message.strip() else "no reason given"

    def _ping(self, packet: Any) -> None:
        """An echo of cflib's pings: it carries the time at which it was sent."""
        if len(packet.data) == 9:
            sent = struct.unpack("<Bd", bytes(packet.data))[1]
            self._on_ping(1000.0 * (time.time() - sent))
