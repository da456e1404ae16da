"""What is read of a 32-bit little-endian ELF file: its sections and symbols. Source: the System V ABI, chapter 4."""

import struct
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("<16s HHIIIIIHHHHHH")
_SECTION: Final = struct.Struct("<10I")
_SYMBOL: Final = struct.Struct("<IIIBBH")
_NOBITS: Final = 8
_ALLOCATED: Final = 2  # of a section's flags: it is part of the image
_SYMTAB: Final = 2
_FUNCTION: Final = 2


@dataclass(frozen=True)
class Section:
    """Of the image: where it lies, its bytes in memory, and those of the file (none of a section of zeros)."""

    address: int
    size: int
    content: bytes


@dataclass(frozen=True)
class Symbol:
    """A name for an address (of a Thumb function without the bit that says so)."""

    address: int
    size: int
    function: bool


class Elf:
    """`sections` and `symbols` by their names; of several local symbols with one name the last."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        header = _HEADER.unpack_from(content)
        offset, entry_size, count, names = header[6], header[11], header[12], header[13]
        entries = [_SECTION.unpack_from(content, offset + index * entry_size) for index in range(count)]
        self.sections: dict[str, Section] = {}
        for name, kind, flags, address, start, size, *_ in entries:
            if flags & _ALLOCATED:
                data = b"" if kind == _NOBITS else content[start : start + size]
                self.sections[_text(content, entries[names][4] + name)] = Section(address, size, data)
        self.symbols: dict[str, Symbol] = {}
        for entry in entries:
            if entry[1] == _SYMTAB:
                self._read_symbols(entry[4], entry[5], entries[entry[6]][4])

    def _read_symbols(self, start: int, size: int, names: int) -> None:
        for name, value, length, info, _, _ in _SYMBOL.iter_unpack(self.content[start : start + size]):
            function = info & 15 == _FUNCTION
            thumb = function and self.content[18] == 40  # EM_ARM
            self.symbols[_text(self.content, names + name)] = Symbol(value & ~1 if thumb else value, length, function)

    def read(self, symbol: str) -> bytes:
        """The bytes that a symbol names, from the image."""
        found = self.symbols[symbol]
        for section in self.sections.values():
            start = found.address - section.address
            if start >= 0 and start + found.size <= len(section.content):
                return section.content[start : start + found.size]
        raise KeyError(symbol)

    def place(self, address: int) -> str:
        """The function that an address lies in and how far, as text; "" outside of all."""
        for name, symbol in self.symbols.items():
            if symbol.function and symbol.address <= address < symbol.address + symbol.size:
                return f"{name}+{address - symbol.address:#x}"
        return ""


def _text(content: bytes, offset: int) -> str:
    return content[offset : content.index(b"\0", offset)].decode()
