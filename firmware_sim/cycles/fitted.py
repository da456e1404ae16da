"""Analytic costs: a + b * units + c * multiplications of a layer, with constants fitted to counted runs.

The constants lie in fitted.json, which `python -m tests.benchmarks.firmware_fit` writes: it compiles and emulates
models of many shapes, fits every second layer and measures the error on all.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from ...qmodel import Layer, QuantizedModel
from .costs import Part, layers, part

_BLOCK: Final = (4, 4)  # units and columns are filled up to a multiple, as kernels take them
_BLOCKS: Final = {"cortex-m3": (4, 1), "cortex-m55": (8, 16), "rv32imc": (4, 1)}  # where it is another
SMALL: Final = 8  # inputs or units below which compilers unroll as they like: errors of their own


@dataclass(frozen=True)
class Formula:
    """a + b * units + c * multiplications, for instructions and for cycles.

    error: the largest relative one of either that was measured, saturating models included; small_error: the same of
    shapes with less than SMALL inputs or units.
    """

    instructions: tuple[float, float, float]
    cycles: tuple[float, float, float]
    error: float
    small_error: float

    def costs(self, terms: tuple[float, float, float]) -> tuple[float, float]:
        """(instructions, cycles) for `layer_terms` or `head_terms`."""
        costs = (sum(k * t for k, t in zip(one, terms, strict=True)) for one in (self.instructions, self.cycles))
        instructions, cycles = (max(0.0, cost) for cost in costs)
        return instructions, cycles

    def error_of(self, *sizes: int) -> float:
        """The error for a part of these sizes."""
        return self.small_error if min(sizes) < SMALL else self.error


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
    """Of a core, a cell and a kind: a layer's formula; bytes of code (once, of every layer, of a head) and their
    relative error; bytes of stack, at most, and how many less a model needed."""

    layer: Formula
    code: tuple[int, int, int]
    code_error: float
    stack: int
    stack_error: int


class Estimate(NamedTuple):
    """Of a model on a core: its parts and the relative error of their sums; bytes of code with their relative error;
    bytes of stack, at most, and how many less they may be."""

    parts: tuple[Part, ...]
    error: float
    code: int
    code_error: float
    stack: int
    stack_error: int


@cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """The content of fitted.json, by core."""
    content: Any = json.loads((files(__package__) / "fitted.json").read_text(encoding="utf-8"))
    return content["cores"]  # type: ignore[no-any-return]


def variant(layer: Layer) -> str:
    """The cell's name in the table: lstm, gru, gru_before (reset before the product) or rnn."""
    return layer.cell if layer.reset_after else f"{layer.cell}_before"


def kind_of(model: QuantizedModel) -> str:
    """Which of a cell's kernels a model takes: its scheme, or the profile tflite-lstm."""
    return model.scheme if model.profile == "portable" else model.profile


def fitted(core: str, cell: str, kind: str) -> Fitted:
    """The constants of a layer."""
    entry = table()[core][f"{cell} {kind}"]
    code, stack = entry["code"], entry["stack"]
    return Fitted(_formula(entry), tuple(code), entry["code_error"], stack, entry["stack_error"])


def fitted_head(core: str, scheme: str) -> Formula:
    """The constants of a head."""
    return _formula(table()[core][f"head {scheme}"])


def _formula(entry: Mapping[str, Any]) -> Formula:
    instructions, cycles = tuple(entry["instructions"]), tuple(entry["cycles"])
    return Formula(instructions, cycles, entry["error"], entry["small_error"])


def estimate(model: QuantizedModel, core: str) -> Estimate:
    """The costs of a model's parts on a core, by the formulas."""
    parts, errors = zip(*_parts(model, core), strict=True)
    instructions = sum(one.instructions for one in parts)
    error = sum(error * one.instructions for error, one in zip(errors, parts, strict=True)) / instructions
    entries = [fitted(core, variant(layer), kind_of(model)) for _, layer in layers(model)]
    code = max(entry.code[0] + (entry.code[2] if model.head else 0) for entry in entries)
    code += sum(entry.code[1] for entry in entries)
    code_error = max(entry.code_error for entry in entries)
    stack, stack_error = max((entry.stack, entry.stack_error) for entry in entries)
    return Estimate(parts, error, code, code_error, stack, stack_error)


def _parts(model: QuantizedModel, core: str) -> Iterator[tuple[Part, float]]:
    """Every part, and the error of its formula."""
    for name, layer in layers(model):
        found = fitted(core, variant(layer), kind_of(model)).layer
        error = found.error_of(layer.input_size, layer.hidden_size)
        yield part(model, name, *found.costs(layer_terms(core, layer))), error
    if model.head is not None:
        found, dense = fitted_head(core, model.scheme), model.head.dense
        error = found.error_of(dense.columns)
        yield part(model, "head", *found.costs(head_terms(core, dense.columns, dense.rows))), error
