"""Malformed, random and hostile datagrams at a virtual Crazyflie, for as long as asked.

    python tests/hil/fuzz.py build/crazyflie21 600

Ends with exit code 0 when the device still connects, answers and computes; the harness's tests do
a short form of the same.
"""

from __future__ import annotations

import random
import resource
import socket
import sys
import threading
import time
from pathlib import Path

from hil import harness
from hil.package import open_package
from hil.virtual_crazyflie import VirtualCrazyflie

HEADERS = tuple(port << 4 | 0x0C | channel for port in range(16) for channel in range(4))
PER_S = 400


def datagram(chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:  # anything
        return chance.randbytes(chance.choice((0, 1, 2, 31, 32, 300, 1400)))
    if kind == 1:  # a service of CRTP with a plausible command
        header = bytes([chance.choice((0x2C, 0x4C, 0x5C, 0xDC, 0xFC)) | chance.randrange(4)])
        return header + bytes([chance.randrange(10)]) + chance.randbytes(chance.randrange(30))
    if kind == 2:  # the contract: known command and session, few sequence numbers
        fields = (chance.randrange(1, 8), chance.randrange(3), chance.randrange(8), 0)
        return b"\xde" + bytes(fields) + chance.randbytes(chance.choice((0, 1, 2, 13, 25)))
    return bytes([chance.choice(HEADERS)]) + chance.randbytes(chance.randrange(31))


def main(package: Path, seconds: float) -> int:
    opened = open_package(package)
    device = VirtualCrazyflie(opened.elf, opened.target_name, port=0)
    failures: list[BaseException] = []
    threading.excepthook = lambda args: failures.append(args.exc_value or RuntimeError("?"))
    server = threading.Thread(target=device.serve)
    server.start()
    chance = random.Random(time.time_ns())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent, end = 0, time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(device.address)
        while time.monotonic() < end and server.is_alive():
            client.send(datagram(chance))
            sent += 1
            if sent % 20 == 0:
                time.sleep(20 / PER_S)
        time.sleep(2.0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{sent} datagrams in {seconds:.0f} s, {grown} KiB more memory, {len(failures)} failures")
    alive = server.is_alive()
    if alive:
        measured = harness.measure(opened, device.uri, 50, free_run_s=0.2)
        alive = measured.stopped is None and measured.self_test == 0 and max(measured.error) == 0.0
        print("afterwards: complete" if alive else f"afterwards: {measured.stopped}")
        device.stop()
    server.join()
    return 0 if alive and not failures else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
