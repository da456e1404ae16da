"""From a model on which an engine is wrong to the one layer, direction, step and unit where it goes wrong first."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgernn.fixedpoint import round_shift, sat8
from edgernn.qmodel import IntArray, Layer, QuantizedModel

Open = Callable[[QuantizedModel], Callable[[IntArray], IntArray]]
Kernel = Callable[[QuantizedModel, IntArray], IntArray]


@dataclass(frozen=True, eq=False)
class Fault:
    """The place, both values, and the smallest model found that shows it: one layer, read forwards, of x [T, inputs].

    `layer` is None when all hidden states are equal and the head differs; then model and x are the given ones.
    """

    layer: int | None
    backward: bool
    step: int
    unit: int
    expected: int
    found: int
    model: QuantizedModel
    x: IntArray

    def __str__(self) -> str:
        where = "head" if self.layer is None else f"layer {self.layer}{' backward' if self.backward else ''}"
        small = self.model.layers[0]
        sizes = f"{len(self.model.layers)} layer(s), {small.input_size} inputs, {small.hidden_size} units"
        return (
            f"{where}, step {self.step}, unit {self.unit}: {self.found} in place of {self.expected} "
            f"(smallest model: {sizes}, {len(self.x)} steps)"
        )


def shrink(open_engine: Open, kernel: Kernel, model: QuantizedModel, x: IntArray) -> Fault | None:
    """The first fault of `open_engine(model)(x)` against `kernel(model, x)`; None when they agree."""
    for index, layer in enumerate(model.layers):
        part = model.without_head(index + 1)
        expected, found = kernel(part, x), open_engine(part)(x)
        for number, direction in enumerate(layer.directions):
            columns = slice(number * layer.hidden_size, (number + 1) * layer.hidden_size)
            order = slice(None, None, -1 if number else 1)  # as this direction reads
            place = _first(expected[order, columns], found[order, columns])
            if place is None:
                continue
            read, unit = place
            step = len(x) - 1 - read if number else read
            values = int(expected[step, columns][unit]), int(found[step, columns][unit])
            alone = _alone(model, index, direction), _operand(kernel, model, index, x)[order]
            smaller = _with_fewer_units(open_engine, kernel, *alone, unit)
            return Fault(index, bool(number), step, unit, *values, *(smaller or (part, x)))
    expected, found = np.atleast_2d(kernel(model, x)), np.atleast_2d(open_engine(model)(x))
    place = _first(expected, found)
    if place is None:
        return None
    return Fault(None, False, *place, int(expected[place]), int(found[place]), model, x)


def _first(expected: IntArray, found: IntArray) -> tuple[int, int] | None:
    places = np.argwhere(expected != found)
    return (int(places[0][0]), int(places[0][1])) if len(places) else None


def _alone(model: QuantizedModel, index: int, direction: Layer) -> QuantizedModel:
    """One direction of one layer as a model of its own, which reads what the layers below give."""
    layers = (replace(direction, backward=None),)
    if index == 0:
        return replace(model, layers=layers, head=None, labels=())
    return QuantizedModel(layers, None, model.view_scale, scheme=model.scheme)


def _operand(kernel: Kernel, model: QuantizedModel, index: int, x: IntArray) -> IntArray:
    """What layer `index` reads, from the kernel."""
    if index == 0:
        return x
    h = kernel(model.without_head(index), x)
    return (
        h if h.dtype == np.int8 or model.scheme == "w8a16" else sat8(round_shift(h.astype(np.int64), 8)).astype(np.int8)
    )


def _with_fewer_units(
    open_engine: Open, kernel: Kernel, model: QuantizedModel, x: IntArray, unit: int
) -> tuple[QuantizedModel, IntArray] | None:
    """The model with as few units, `unit` among them, as still show a fault, and the steps up to it.

    None when the layer shows none by itself.
    """
    layer = model.layers[0]
    for count in range(layer.hidden_size.bit_length() + 1):
        size = min(2**count, layer.hidden_size)
        first = min(unit, layer.hidden_size - size)
        part = replace(model, layers=(_units(layer, slice(first, first + size)),))
        place = _first(kernel(part, x), open_engine(part)(x))
        if place is not None:
            return part, x[: place[0] + 1]
    return None


def _units(layer: Layer, units: slice) -> Layer:
    size = layer.hidden_size
    rows = np.concatenate([np.arange(size)[units] + gate * size for gate in range(len(layer.gates))])
    maps = [
        replace(affine, weight=affine.weight[rows], bias=affine.bias[rows], weight_scale=affine.weight_scale[rows])
        for affine in (layer.input, layer.recurrent)
    ]
    return replace(layer, input=maps[0], recurrent=replace(maps[1], weight=maps[1].weight[:, units]))
