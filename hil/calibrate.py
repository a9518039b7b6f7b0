"""`hyperppo-hil calibrate`: kernels run on a device, and the cycle model fitted to them."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hil import calibration, contract, harness
from hil.calibration import Constants, Floats
from hil.contract import KERNELS, Command
from hil.errors import HilError
from hil.link import Ask, Link
from hil.package import DevicePackage

Progress = Callable[[str, int, int], None]  # stage, done, of
Record = dict[str, Any]

REPEATS = 25  # of each kernel; the least counts: caches warm, no interrupt
POLICY_REPEATS = 100
SESSION = 1  # with the emulated image, which has a single client
SOURCES = {
    contract.TIME_DWT: "dwt",
    contract.TIME_MODEL: "model",
    contract.TIME_CALIBRATED: "model",
}


def calibrate(
    package: DevicePackage, uri: str, name: str | None, tell: Progress
) -> tuple[Record, Path]:
    """Measures, fits and stores. Returns what was stored, and where. Raises HilError.

    `name`: of the device; by default its processor's number where the firmware tells it, else
    the URI.
    """
    image = package.elf
    with Link(uri) as link:
        hello = link.open_session()
        harness.refuse_other_device(hello, package)
        device = name or _processor_number(link) or uri
        measured = _measure_kernels(link, tell)
        policy = _measure_policy(link, package)
    model = _Model(image, package.target_name, package, tell)
    fitted = calibration.fit(measured, model.kernels, model.nominal)
    before, after = model.policy(model.nominal), model.policy(fitted.constants)
    error = abs(after - policy) / policy
    record = {
        "format": calibration.FORMAT,
        "format_version": calibration.FORMAT_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "uri": uri,
        "target": package.target_name,
        "package": package.package_hash.hex(),
        "source": SOURCES.get(hello.time_source, "model"),
        "constants": fitted.constants,
        "nominal": dict(model.nominal),
        "kernels": {
            kernel: {"measured": int(m), "model": int(f)}
            for kernel, m, f in zip(KERNELS, measured, fitted.modelled, strict=True)
        },
        "largest_kernel_error": fitted.largest_error,
        "policy": {"measured": policy, "model": after, "before": before, "error": error},
        "band": max(fitted.largest_error, error),
    }
    return record, calibration.store(record)


def lines(record: Record) -> list[str]:
    """The calibration for a terminal."""
    nominal, policy = record["nominal"], record["policy"]
    return [
        f"{'constant':20} {'fitted':>8} {'before':>8}",
        *(f"{n:20} {v:8.2f} {nominal[n]:8.0f}" for n, v in record["constants"].items()),
        f"kernels within {100 * record['largest_kernel_error']:.1f} %",
        f"this package's policy within {100 * policy['error']:.1f} %: {policy['measured']} cycles "
        f"measured, {policy['model']} by the fitted model, {policy['before']} before",
    ]


class _Model:
    """Cycles of the package's image on the emulated core, under any constants."""

    def __init__(self, elf: Path, target_name: str, package: DevicePackage, tell: Progress) -> None:
        from targets.target import load_target

        self._elf, self._target = elf, load_target(target_name)
        self._observation = package.observations[0]
        self._tell, self._runs = tell, 0
        self.nominal = calibration.constants_of(self._target)

    def kernels(self, constants: Constants) -> Floats:
        """(kernels,) cycles with warm caches, as the device's least."""
        ask = self._image(constants)
        self._runs += 1
        self._tell("model", self._runs, calibration.ROUNDS * (len(calibration.NAMES) + 1) + 1)
        bodies = [struct.pack("<BH", number, 3) for number in range(len(KERNELS))]
        replies = [ask(Command.KERNEL_RUN, number, body) for number, body in enumerate(bodies)]
        return np.array([_least(reply) for reply in replies], dtype=np.float64)

    def policy(self, constants: Constants) -> int:
        """Cycles of the policy on the first recorded observation, with warm caches."""
        ask = self._image(constants)
        for packet in contract.load_requests(SESSION, 0, self._observation):
            ask(Command.LOAD, 0, packet[4:])
        return _least(ask(Command.REPEAT, 0, struct.pack("<H", 3)))

    def _image(self, constants: Constants) -> Callable[[Command, int, bytes], bytes]:
        """The image with an open session; the result gives replies' bodies."""
        from targets.emulator import Emulator
        from targets.errors import TargetError

        target, refill = calibration.apply(self._target, constants)
        try:
            core = Emulator(self._elf, target, timed=True, taken_branch=refill)
        except TargetError as error:
            raise HilError(str(error)) from None
        core.call("hppo_start")
        mailbox = core.symbols["hppo_mailbox"]
        reply_at = mailbox + contract.PACKET_BYTES

        def ask(command: Command, sequence: int, body: bytes) -> bytes:
            packet = contract.request(command, SESSION, sequence, body)
            core.write(mailbox, packet)
            length = core.call("hppo_device_handle", mailbox, len(packet), reply_at) & 0xFF
            return core.read(reply_at, length)[5:]

        ask(Command.HELLO, 0, b"")
        return ask


def _measure_kernels(link: Link, tell: Progress) -> Floats:
    cycles = []
    for number in range(len(KERNELS)):
        body = struct.pack("<BH", number, REPEATS)
        ((_, bodies),) = link.exchange([Ask(Command.KERNEL_RUN, None, (body,))], window=1)
        cycles.append(_least(bodies[0]))
        tell("kernels", number + 1, len(KERNELS))
    return np.array(cycles, dtype=np.float64)


def _measure_policy(link: Link, package: DevicePackage) -> int:
    ask = Ask(Command.REPEAT, package.observations[0], (struct.pack("<H", POLICY_REPEATS),))
    ((_, bodies),) = link.exchange([ask], window=1)
    return _least(bodies[0])


def _least(body: bytes) -> int:
    statistics = contract.parse_repeat(body)
    if statistics is None:
        raise HilError("the device answers a measurement with a malformed packet")
    return statistics.least


def _processor_number(link: Link) -> str | None:
    """The STM32's unique number, which the stock firmware offers as parameters."""
    values = link.crazyflie.param.values.get("cpu", {})
    parts = [values.get(name) for name in ("id0", "id1", "id2")]
    return None if None in parts else "-".join(f"{int(part or 0):08x}" for part in parts)
