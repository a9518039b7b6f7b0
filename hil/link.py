"""The client's side of the device contract over stock cflib: sessions, sequence numbers, resends.

Everything here knows a URI and the contract, nothing about what kind of device answers. A link
that drops is connected anew, a device that restarts is given a new session, and what was under
way is asked again.
"""

from __future__ import annotations

import dataclasses
import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from hil import contract
from hil.connection import Connection
from hil.contract import Command, Floats, Hello, Reply, Result
from hil.errors import HilError
from hil.log_stream import LogStream

CONNECT_TIMEOUT_S = 10.0
FIRST_RESEND_S = 0.5  # until round trips were seen; then three of them, within these bounds
LEAST_RESEND_S = 0.1
LAST_RESEND_S = 8.0
SILENCE_S = 20.0  # no answer to anything for so long: the device is gone
BUSY_RETRY_S = 0.2
LONGEST_WAIT_S = 0.5  # for a reply, before the link is looked at
RETRY_S = 0.5  # between two tries to connect
LINK_SILENCE_S = 3.0  # nothing at all, pings included, for so long: the link is down
RECONNECT_S = 30.0  # how long a lost device is looked for
MOST_RECOVERIES = 5  # without anything done in between


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
    reconnects: int = 0  # the link was lost and came back
    restarts: int = 0  # the device had forgotten its session
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

    def start_over(self, wait: float) -> None:
        """The device has forgotten it: to be asked from the beginning."""
        self.bodies, self.wait, self.due = {}, wait, 0.0


