"""What a cycle model needs of a run: how often which kind of instruction ran behind which other.

A profile is a histogram, not a program: registers are renamed, immediates dropped, the order of the code is gone. The
costs of a model by instruction depend on an instruction and the one before it, and grow in proportion to their counts,
so that a profile gives the cycles of the run it was reduced from exactly.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from edgernn.firmware_sim.cycles import Instruction, cycles

_MEMORY: Final = re.compile(r"v?(?:ldr|str|ldm|stm|push|pop)|tb[bh]")
_REGISTER: Final = re.compile(r"\b(?:[rsdq]\d+|lr|ip|fp|sl|sb)\b")
_RANGE: Final = re.compile(r"\b([rsdq])(\d+)-[rsdq](\d+)\b")


class Pair(NamedTuple):
    """Runs of one kind of instruction behind one other kind ("": behind none, or of no matter).

    overlap: how many of the runs can have come from the instruction before; taken: how many left the straight line.
    """

    before: str
    before_operands: str
    mnemonic: str
    operands: str
    executed: int
    taken: int
    overlap: int


def reduce(program: Iterable[Instruction]) -> list[Pair]:
    """The profile of counted instructions in address order, the most frequent pair first.

    Only for memory accesses do the operands, and the instruction before, make a difference to a cost.
    """
    counts: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    before: Instruction | None = None
    for now in program:
        if now.executed:
            behind = before if _MEMORY.match(now.mnemonic) else None
            overlap = min(now.executed, behind.executed) if behind else 0
            for at, count in enumerate((now.executed, now.taken, overlap)):
                counts[_shape(behind, now)][at] += count
        before = now if now.executed else None
    pairs = [Pair(*shape, *runs) for shape, runs in counts.items()]
    return sorted(pairs, key=lambda pair: (-pair.executed, pair))


def modelled(core: str, profile: Iterable[Pair]) -> float:
    """Cycles of the run that the profile was reduced from, at zero wait states."""
    total = 0.0
    for pair in profile:
        now = Instruction(pair.mnemonic, pair.operands, pair.executed, pair.taken)
        before = [Instruction(pair.before, pair.before_operands, pair.overlap, 0)] if pair.overlap else []
        total += cycles(core, [*before, now]) - cycles(core, before)
    return total


def _shape(before: Instruction | None, now: Instruction) -> tuple[str, str, str, str]:
    """The two instructions, their registers numbered in order of appearance."""
    names: dict[str, str] = {}
    if not _MEMORY.match(now.mnemonic):
        return "", "", _plain(now.mnemonic), ""
    if before is None:
        return "", "", _plain(now.mnemonic), _renamed(now.operands, names)
    first = _renamed(before.operands, names)
    return _plain(before.mnemonic), first, _plain(now.mnemonic), _renamed(now.operands, names)


def _plain(mnemonic: str) -> str:
    """Without the width of its encoding: ldr.w -> ldr."""
    return re.sub(r"\.[nw]$", "", mnemonic)


def _renamed(operands: str, names: dict[str, str]) -> str:
    listed = _RANGE.sub(lambda run: ", ".join(f"{run[1]}{n}" for n in range(int(run[2]), int(run[3]) + 1)), operands)
    bare = re.sub(r"#-?\w+", "#", re.sub(r"\b[0-9a-f]+ <[^>]*>", "label", listed))
    return _REGISTER.sub(lambda found: names.setdefault(found[0], f"{_kind(found[0])}{len(names)}"), bare)


def _kind(register: str) -> str:
    return register[0] if register[0] in "sdq" and register[1:].isdigit() else "r"
