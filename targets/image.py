"""What the emulator takes from an ARM ELF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from targets.errors import TargetError


class ElfImage:
    """Bytes to load, symbols and code of an ELF file."""

    def __init__(self, elf: ELFFile) -> None:
        self.segments: list[tuple[int, bytes]] = [
            _loaded(elf, segment) for segment in elf.iter_segments("PT_LOAD") if segment["p_filesz"]
        ]
        self.symbols: dict[str, int] = {}
        self.functions: dict[str, int] = {}
        self.code: list[tuple[int, bytes]] = []  # runs of Thumb instructions, literals left out
        tables = [s for s in elf.iter_sections() if isinstance(s, SymbolTableSection)]
        marks: list[tuple[int, bool]] = []  # ELF for the Arm Architecture 5.5.5: $t code, $d data
        for symbol in (s for table in tables for s in table.iter_symbols()):
            kind, value = symbol["st_info"]["type"], symbol["st_value"]
            if symbol.name.startswith(("$t", "$d")):
                marks.append((value, symbol.name.startswith("$t")))
            elif symbol.name and kind == "STT_FUNC":
                self.functions[symbol.name] = self.symbols[symbol.name] = value & ~1
            elif symbol.name and kind in ("STT_OBJECT", "STT_NOTYPE"):
                self.symbols[symbol.name] = value
        marks.sort()
        for section in elf.iter_sections():
            if section["sh_flags"] & 4 and section["sh_type"] == "SHT_PROGBITS":  # SHF_EXECINSTR
                self._collect_code(section["sh_addr"], section.data(), marks)

    def _collect_code(self, origin: int, data: bytes, marks: list[tuple[int, bool]]) -> None:
        end = origin + len(data)
        inside = [mark for mark in marks if origin <= mark[0] < end]
        for (start, is_code), (stop, _) in zip(inside, [*inside[1:], (end, False)], strict=True):
            if is_code and stop > start:
                self.code.append((start, data[start - origin : stop - origin]))


def _loaded(elf: ELFFile, segment: Any) -> tuple[int, bytes]:
    """Address and bytes of a segment, without the ELF header that ld 2.44 puts before the code."""
    start, end = segment["p_offset"], segment["p_offset"] + segment["p_filesz"]
    first = min(
        (
            s["sh_offset"]
            for s in elf.iter_sections()
            if s["sh_size"] and s["sh_type"] != "SHT_NOBITS" and start <= s["sh_offset"] < end
        ),
        default=start,
    )
    return segment["p_paddr"] + first - start, segment.data()[first - start :]


def read_image(path: Path) -> ElfImage:
    """Reads an ARM image. TargetError when there is none, or it is damaged or for another core."""
    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            if elf["e_machine"] != "EM_ARM":
                raise TargetError(f"{path}: not an ARM image")
            return ElfImage(elf)
    except FileNotFoundError:
        raise TargetError(f"{path}: no such file") from None
    except TargetError:
        raise
    except Exception as error:  # pyelftools raises many kinds on damaged files
        raise TargetError(f"{path}: not a readable ELF file ({error})") from None
