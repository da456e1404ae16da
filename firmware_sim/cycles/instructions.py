"""Executed instructions: a disassembly joined with the counts of an emulation."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Final, NamedTuple


class Instruction(NamedTuple):
    """One instruction of a program: how often it ran, and how often the next one was not the one behind it."""

    mnemonic: str
    operands: str
    executed: int
    taken: int


# objdump's lines: "    8012:<tab>b510      <tab>push<tab>{r4, lr}", the second column absent with --no-show-raw-insn
_LINE: Final = re.compile(r"^\s*([0-9a-f]+):\t(?:[0-9a-f][0-9a-f ]*\t)?\s*([a-z.][\w.]*)\s*(.*)$")
_COMMENT: Final = re.compile(r"\s*(;|@|<|\s#\s).*$")  # "#4" is an operand, " # 8000" is RISC-V's comment


def parse_listing(text: str) -> dict[int, tuple[str, str]]:
    """{address: (mnemonic, operands)} of what `objdump -d` prints; data between functions (.word) is left out."""
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and not match[2].startswith("."):
            found[int(match[1], 16)] = (match[2], _COMMENT.sub("", match[3]).strip())
    return found


def disassemble(content: bytes, core: str) -> dict[int, tuple[str, str]]:
    """`parse_listing` of an ELF file's content. Raises ValueError where objdump fails or is missing."""
    objdump = "riscv64-unknown-elf-objdump" if core.startswith("rv32") else "arm-none-eabi-objdump"
    machine = ["-m", "armv8.1-m.main"] if core == "cortex-m55" else []  # else MVE is shown as coprocessor instructions
    with tempfile.NamedTemporaryFile(prefix="edgernn-", suffix=".elf") as file:
        file.write(content)
        file.flush()
        command = [objdump, "-d", *machine, file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise ValueError(f"cannot run {objdump}: {error.strerror}; it comes with the compiler") from None
    if done.returncode != 0:
        raise ValueError(f"{objdump} fails: {(done.stderr.strip().splitlines() or ['no message'])[0]}")
    return parse_listing(done.stdout)


def instructions(
    listing: Mapping[int, tuple[str, str]], executed: Mapping[int, int], taken: Mapping[int, int]
) -> list[Instruction]:
    """The listing with its counts, in address order. Raises ValueError when a counted address is not in it."""
    strange = sorted(address for address, count in executed.items() if count and address not in listing)
    if strange:
        raise ValueError(f"{len(strange)} counted addresses are not in the listing, the first is {strange[0]:#x}")
    return [
        Instruction(*listing[address], executed.get(address, 0), taken.get(address, 0)) for address in sorted(listing)
    ]
