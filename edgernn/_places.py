"""Where two engines, or two files, differ: which output, which hidden state behind it, which weight."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ._artifacts import Artifact
from .engines import Session
from .qmodel import IntArray, Layer, QuantizedModel


@dataclass(frozen=True)
class Difference:
    """A first difference: the sequence, its first differing step, the output, both values."""

    sequence: str
    step: int
    output: int
    expected: int
    found: int

    def __str__(self) -> str:
        at = f"sequence {self.sequence!r}, step {self.step}, output {self.output}"
        return f"{at}: {self.found} in place of {self.expected}"


def first_difference(reference: Session, session: Session, name: str, x: IntArray, *, entire: bool) -> Difference:
    """In the first step that differs (or, `entire`, the last), or at the end of the shortest prefix that differs."""
    for length in [len(x)] if entire else range(1, len(x) + 1):
        expected, found = reference(x[:length]), session(x[:length])
        if not np.array_equal(expected, found):
            return difference(name, expected, found, length - 1)
    raise ValueError(f"{name}: the engine answered the same input in two ways; it is not deterministic")


def difference(name: str, expected: IntArray, found: IntArray, last: int) -> Difference:
    """The first place at which outputs [T, ..] differ, or outputs [..] of the step `last`."""
    place = tuple(int(number) for number in np.argwhere(expected != found)[0])
    step = place[0] if len(place) > 1 else last
    return Difference(name, step, place[-1], int(expected[place]), int(found[place]))


Opener = Callable[[QuantizedModel], Session]


def cause(model: QuantizedModel, reference: Opener, engine: Opener, x: IntArray) -> str:
    """Which layer's hidden state differs first, in networks cut off after each layer."""
    for count in range(1, len(model.layers) + 1):
        part = model.without_head(count)
        expected, found = reference(part)(x), engine(part)(x)
        if not np.array_equal(expected, found):
            return f"; {_first_unit(count - 1, part.layers[-1], expected, found)}"
    return "; the hidden states of all layers are equal, the head differs"


def _first_unit(number: int, layer: Layer, expected: IntArray, found: IntArray) -> str:
    """The first difference in a layer's hidden states [T, output_size], in the order in which its direction reads."""
    size = layer.hidden_size
    steps, units = np.nonzero(expected != found)
    forward = units < size
    if forward.any():
        at = np.flatnonzero(forward)[0]
        direction = "" if layer.backward is None else " forward"
    else:
        at = np.flatnonzero(steps == steps.max())[0]
        direction = " backward"
    step, unit = steps[at], units[at]
    values = f"{found[step, unit]} in place of {expected[step, unit]}"
    return f"layer {number}{direction}, step {step}, unit {unit % size}: {values}"


# ---- constants of files ----------------------------------------------------------------------------------------------


_CONTROL: Final = {".tflite": np.int32, ".onnx": np.int64}  # shapes, places, steps: what a graph does, not with what


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
            yield Change(text, old.dtype != _CONTROL[suffix] and not name.endswith(".scale"))


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
        for way, direction in zip(("", " backward"), layer.directions, strict=False):
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
