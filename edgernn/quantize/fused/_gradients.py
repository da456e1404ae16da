"""One step of each cell backwards, on vectors: the gradients of `Cells` in _cells.py, a panel of 16 units at a time.

Gradients are those of integers: dh is that of the int16 hidden state, and so on. Roundings have the derivative of what
they round, clamps none where something was lost. i, f, g, .. stand for gates in real units, from -1 to 1.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from ... import fixedpoint
from ...firmware_sim.simd import cells
from ...firmware_sim.simd._form import LANES
from ...firmware_sim.simd._pack import Array
from ...firmware_sim.simd._vector import (
    I16,
    I64,
    Builder,
    Value,
    Vector,
    cgutils,
    load,
    offset,
    prefetch,
    repeat,
    store,
)
from ...firmware_sim.simd.tiles import GATES, MASKS, SAVED, record_size
from ...firmware_sim.simd.tiles import ROWS as TILE_ROWS
from ._floats import FLOAT, Floats, floats, load_floats, number

ONE: Final = fixedpoint.STATE_SCALE
SLOPE: Final = fixedpoint.PRE_ACTIVATION_SCALE / fixedpoint.STATE_SCALE  # of int16 gates over int16 pre-activations

VECTOR: Final = LANES * FLOAT  # bytes
STATE: Final = TILE_ROWS * LANES * 2  # bytes of one of SAVED

# What differs between layers, float32: the view's share of h, the largest h whose view is not clamped, and of an LSTM
# the same of the cell state's pre-activation, and how much i * g counts in c.
NUMBERS: Final = ("view", "view_limit", "cell_low", "cell_high", "cell", "content")


class Lstm(NamedTuple):
    numbers: Array


class Gru(NamedTuple):
    numbers: Array


class GruResetBefore(NamedTuple):
    numbers: Array


class Rnn(NamedTuple):
    numbers: Array


FORWARD: Final[dict[type[Any], type[Any]]] = {
    Lstm: cells.LstmCell,
    Gru: cells.GruCell,
    GruResetBefore: cells.GruResetBeforeCell,
    Rnn: cells.RnnCell,
}


@cache
def numbers(scheme: str, exponent: int | None) -> Array:
    """NUMBERS of a layer; exponent: of the scale of an LSTM's cell state."""
    values = [2.0**-8, 32638, 0, 0, 0, 0] if scheme == "w8a8" else [1.0, 32767, 0, 0, 0, 0]
    if exponent is not None:
        q31, shift = fixedpoint.cell_rescale(exponent)
        c = np.arange(-32768, 32768)
        wide = fixedpoint.rescale(c, q31, shift)
        inside = c[wide == fixedpoint.sat16(wide)]
        values[2:] = [inside[0], inside[-1], q31 * 2.0 ** (shift - 31), 2.0 ** (exponent - 30)]
    return np.array(values, np.float32)


class Place(NamedTuple):
    """Addresses of a tile's step and panel, and distances in bytes."""

    numbers: int
    record: int
    previous: int  # the record of the step before, of which h and c count
    next: int  # a record that will be read soon: it comes from far away
    alive: int  # uint16 [TILE_ROWS]: all bits set in rows that have this step
    outputs: int  # int64 [TILE_ROWS]: addresses of the outputs' gradients, of the first panel
    panel: int  # from there to this panel
    dview: int  # the gradient of the view as the next step's product read it; float32 [TILE_ROWS, ..]
    dh: int  # of the state itself, likewise, after this step and then before it
    dc: int
    state_row: int
    dp_x: int  # where the gradients of the input's shares of the pre-activations go, float32 [TILE_ROWS, ..]
    dp_x_row: int
    dp_x_gate: int
    ring: int  # and those of the recurrent shares, as [blocks of 8 units, .., TILE_ROWS, 8]
    block: int
    gate: int
    view: int  # where the operand of the recurrent product goes, float32 [TILE_ROWS, ..]
    reset_view: int  # and that of a GRU's r * h
    view_row: int
    bias_x: int  # sums over the rows, float32 [gates, ..]
    bias_h: int
    bias_gate: int


