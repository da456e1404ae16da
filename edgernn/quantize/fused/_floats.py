"""Float lanes for the SIMD room's vectors, and the two products of a backward pass as register tiles."""

from collections.abc import Sequence
from typing import Any, Final, Union

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from ...firmware_sim.simd._form import LANES
from ...firmware_sim.simd._vector import (
    F32,
    I32,
    I64,
    Builder,
    Value,
    Vector,
    broadcast,
    call,
    load,
    offset,
    repeat,
    splat,
    store,
)

FLOAT: Final = 4  # bytes
ROWS: Final = 8  # sequences that go through a backward pass together

_CONTRACT: Final = ("contract",)  # a product and a sum may become one instruction


class Floats(Vector):
    """float32 lanes; operators take another vector or a number."""

    def _new(self, value: Value) -> "Floats":
        return Floats(self.builder, value)

    def __add__(self, other: Vector | float) -> "Floats":
        return self._new(self.builder.fadd(self.value, self._other(other), flags=_CONTRACT))

    def __sub__(self, other: Vector | float) -> "Floats":
        return self._new(self.builder.fsub(self.value, self._other(other), flags=_CONTRACT))

    def __mul__(self, other: Vector | float) -> "Floats":
        return self._new(self.builder.fmul(self.value, self._other(other), flags=_CONTRACT))

    def compare(self, relation: str, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fcmp_ordered(relation, self.value, self._other(other)))

    def if_(self, bits: Vector, otherwise: Union["Floats", float] = 0.0) -> "Floats":
        """The lanes whose bit is set; `otherwise` in the others."""
        return self._new(self.builder.select(bits.value, self.value, self._other(otherwise)))

    def unless(self, bits: Vector) -> "Floats":
        """Zero in the lanes whose bit is set."""
        return self._new(self.builder.select(bits.value, self._other(0.0), self.value))

    def plus_product(self, a: Vector, b: Vector) -> "Floats":
        """self + a * b in one instruction."""
        return Floats(self.builder, a.call("llvm.fma", a, b, self).value)


def floats(v: Vector) -> Floats:
    """Integers as floats."""
    return Floats(v.builder, v.to_float().value)


def load_floats(builder: Builder, address: Value, lanes: int = LANES) -> Floats:
    return Floats(builder, load(builder, address, F32, lanes).value)


def number(builder: Builder, address: Value, index: int) -> Floats:
    """An element of an array of floats, in every lane."""
    return Floats(builder, broadcast(builder, offset(builder, address, index * FLOAT), F32, LANES).value)


def _copy_row(context: Any, source: Any, count: Any, to: Any) -> Any:
    """Copy `count` floats from an address to another; what follows them, up to a multiple of 16, becomes 0."""

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        source, count, to = arguments
        vectors = builder.ashr(builder.add(count, ir.Constant(I64, LANES - 1)), ir.Constant(I64, 4))
        kind = ir.VectorType(F32, LANES)
        lanes = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))

        def copy(number: Value, _: list[Value]) -> list[Value]:
            distance = builder.mul(number, ir.Constant(I64, LANES * FLOAT))
            left = builder.trunc(builder.sub(count, builder.mul(number, ir.Constant(I64, LANES))), I32)
            mask = builder.icmp_signed("<", lanes, splat(builder, left, LANES).value)
            at = builder.inttoptr(builder.add(source, distance), ir.PointerType(kind))
            zero = ir.Constant(kind, [0.0] * LANES)
            value = call(builder, "llvm.masked.load.v16f32.p0", kind, at, ir.Constant(I32, 4), mask, zero)
            store(Vector(builder, value), builder.add(to, distance))
            return []

        repeat(builder, vectors, [], copy)
        return context.get_dummy_value()

    return types.void(source, count, to), generate


copy_row: Final[Any] = intrinsic(_copy_row)


# ---- products --------------------------------------------------------------------------------------------------------
# A ring holds gradients of pre-activations as [blocks of 8 units][slots][ROWS][8 units]: what a slot's rows, and what
# many slots' rows of a block, are multiplied with lies in the order in which it is read.


