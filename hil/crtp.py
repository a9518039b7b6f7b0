"""CRTP packets as they travel over UDP: a header byte and up to 30 bytes.

Format: https://www.bitcraze.io/documentation/repository/crazyflie-firmware/master/functional-areas/crtp/
"""

from __future__ import annotations

import dataclasses
import enum

MAX_DATA_BYTES = 30


class Port(enum.IntEnum):
    """The ports that the virtual device answers on."""

    CONSOLE = 0
    PARAM = 2
    MEM = 4
    LOG = 5
    PLATFORM = 13
    LINK = 15


APP_CHANNEL = 2  # of the platform port


@dataclasses.dataclass(frozen=True)
class Packet:
    """One CRTP packet: port 0..15, channel 0..3, at most 30 bytes of data."""

    port: int
    channel: int
    data: bytes

    def __post_init__(self) -> None:
        if not (0 <= self.port <= 15 and 0 <= self.channel <= 3):
            raise ValueError(f"no such port and channel: {self.port}, {self.channel}")
        if len(self.data) > MAX_DATA_BYTES:
            raise ValueError(f"{len(self.data)} bytes do not fit into a packet")

    def encode(self) -> bytes:
        """The datagram. Bits 2 and 3 of the header are set, as the radio link wants them."""
        return bytes([self.port << 4 | 0x0C | self.channel]) + self.data

    def reply(self, data: bytes) -> Packet:
        """A packet on the same port and channel."""
        return Packet(self.port, self.channel, data)


def decode(datagram: bytes) -> Packet | None:
    """The packet in a datagram; None when it is empty or too long."""
    if not 1 <= len(datagram) <= 1 + MAX_DATA_BYTES:
        return None
    return Packet(datagram[0] >> 4, datagram[0] & 0x03, datagram[1:])


def is_null(packet: Packet) -> bool:
    """The empty probe that clients scan with (header 0xFF)."""
    return packet.port == Port.LINK and packet.channel == 3
