"""What a model becomes in C: its directions and head as streams of blocks, and the memory they work in."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...qmodel import DIRECTION_SUFFIXES, STATES, Affine, Layer, QuantizedModel
from .layouts import Block, Layout
from .operator import factors
from .operator import left as operator_left
from .rows import Array, Rows


@dataclass(frozen=True)
class Part:
    """One direction of a layer, or the head: what one function in C computes.

    name: layer_0, layer_0_reverse, .., head. lefts: how the multipliers of its maps are written. arrays: what the
    layout packed, by name. factors: of a layer of the profile tflite-lstm.
    """

    name: str
    maps: tuple[Affine, ...]
    lefts: tuple[int, ...]
    arrays: dict[str, Array]
    layer: Layer | None = None
    index: int = 0
    suffix: str = ""
    factors: Array | None = None

    @property
    def macs(self) -> int:
        return sum(affine.rows * affine.columns for affine in self.maps)

    @property
    def states(self) -> list[str]:
        """The names of its states, h first."""
        return [f"{name}_{self.index}{self.suffix}" for name in STATES[self.layer.cell]] if self.layer else []


@dataclass(frozen=True)
class Network:
    """A model in a layout, under the name that its symbols begin with."""

    model: QuantizedModel
    name: str
    layout: Layout

    @cached_property
    def parts(self) -> list[Part]:
        """Every direction of every layer, then the head."""
        return list(_parts(self.model, self.layout))

    @property
    def directions(self) -> list[Part]:
        return [part for part in self.parts if part.layer is not None]

    @property
    def operand_type(self) -> str:
        return "int16_t" if self.layout.wide or self.model.scheme == "w8a16" else "int8_t"

    @property
    def input_columns(self) -> int:
        """What the widest layer reads, padded: values before the view of the hidden state."""
        return max(self.layout.columns(layer.input_size) for layer in self.model.layers)

    @property
    def view_columns(self) -> int:
        """The widest hidden state that a product reads, both directions' for a head, padded."""
        return max(self.layout.columns(self.layout.units(layer.output_size)) for layer in self.model.layers)

    @property
    def buffers(self) -> dict[str, int]:
        """The operands of products: how many values. r * h is one more in a GRU with the reset before."""
        reset = [] if all(layer.reset_after for layer in self.model.layers) else [("reset", self.view_columns)]
        width = 2 if self.operand_type == "int16_t" else 4  # values in a word
        sizes = dict([("operands", self.input_columns + self.view_columns), *reset])
        return {name: -(-size // width) * width for name, size in sizes.items()}

    @property
    def state_bytes(self) -> int:
        width = 2 if self.operand_type == "int16_t" else 1
        states = sum(
            np.dtype(spec.dtype).itemsize * self.layout.units(spec.size) for spec in self.model.states.values()
        )
        return width * sum(self.buffers.values()) + states

    @property
    def operator(self) -> bool:
        """Whether it computes the LSTM of TensorFlow Lite: the profile tflite-lstm."""
        return self.model.profile == "tflite-lstm"

    @property
    def work(self) -> tuple[int, int]:
        """Values a step that a bidirectional model keeps of a sequence: for outputs of every other layer."""
        sizes = [0, 0]
        kept = self.model.layers if self.model.head and self.model.every_step else self.model.layers[:-1]
        for index, layer in enumerate(kept):
            sizes[index % 2] = max(sizes[index % 2], layer.output_size)
        return sizes[0], sizes[1]


def _parts(model: QuantizedModel, layout: Layout) -> Iterator[Part]:
    for index, layer in enumerate(model.layers):
        limit = model.view_limit if index else model.input_limit
        for suffix, direction in zip(DIRECTION_SUFFIXES, layer.directions, strict=False):
            maps = (direction.input, direction.recurrent)
            of_gates = None
            if layer.profile == "tflite-lstm":
                rows = (Rows.of_operator(direction.input), Rows.of_operator(direction.recurrent))
                lefts = (operator_left(layout, rows[0], limit), operator_left(layout, rows[1], model.view_limit))
                of_gates = factors(rows, layer.hidden_size)
            else:
                rows = (Rows.of(direction.input), Rows.of(direction.recurrent))
                lefts = (layout.left(rows[0], limit), layout.left(rows[1], model.view_limit))
            arrays = _pack(layout, list(_blocks(direction, layout, rows, lefts)))
            yield Part(f"layer_{index}{suffix}", maps, lefts, arrays, direction, index, suffix, of_gates)
    if model.head is not None:
        dense = model.head.dense
        one = Rows.of(dense)
        left = layout.left(one, model.view_limit)
        starts = range(0, dense.rows, layout.block)
        blocks = [Block(one, _rows(range(row, row + layout.block), dense.rows), left) for row in starts]
        yield Part("head", (dense,), (left,), _pack(layout, blocks))


def _pack(layout: Layout, blocks: list[Block]) -> dict[str, Array]:
    return dict(zip(layout.arrays, layout.pack(blocks, layout.unit), strict=True))


def _blocks(layer: Layer, layout: Layout, maps: tuple[Rows, Rows], lefts: tuple[int, int]) -> Iterator[Block]:
    """In the order in which the step in cells.h reads them. Several blocks of a group take its units in turn."""
    passes = [range(len(layer.gates))] if layer.reset_after else [range(1), range(1, 3)]
    size, group, step = layer.hidden_size, layout.group, layout.group // layout.block
    for gates in passes:
        for unit in range(0, size, group):
            for gate in gates:
                for start in range(unit, unit + step):
                    chosen = _rows(range(start, start + group, step), size, gate * size)
                    for rows, left in zip(maps, lefts, strict=True):
                        yield Block(rows, chosen, left)


def _rows(units: range, size: int, first: int = 0) -> tuple[int, ...]:
    return tuple(first + unit if unit < size else -1 for unit in units)
