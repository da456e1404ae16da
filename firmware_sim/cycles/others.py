"""Cycles of the cores for which no vendor publishes a table by instruction: estimates, and what they rest on."""

import re
from typing import Final

from . import arm
from .instructions import Instruction

# ---- Cortex-M55: Armv8.1-M with MVE, two beats (64 bits) a cycle -----------------------------------------------------

# A vector instruction keeps its unit (loads and stores, multiplications, the rest) for two cycles, and one instruction
# starts every cycle: neighbours in different units overlap. These are the throughputs of SLOTHY's model of the core
# (slothy-optimizer/slothy, targets/arm_v81m/cortex_m55r1.py), which calls itself approximate and unofficial. A gather
# is taken as one access of 32 bits a lane and cycle. The scalar part follows the M33's shape: a load or store a cycle,
# 64 bits a cycle for several registers, two cycles to refill. The low-overhead loop's end costs nothing but its start.
_VECTOR: Final = re.compile(r"\bq\d\b")
_VECTOR_MULTIPLY: Final = re.compile(r"v(?:q?r?d?ml|q?r?d?mul|rml|rmul|fm|cm)\w*")
_VECTOR_MEMORY: Final = re.compile(r"v(?:ld|st)\w*")
_LOOP_END: Final = ("le", "letp")


def m55_cycles(now: Instruction, before: Instruction | None) -> float:
    """Cycles of all runs of one instruction on a Cortex-M55. An estimate."""
    name, count = arm.base(now), now.executed
    unit = _unit(now)
    if unit is not None:
        same = before is not None and _unit(before) == unit
        overlap = min(count, before.executed) if before is not None and same else 0
        return count + overlap + _gather_extra(now) * count
    if arm.is_multiple(name):
        return (1 + arm.registers(now.operands) / 2) * count + arm.REFILL * arm.departures(now)
    if name in _LOOP_END:
        return float(count - now.taken)
    return count + arm.REFILL * arm.departures(now)


def _unit(now: Instruction) -> str | None:
    if not _VECTOR.search(now.operands):
        return None
    name = arm.base(now)
    if _VECTOR_MEMORY.fullmatch(name):
        return "memory"
    return "multiply" if _VECTOR_MULTIPLY.fullmatch(name) else "integer"


def _gather_extra(now: Instruction) -> int:
    """Cycles of a gather or scatter beyond those of a contiguous access: one a lane, of which two are counted."""
    inside = now.operands.partition("[")[2].partition("]")[0]
    if not (_VECTOR.search(inside) and _VECTOR_MEMORY.fullmatch(arm.base(now))):
        return 0
    width = re.search(r"(8|16|32|64)$", now.mnemonic)
    return 128 // int(width[1]) - 2 if width else 2


# ---- RV32IMC: lowRISC's Ibex -----------------------------------------------------------------------------------------

# Ibex documentation, "Pipeline Details", table of stall cycles, for the two-stage pipeline without branch target ALU
# and with the fast multiplier (ibex_configs.yaml, "small"), memory that answers in the next cycle.
_IBEX: Final = {
    r"c?\.?(?:lb|lbu|lh|lhu|lw|sb|sh|sw)": 2.0,
    r"mul": 3.0,
    r"mulh(?:u|su)?": 4.0,
    r"(?:div|rem)u?": 37.0,
    r"(?:j|jal|jr|jalr|ret|call|tail)": 2.0,
}
_IBEX_TAKEN: Final = 2.0


def ibex_cycles(now: Instruction, before: Instruction | None) -> float:
    """Cycles of all runs of one instruction on lowRISC's Ibex."""
    del before
    for pattern, cost in _IBEX.items():
        if re.fullmatch(pattern, now.mnemonic):
            return cost * now.executed
    return now.executed + (_IBEX_TAKEN * now.taken if now.mnemonic.startswith("b") else 0.0)
