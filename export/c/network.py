"""What a model becomes in C: its directions and head as streams of blocks, and the memory they work in."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...qmodel import DIRECTION_SUFFIXES, STATES, Affine, Layer, QuantizedModel
from .layouts import BLOCK, Array, Block, Layout


@dataclass(frozen=True)
class Part:
    """One direction of a layer, or the head: what one function in C computes.

    name: layer_0, layer_0_reverse, .., head. lefts: of its maps. arrays: what the layout packed, by name.
    """

    name: str
    maps: tuple[Affine, ...]
    lefts: tuple[int, ...]
    arrays: dict[str, Array]
    layer: Layer | None = None
    index: int = 0
    suffix: str = ""

    @property
    def macs(self) -> int:
        return sum(affine.rows * affine.columns for affine in self.maps)

    @property
    def states(self) -> list[str]:
        """The names of its states, h first."""
        return [f"{name}_{self.index}{self.suffix}" for name in STATES[self.layer.cell]] if self.layer else []


def padded(units: int) -> int:
    return -(-units // BLOCK) * BLOCK


def parts(model: QuantizedModel, layout: Layout) -> list[Part]:
    """Every direction of every layer, then the head."""
    found: list[Part] = []
    for index, layer in enumerate(model.layers):
        limit = model.view_limit if index else model.input_limit
        for suffix, direction in zip(DIRECTION_SUFFIXES, layer.directions, strict=False):
            lefts = (layout.left(direction.input, limit), layout.left(direction.recurrent, model.view_limit))
            arrays = _pack(layout, list(_blocks(direction, *lefts)))
            maps = (direction.input, direction.recurrent)
            found.append(Part(f"layer_{index}{suffix}", maps, lefts, arrays, direction, index, suffix))
    if model.head is not None:
        dense = model.head.dense
        left = layout.left(dense, model.view_limit)
        blocks = [Block(dense, _four(0, u, dense.rows), left) for u in range(0, dense.rows, BLOCK)]
        found.append(Part("head", (dense,), (left,), _pack(layout, blocks)))
    return found


def _pack(layout: Layout, blocks: list[Block]) -> dict[str, Array]:
    return dict(zip(layout.arrays, layout.pack(blocks, layout.unit), strict=True))


def _blocks(layer: Layer, input_left: int, recurrent_left: int) -> Iterator[Block]:
    """In the order in which the step in cells.h reads them."""
    passes = [range(len(layer.gates))] if layer.reset_after else [range(1), range(1, 3)]
    for gates in passes:
        for unit in range(0, layer.hidden_size, BLOCK):
            for gate in gates:
                rows = _four(gate, unit, layer.hidden_size)
                yield Block(layer.input, rows, input_left)
                yield Block(layer.recurrent, rows, recurrent_left)


def _four(gate: int, unit: int, size: int) -> tuple[int, ...]:
    return tuple(gate * size + u if u < size else -1 for u in range(unit, unit + BLOCK))
