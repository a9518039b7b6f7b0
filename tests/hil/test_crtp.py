"""Framing and tables of contents against cflib, the independent implementation."""

from __future__ import annotations

import struct

from cflib.crazyflie.log import LogTocElement
from cflib.crazyflie.param import ParamTocElement
from cflib.crtp.crtpstack import CRTPPacket
from hypothesis import given
from hypothesis import strategies as st

from hil.contract import LOG_VARIABLES, PARAMETERS
from hil.crtp import Packet, decode
from hil.log_blocks import LogBlocks
from hil.toc import CTYPES, log_toc, param_toc

packets = st.builds(Packet, st.integers(0, 15), st.integers(0, 3), st.binary(max_size=30))


@given(packets)
def test_encoding_is_cflibs_and_is_undone(packet: Packet) -> None:
    theirs = CRTPPacket()
    theirs.set_header(packet.port, packet.channel)
    theirs.data = packet.data
    assert packet.encode() == bytes([theirs.header]) + bytes(theirs.data)
    assert decode(packet.encode()) == packet


@given(st.binary(max_size=64))
def test_any_datagram_is_decoded_or_dropped(datagram: bytes) -> None:
    packet = decode(datagram)
    assert (packet is None) == (not 1 <= len(datagram) <= 31)


def test_cflib_reads_the_tables() -> None:
    tables = (
        (log_toc(LOG_VARIABLES, 16, 128), LogTocElement, LOG_VARIABLES),
        (param_toc(PARAMETERS), ParamTocElement, PARAMETERS),
    )
    for table, element, variables in tables:
        for index, variable in enumerate(variables):
            answer = table.answer(struct.pack("<BH", 2, index))
            assert answer is not None
            assert len(answer) <= 30
            read = element(index, answer[3:])
            assert (read.group, read.name) == (variable.group, variable.name)
            assert read.ctype == variable.ctype
        assert table.answer(struct.pack("<BH", 2, len(variables))) == b"\x02"
    assert tables[0][0].crc() != tables[1][0].crc()


def test_type_codes_are_cflibs() -> None:
    for name, ctype in CTYPES.items():
        assert LogTocElement.types[ctype.log_code][0] == name
        assert ParamTocElement.types[ctype.param_code][0] == name


@given(st.binary(max_size=30))
def test_tables_and_blocks_take_any_bytes(data: bytes) -> None:
    log_toc(LOG_VARIABLES, 16, 128).answer(data)
    blocks = LogBlocks(LOG_VARIABLES, lambda v: bytes(4 if v.ctype == "uint32_t" else 1), 0.0)
    blocks.control(bytes([6, 1, 3, 0, 0]), 0.0)
    blocks.control(data, 0.0)
    assert all(len(packet) <= 30 for packet in blocks.collect(1e9))


def test_a_value_is_sent_as_the_type_asked_for() -> None:
    stored = struct.pack("<I", 70_001)
    blocks = LogBlocks(LOG_VARIABLES, lambda _: stored, 0.0)
    for code in (1, 2, 3, 6, 7, 8):  # hppo.cycles as u8, u16, u32, i32, float, half
        assert blocks.control(bytes([7 if code > 1 else 6, 5, code, 0, 0]), 0.0) == bytes(
            [7 if code > 1 else 6, 5, 0]
        )
    blocks.control(bytes([8, 5, 20, 0]), 0.0)
    assert list(blocks.collect(0.019)) == []
    (data,) = blocks.collect(0.020)
    assert data[:4] == bytes([5, 20, 0, 0])
    expected = (70_001 % 256, 70_001 % 65_536, 70_001, 70_001, 70_001.0, 65_504.0)
    assert struct.unpack("<BHIife", data[4:]) == expected


def test_too_many_blocks_and_variables_are_refused() -> None:
    blocks = LogBlocks(LOG_VARIABLES, lambda _: bytes(4), 0.0)
    for block in range(16):
        assert blocks.control(bytes([6, block]), 0.0) == bytes([6, block, 0])
    assert blocks.control(bytes([6, 99]), 0.0) == bytes([6, 99, 12])  # ENOMEM
    assert blocks.control(bytes([6, 3]), 0.0) == bytes([6, 3, 17])  # EEXIST
    seven = bytes([7, 3]) + bytes([3, 0, 0]) * 7
    assert blocks.control(seven, 0.0) == bytes([7, 3, 7])  # E2BIG: 28 bytes of values
    assert blocks.control(bytes([3, 77, 1]), 0.0) == bytes([3, 77, 2])  # ENOENT