class Link:
    """A connected device with an open session. Raises HilError when it cannot be reached."""

    def __init__(self, uri: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self.uri = uri
        self.traffic = Traffic()
        self.hello: Hello | None = None  # what the device said when the first session was opened
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._session = 0
        self._sequence = random.randrange(0x10000)
        self._patience = FIRST_RESEND_S
        self._recoveries = 0  # since something was done
        self._looked = 0.0  # when the link was asked for problems
        self._connection = self._connect(timeout_s)

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    @property
    def crazyflie(self) -> Any:
        """The cflib object of the present connection."""
        return self._connection.crazyflie

    def open_session(self) -> Hello:
        """HELLO with a new session number: the device forgets earlier requests and statistics.

        Raises HilError also when the device is no longer the one it was.
        """
        self._need(self.crazyflie.log.toc, "hppo.version")
        self._session = random.choice([n for n in range(1, 256) if n != self._session])
        ((_, bodies),) = self._exchange([Ask(Command.HELLO)], 1, recover=False)
        hello = contract.parse_hello(bodies[0])
        if hello is None:
            raise HilError(f"{self.uri}: the device answers HELLO with a malformed packet")
        if self.hello is not None and hello != self.hello:
            raise HilError(f"{self.uri}: another device or package answers than before")
        self.hello = hello
        return hello

    def recover(self, why: str) -> None:
        """Connects anew and opens a session. Raises HilError when that does not succeed."""
        self._count_recovery(why)
        self._connection.close()
        deadline = time.monotonic() + RECONNECT_S
        while True:
            try:
                self._connection = self._connect(CONNECT_TIMEOUT_S)
                self.traffic.reconnects += 1
                self.open_session()
                return
            except HilError as error:
                if time.monotonic() > deadline:
                    raise HilError(
                        f"the link to {self.uri} was lost ({why}) and did not come back within "
                        f"{RECONNECT_S:.0f} s: {error}"
                    ) from None
                time.sleep(RETRY_S)

    def exchange(self, asks: Iterable[Ask], window: int) -> Iterator[tuple[int, list[bytes]]]:
        """Has everything done, up to `window` at a time; yields (position, reply bodies) as done.

        What gets no answer is asked again under the same sequence number; after a lost link or a
        restart of the device under a new session. Raises HilError when the device refuses, stays
        silent or does not come back.
        """
        return self._exchange(asks, window, recover=True)

    def _exchange(
        self, asks: Iterable[Ask], window: int, *, recover: bool
    ) -> Iterator[tuple[int, list[bytes]]]:
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
            reply = self._next_reply(min(entry.due for entry in pending.values()))
            now = time.monotonic()
            if self._has_to_recover(reply, recover):
                for entry in pending.values():
                    entry.start_over(self._patience)
                heard = now = time.monotonic()
                reply = None
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
                if recover:
                    self._recoveries = 0
                yield done.index, [done.bodies[i] for i in range(len(done.ask.bodies))]
            for entry in pending.values():
                if entry.due <= now:
                    self.traffic.resent += 1
                    self._send(entry)

    def set_param(self, name: str, value: int, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Writes a parameter and waits until the device confirms it."""
        self._need(self.crazyflie.param.toc, name)
        deadline = time.monotonic() + timeout_s
        while True:
            problem = self._link_problem()
            if problem is not None:
                self.recover(problem)
                deadline = time.monotonic() + timeout_s
            if self._write_param(name, value):
                return
            if time.monotonic() > deadline:
                raise HilError(f"{self.uri}: the device does not confirm {name} = {value}")

    def log(self, names: Iterable[str], period_ms: int) -> LogStream:
        """Starts a log block; to be used in a with statement."""
        wanted = list(names)
        for name in wanted:
            self._need(self.crazyflie.log.toc, name)
        return LogStream(self.crazyflie, wanted, period_ms)

    def _write_param(self, name: str, value: int) -> bool:
        """Whether the device has confirmed the value within a second."""
        confirmed = threading.Event()

        def callback(_: str, now: str) -> None:
            if int(now) == value:
                confirmed.set()

        group, _, short = name.partition(".")
        table = self.crazyflie.param
        table.add_update_callback(group=group, name=short, cb=callback)
        try:
            table.set_value(name, value)
            return confirmed.wait(1.0)
        finally:
            table.remove_update_callback(group=group, name=short, cb=callback)

    def _connect(self, timeout_s: float) -> Connection:
        return Connection(self.uri, timeout_s, self._received, self.traffic.pings_ms.append)

    def _has_to_recover(self, reply: Reply | None, recover: bool) -> bool:
        """Whether link or session were lost; then both are there again. Raises HilError."""
        problem = self._link_problem()
        if problem is not None:
            if not recover:
                raise HilError(f"the link to {self.uri} was lost: {problem}")
            self.recover(problem)
            return True
        restarted = reply is not None and reply.result is Result.NO_SESSION
        if restarted and recover and reply is not None and reply.session == self._session:
            self._count_recovery(contract.MEANING[Result.NO_SESSION])
            self.traffic.restarts += 1
            self.open_session()
            return True
        return False

    def _link_problem(self) -> str | None:
        """Why the link counts as lost. Silence counts only while this is asked all along."""
        connection, now = self._connection, time.monotonic()
        if now - self._looked > LINK_SILENCE_S / 2:
            connection.heard = now
        self._looked = now
        if connection.lost is None and now - connection.heard > LINK_SILENCE_S:
            return f"nothing heard for {LINK_SILENCE_S:.0f} s"
        return connection.lost

    def _count_recovery(self, why: str) -> None:
        self._recoveries += 1
        if self._recoveries > MOST_RECOVERIES:
            raise HilError(f"{self.uri}: gave up after {MOST_RECOVERIES} recoveries: {why}")

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
            entry.due, entry.wait = now, self._patience  # it is there: no reason to wait longer
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
        wait = min(max(0.0, due - time.monotonic()), LONGEST_WAIT_S)
        try:
            return self._replies.get(timeout=wait)
        except queue.Empty:
            return None

    def _received(self, data: bytes) -> None:
        reply = contract.parse_reply(data)
        if reply is None:
            self.traffic.unexpected += 1
        else:
            self.traffic.received += 1
            self._replies.put(reply)
