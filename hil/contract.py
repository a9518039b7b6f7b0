"""The device contract, version 1, seen from the client: docs/device-contract.md in Python.

`crazyflie_app/src/hppo_device.h` says the same in C; a test compares the two. Little-endian.
Request: command u8, session u8, sequence u16, body. Reply: command | 0x80, session, sequence,
result u8, body. A packet holds at most 30 bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import struct

import numpy as np
import numpy.typing as npt

from hil.errors import HilError

Floats = npt.NDArray[np.float32]

CONTRACT_VERSION = 1
PACKET_BYTES = 30
SLOTS = 4
CHUNK_FLOATS = 6
FIRST_FLOATS = 4
MAX_REPEAT = 1000
REPLY = 0x80


class Command(enum.IntEnum):
    """First byte of a request."""

    HELLO = 1
    LOAD = 2
    RUN = 3
    SELF_TEST = 4
    REPEAT = 5
    KERNEL_RUN = 6


class Result(enum.IntEnum):
    """Fifth byte of a reply."""

    OK = 0
    NO_SESSION = 1
    UNKNOWN_COMMAND = 2
    BAD_PACKET = 3
    INCOMPLETE = 4
    STALE = 5
    CONFLICT = 6
    BUSY = 7
    NOT_FINITE = 8
    OTHER_SESSION = 9


MEANING = {
    Result.OK: "done",
    Result.NO_SESSION: "the device has restarted",
    Result.UNKNOWN_COMMAND: "the device does not know the command",
    Result.BAD_PACKET: "the device found the packet malformed",
    Result.INCOMPLETE: "the observation did not arrive in full",
    Result.STALE: "the request is older than those that the device remembers",
    Result.CONFLICT: "the sequence number was used for another command",
    Result.BUSY: "the device is flying or the policy is enabled",
    Result.NOT_FINITE: "the observation or the action is not finite",
    Result.OTHER_SESSION: "another client has taken the device over",
}

STATUS_TESTED = 0x01
STATUS_PASSED = 0x02
STATUS_NOT_FINITE = 0x04
STATUS_ACTIVE = 0x08


class Reason(enum.IntEnum):
    """Log variable hppo.reason: why the motors do not follow an enabled policy."""

    NONE = 0
    SELF_TEST = 1
    NO_GOAL = 2
    STALE = 3
    NOT_FINITE = 4
    TILT = 5
    DISTANCE = 6
    ATTITUDE = 7


MODE_REQUEST = 0
MODE_FREE = 1

TIME_DWT = 0
TIME_MODEL = 1
TIME_CALIBRATED = 2


@dataclasses.dataclass(frozen=True)
class Variable:
    """A log variable or parameter of the device: group.name, C type, symbol in the image."""

    group: str
    name: str
    ctype: str
    symbol: str


LOG_VARIABLES = (
    Variable("hppo", "cycles", "uint32_t", "hppo_log_cycles"),
    Variable("hppo", "max", "uint32_t", "hppo_log_max"),
    Variable("hppo", "us", "uint32_t", "hppo_log_us"),
    Variable("hppo", "count", "uint32_t", "hppo_log_count"),
    Variable("hppo", "miss", "uint32_t", "hppo_log_miss"),
    Variable("hppo", "status", "uint8_t", "hppo_log_status"),
    Variable("hppo", "reason", "uint8_t", "hppo_log_reason"),
    Variable("hppo", "version", "uint8_t", "hppo_log_version"),
)

PARAMETERS = (
    Variable("hppo", "mode", "uint8_t", "hppo_param_mode"),
    Variable("hppo", "enable", "uint8_t", "hppo_param_enable"),
    Variable("hppo", "stale", "uint16_t", "hppo_param_stale"),
    Variable("hppo", "tilt", "float", "hppo_param_tilt"),
    Variable("hppo", "dist", "float", "hppo_param_dist"),
)


# The kernels of KERNEL_RUN in their order: what the loop has in it (hppo_kernels.h).
KERNELS = (
    "branch",
    "multiply_add",
    "divide",
    "result_use",
    "load",
    "loads",
    "store",
    "flash_data",
    "flash_line",
    "flash_jumps",
    "flash_run",
)


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply with its header taken off."""

    command: Command
    session: int
    sequence: int
    result: Result
    body: bytes


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a device says about itself."""

    contract_version: int
    time_source: int  # TIME_DWT, TIME_MODEL, TIME_CALIBRATED
    slots: int  # requests that may be under way
    obs_dim: int
    act_dim: int
    package_hash: bytes  # 8 bytes
    clock_hz: int
    deadline_us: int


@dataclasses.dataclass(frozen=True)
class RunPart:
    """Part of a RUN reply: cycles and us come with part 0 and are 0 in the others."""

    part: int
    cycles: int
    us: int
    actions: Floats  # (FIRST_FLOATS or CHUNK_FLOATS or fewer,)


@dataclasses.dataclass(frozen=True)
class RepeatStatistics:
    """What REPEAT or KERNEL_RUN measured, in core cycles."""

    least: int
    most: int
    total: int


def request(command: Command, session: int, sequence: int, body: bytes = b"") -> bytes:
    """One request packet."""
    packet = struct.pack("<BBH", command, session, sequence & 0xFFFF) + body
    if len(packet) > PACKET_BYTES:
        raise ValueError(f"{len(packet)} bytes do not fit into a packet")
    return packet


def load_requests(session: int, sequence: int, observation: Floats) -> list[bytes]:
    """The LOAD packets of one observation (obs_dim,)."""
    values = np.asarray(observation, dtype="<f4")
    chunks = range(0, len(values), CHUNK_FLOATS)
    return [
        request(
            Command.LOAD,
            session,
            sequence,
            bytes([first // CHUNK_FLOATS]) + values[first : first + CHUNK_FLOATS].tobytes(),
        )
        for first in chunks
    ]


def run_parts(act_dim: int) -> int:
    """Number of parts of a RUN reply."""
    return 1 + -(-max(0, act_dim - FIRST_FLOATS) // CHUNK_FLOATS)


def parse_reply(packet: bytes) -> Reply | None:
    """The reply in an app-channel packet; None when it is none of this contract."""
    if len(packet) < 5 or len(packet) > PACKET_BYTES or not packet[0] & REPLY:
        return None
    command, session, sequence, result = struct.unpack_from("<BBHB", packet)
    try:
        return Reply(Command(command & ~REPLY), session, sequence, Result(result), packet[5:])
    except ValueError:
        return None


def parse_hello(body: bytes) -> Hello | None:
    """The body of a HELLO reply; None when malformed. Of another version only that is read."""
    if body and body[0] != CONTRACT_VERSION:
        return Hello(body[0], TIME_DWT, 0, 0, 0, b"", 0, 0)
    if len(body) != 23:
        return None
    return Hello(*struct.unpack("<BBBHH8sII", body))


def parse_run(body: bytes) -> RunPart | None:
    """The body of a RUN reply; None when malformed."""
    if not body:
        return None
    start = 9 if body[0] == 0 else 1
    if len(body) <= start or (len(body) - start) % 4:
        return None
    cycles, us = struct.unpack_from("<II", body, 1) if body[0] == 0 else (0, 0)
    actions = np.frombuffer(body, dtype="<f4", offset=start).astype(np.float32)
    return RunPart(body[0], cycles, us, actions)


def join_run(bodies: list[bytes], act_dim: int) -> tuple[int, int, Floats]:
    """Cycles, microseconds and action (act_dim,) from all parts of a RUN reply, in order.

    Raises HilError when they do not make one.
    """
    parts = [parse_run(body) for body in bodies]
    whole = [part for part in parts if part is not None]
    if len(whole) == len(parts):
        actions = np.concatenate([part.actions for part in whole])
        if len(actions) == act_dim:
            return whole[0].cycles, whole[0].us, actions
    raise HilError("the device answers RUN with a malformed packet")


def parse_self_test(body: bytes) -> int | None:
    """The body of a SELF_TEST reply: 0 when all golden vectors match; None when malformed."""
    return int(struct.unpack("<i", body)[0]) if len(body) == 4 else None


def parse_repeat(body: bytes) -> RepeatStatistics | None:
    """The body of a REPEAT or KERNEL_RUN reply; None when malformed."""
    return RepeatStatistics(*struct.unpack("<IIQ", body)) if len(body) == 16 else None
