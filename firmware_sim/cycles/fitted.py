"""Analytic costs: a + b * units + c * multiplications of a layer, with constants fitted to counted runs.

The constants lie in fitted.json, which `python -m tests.benchmarks.firmware_fit` writes: it compiles and emulates
stacks of layers, fits some of the layers and measures the error on the others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

_BLOCK: Final = 4  # rows of a kernel's block: units and columns are filled up to a multiple


@dataclass(frozen=True)
class Formula:
    """a + b * units + c * multiplications, for instructions and for cycles; error: the largest relative one of either
    that was measured on shapes not fitted."""

    instructions: tuple[float, float, float]
    cycles: tuple[float, float, float]
    error: float

    def costs(self, units: int, columns: int, rows_per_unit: int) -> tuple[float, float]:
        """(instructions, cycles) of a map, or of a layer's maps together, with `columns` columns in all."""
        terms = self.terms(units, columns, rows_per_unit)
        costs = (sum(k * t for k, t in zip(one, terms, strict=True)) for one in (self.instructions, self.cycles))
        instructions, cycles = (max(0.0, cost) for cost in costs)
        return instructions, cycles

    @staticmethod
    def terms(units: int, columns: int, rows_per_unit: int) -> tuple[float, float, float]:
        """What a, b and c multiply; kernels work on whole blocks of units."""
        full = -(-units // _BLOCK) * _BLOCK
        return 1.0, full, full * rows_per_unit * columns


@dataclass(frozen=True)
class Fitted:
    """Of a core, a cell and a scheme: formulas of a layer and of the head; bytes of code, of all layers together and of
    each; bytes of stack."""

    layer: Formula
    head: Formula
    code: tuple[int, int]
    stack: int


@cache
def table() -> Mapping[str, Any]:
    """All of fitted.json."""
    content: Mapping[str, Any] = json.loads((files(__package__) / "fitted.json").read_text(encoding="utf-8"))
    return content


def fitted(core: str, cell: str, scheme: str) -> Fitted:
    """The constants of a core. cell: lstm, gru, gru_before (reset before the product) or rnn."""
    entry = table()["cores"][core][f"{cell} {scheme}"]
    layer, head = (_formula(entry[part]) for part in ("layer", "head"))
    return Fitted(layer, head, tuple(entry["code"]), entry["stack"])


def _formula(entry: Mapping[str, Any]) -> Formula:
    return Formula(tuple(entry["instructions"]), tuple(entry["cycles"]), entry["error"])
