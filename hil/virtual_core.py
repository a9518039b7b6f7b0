"""The virtual device's processor: the package's ARM image, emulated in a thread of its own.

One thread makes all calls into the image, in the order in which they were asked for; after each
it publishes the values of the log variables and parameters, so that readers never wait for it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hil import calibration
from hil.calibration import Constants
from hil.contract import (
    LOG_VARIABLES,
    MODE_FREE,
    PACKET_BYTES,
    PARAMETERS,
    TIME_CALIBRATED,
    TIME_MODEL,
    Variable,
)
from hil.errors import HilError
from hil.toc import size_of

Job = Callable[[], None]

# A real firmware's start-up runs up to SystemInit, which would wait for clocks that are not there.
FIRMWARE_START = {"main": "SystemInit", "_stack_top": "_estack"}
FIRMWARE_ROOM = 0x2000  # below the top of its start-up stack, for packets: nothing else is there
FIRMWARE_QUIET_US = 20_000  # how far its 16-bit microsecond timer may run without its interrupt
MAX_WAITING = 64  # packets; more are dropped, as a full queue of the firmware does
STOP_S = 5.0


class VirtualCore:
    """The emulated core behind a virtual Crazyflie. Raises HilError on an image of another kind.

    `elf`: the package's bare image. `firmware`: a whole firmware that the package's app is linked
    into, to be run instead: of that only the app's functions run, not the firmware's tasks.
    `on_failure` is told, from the core's thread, when the image faults; the core then stops.
    `constants` replace those of the target's cycle model.
    """

    def __init__(
        self,
        elf: Path,
        target_name: str,
        on_failure: Callable[[str], None],
        *,
        firmware: Path | None = None,
        constants: Constants | None = None,
    ) -> None:
        from targets.emulator import Emulator
        from targets.errors import TargetError
        from targets.image import read_image
        from targets.target import load_target

        self._error = TargetError
        self._on_failure = on_failure
        try:
            target = load_target(target_name)
            refill = None
            self._time_source = TIME_MODEL
            if constants is not None:
                target, refill = calibration.apply(target, constants)
                self._time_source = TIME_CALIBRATED
            functions = None if firmware is None else read_image(elf).functions
            self._emulator: Any = Emulator(
                elf if firmware is None else firmware,
                target,
                timed=True,
                taken_branch=refill,
                aliases=None if firmware is None else FIRMWARE_START,
                timed_functions=functions,
            )
            self._period_s = 1.0 / target.control_hz
            self._symbols = self._emulator.symbols
            needed = [v.symbol for v in (*LOG_VARIABLES, *PARAMETERS)]
            needed += ["hppo_time_source", "hppo_start", "hppo_device_handle", "hppo_device_tick"]
            missing = [name for name in needed if name not in self._symbols]
            if missing:
                raise HilError(
                    f"{firmware or elf}: no symbol {missing[0]}: not an image of this contract"
                )
            self._mailbox = self._symbols.get(
                "hppo_mailbox", self._symbols["_stack_top"] // 16 * 16 - FIRMWARE_ROOM
            )
            self._quiet_cycles = FIRMWARE_QUIET_US * (target.modelled()[1] // 1_000_000)
            self._boot()
        except TargetError as error:
            raise HilError(str(error)) from None
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._stopping = False
        self._values: dict[Variable, bytes] = {}
        self._publish()
        self._thread = threading.Thread(target=self._work, name="virtual core", daemon=True)
        self._thread.start()

    def value(self, variable: Variable) -> bytes:
        """A variable's bytes as they were after the latest finished call."""
        return self._values[variable]

    def set_value(self, variable: Variable, data: bytes, on_done: Callable[[bytes], None]) -> None:
        """Writes a parameter between two calls, then hands its new bytes to `on_done`."""

        def write() -> None:
            self._emulator.write(self._symbols[variable.symbol], data)
            self._publish()
            on_done(self._values[variable])

        self._jobs.put(write)

    def handle(self, packet: bytes, on_reply: Callable[[bytes], None]) -> None:
        """Gives an app-channel packet to the image; `on_reply` gets its answer if there is one."""
        if self._jobs.qsize() >= MAX_WAITING:
            return
        mailbox = self._mailbox

        def run() -> None:
            self._rewind_clock()
            self._emulator.write(mailbox, packet)
            length = self._emulator.call(
                "hppo_device_handle", mailbox, len(packet), mailbox + PACKET_BYTES
            )
            self._publish()
            if length & 0xFF:
                on_reply(self._emulator.read(mailbox + PACKET_BYTES, length & 0xFF))

        self._jobs.put(run)

    def reboot(self) -> None:
        """Power off and on after the call that is under way; what was waiting is forgotten."""

        def boot() -> None:
            self._emulator.reset()
            self._boot()
            self._publish()

        self._forget_jobs()
        self._jobs.put(boot)

    def stop(self) -> None:
        """Ends the thread after the call that is under way, or leaves a long one to itself."""
        self._stopping = True
        self._jobs.put(None)
        self._thread.join(timeout=STOP_S)

    def _boot(self) -> None:
        self._emulator.call("hppo_start")
        self._emulator.write(self._symbols["hppo_time_source"], bytes([self._time_source]))

    def _rewind_clock(self) -> None:
        """Keeps the microsecond timer from wrapping: a firmware counts its wraps by interrupt."""
        if self._emulator.cycles > self._quiet_cycles:
            self._emulator.cycles = 0

    def _forget_jobs(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()

    def _publish(self) -> None:
        self._values = {
            variable: self._emulator.read(self._symbols[variable.symbol], size_of(variable))
            for variable in (*LOG_VARIABLES, *PARAMETERS)
        }

    def _work(self) -> None:
        mode = PARAMETERS[0]
        due = 0.0
        try:
            while not self._stopping:
                free = self._values[mode][0] == MODE_FREE
                wait = max(0.0, due - time.monotonic()) if free else None
                try:
                    job = self._jobs.get(timeout=wait)
                except queue.Empty:
                    # A core slower than the control rate skips beats instead of queueing them.
                    due = time.monotonic() + self._period_s
                    self._rewind_clock()
                    self._emulator.call("hppo_device_tick")
                    self._publish()
                    continue
                if job is not None:
                    job()
        except self._error as error:
            self._on_failure(str(error))
