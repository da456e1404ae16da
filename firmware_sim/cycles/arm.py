"""Cycles of Arm instructions at zero wait states.

v6-M: Cortex-M0 TRM (Arm DDI 0432C) table 3-1, Cortex-M0+ TRM (Arm DDI 0484C) table 3-1, both with the single-cycle
multiplier. v7-M: Cortex-M3 TRM (Arm DDI 0337E) table 18-1 and Cortex-M4 TRM (Arm 100166_0001) table 3-1, with their
rules for pairing loads (Arm DDI 0337I section 3.3.3, TI SWCU185G "Load/store timings"). Where a table gives a range,
its middle is taken: pipeline refill P = 1..3, division 2..12, the M3's long multiplications 3..5 and 4..7.
"""

import re
from typing import Final

from .instructions import Instruction

_CONDITION: Final = "(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?"
_LOAD: Final = re.compile(f"ldr(?:b|h|sb|sh)?{_CONDITION}")
_STORE: Final = re.compile(f"str(?:b|h)?{_CONDITION}")
_DOUBLE: Final = re.compile(f"(?:ldr|str)d{_CONDITION}")
_MULTIPLE: Final = re.compile(f"(?:v?(?:ldm|stm)(?:ia|ib|da|db|fd|ea)?|v?push|v?pop){_CONDITION}")
_BRANCH: Final = re.compile(f"(?:b|bl|bx|blx|cbz|cbnz){_CONDITION}")
_TABLE: Final = re.compile("tb[bh]")
_DIVIDE: Final = re.compile(f"[us]div{_CONDITION}")
_MULTIPLY_ADD: Final = re.compile(f"ml[as]{_CONDITION}")
_LONG_MULTIPLY: Final = re.compile(f"[us]mull{_CONDITION}")
_LONG_MULTIPLY_ADD: Final = re.compile(f"[us]mlals?{_CONDITION}")
_IT: Final = re.compile("it[te]*")
_WRITES_NOTHING: Final = re.compile(f"(?:cmp|cmn|tst|teq|nop|it[te]*){_CONDITION}")
_FLOATING: Final = re.compile("v(?:ld|st)r")

_REGISTER: Final = re.compile(r"\b(?:[rsdq]\d+|sp|lr|pc|ip|fp|sl|sb)\b")
_NUMBERS: Final = {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}

REFILL: Final = 2.0  # P of the M3 and M4: 1 to 3 cycles
_DIVISION: Final = 7.0
_IT_BLOCK: Final = 0.5  # 1, or 0 where it is folded into the instruction before


def v6m(core: str) -> tuple[float, float, float]:
    """(a taken branch, a call, a return by POP {.., pc} beyond 1 + N) of a v6-M core."""
    return (3.0, 4.0, 3.0) if core == "m0" else (2.0, 3.0, 2.0)


def v6m_cycles(core: str, now: Instruction, before: Instruction | None) -> float:
    """Cycles of all runs of one instruction on a Cortex-M0 ("m0") or Cortex-M0+ ("m0plus")."""
    del before  # nothing overlaps
    name, count, left = base(now), now.executed, departures(now)
    taken, call, returning = v6m(core)
    if _LOAD.fullmatch(name) or _STORE.fullmatch(name):
        return 2.0 * count
    if _MULTIPLE.fullmatch(name):
        return (1 + registers(now.operands)) * count + returning * left
    if name == "bl":
        return call * count
    return count + (taken - 1) * left


def v7m_cycles(core: str, now: Instruction, before: Instruction | None) -> float:
    """Cycles of all runs of one instruction on a Cortex-M3 ("m3") or Cortex-M4 ("m4")."""
    name, count = base(now), now.executed
    refill = REFILL * departures(now)
    overlap = 0 if before is None else min(count, before.executed)  # what cannot have come from before has not paired
    if _LOAD.fullmatch(name) or _STORE.fullmatch(name):
        return _single(name, now, before, overlap) + refill
    if _DOUBLE.fullmatch(name):
        return 3.0 * count + _waits_for_address(now, before) * overlap
    if _MULTIPLE.fullmatch(name):
        return (1.0 + registers(now.operands)) * count + _waits_for_address(now, before) * overlap + refill
    if _TABLE.fullmatch(name) or _FLOATING.fullmatch(name):
        return 2.0 * count + refill
    if _DIVIDE.fullmatch(name):
        return _DIVISION * count
    if _IT.fullmatch(name):
        return _IT_BLOCK * count
    return (_m3_multiplication(name) if core == "m3" else 1.0) * count + refill


def _single(name: str, now: Instruction, before: Instruction | None, overlap: int) -> float:
    """A load takes 2 cycles, a store 1, or 2 with a register offset; one less behind a load that does not make its
    address; one more behind an operation that does."""
    immediate_store = _STORE.fullmatch(name) is not None and len(_address(now)) < 2
    if immediate_store:
        return now.executed + _waits_for_address(now, before) * overlap
    paired = before is not None and _LOAD.fullmatch(base(before)) and not _makes_address(before, now)
    return 2.0 * now.executed - (overlap if paired else 0) + _waits_for_address(now, before) * overlap


def _waits_for_address(now: Instruction, before: Instruction | None) -> int:
    """1 when the instruction before is a data operation that computes this one's address."""
    if before is None or is_memory(base(before)) or is_branch(base(before)):
        return 0
    return int(not _WRITES_NOTHING.fullmatch(base(before)) and _makes_address(before, now))


def _makes_address(before: Instruction, now: Instruction) -> bool:
    long = _LONG_MULTIPLY.fullmatch(base(before)) or _LONG_MULTIPLY_ADD.fullmatch(base(before))
    written = _REGISTER.findall(before.operands)[: 2 if long else 1]
    return any(register in _address(now) for register in written)


def _address(now: Instruction) -> list[str]:
    """The registers of an address: those in [brackets], or the base of a multiple load."""
    inside = now.operands.partition("[")[2].partition("]")[0]
    return _REGISTER.findall(inside or now.operands.partition("{")[0])


def _m3_multiplication(name: str) -> float:
    if _MULTIPLY_ADD.fullmatch(name):
        return 2.0
    if _LONG_MULTIPLY.fullmatch(name):
        return 4.0
    return 5.5 if _LONG_MULTIPLY_ADD.fullmatch(name) else 1.0


def departures(now: Instruction) -> int:
    """How often it left the straight line: branches taken, and writes to pc."""
    writes_pc = re.match(r"pc\b", now.operands) is not None or (is_multiple(base(now)) and "pc" in now.operands)
    return now.taken if writes_pc or is_branch(base(now)) else 0


def base(now: Instruction) -> str:
    """The mnemonic without its width and type: ldrb.w -> ldrb, vldrb.u8 -> vldrb."""
    return now.mnemonic.partition(".")[0]


def is_memory(name: str) -> bool:
    return any(kind.fullmatch(name) for kind in (_LOAD, _STORE, _DOUBLE, _MULTIPLE))


def is_multiple(name: str) -> bool:
    return _MULTIPLE.fullmatch(name) is not None


def is_branch(name: str) -> bool:
    return _BRANCH.fullmatch(name) is not None or _TABLE.fullmatch(name) is not None


def registers(operands: str) -> int:
    """How many registers a list holds: "{r4-r7, lr}" is 5."""
    count = 0
    for part in operands.partition("{")[2].partition("}")[0].split(","):
        first, _, last = part.strip().partition("-")
        count += 1 + (_number(last) - _number(first) if last else 0)
    return count


def _number(register: str) -> int:
    return _NUMBERS.get(register) or int(register[1:])
