"""The primitives of the integer arithmetic as ONNX operators.

Integers are carried in float64. Every sum and product is a dyadic rational of at most 53 bits and so exact, whatever
the order of a sum, fused or not, on whatever processor (but for one factor in `round_half_away`, which has a margin).
Integer operators would be worse: their division differs between runtimes, there is no arithmetic shift, and few of
them are implemented for int16.
"""

from functools import cached_property
from typing import Final

import numpy as np

from ...fixedpoint import SIGMOID_TABLE, cell_rescale
from ...qmodel import Affine, IntArray
from .emitter import Emitter

EXACT_LIMIT: Final = 2**53
GATE_SPAN: Final = 65536  # a gate's argument is the sum of two int16 values: in [-65536, 65534]

# ONNX leaves the ties of a rounding to the even integer; the arithmetic wants them away from zero. A factor this close
# to 1 lifts ties over the edge and nothing else: |v| < 2^33 keeps v * 2^-34 under half a unit.
_AWAY: Final = 1 + 2.0**-34


def round_half_away(g: Emitter, value: str, shift: int | IntArray) -> str:
    """value * 2^-shift, ties away from zero; integers |value| < 2^33, shift >= 1 (a scalar, or one for each column)."""
    return g.op("Round", g.op("Mul", value, np.ldexp(np.float64(_AWAY), -np.asarray(shift))))


def round_shift(g: Emitter, half: str, shift: int | IntArray) -> str:
    """`fixedpoint.round_shift(v, shift)` from half = v / 2, |v| < 2^33."""
    return round_half_away(g, g.op("Floor", g.op("Add", half, 0.5)), np.asarray(shift) - 1)


def sat16(g: Emitter, value: str) -> str:
    return g.op("Clip", value, -32768.0, 32767.0)


def affine(g: Emitter, x: str, dense: Affine, largest_input: int, rows: IntArray | slice = slice(None)) -> str:
    """requantize(bias + weight @ x) of these rows, for x [.., columns] with |x| <= largest_input.

    The multipliers are folded into the weights, so that product, bias and half a unit are one matrix product. The file
    holds the weights as int8; cast and scaling are constant, and done when a runtime loads it.
    """
    prove_exact(dense, largest_input)
    factor = np.ldexp(dense.multiplier[rows].astype(np.float64), -dense.shift[rows])
    weight = g.main.op("Mul", g.main.cast(np.ascontiguousarray(dense.weight[rows].T), np.float64), factor)
    scaled = g.op("Add", g.op("MatMul", x, weight), dense.bias[rows] * factor + 0.5)
    return sat16(g, g.op("Floor", scaled))


def prove_exact(dense: Affine, largest_input: int) -> None:
    """Raise ValueError unless every partial sum of an affine map, in units of 2^-shift, is below 2^53."""
    # object: the proof must not itself overflow
    bound = dense.accumulator_bound(largest_input).astype(object) * dense.multiplier + (1 << (dense.shift - 1))
    row = int(np.argmax(bound))
    if bound[row] >= EXACT_LIMIT:
        raise ValueError(f"row {row} can reach {bound[row]}, which float64 does not hold exactly: use smaller weights")


class Tables:
    """The functions of one variable, as tables that the graph computes when a runtime loads it.

    The file holds only the segments of `fixedpoint.SIGMOID_TABLE`.
    """

    def __init__(self, g: Emitter) -> None:
        self._g = g.main
        self._cell_tanh: dict[int, str] = {}

    def look_up(self, g: Emitter, table: str, index: str) -> str:
        return g.op("Gather", table, g.cast(index, np.int32), axis=0)

    @cached_property
    def half_sigmoid(self) -> str:
        """sigmoid(p) / 2 at p + GATE_SPAN: every use is a product, and `round_shift` wants half of it."""
        starts = SIGMOID_TABLE << 9
        starts[255] = 32767 << 10
        return self._g.op("Mul", self._curve(starts, width=128, mirror=float(2**25 - 1), shift=10), 0.5)

    @cached_property
    def tanh(self) -> str:
        """tanh(p) at p + GATE_SPAN."""
        starts = (SIGMOID_TABLE << 8) - (1 << 23)
        starts[255] = (65535 << 8) - (1 << 23)
        return self._curve(starts, width=64, mirror=-1.0, shift=8)

    @cached_property
    def lstm_gates(self) -> str:
        """half_sigmoid, then tanh: all gates of an LSTM in one look-up."""
        return self._g.op("Concat", self.half_sigmoid, self.tanh, axis=0)

    @cached_property
    def to_int8(self) -> str:
        """sat8(round_shift(v, 8)) at the int16 v; negative indices count from the end."""
        rounded = round_shift(self._g, self._g.op("Mul", self._int16, 0.5), 8)
        return self._g.op("Clip", rounded, -128.0, 127.0)

    def cell_tanh(self, cell_exponent: int) -> str:
        """tanh of the LSTM cell state c (int16, scale 2^-cell_exponent) at c; negative indices count from the end."""
        if cell_exponent not in self._cell_tanh:
            self._cell_tanh[cell_exponent] = self._make_cell_tanh(cell_exponent)
        return self._cell_tanh[cell_exponent]

    def _make_cell_tanh(self, cell_exponent: int) -> str:
        g = self._g
        multiplier, exponent = cell_rescale(cell_exponent)
        p = g.op("Floor", g.op("Add", g.op("Mul", self._int16, np.ldexp(multiplier, max(exponent, 0) - 31)), 0.5))
        if exponent < 0:
            p = round_half_away(g, p, -exponent)
        return self.look_up(g, self.tanh, g.op("Add", sat16(g, p), float(GATE_SPAN)))

    @cached_property
    def _int16(self) -> str:
        """0 .. 32767, -32768 .. -1."""
        halves = [self._g.op("Range", first, first + 32768.0, 1.0) for first in (0.0, -32768.0)]
        return self._g.op("Concat", *halves, axis=0)

    def _curve(self, starts: IntArray, width: int, mirror: float, shift: int) -> str:
        """Interpolate in 256 segments of `width` steps, extend to negative p as mirror - f(-p), drop `shift` bits."""
        g = self._g
        rises = 4 * np.append(np.diff(SIGMOID_TABLE), 0)  # the last segment is flat
        positions = g.op("Range", 0.0, float(width), 1.0)
        start, rise = (g.cast(column.astype(np.int32)[:, None], np.float64) for column in (starts, rises))
        positive = g.op("Reshape", g.op("Add", start, g.op("Mul", rise, positions)), [-1])
        p = g.op("Range", float(-GATE_SPAN), float(GATE_SPAN), 1.0)
        # beyond the table both curves are flat, which is also what saturating p to int16 does
        value = self.look_up(g, positive, g.op("Min", g.op("Abs", p), float(256 * width - 1)))
        value = g.op("Where", g.op("Less", p, 0.0), g.op("Sub", mirror, value), value)
        return g.op("Floor", g.op("Add", g.op("Mul", value, 2.0**-shift), 0.5))
