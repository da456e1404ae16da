"""Analytic costs: a + b * units + c * multiplications of a layer, with constants fitted to counted runs.

The constants lie in fitted.json, which `python -m tests.benchmarks.firmware_fit` writes: it compiles and emulates
stacks of layers, fits some of the layers and measures the error on the others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from ...qmodel import Layer, QuantizedModel
from .costs import Part, layers, part

_BLOCK: Final = (4, 4)  # units and columns are filled up to a multiple, as kernels take them
_BLOCKS: Final = {"cortex-m3": (4, 1), "cortex-m55": (8, 16), "rv32imc": (4, 1)}  # where it is another


@dataclass(frozen=True)
class Formula:
    """a + b * units + c * multiplications, for instructions and for cycles; error: the largest relative one of either
    that was measured on shapes not fitted."""

    instructions: tuple[float, float, float]
    cycles: tuple[float, float, float]
    error: float

    def costs(self, terms: tuple[float, float, float]) -> tuple[float, float]:
        """(instructions, cycles) for `layer_terms` or `head_terms`."""
        costs = (sum(k * t for k, t in zip(one, terms, strict=True)) for one in (self.instructions, self.cycles))
        instructions, cycles = (max(0.0, cost) for cost in costs)
        return instructions, cycles


def layer_terms(core: str, layer: Layer) -> tuple[float, float, float]:
    """What a, b and c of a layer multiply."""
    unit, column = _BLOCKS.get(core, _BLOCK)
    units = _filled(layer.hidden_size, unit)
    columns = _filled(layer.input_size, column) + _filled(layer.hidden_size, column)
    return 1.0, units, units * len(layer.gates) * columns


def head_terms(core: str, columns: int, outputs: int) -> tuple[float, float, float]:
    """What a, b and c of a head multiply."""
    rows = _filled(outputs, 4)
    return 1.0, rows, rows * _filled(columns, _BLOCKS.get(core, _BLOCK)[1])


def _filled(count: int, block: int) -> int:
    return -(-count // block) * block


class Fitted(NamedTuple):
    """Of a core, a cell and a scheme: a layer's formula; bytes of code (of all layers together, of each) and stack."""

    layer: Formula
    code: tuple[int, int]
    stack: int


class Estimate(NamedTuple):
    """Of a model on a core: its parts, bytes of code, stack and lookup tables, and the relative error of the sums."""

    parts: tuple[Part, ...]
    code: int
    stack: int
    lookups: int
    error: float


@cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """The content of fitted.json, by core."""
    content: Any = json.loads((files(__package__) / "fitted.json").read_text(encoding="utf-8"))
    return content["cores"]  # type: ignore[no-any-return]


def variant(layer: Layer) -> str:
    """The cell's name in the table: lstm, gru, gru_before (reset before the product) or rnn."""
    return layer.cell if layer.reset_after else f"{layer.cell}_before"


def fitted(core: str, cell: str, scheme: str) -> Fitted:
    """The constants of a layer."""
    entry = table()[core][f"{cell} {scheme}"]
    return Fitted(_formula(entry), tuple(entry["code"]), entry["stack"])


def fitted_head(core: str, scheme: str) -> Formula:
    """The constants of a head."""
    return _formula(table()[core][f"head {scheme}"])


def _formula(entry: Mapping[str, Any]) -> Formula:
    return Formula(tuple(entry["instructions"]), tuple(entry["cycles"]), entry["error"])


def estimate(model: QuantizedModel, core: str) -> Estimate:
    """The costs of a model's parts on a core, by the formulas."""
    entries, parts, errors = [], [], []
    for name, layer in layers(model):
        entry = fitted(core, variant(layer), model.scheme)
        entries.append(entry)
        parts.append(part(model, name, *entry.layer.costs(layer_terms(core, layer))))
        errors.append(entry.layer.error)
    if model.head is not None:
        head, dense = fitted_head(core, model.scheme), model.head.dense
        parts.append(part(model, "head", *head.costs(head_terms(core, dense.columns, dense.rows))))
        errors.append(head.error)
    instructions = sum(one.instructions for one in parts)
    error = sum(error * one.instructions for error, one in zip(errors, parts, strict=True)) / instructions
    code = max(entry.code[0] for entry in entries) + sum(entry.code[1] for entry in entries)
    lookups = int(table()[core]["lookup_bytes"])
    return Estimate(tuple(parts), code, max(entry.stack for entry in entries), lookups, error)
