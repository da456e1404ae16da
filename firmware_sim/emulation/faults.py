"""What the registers say that a core leaves behind after a fault."""

import re
import struct
from typing import Final

from .build import Firmware

# In the order of startup_arm.c and startup_riscv.S.
_ARM: Final = (
    *("r0", "r1", "r2", "r3", "r12", "lr", "pc", "xpsr"),
    *("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"),
    *("sp", "cfsr", "hfsr", "mmfar", "bfar"),
)
_RISCV: Final = (
    *("ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"),
    *("s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"),
    *("mepc", "mcause", "mtval"),
)

_CFSR: Final = {  # Armv7-M Architecture Reference Manual, B3.2.15
    0: "an instruction fetched from where none may run",
    1: "a forbidden data access",
    3: "a fault when returning from an exception",
    4: "a fault when entering an exception",
    8: "an instruction fetched from no memory",
    9: "an access to no memory",
    10: "an access to no memory",
    11: "a fault when returning from an exception",
    12: "a fault when entering an exception",
    16: "an undefined instruction",
    17: "a jump out of Thumb",
    18: "a bad return from an exception",
    19: "an instruction of a coprocessor that is off or absent",
    20: "a stack overflow",
    24: "an unaligned access",
    25: "a division by zero",
}
_MCAUSE: Final = {  # RISC-V Privileged Architecture, table of mcause
    0: "a jump to an unaligned address",
    1: "an instruction fetched from no memory",
    2: "an undefined instruction",
    3: "a breakpoint",
    4: "an unaligned read",
    5: "a read from no memory",
    6: "an unaligned write",
    7: "a write to no memory",
}
_FRAME: Final = 64  # bytes that an exception puts on the stack, or tries to
_IN_A_LINE: Final = 6

_COUNTER: Final = re.compile(r"(?:R15=| pc +)([0-9a-f]{8})")
_NOT_SHOWN: Final = re.compile(r"s\d\d=| f\d|FPSCR|VPR|CPU#| V +=| [a-z]+\d? +0{8}$|.*: warning: ")


def describe(firmware: Firmware, payload: bytes) -> str:
    """What happened and where, and the registers, of the words that the firmware sent."""
    core, elf = firmware.core, firmware.elf
    names = _ARM if core.arm else _RISCV
    values = dict(zip(names, struct.unpack(f"<{len(payload) // 4}I", payload), strict=True))
    top = elf.symbols["stack_top"].address
    if not top - core.stack + _FRAME <= values["sp"] <= top:
        causes = [f"an overflow of its stack of {core.stack:,} bytes"]
    elif core.arm:
        causes = [text for bit, text in _CFSR.items() if values["cfsr"] >> bit & 1] or ["a hard fault"]
    else:
        causes = [_MCAUSE.get(values["mcause"], "a trap")]
    address, caller = (values["pc"], values["lr"]) if core.arm else (values["mepc"], values["ra"])
    places = [("in", elf.place(address)), ("called by", elf.place(caller & ~1))]
    where = [f"{what} {place}" for what, place in places if place]
    shown = [f"{name} {value:#010x}" for name, value in values.items()]
    lines = [", ".join(shown[start : start + _IN_A_LINE]) for start in range(0, len(shown), _IN_A_LINE)]
    return "\n  ".join([f"the firmware was stopped by {', '.join([*causes, *where])}", *lines])


def registers(firmware: Firmware, text: str) -> str:
    """QEMU's own lines on the registers, with the function that the program counter is in, and without those of the
    floating-point unit and the ones of a RISC-V core that are not in use."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _NOT_SHOWN.match(line)]
    counter = _COUNTER.search(text)
    place = "" if counter is None else firmware.elf.place(int(counter[1], 16))
    return "\n  ".join([f", in {place}" if place else "", *lines])
