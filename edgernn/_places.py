"""Where two engines differ: which output, and which hidden state behind it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .engines import Session
from .qmodel import DIRECTION_NAMES, IntArray, Layer, QuantizedModel


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
        direction = DIRECTION_NAMES[1]
    step, unit = steps[at], units[at]
    values = f"{found[step, unit]} in place of {expected[step, unit]}"
    return f"layer {number}{direction}, step {step}, unit {unit % size}: {values}"
