"""Log blocks: groups of log variables that the device sends by itself, each with a period.

Format: https://www.bitcraze.io/documentation/repository/crazyflie-firmware/master/functional-areas/crtp/crtp_log/
"""

from __future__ import annotations

import dataclasses
import errno
import math
import struct
from collections.abc import Callable, Iterator, Sequence

from hil.contract import Variable
from hil.toc import CTYPES

MAX_BLOCKS = 16
MAX_VARIABLES = 128
MAX_BLOCK_BYTES = 26  # a packet less the block's number and the time stamp

DELETE, START, STOP, RESET, CREATE, APPEND, START_MS = 2, 3, 4, 5, 6, 7, 8

# The type codes a client may ask for: those of the stored types, and half precision.
FORMATS = {ctype.log_code: ctype.format for ctype in CTYPES.values()} | {8: "<e"}
HALF_MAX = 65504.0  # largest finite half-precision value (IEEE 754-2019, table 3.5)


@dataclasses.dataclass
class Block:
    """One block: what it holds (variable, type code to send as) and when it is due."""

    fields: list[tuple[Variable, int]]
    period_s: float = 0.0  # 0: stopped
    due: float = math.inf

    def size(self) -> int:
        """Bytes of the values in a data packet."""
        return sum(struct.calcsize(FORMATS[code]) for _, code in self.fields)


class LogBlocks:
    """The blocks of one device. `read` gives a variable's bytes as stored."""

    def __init__(
        self, variables: Sequence[Variable], read: Callable[[Variable], bytes], start: float
    ) -> None:
        self._variables = tuple(variables)
        self._read = read
        self._start = start  # time stamps count from here
        self._blocks: dict[int, Block] = {}

    def control(self, data: bytes, now: float) -> bytes | None:
        """Answers a packet of the control channel: command, block, 0 or an errno."""
        if not data:
            return None
        command, block_id = data[0], data[1] if len(data) > 1 else 0
        return bytes([command, block_id, self._control(command, block_id, data[2:], now)])

    def next_due(self) -> float:
        """When the next block wants to be sent; infinity when none is started."""
        return min((block.due for block in self._blocks.values()), default=math.inf)

    def collect(self, now: float) -> Iterator[bytes]:
        """The data packets that are due, and sets their next time. A late block is sent once."""
        for block_id, block in self._blocks.items():
            if block.due > now:
                continue
            stamp = int((now - self._start) * 1000) & 0xFFFFFF
            values = b"".join(_encode(v, self._read(v), code) for v, code in block.fields)
            yield bytes([block_id]) + struct.pack("<I", stamp)[:3] + values
            if block.period_s == 0.0:
                block.due = math.inf
            else:
                block.due = max(block.due + block.period_s, now)

    def _control(self, command: int, block_id: int, arguments: bytes, now: float) -> int:
        if command == RESET:
            self._blocks.clear()
            return 0
        if command == CREATE:
            if block_id in self._blocks:
                return errno.EEXIST
            if len(self._blocks) >= MAX_BLOCKS:
                return errno.ENOMEM
            self._blocks[block_id] = Block([])
            return self._append(block_id, arguments)
        if command not in (DELETE, START, STOP, APPEND, START_MS):
            return errno.ENOEXEC
        if block_id not in self._blocks:
            return errno.ENOENT
        block = self._blocks[block_id]
        if command == DELETE:
            del self._blocks[block_id]
        elif command == APPEND:
            return self._append(block_id, arguments)
        elif command == STOP:
            block.due = math.inf
        else:
            wanted = 1 if command == START else 2
            if len(arguments) < wanted:
                return errno.ENOEXEC
            ticks = int.from_bytes(arguments[:wanted], "little")
            block.period_s = ticks * (0.01 if command == START else 0.001)
            block.due = now + block.period_s
        return 0

    def _append(self, block_id: int, arguments: bytes) -> int:
        block = self._blocks[block_id]
        for start in range(0, len(arguments) - 2, 3):
            code = arguments[start] & 0x0F
            index = int.from_bytes(arguments[start + 1 : start + 3], "little")
            if index >= len(self._variables) or code not in FORMATS:
                return errno.ENOENT
            if block.size() + struct.calcsize(FORMATS[code]) > MAX_BLOCK_BYTES:
                return errno.E2BIG
            if sum(len(b.fields) for b in self._blocks.values()) >= MAX_VARIABLES:
                return errno.ENOMEM
            block.fields.append((self._variables[index], code))
        return 0


def _encode(variable: Variable, stored: bytes, code: int) -> bytes:
    """The stored value as the type of `code`, cut to its range."""
    value = struct.unpack(CTYPES[variable.ctype].format, stored)[0]
    form = FORMATS[code]
    if form == "<f":
        return struct.pack(form, value)
    if form == "<e":
        return struct.pack(form, max(-HALF_MAX, min(HALF_MAX, value)))
    bits = 8 * struct.calcsize(form)
    whole = int(value) if math.isfinite(value) else 0
    unsigned = whole & ((1 << bits) - 1)
    return unsigned.to_bytes(bits // 8, "little")