class _Step:
    """A row of a step in the making; plain: of a tile that has all its rows, none of which saturated anywhere."""

    def __init__(
        self, builder: Builder, kind: type, place: Place, row: Value, biases: list[Value], plain: bool
    ) -> None:
        self.builder, self.kind, self.place, self.row, self.plain = builder, FORWARD[kind], place, row, plain
        self.biases = [Floats(builder, value) for value in biases]

    # ---- memory --------------------------------------------------------------------------------------------------

    def _times(self, distance: Value | int) -> Value:
        """The way to this row."""
        return self.builder.mul(self.row, ir.Constant(I64, distance) if isinstance(distance, int) else distance)

    def _bits(self, address: Value) -> Vector:
        word = self.builder.load(self.builder.inttoptr(address, ir.PointerType(I16)), align=2)
        return Vector(self.builder, self.builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES)))

    def number(self, name: str) -> Floats:
        return number(self.builder, self.place.numbers, NUMBERS.index(name))

    def integers(self, name: str, record: Value | None = None) -> Vector:
        at = offset(self.builder, self.place.record if record is None else record, self._times(LANES * 2))
        return load(self.builder, offset(self.builder, at, SAVED[self.kind].index(name) * STATE), I16, LANES)

    def saved(self, name: str) -> Floats:
        return floats(self.integers(name))

    def previous(self, name: str) -> Floats:
        """The state before this step."""
        return floats(self.integers(name, self.place.previous))

    def if_alive(self, v: Floats, otherwise: Floats | float = 0.0) -> Floats:
        """v in rows that have this step."""
        if self.plain:
            return v
        return v.if_(self._bits(offset(self.builder, self.place.alive, self._times(2))), otherwise)

    def unless_lost(self, v: Floats, share: int, gate: int) -> Floats:
        """v in lanes without saturation of the input's share (0) of a gate, the recurrent one (1) or the sum (2)."""
        return self._unless(v, share * GATES[self.kind] + gate)

    def unless_cell_lost(self, v: Floats) -> Floats:
        return self._unless(v, MASKS[self.kind] - 1)

    def _unless(self, v: Floats, mask: int) -> Floats:
        if self.plain:
            return v
        at = offset(self.builder, self.place.record, len(SAVED[self.kind]) * STATE + mask * 8)
        return v.unless(self._bits(offset(self.builder, at, self._times(LANES // 8))))

    # ---- gradients -----------------------------------------------------------------------------------------------

    def state(self, address: Value) -> Floats:
        return load_floats(self.builder, offset(self.builder, address, self._times(self.place.state_row)))

    def set_state(self, address: Value, gradient: Floats) -> None:
        """The gradient of a state before this step; rows that do not have it keep theirs."""
        at = offset(self.builder, address, self._times(self.place.state_row))
        store(gradient if self.plain else self.if_alive(gradient, load_floats(self.builder, at)), at)

    def from_view(self, gradient: Floats, values: Floats) -> Floats:
        """The gradient of int16 values from that of their view."""
        return gradient.if_(values.compare("<=", self.number("view_limit"))) * self.number("view")

    def dh(self) -> Floats:
        at = offset(self.builder, self.place.outputs, self._times(8))
        row = self.builder.load(self.builder.inttoptr(at, ir.PointerType(I64)), align=8)
        output = load_floats(self.builder, offset(self.builder, row, self.place.panel))
        view = self.state(self.place.dview) + output
        return self.if_alive(self.state(self.place.dh) + self.from_view(view, self.saved("h")))

    def give(self, gate: int, dp: Floats, recurrent: Floats | None = None) -> Floats:
        """Write the gradient of a gate's pre-activation, of which the recurrent share is multiplied by `recurrent`.

        Returns it as it is before the shares' saturation.
        """
        dp, gates = self.unless_lost(dp, 2, gate), GATES[self.kind]
        of_input = self.unless_lost(dp, 0, gate)
        recurrently = self.unless_lost(dp if recurrent is None else dp * recurrent, 1, gate)
        store(of_input, self._gate(self.place.dp_x, self.place.dp_x_row, self.place.dp_x_gate, gate))
        at = self._gate(self.place.ring, 8 * FLOAT, self.place.gate, gate)
        for half in recurrently.parts(8):
            store(half, at)
            at = self.builder.add(at, self.place.block)
        self.biases[gate] = self.biases[gate] + of_input
        self.biases[gates + gate] = self.biases[gates + gate] + recurrently
        return dp

    def _gate(self, start: Value, row: Value | int, distance: Value, gate: int) -> Value:
        at = offset(self.builder, start, self._times(row))
        return self.builder.add(at, self.builder.mul(distance, ir.Constant(I64, gate)))

    def keep_view(self, address: Value, values: Vector) -> None:
        """The operand that a product read of these int16 values."""
        sign = values.sign()
        narrow = values.add_saturating(sign + sign + 129) >> 8
        is_int8 = self.number("view").compare("<", 1.0)
        store(floats(is_int8.where(narrow, values)), offset(self.builder, address, self._times(self.place.view_row)))


def _sigmoid_slope(y: Floats) -> Floats:
    """Of a saved gate y * 2^15: SLOPE * y * (1 - y)."""
    return y * y.times_plus(-SLOPE * ONE * ONE, SLOPE * ONE)


def _tanh_slope(y: Floats) -> Floats:
    """SLOPE * (1 - y) * (1 + y), which is exact enough where y is nearly 1 or -1."""
    return y.times_plus(-SLOPE * ONE, SLOPE) * y.times_plus(ONE, 1.0)


def _lstm(s: _Step) -> None:
    i, f, g, o, t, c = (s.saved(name) for name in SAVED[s.kind][:6])
    dh = s.dh() * ONE
    inside = c.compare(">=", s.number("cell_low")) & c.compare("<=", s.number("cell_high"))
    dc = s.state(s.place.dc) + (dh * o * (_tanh_slope(t) * s.number("cell"))).if_(inside)
    dc = s.if_alive(s.unless_cell_lost(dc))
    content, kept = dc * s.number("content"), dc * ONE
    s.give(0, content * g * _sigmoid_slope(i))
    s.give(1, kept * s.previous("c") * _sigmoid_slope(f))
    s.give(2, content * i * _tanh_slope(g))
    s.give(3, dh * t * _sigmoid_slope(o))
    s.set_state(s.place.dc, kept * f)
    s.set_state(s.place.dh, kept * 0.0)


def _gru(s: _Step) -> None:
    r, z, n, ph_n = (s.saved(name) for name in SAVED[s.kind][:4])
    dh = s.dh()
    to_n, to_z = _blend(s, dh, z, n)
    dn = s.give(2, to_n, recurrent=r * ONE)
    s.give(1, to_z)
    s.give(0, dn * (ph_n * ONE) * _sigmoid_slope(r))


def _candidate(s: _Step) -> None:
    to_n, to_z = _blend(s, s.dh(), s.saved("z"), s.saved("n"))
    s.give(2, to_n)
    s.give(1, to_z)
    s.keep_view(s.place.reset_view, s.integers("rh"))


def _blend(s: _Step, dh: Floats, z: Floats, n: Floats) -> tuple[Floats, Floats]:
    """From h' = (1 - z) n + z h to the pre-activations of n and z, and h."""
    kept = dh * (z * ONE)
    s.set_state(s.place.dh, kept)
    return (dh - kept) * _tanh_slope(n), dh * ((s.previous("h") - n) * ONE) * _sigmoid_slope(z)


def _reset(s: _Step) -> None:
    r = s.saved("r")
    product = s.if_alive(s.from_view(s.state(s.place.dview), s.saved("rh"))) * ONE
    s.give(0, product * s.previous("h") * _sigmoid_slope(r))
    s.set_state(s.place.dh, s.state(s.place.dh) + product * r)


def _rnn(s: _Step) -> None:
    dh = s.dh()
    s.give(0, dh * _tanh_slope(s.saved("h")))
    s.set_state(s.place.dh, dh * 0.0)


_STEPS: Final[dict[type, Callable[[_Step], None]]] = {Lstm: _lstm, Gru: _gru, GruResetBefore: _candidate, Rnn: _rnn}


def _emit(builder: Builder, cell: Any, place: Any, step: Callable[[_Step], None]) -> None:
    """The step of every row of a tile, and the sums of what it gives."""
    kind, where = cell.instance_class, Place(*cgutils.unpack_tuple(builder, place))
    with builder.if_else(_is_plain(builder, FORWARD[kind], where)) as (then, otherwise):
        for branch, plain in ((then, True), (otherwise, False)):
            with branch:
                _emit_rows(builder, kind, where, step, plain)


def _is_plain(builder: Builder, kind: type, where: Place) -> Value:
    """Whether a tile has all its rows, and nothing in it saturated."""
    start = offset(builder, where.record, len(SAVED[kind]) * STATE)
    found = builder.not_(builder.load(builder.inttoptr(where.alive, ir.PointerType(I64)), align=8))
    for mask in range(MASKS[kind]):
        address = builder.inttoptr(offset(builder, start, mask * 8), ir.PointerType(I64))
        found = builder.or_(found, builder.load(address, align=8))
    return builder.icmp_unsigned("==", found, ir.Constant(I64, 0))


def _emit_rows(builder: Builder, kind: type, where: Place, step: Callable[[_Step], None], plain: bool) -> None:
    count = GATES[FORWARD[kind]]
    places = []
    for start in (where.bias_x, where.bias_h):
        for gate in range(count):
            places.append(builder.add(start, builder.mul(where.bias_gate, ir.Constant(I64, gate))))

    def row(index: Value, sums: list[Value]) -> list[Value]:
        s = _Step(builder, kind, where, index, sums, plain)
        step(s)
        return [bias.value for bias in s.biases]

    sums = [load_floats(builder, at).value for at in places]
    if plain:  # the usual case, as a whole; the other one as a loop, which is compiled sooner
        for index in range(TILE_ROWS):
            sums = row(ir.Constant(I64, index), sums)
    else:
        sums = repeat(builder, ir.Constant(I64, TILE_ROWS), sums, row)
    for at, value in zip(places, sums, strict=True):
        store(Vector(builder, value), at)


def _step_back(context: Any, cell: Any, place: Any) -> Any:
    """From the gradients of a tile's view and state after a step to those of its pre-activations and the state before.

    The gradient of the view before it is the product of what went to the ring and the recurrent matrix; of a GRU that
    resets before the product, gate n alone is done, and `reset_back` goes on.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        def step(s: _Step) -> None:
            _STEPS[cell.instance_class](s)
            s.keep_view(s.place.view, s.integers("h", s.place.previous))

        where = Place(*cgutils.unpack_tuple(builder, arguments[1]))
        prefetch(builder, where.next, record_size(FORWARD[cell.instance_class]), writing=False)
        _emit(builder, cell, arguments[1], step)
        return context.get_dummy_value()

    return types.void(cell, place), generate


step_back: Final[Any] = intrinsic(_step_back)


def _reset_back(context: Any, cell: Any, place: Any) -> Any:
    """Of a GRU that resets before the product: from the gradient of the view of r * h (in `dview`) to gate r's."""

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        _emit(builder, cell, arguments[1], _reset)
        return context.get_dummy_value()

    return types.void(cell, place), generate


reset_back: Final[Any] = intrinsic(_reset_back)