def _tile(
    builder: Builder, rows: int, vectors: int, left: Sequence[Value], right: Value, sums: list[Value]
) -> list[Value]:
    """sums[rows * vectors] + left[rows] (addresses of floats) x right (the address of `vectors` vectors)."""
    columns = [load_floats(builder, offset(builder, right, v * LANES * FLOAT)) for v in range(vectors)]
    results = []
    for row, address in enumerate(left):
        factor = Floats(builder, broadcast(builder, address, F32, LANES).value)
        for v, column in enumerate(columns):
            results.append(Floats(builder, sums[row * vectors + v]).plus_product(factor, column).value)
    return results


def _zeros(count: int) -> list[Value]:
    return [ir.Constant(ir.VectorType(F32, LANES), [0.0] * LANES)] * count


def _store(builder: Builder, sums: list[Value], vectors: int, to: Value, row: Value) -> None:
    for n, value in enumerate(sums):
        at = builder.add(to, builder.mul(row, ir.Constant(I64, n // vectors)))
        store(Vector(builder, value), offset(builder, at, n % vectors * LANES * FLOAT))


def _ring_times_weights(
    context: Any, rows: Any, vectors: Any, ring: Any, block: Any, blocks: Any, weights: Any, to: Any, row: Any
) -> Any:
    """to [rows, 16 * vectors] = ring [rows, 8 * blocks] x weights [8 * blocks, 16 * vectors].

    ring: the address of a row of a slot, its blocks `block` bytes apart; row: bytes between the rows of `to`.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        count, width = rows.literal_value, vectors.literal_value
        ring, block, blocks, weights, to, row = arguments[2:]

        def add(number: Value, values: list[Value]) -> list[Value]:
            sums, at, right = values[:-2], values[-2], values[-1]
            for unit in range(8):
                left = [offset(builder, at, (r * 8 + unit) * FLOAT) for r in range(count)]
                sums = _tile(builder, count, width, left, offset(builder, right, unit * width * LANES * FLOAT), sums)
            return [*sums, builder.add(at, block), offset(builder, right, 8 * width * LANES * FLOAT)]

        ends = repeat(builder, blocks, [*_zeros(count * width), ring, weights], add)
        _store(builder, ends[:-2], width, to, row)
        return context.get_dummy_value()

    return types.void(rows, vectors, ring, block, blocks, weights, to, row), generate


ring_times_weights: Final[Any] = intrinsic(prefer_literal=True)(_ring_times_weights)


def _add_ring_times_rows(
    context: Any, units: Any, vectors: Any, ring: Any, count: Any, right: Any, step: Any, to: Any, row: Any
) -> Any:
    """to [units, 16 * vectors] += ring [count, units], transposed, x right [count, 16 * vectors].

    ring: the address of a block's units; step: bytes between the rows of `right`, row: of `to`.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        rows, width = units.literal_value, vectors.literal_value
        ring, count, right, step, to, row = arguments[2:]
        start = []
        for n in range(rows * width):
            at = builder.add(to, builder.mul(row, ir.Constant(I64, n // width)))
            start.append(load_floats(builder, offset(builder, at, n % width * LANES * FLOAT)).value)

        def add(number: Value, values: list[Value]) -> list[Value]:
            sums, at, other = values[:-2], values[-2], values[-1]
            for _ in range(4):
                left = [offset(builder, at, unit * FLOAT) for unit in range(rows)]
                sums = _tile(builder, rows, width, left, other, sums)
                at, other = offset(builder, at, 8 * FLOAT), builder.add(other, step)
            return [*sums, at, other]

        fours = builder.ashr(count, ir.Constant(I64, 2))
        ends = repeat(builder, fours, [*start, ring, right], add)
        _store(builder, ends[:-2], width, to, row)
        return context.get_dummy_value()

    return types.void(units, vectors, ring, count, right, step, to, row), generate


add_ring_times_rows: Final[Any] = intrinsic(prefer_literal=True)(_add_ring_times_rows)
