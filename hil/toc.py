"""Tables of contents, version 2: how a client learns a device's log variables and parameters.

Format: https://www.bitcraze.io/documentation/repository/crazyflie-firmware/master/functional-areas/crtp/
(pages crtp_log and crtp_parameters). Each answer is the data of a packet on the asking channel.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence

from hil.contract import Variable

GET_ITEM, GET_INFO = 2, 3


@dataclasses.dataclass(frozen=True)
class CType:
    """How a C type is announced and packed."""

    log_code: int
    param_code: int
    format: str  # of struct


CTYPES = {
    "uint8_t": CType(1, 0x08, "<B"),
    "uint16_t": CType(2, 0x09, "<H"),
    "uint32_t": CType(3, 0x0A, "<I"),
    "int8_t": CType(4, 0x00, "<b"),
    "int16_t": CType(5, 0x01, "<h"),
    "int32_t": CType(6, 0x02, "<i"),
    "float": CType(7, 0x06, "<f"),
}


def size_of(variable: Variable) -> int:
    """Bytes of a variable."""
    return struct.calcsize(CTYPES[variable.ctype].format)


@dataclasses.dataclass(frozen=True)
class Toc:
    """One table: its variables with their type codes, and what follows the CRC in its info."""

    variables: tuple[Variable, ...]
    codes: tuple[int, ...]
    limits: bytes = b""

    def answer(self, data: bytes) -> bytes | None:
        """The answer to a request on the table's channel 0, None when there is none."""
        if data[:1] == bytes([GET_INFO]):
            return struct.pack("<BHI", GET_INFO, len(self.variables), self.crc()) + self.limits
        if data[:1] == bytes([GET_ITEM]) and len(data) >= 3:
            index = struct.unpack_from("<H", data, 1)[0]
            if index >= len(self.variables):
                return bytes([GET_ITEM])
            return data[:3] + self._entry(index)
        return None

    def crc(self) -> int:
        """A number that changes with the table: clients keep tables under it."""
        return zlib.crc32(b"".join(self._entry(i) for i in range(len(self.variables))))

    def _entry(self, index: int) -> bytes:
        variable = self.variables[index]
        names = f"{variable.group}\0{variable.name}\0".encode("ascii")
        return bytes([self.codes[index]]) + names


def log_toc(variables: Sequence[Variable], max_blocks: int, max_variables: int) -> Toc:
    """The table of log variables."""
    codes = tuple(CTYPES[v.ctype].log_code for v in variables)
    return Toc(tuple(variables), codes, bytes([max_blocks, max_variables]))


def param_toc(variables: Sequence[Variable]) -> Toc:
    """The table of parameters, all of them writable."""
    return Toc(tuple(variables), tuple(CTYPES[v.ctype].param_code for v in variables))
