"""The client's side of the device contract over stock cflib: sessions, sequence numbers, resends.

Everything here knows a URI and the contract, nothing about what kind of device answers.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import random
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from hil import contract
from hil.contract import Command, Floats, Hello, Reply, Result
from hil.errors import HilError
from hil.log_stream import LogStream

CONNECT_TIMEOUT_S = 10.0
FIRST_RESEND_S = 0.5  # until round trips were seen; then three of them, within these bounds
LEAST_RESEND_S = 0.1
LAST_RESEND_S = 8.0
SILENCE_S = 20.0  # no answer to anything for so long: the device is gone
BUSY_RETRY_S = 0.2


@dataclasses.dataclass(frozen=True)
class Ask:
    """One thing to have done: a command, on an observation if it needs one."""

    command: Command
    observation: Floats | None = None  # (obs_dim,)
    bodies: tuple[bytes, ...] = (b"",)  # one request each; RUN has one a part


@dataclasses.dataclass
class Traffic:
    """What the link did, apart from what the device computed."""

    sent: int = 0
    received: int = 0
    resent: int = 0  # requests asked again
    unexpected: int = 0  # replies doubled, late or to nothing
    pings_ms: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Pending:
    index: int
    ask: Ask
    sequence: int
    bodies: dict[int, bytes]  # replies so far, by position in ask.bodies
    started: float
    wait: float  # before it is asked again; doubles each time
    times_sent: int = 0
    due: float = 0.0


class Link:
    """A connected device with an open session. Raises HilError when it cannot be reached."""

    def __init__(self, uri: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        import cflib.crtp
        from cflib.crazyflie import Crazyflie

        logging.getLogger("cflib").setLevel(logging.CRITICAL)  # its warnings are about caches
        cflib.crtp.init_drivers()
        self.uri = uri
        self.traffic = Traffic()
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._lost: str | None = None
        self._session = 0
        self._sequence = random.randrange(0x10000)
        self._patience = FIRST_RESEND_S
        self.crazyflie: Any = Crazyflie()
        self.crazyflie.appchannel.packet_received.add_callback(self._received)
        self.crazyflie.connection_lost.add_callback(self._was_lost)
        self.crazyflie.add_header_callback(self._ping, 15, 0)
        self._connect(timeout_s)

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.crazyflie.close_link()

    def open_session(self) -> Hello:
        """HELLO with a new session number: the device forgets earlier requests and statistics."""
        self._need(self.crazyflie.log.toc, "hppo.version")
        self._session = random.choice([n for n in range(1, 256) if n != self._session])
        for _, bodies in self.exchange([Ask(Command.HELLO)], window=1):
            hello = contract.parse_hello(bodies[0])
            if hello is not None:
                return hello
        raise HilError(f"{self.uri}: the device answers HELLO with a malformed packet")

    def exchange(self, asks: Iterable[Ask], window: int) -> Iterator[tuple[int, list[bytes]]]:
        """Has everything done, up to `window` at a time; yields (position, reply bodies) as done.

        What gets no answer is asked again under the same sequence number. Raises HilError when
        the device refuses, restarts or stays silent.
        """
        waiting = enumerate(asks)
        pending: dict[int, _Pending] = {}
        heard = time.monotonic()
        exhausted = False
        while True:
            # The device remembers `window` numbers in a row: none may run further ahead.
            while not exhausted and self._may_start(pending, window):
                item = next(waiting, None)
                if item is None:
                    exhausted = True
                    break
                entry = _Pending(*item, self._next_sequence(), {}, time.monotonic(), self._patience)
                pending[entry.sequence] = entry
                self._send(entry)
            if not pending:
                return
            due = min(entry.due for entry in pending.values())
            reply = self._next_reply(due)
            now = time.monotonic()
            if reply is not None and reply.session == self._session:
                heard = now
            if now - heard > SILENCE_S:
                raise HilError(f"{self.uri}: no answer for {SILENCE_S:.0f} s")
            done = self._take(reply, pending, now)
            if done is not None:
                del pending[done.sequence]
                if done.times_sent == 1:  # else it is unknown which one was answered
                    longest = max(LEAST_RESEND_S, 3 * (now - done.started))
                    self._patience = min(longest, LAST_RESEND_S)
                yield done.index, [done.bodies[i] for i in range(len(done.ask.bodies))]
            for entry in pending.values():
                if entry.due <= now:
                    self.traffic.resent += 1
                    self._send(entry)

    def set_param(self, name: str, value: int, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Writes a parameter and waits until the device confirms it."""
        confirmed = threading.Event()

        def callback(_: str, now: str) -> None:
            if int(now) == value:
                confirmed.set()

        group, _, short = name.partition(".")
        self._need(self.crazyflie.param.toc, name)
        self.crazyflie.param.add_update_callback(group=group, name=short, cb=callback)
        try:
            for _ in range(max(1, int(timeout_s))):
                self.crazyflie.param.set_value(name, value)
                if confirmed.wait(1.0):
                    return
                self._check_link()
        finally:
            self.crazyflie.param.remove_update_callback(group=group, name=short, cb=callback)
        raise HilError(f"{self.uri}: the device does not confirm {name} = {value}")

    def log(self, names: Iterable[str], period_ms: int) -> LogStream:
        """Starts a log block; to be used in a with statement."""
        wanted = list(names)
        for name in wanted:
            self._need(self.crazyflie.log.toc, name)
        return LogStream(self.crazyflie, wanted, period_ms)

    def _connect(self, timeout_s: float) -> None:
        outcome: queue.SimpleQueue[str] = queue.SimpleQueue()
        callbacks: list[tuple[Any, Callable[..., None]]] = [
            (self.crazyflie.fully_connected, lambda _uri: outcome.put("")),
            (self.crazyflie.connection_failed, lambda _uri, why: outcome.put(why or "refused")),
        ]
        for caller, callback in callbacks:
            caller.add_callback(callback)
        self.crazyflie.open_link(self.uri)
        try:
            problem = outcome.get(timeout=timeout_s)
        except queue.Empty:
            problem = f"no device answers within {timeout_s:.0f} s"
        if problem:
            self.crazyflie.close_link()
            reason = problem.strip().splitlines()[0]
            raise HilError(f"cannot connect to {self.uri}: {reason}; check the URI and the device")

    def _need(self, table: Any, name: str) -> None:
        if table.get_element_by_complete_name(name) is None:
            raise HilError(
                f"{self.uri}: the device has no {name}: it does not run a package of this project"
            )

    def _may_start(self, pending: dict[int, _Pending], window: int) -> bool:
        if not pending:
            return True
        oldest = next(iter(pending))
        return (self._sequence + 1 - oldest) & 0xFFFF < window

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFF
        return self._sequence

    def _send(self, entry: _Pending) -> None:
        entry.due = time.monotonic() + entry.wait
        entry.wait = min(2 * entry.wait, LAST_RESEND_S)
        entry.times_sent += 1
        packets: list[bytes] = []
        if entry.ask.observation is not None:
            packets += contract.load_requests(self._session, entry.sequence, entry.ask.observation)
        packets += [
            contract.request(entry.ask.command, self._session, entry.sequence, body)
            for position, body in enumerate(entry.ask.bodies)
            if position not in entry.bodies
        ]
        for packet in packets:
            self.traffic.sent += 1
            self.crazyflie.appchannel.send_packet(packet)

    def _take(
        self, reply: Reply | None, pending: dict[int, _Pending], now: float
    ) -> _Pending | None:
        """Books a reply; returns what it completed."""
        if reply is None:
            return None
        entry = pending.get(reply.sequence) if reply.session == self._session else None
        if entry is None or reply.command not in (entry.ask.command, Command.LOAD):
            self.traffic.unexpected += 1
            return None
        if reply.result is Result.INCOMPLETE:
            entry.due = now
        elif reply.result is Result.BUSY:
            entry.due = now + BUSY_RETRY_S
            if entry.wait >= LAST_RESEND_S:
                raise HilError(f"{self.uri}: {contract.MEANING[reply.result]}: land and disable it")
        elif reply.result is not Result.OK:
            raise HilError(f"{self.uri}: {contract.MEANING[reply.result]} ({reply.command.name})")
        else:
            # A RUN reply says which part it is; every other command has a single reply.
            position = reply.body[0] if entry.ask.command is Command.RUN and reply.body else 0
            if position < len(entry.ask.bodies) and position not in entry.bodies:
                entry.bodies[position] = reply.body
            else:
                self.traffic.unexpected += 1
            if len(entry.bodies) == len(entry.ask.bodies):
                return entry
        return None

    def _next_reply(self, due: float) -> Reply | None:
        self._check_link()
        try:
            return self._replies.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            return None

    def _check_link(self) -> None:
        if self._lost is not None:
            raise HilError(f"the link to {self.uri} was lost: {self._lost}")

    def _received(self, data: bytearray) -> None:
        reply = contract.parse_reply(bytes(data))
        if reply is None:
            self.traffic.unexpected += 1
        else:
            self.traffic.received += 1
            self._replies.put(reply)

    def _was_lost(self, _uri: str, message: str) -> None:
        self._lost = message.strip().splitlines()[0] if message.strip() else "no reason given"

    def _ping(self, packet: Any) -> None:
        """An echo of cflib's pings: it carries the time at which it was sent."""
        if len(packet.data) == 9:
            sent = struct.unpack("<Bd", bytes(packet.data))[1]
            self.traffic.pings_ms.append(1000.0 * (time.time() - sent))
