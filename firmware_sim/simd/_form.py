"""The instructions that differ from one family of processors to the next: dot products, requantisation, table look-up.

`Form` is made of LLVM's own operations, which every processor has.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

import llvmlite.ir as ir

from ._vector import I16, I64, Value, Vector, cgutils, concatenate, load, offset, repeat

LANES: Final = 16  # rows of a matrix that lie side by side

SIGMOID, TANH = range(2)


class Form:
    """LLVM's operations alone.

    group: how many columns of a row lie side by side, in weights and operands. bytewise: both are bytes, and an operand
    of int16 is two planes of them, its low bytes and its high ones; else both are int16. accumulators: how many vectors
    of 16 int32 stay in registers while they are summed. float_tile: rows and vectors of 16 floats, likewise. word: how
    many int16 lanes pass through a general register at once on their way through a table.
    """

    name: ClassVar[str] = "generic"
    group: ClassVar[int] = 1
    bytewise: ClassVar[bool] = False
    accumulators: ClassVar[int] = 4
    float_tile: ClassVar[tuple[int, int]] = (4, 1)
    word: ClassVar[int] = 1

    @property
    def item(self) -> int:
        """Bytes of a weight, and of an element of an operand's plane."""
        return 1 if self.bytewise else 2

    def planes(self, itemsize: int) -> int:
        """Into how many planes an operand of int8 (itemsize 1) or int16 (2) is split."""
        return itemsize if self.bytewise else 1

    def flips(self, itemsize: int) -> tuple[int, ...]:
        """With what the bytes of each plane are xored, the plane of low bytes first."""
        return (0,) * self.planes(itemsize)

    def excess(self, itemsize: int) -> int:
        """By how much an operand as products see it is larger than it is."""
        return 0

    def split(self, values: Vector, itemsize: int) -> list[Vector]:
        """Values of int8 or int16, in lanes of that or more, as they lie in the planes of an operand."""
        if not self.bytewise:
            return [values.to(16)]
        planes = [values] if itemsize == 1 else [values, values >> 8]
        flips = self.flips(itemsize)
        return [plane.to(8) ^ (flip - 256 if flip > 127 else flip) for plane, flip in zip(planes, flips, strict=True)]

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        """acc, 16 rows of int32, plus their `group` weights times as many elements of the operand, the same for all."""
        return acc + weights.as_lanes(I16, LANES).to(32) * x.as_lanes(I16, LANES).to(32)

    def scale(self, acc: Vector, multiplier: Vector, left: Vector, right: Vector) -> Vector:
        """acc * multiplier * 2^(left - right - 16), a half rounded up: what `requantize` saturates."""
        shift = right.to(64) - left.to(64) + 16
        return (acc.to(64) * multiplier.to(64) + (shift.filled(1) << (shift - 1))) >> shift

    def multiply_high(self, a: Vector, b: Vector) -> Vector:
        """(a * b + 2^14) >> 15 of int16 lanes, never both -32768."""
        return ((a.to(32) * b.to(32) + (1 << 14)) >> 15).to(16)

    def two_products(self, a: Vector, x: Vector, b: Vector, y: Vector) -> Vector:
        """a * x + b * y of int16 lanes as int32 lanes, in an order that `narrow` knows."""
        return a.to(32) * x.to(32) + b.to(32) * y.to(32)

    def narrow(self, wide: Vector) -> Vector:
        """sat16 of what was made of `two_products`."""
        return wide.saturate(16)

    def look_up(self, functions: Sequence[int], p: Sequence[Vector], tables: Value) -> list[Vector]:
        """SIGMOID or TANH of each vector of int16 lanes. tables: the address of int16 [2, 65536]."""
        return [self._look_up(function, v, tables) for function, v in zip(functions, p, strict=True)]

    def _look_up(self, function: int, p: Vector, tables: Value) -> Vector:
        builder = p.builder
        table = offset(builder, tables, function * 65536 * 2)
        memory = cgutils.alloca_once(builder, p.value.type)
        builder.store(p.value, memory)
        start = builder.ptrtoint(memory, I64)

        kind = ir.IntType(16 * self.word)

        def replace(number: Value, _: list[Value]) -> list[Value]:
            at = builder.add(start, builder.mul(number, ir.Constant(I64, 2 * self.word)))
            place = builder.inttoptr(at, ir.PointerType(kind))
            word, values = builder.load(place, align=2), ir.Constant(kind, 0)
            for shift in range(0, kind.width, 16):
                index = builder.zext(builder.trunc(builder.lshr(word, ir.Constant(kind, shift)), I16), I64)
                entry = builder.add(table, builder.shl(index, ir.Constant(I64, 1)))
                value = builder.load(builder.inttoptr(entry, ir.PointerType(I16)), align=2)
                values = builder.or_(values, builder.shl(builder.zext(value, kind), ir.Constant(kind, shift)))
            builder.store(values, place, align=2)
            return []

        repeat(builder, ir.Constant(I64, p.lanes // self.word), [], replace)
        # in parts: of lanes that are no power of two LLVM would load every one by itself
        return concatenate([load(builder, offset(builder, start, 2 * n), I16, LANES) for n in range(0, p.lanes, LANES)])
