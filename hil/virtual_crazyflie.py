"""A Crazyflie without the drone: CRTP over UDP in front of the package's emulated ARM image.

Answers what stock cflib asks when it connects (link, platform, log, memories, parameters) and
passes app-channel packets to the image. Log variables and parameters are the image's own.
Anything it cannot read is dropped. Run as `python -m hil.virtual_crazyflie PACKAGE` it serves
on a free loopback port, prints the port and ends with its standard input: what the harness uses.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import sys
import threading
import time
from pathlib import Path

from hil import calibration, log_blocks, toc
from hil.calibration import Constants
from hil.contract import LOG_VARIABLES, PARAMETERS
from hil.crtp import APP_CHANNEL, MAX_DATA_BYTES, Packet, Port, decode, is_null
from hil.errors import HilError
from hil.faults import BOOT_S, Faults, FaultyAir
from hil.virtual_core import VirtualCore

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 19850  # the first that clients scan
PROTOCOL_VERSION = 12  # of CRTP, as current firmware answers (crtp.h)
NOT_FOUND = 2  # ENOENT, in answers about parameters
LONGEST_WAIT_S = 0.2


class VirtualCrazyflie:
    """One device on one UDP socket. Raises HilError when the port is taken or the image unfit.

    `elf`: the package's bare image; `firmware`: a whole firmware with its app, to run instead.
    `constants`: of the cycle model, as a device was measured to have them.
    """

    def __init__(
        self,
        elf: Path,
        target_name: str,
        *,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        faults: Faults | None = None,
        firmware: Path | None = None,
        constants: Constants | None = None,
    ) -> None:
        self._socket = _bind(host, port)
        self.address: Address = self._socket.getsockname()[:2]
        self._stopped = threading.Event()
        self._failure: str | None = None
        try:
            self._core = VirtualCore(
                elf, target_name, self._fail, firmware=firmware, constants=constants
            )
        except HilError:
            self._socket.close()
            raise
        self._logs = log_blocks.LogBlocks(LOG_VARIABLES, self._core.value, time.monotonic())
        self._air = FaultyAir(faults, self._deliver) if faults is not None else None
        reboot = faults.reboot_after_s if faults is not None else None
        self._reboot_at = math.inf if reboot is None else time.monotonic() + reboot
        self._log_toc = toc.log_toc(LOG_VARIABLES, log_blocks.MAX_BLOCKS, log_blocks.MAX_VARIABLES)
        self._param_toc = toc.param_toc(PARAMETERS)
        self._log_client: Address | None = None

    @property
    def uri(self) -> str:
        """Where cflib finds the device."""
        host, port = self.address
        return f"udp://{LOOPBACK if host == '0.0.0.0' else host}:{port}"

    def serve(self) -> None:
        """Serves until `stop`. Raises HilError when the image faults."""
        try:
            while not self._stopped.is_set():
                self._receive()
                now = time.monotonic()
                if now >= self._reboot_at:
                    self._reboot()
                for data in self._logs.collect(now):
                    self._send(Packet(Port.LOG, 2, data), self._log_client)
        finally:
            self._core.stop()
            if self._air is not None:
                self._air.close()
            self._socket.close()
        if self._failure is not None:
            raise HilError(f"the image stopped: {self._failure}")

    def stop(self) -> None:
        """Ends `serve`, from any thread."""
        self._stopped.set()

    def _fail(self, message: str) -> None:
        self._failure = message
        self._stopped.set()

    def _reboot(self) -> None:
        """As after a power cycle: all forgotten, and nothing answered meanwhile."""
        self._reboot_at = math.inf
        self._core.reboot()
        self._logs = log_blocks.LogBlocks(LOG_VARIABLES, self._core.value, time.monotonic())
        self._log_client = None
        end = time.monotonic() + BOOT_S
        while (left := end - time.monotonic()) > 0 and not self._stopped.is_set():
            self._socket.settimeout(left)
            with contextlib.suppress(OSError):
                self._socket.recvfrom(2048)

    def _receive(self) -> None:
        due = min(self._logs.next_due(), self._reboot_at)
        wait = min(LONGEST_WAIT_S, max(0.0, due - time.monotonic()) if due < math.inf else math.inf)
        self._socket.settimeout(max(wait, 1e-4))  # 0 would mean not to wait at all
        try:
            datagram, sender = self._socket.recvfrom(2048)
        except OSError:  # nothing came, or an earlier datagram could not be delivered
            return
        packet = decode(datagram)
        if packet is not None and not (self._air is not None and self._air.loses(packet)):
            self._answer(packet, sender)

    def _send(self, packet: Packet, to: Address | None) -> None:
        if to is None:
            return
        if self._air is not None:
            self._air.send(packet, to)
        else:
            self._deliver(packet, to)

    def _deliver(self, packet: Packet, to: Address) -> None:
        try:
            self._socket.sendto(packet.encode(), to)
        except OSError:  # the client is gone or the socket is closed: as a radio would, carry on
            return

    def _answer(self, packet: Packet, sender: Address) -> None:
        reply: Packet | None = None
        if is_null(packet):
            reply = packet
        elif packet.port == Port.LINK:
            reply = _link(packet)
            if packet.channel == 1:
                self._send(Packet(Port.CONSOLE, 0, b"HyperPPO virtual device\n"), sender)
        elif packet.port == Port.PLATFORM:
            if packet.channel == APP_CHANNEL:
                self._core.handle(packet.data, lambda data: self._send(packet.reply(data), sender))
            else:
                reply = _platform(packet)
        elif packet.port == Port.MEM:
            reply = packet.reply(b"\x01\x00") if packet.data[:1] == b"\x01" else None
        elif packet.port == Port.LOG:
            reply = self._log(packet, sender)
        elif packet.port == Port.PARAM:
            reply = self._param(packet, sender)
        if reply is not None:
            self._send(reply, sender)

    def _log(self, packet: Packet, sender: Address) -> Packet | None:
        data: bytes | None = None
        if packet.channel == 0:
            data = self._log_toc.answer(packet.data)
        elif packet.channel == 1:
            self._log_client = sender
            data = self._logs.control(packet.data, time.monotonic())
        return None if data is None else packet.reply(data)

    def _param(self, packet: Packet, sender: Address) -> Packet | None:
        if packet.channel == 0:
            data = self._param_toc.answer(packet.data)
            return None if data is None else packet.reply(data)
        if packet.channel not in (1, 2) or len(packet.data) < 2:
            return None
        number = packet.data[:2]
        index = struct.unpack("<H", number)[0]
        if index >= len(PARAMETERS):
            return packet.reply(number + bytes([NOT_FOUND]))
        variable = PARAMETERS[index]
        if packet.channel == 1:
            return packet.reply(number + b"\x00" + self._core.value(variable))
        value = packet.data[2:]
        if len(value) == toc.size_of(variable):
            self._core.set_value(
                variable, value, lambda new: self._send(packet.reply(number + new), sender)
            )
        return None


def _link(packet: Packet) -> Packet | None:
    """Echo; source, whose text tells a client that versions can be asked for; sink."""
    if packet.channel == 0:
        return packet
    if packet.channel == 1:
        return packet.reply(b"Bitcraze Crazyflie".ljust(MAX_DATA_BYTES, b"\0"))
    return None


def _platform(packet: Packet) -> Packet | None:
    """The version channel: protocol, firmware, device type."""
    if packet.channel != 1 or not packet.data:
        return None
    answers = {
        0: struct.pack("<I", PROTOCOL_VERSION),
        1: b"hyperppo-virtual",
        2: b"HyperPPO virtual",
    }
    answer = answers.get(packet.data[0])
    return None if answer is None else packet.reply(packet.data[:1] + answer)


def _bind(host: str, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind((host, port))
    except OSError as error:
        server.close()
        raise HilError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another with --port"
        ) from None
    except OverflowError:
        server.close()
        raise HilError(f"{port} is not a port: choose 0..65535") from None
    return server


def _serve_until_stdin_ends(package: Path) -> None:
    from hil.package import open_package

    opened = open_package(package)
    measured = calibration.latest(opened.target_name)
    constants = None if measured is None else measured["constants"]
    device = VirtualCrazyflie(opened.elf, opened.target_name, port=0, constants=constants)
    print(device.address[1], flush=True)

    def wait() -> None:
        sys.stdin.read()
        device.stop()

    threading.Thread(target=wait, daemon=True).start()
    device.serve()


if __name__ == "__main__":
    try:
        _serve_until_stdin_ends(Path(sys.argv[1]))
    except HilError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
