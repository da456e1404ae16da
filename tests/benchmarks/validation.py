"""The cycle model against published figures of real boards.

    python -m tests.benchmarks.validation

Each run's profile is stored in tests/data/validation with its provenance: the code that ran on the board (third-party,
not part of this project) was compiled with gcc, counted under emulation and reduced (tests/profiles.py). Modelled
cycles are the core's at zero wait states, plus the wait states of the flash that the weights stream from; the error is
modelled / published - 1. Nothing is fitted to these figures, but for the indicative core, whose factor rests on boards
that include this one. What moves the errors: compilers (gcc -O1 for -O2: MLPerf's networks +1 % and -1 %, NNoM's
largest layer +14 %) and the pipeline refill, 1 to 3 cycles by Arm's table (2 taken): -4 to +4 points.

Not held against: NNoM's own C backend on the same board (7.78 ms), whose source of that date is not at hand: the width
of its sums decides (64 bits: -11 %, 32 bits: -40 %). CMSIS-NN's requantize (pull request 171: 37 cycles before, 12 and
6 after), of which neither compiler nor options are stated. Boards that ran closed software.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgernn.firmware_sim.cycles import Board, find_board
from tests.profiles import Pair, modelled

DATA = Path(__file__).resolve().parents[1] / "data" / "validation"


@dataclass(frozen=True)
class Row:
    """One published figure and what the model says of it, in cycles."""

    title: str
    board: str
    software: str
    published: float
    core: float
    flash: float

    @property
    def error(self) -> float:
        return (self.core + self.flash) / self.published - 1


def load(name: str) -> dict[str, Any]:
    """One data file: provenance, published cycles, bytes streamed from flash, profile."""
    data: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    data["profile"] = [Pair(*pair) for pair in data["profile"]]
    return data


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.json"))


def row(name: str) -> Row:
    data = load(name)
    board = find_board(data["board"])
    core = modelled(board.core, data["profile"])
    flash = board.flash_cycles(flash_clock(board, data["clock"]), data["streamed"])
    return Row(data["title"], data["board"], data["software"], data["published"]["cycles"], core, flash)


def flash_clock(board: Board, clock: float) -> float:
    """The clock whose wait states apply: an overclocked board has those of its highest one, there are no more."""
    return min(clock, board.max_clock)


def rows() -> list[Row]:
    """All rows, and the sum of NNoM's layers."""
    found = [row(name) for name in names()]
    layers = [one for one in found if one.software.startswith("NNoM")]
    total = Row(
        "the five GRU layers",
        layers[0].board,
        layers[0].software,
        *(sum(getattr(one, part) for one in layers) for part in ("published", "core", "flash")),
    )
    return [*found, total]


def table() -> str:
    lines = [
        "| board | software | what | published cycles | modelled core | flash | error |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {one.board} | {one.software} | {one.title} | {one.published:,.0f} | {one.core:,.0f} | {one.flash:,.0f} "
        f"| {one.error:+.1%} |"
        for one in rows()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
