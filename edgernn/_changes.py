"""Where two exported files of the same graph differ: which constants, and which weights of the model those are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ._artifacts import Artifact
from .qmodel import DIRECTION_NAMES, IntArray, QuantizedModel

_CONTROL: Final = {".tflite": np.int32, ".onnx": np.int64}  # shapes, places, steps: what a graph does, not with what
_BIAS: Final = ":b"  # what the name of a bias ends with, which is int32 in some operators


@dataclass(frozen=True)
class Change:
    """A constant that differs. harmless: any value may be run, as of a weight; others can crash or halt a runtime."""

    text: str
    harmless: bool


def changes(model: QuantizedModel, found: Artifact, expected: Artifact, suffix: str) -> Iterator[Change]:
    """The constants that differ between two files of the same graph, by name, place and meaning."""
    for name, old in expected.constants.items():
        new = found.constants[name]
        for place in np.argwhere(new != old):
            index = tuple(int(number) for number in place)
            text = f"{name}{list(index)} is {new[index]} in place of {old[index]}{_meaning(model, old, index)}"
            control = old.dtype == _CONTROL[suffix] and not name.endswith(_BIAS)
            yield Change(text, not control and not name.endswith(".scale"))


def _meaning(model: QuantizedModel, constant: IntArray, index: tuple[int, ...]) -> str:
    """ " (layer 0, recurrent weight, gate n, unit 5, column 3)" for an element of a weight matrix; else empty."""
    ends = (constant.shape[0], constant.shape[-1]) if constant.ndim > 1 else (0, 0)
    if constant.dtype != np.int8 or constant.size != ends[0] * ends[1]:
        return ""
    matrix, row, column = constant.reshape(ends), index[0], index[-1]
    for find in (_block_row, _equal_row):  # whole matrices first: single rows can be alike
        for weight, r, c in ((matrix, row, column), (matrix.T, column, row)):
            for title, gates, known in _matrices(model):
                found = find(known, weight, r) if known.shape[1] == weight.shape[1] else None
                if found is not None:
                    gate, unit = divmod(found, len(known) // len(gates))
                    return f" ({title} weight{gates[gate]}, unit {unit}, column {c})"
    return ""


def _matrices(model: QuantizedModel) -> Iterator[tuple[str, tuple[str, ...], IntArray]]:
    """(name, the names of its gates, weight) of every affine map."""
    for number, layer in enumerate(model.layers):
        gates = tuple(f", gate {gate}" for gate in layer.gates)
        for way, direction in zip(DIRECTION_NAMES, layer.directions, strict=False):
            yield f"layer {number}{way}, input", gates, direction.input.weight
            yield f"layer {number}{way}, recurrent", gates, direction.recurrent.weight
    if model.head is not None:
        yield "head", ("",), model.head.dense.weight


def _block_row(known: IntArray, weight: IntArray, row: int) -> int | None:
    """The row of `known` that is weight[row], where all of `weight` is a block of its rows."""
    starts = range(len(known) - len(weight) + 1)
    return next((start + row for start in starts if np.array_equal(known[start : start + len(weight)], weight)), None)


def _equal_row(known: IntArray, weight: IntArray, row: int) -> int | None:
    """The only row of `known` that equals weight[row]."""
    rows = np.flatnonzero((known == weight[row]).all(axis=1))
    return int(rows[0]) if len(rows) == 1 else None
