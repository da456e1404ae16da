"""What a Numba kernel calls: steps of whole tiles as LLVM's instructions.

Kernels hand over addresses. A tile is `rows` sequences of one panel of 16 units, or one sequence of `panels` panels.
What belongs to its units lies in memory as [panels, rows, 16] int16: h, c, and gates as [panels, gates, rows, 16].
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from . import _cells
from ._affine import Matrix, Operand, Tile, affine
from ._form import LANES, Form
from ._host import host_form
from ._vector import (
    I16,
    I32,
    I64,
    Builder,
    Value,
    Vector,
    broadcast,
    cgutils,
    concatenate,
    load,
    offset,
    prefetch,
    store,
)
from .cells import Dense, GruCell, GruResetBeforeCell, LstmCell, RnnCell

ROWS: Final = 4  # of a tile of one panel
GATES: Final = {LstmCell: 4, GruCell: 3, GruResetBeforeCell: 3, RnnCell: 1, Dense: 1}

# What a training step keeps of a tile, [ROWS, 16] int16 each, in this order; and of each gate's three saturations (of
# the input's share, of the recurrent one, of their sum: all gates' first ones first), then of an LSTM's cell state, an
# int64 whose bits are set in the lanes that lost something.
SAVED: Final = {
    LstmCell: ("i", "f", "g", "o", "t", "c", "h"),
    GruCell: ("r", "z", "n", "ph_n", "h"),
    GruResetBeforeCell: ("r", "z", "rh", "n", "h"),
    RnnCell: ("h",),
}
MASKS: Final = {LstmCell: 13, GruCell: 9, GruResetBeforeCell: 9, RnnCell: 3}


def record_size(cell: type) -> int:
    """Bytes that a tile's training step keeps, rounded up to cache lines."""
    return -(-(len(SAVED[cell]) * ROWS * LANES * 2 + MASKS[cell] * 8) // 64) * 64


class Source(NamedTuple):
    """An operand [planes, rows, columns]: its address, its strides in bytes, and its groups of columns."""

    address: int
    row: int
    plane: int
    groups: int


class Place(NamedTuple):
    """Addresses of a tile's step."""

    tables: int
    px: int
    weights: int  # of the tile's first panel
    constants: int
    h: int
    c: int
    view: int  # the operand that becomes the new h, at the tile's first unit; strides are those of the source
    valid: int  # int16 [rows, 16]: -1 in rows that have this step, 0 in others
    scale: int  # of an LSTM
    update: int  # int16, where a GRU that resets before the product keeps z
    saved: int  # a record, when training


def required_form() -> Form:
    form = host_form()
    if form is None:
        raise RuntimeError("there is no SIMD form for this processor")
    return form


def itemsize_of(cell: Any) -> int:
    """Bytes of an operand's element, of the Numba type of a cell."""
    return int(cell.types[cell.instance_class._fields.index("element")].bitwidth) // 8


def keep_mask(builder: Builder, kind: type, record: Value, number: int, bits: Vector) -> None:
    """Write one of a record's masks."""
    at = offset(builder, record, len(SAVED[kind]) * ROWS * LANES * 2 + number * 8)
    builder.store(builder.bitcast(bits.value, I64), builder.inttoptr(at, ir.PointerType(I64)))


class _Emitter:
    """One step of a tile in the making."""

    def __init__(self, builder: Builder, cell: Any, tile: Tile, source: Any, place: Any, saving: bool) -> None:
        self.builder, self.kind, self.tile, self.saving = builder, cell.instance_class, tile, saving
        self.form = required_form()
        self.itemsize = itemsize_of(cell)
        self.source = Source(*cgutils.unpack_tuple(builder, source))
        self.place = Place(*cgutils.unpack_tuple(builder, place))
        self.sums_saturated: list[Vector] = []
        self.ops = _cells.Primitives(self.form, self.place.tables, self.sums_saturated if saving else None)

    # ---- memory --------------------------------------------------------------------------------------------------

    def load(self, address: Value) -> Vector:
        return load(self.builder, address, I16, self.tile.lanes)

    def gate(self, number: int) -> Vector:
        """The input's share of a gate's pre-activations."""
        gates, size = GATES[self.kind], self.tile.rows * LANES
        starts = [(panel * gates + number) * size * 2 for panel in range(self.tile.panels)]
        return concatenate([load(self.builder, offset(self.builder, self.place.px, at), I16, size) for at in starts])

    def number(self, name: str) -> Vector:
        at = offset(self.builder, self.place.scale, 4 * _cells.CELL_SCALE.index(name))
        return broadcast(self.builder, at, I32, self.tile.lanes)

    def keep(self, slot: int, vector: Vector) -> None:
        """Write one of SAVED."""
        store(vector, offset(self.builder, self.place.saved, slot * ROWS * LANES * 2))

    def keep_mask(self, number: int, bits: Vector) -> None:
        keep_mask(self.builder, self.kind, self.place.saved, number, bits)

    def if_valid(self, new: Vector, old: Vector) -> Vector:
        """Rows that have ended keep their state."""
        if self.tile.rows == 1:
            return new
        return self.load(self.place.valid).compare("!=", 0).where(new, old)

    # ---- parts of a step -----------------------------------------------------------------------------------------

    def shares(self, gates: int, first_gate: int = 0) -> list[Vector]:
        """The recurrent shares of the pre-activations, int16."""
        matrix, source = Matrix(self.place.weights, self.place.constants, gates), self.source
        x = Operand(source.address, source.row, source.plane, source.groups, self.itemsize)
        wide = affine(self.form, self.builder, self.tile, x, matrix)
        narrow = [v.saturate(16) for v in wide]
        if self.saving:
            for gate, (before, after) in enumerate(zip(wide, narrow, strict=True)):
                lost = after.to(before.element.width).compare("!=", before)
                self.keep_mask(GATES[self.kind] + first_gate + gate, lost)
        return narrow

    def write_view(self, h: Vector) -> None:
        """h as the next step's product reads it."""
        for number, lanes in enumerate(_cells.view(self.form, h, self.itemsize)):
            at = self.builder.add(self.place.view, self.builder.mul(self.source.plane, ir.Constant(I64, number)))
            for row, values in enumerate(lanes.parts(LANES * self.tile.panels)):
                store(values, self.builder.add(at, self.builder.mul(self.source.row, ir.Constant(I64, row))))

    def keep_sums(self, first: int) -> None:
        for number, bits in enumerate(self.sums_saturated):
            self.keep_mask(2 * GATES[self.kind] + first + number, bits)

    def finish(self, computed: list[Vector], first_slot: int = 0, first_sum: int = 0) -> None:
        """Keep what was computed, the last of which is h'."""
        if self.saving:
            for slot, vector in enumerate(computed):
                self.keep(first_slot + slot, vector)
            self.keep_sums(first_sum)
        h = self.if_valid(computed[-1], self.load(self.place.h))
        store(h, self.place.h)
        self.write_view(h)


def _lstm(e: _Emitter) -> None:
    px, c = [e.gate(n) for n in range(4)], e.load(e.place.c)
    computed = _cells.lstm(e.ops, px, e.shares(4), c, e.number)
    store(e.if_valid(computed[SAVED[LstmCell].index("c")], c), e.place.c)
    e.finish(computed)


def _gru(e: _Emitter) -> None:
    px, h = [e.gate(n) for n in range(3)], e.load(e.place.h)
    e.finish(_cells.gru(e.ops, px, e.shares(3), h))


def _rnn(e: _Emitter) -> None:
    e.finish(_cells.rnn(e.ops, [e.gate(0)], e.shares(1)))


def _candidate(e: _Emitter) -> None:
    h, z = e.load(e.place.h), e.load(e.place.update)
    (share,) = e.shares(1, first_gate=2)
    e.finish(_cells.candidate(e.ops, e.gate(2), share, z, h), first_slot=3, first_sum=2)


_STEPS: Final[dict[type, Callable[[_Emitter], None]]] = {
    LstmCell: _lstm,
    GruCell: _gru,
    GruResetBeforeCell: _candidate,
    RnnCell: _rnn,
}


def _reset_and_update(e: _Emitter) -> None:
    computed = _cells.reset_and_update(e.ops, [e.gate(0), e.gate(1)], e.shares(2), e.load(e.place.h))
    if e.saving:
        for slot, vector in enumerate(computed):
            e.keep(slot, vector)
        e.keep_sums(0)
    store(computed[1], e.place.update)
    e.write_view(computed[2])


# ---- as Numba calls them ---------------------------------------------------------------------------------------------


def _tile_step(emit: Callable[[_Emitter], None]) -> Any:
    """An intrinsic f(cell, rows, panels, source, place, saving); rows, panels and saving are literals."""

    def typed(context: Any, cell: Any, rows: Any, panels: Any, source: Any, place: Any, saving: Any) -> Any:
        tile = Tile(rows.literal_value, panels.literal_value)

        def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
            emit(_Emitter(builder, cell, tile, arguments[3], arguments[4], saving.literal_value))
            return context.get_dummy_value()

        return types.void(cell, rows, panels, source, place, saving), generate

    return intrinsic(prefer_literal=True)(typed)


# Advance h (and c) of a tile, and write its view; with saving, keep a record. The source is the view of the old h; of a
# GRU that resets before the product, that of r * h, which `reset` wrote, with z in `update`.
step: Final[Any] = _tile_step(lambda e: _STEPS[e.kind](e))
reset: Final[Any] = _tile_step(_reset_and_update)


class Projection(NamedTuple):
    """Where `project` puts a panel's pre-activations, int16 [ROWS, gates, 16] with these strides in bytes."""

    address: int
    row: int
    gate: int
    saved: int  # a record, when training


def _project(context: Any, cell: Any, source: Any, weights: Any, constants: Any, to: Any, saving: Any) -> Any:
    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        _, source, weights, constants, to, _ = arguments
        form, kind = required_form(), cell.instance_class
        address, row, plane, groups = cgutils.unpack_tuple(builder, source)
        operand, out = (
            Operand(address, row, plane, groups, itemsize_of(cell)),
            Projection(*cgutils.unpack_tuple(builder, to)),
        )
        if saving.literal_value:
            prefetch(builder, out.saved, record_size(kind), writing=True)
        gates = affine(form, builder, Tile(ROWS, 1), operand, Matrix(weights, constants, GATES[kind]))
        for gate, wide in enumerate(gates):
            narrow = wide.saturate(16)
            at = builder.add(out.address, builder.mul(out.gate, ir.Constant(I64, gate)))
            for number, values in enumerate(narrow.parts(LANES)):
                store(values, builder.add(at, builder.mul(out.row, ir.Constant(I64, number))))
            if saving.literal_value:
                keep_mask(builder, kind, out.saved, gate, narrow.to(wide.element.width).compare("!=", wide))
        return context.get_dummy_value()

    return types.void(cell, source, weights, constants, to, saving), generate


# f(cell, source, weights, constants, projection, saving): the input's share of one panel's pre-activations, of ROWS
# rows of the source. weights, constants: addresses of the panel's.
project: Final[Any] = intrinsic(prefer_literal=True)(_project)
