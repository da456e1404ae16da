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
    prefetch,
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

    def times_plus(self, factor: float, summand: float) -> "Floats":
        """self * factor + summand, rounded once."""
        return self._new(self._other(summand)).plus_product(self, self._new(self._other(factor)))

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


def _copy_row(context: Any, source: Any, count: Any, to: Any, next: Any) -> Any:
    """Copy `count` floats from an address to another; what follows them, up to a multiple of 16, becomes 0.

    next: the way to a row that will be copied soon.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        source, count, to, way = arguments
        vectors = builder.ashr(builder.add(count, ir.Constant(I64, LANES - 1)), ir.Constant(I64, 4))
        kind = ir.VectorType(F32, LANES)
        lanes = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))

        def copy(number: Value, _: list[Value]) -> list[Value]:
            distance = builder.mul(number, ir.Constant(I64, LANES * FLOAT))
            left = builder.trunc(builder.sub(count, builder.mul(number, ir.Constant(I64, LANES))), I32)
            mask = builder.icmp_signed("<", lanes, splat(builder, left, LANES).value)
            address = builder.add(source, distance)
            prefetch(builder, builder.add(address, way), 64, writing=False)
            at = builder.inttoptr(address, ir.PointerType(kind))
            zero = ir.Constant(kind, [0.0] * LANES)
            value = call(builder, "llvm.masked.load.v16f32.p0", kind, at, ir.Constant(I32, 4), mask, zero)
            store(Vector(builder, value), builder.add(to, distance))
            return []

        repeat(builder, vectors, [], copy)
        return context.get_dummy_value()

    return types.void(source, count, to, next), generate


def _ask_for(context: Any, address: Any, size: Any, writing: Any) -> Any:
    """Have `size` bytes brought near."""

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        address, size, _ = arguments

        def ask(number: Value, _: list[Value]) -> list[Value]:
            line = builder.add(address, builder.mul(number, ir.Constant(I64, 64)))
            prefetch(builder, line, 64, writing.literal_value)
            return []

        repeat(builder, builder.ashr(builder.add(size, ir.Constant(I64, 63)), ir.Constant(I64, 6)), [], ask)
        return context.get_dummy_value()

    return types.void(address, size, writing), generate


ask_for: Final[Any] = intrinsic(prefer_literal=True)(_ask_for)

copy_row: Final[Any] = intrinsic(_copy_row)


# ---- products --------------------------------------------------------------------------------------------------------


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


def _places(builder: Builder, start: Value, step: Value, count: int) -> list[Value]:
    return [builder.add(start, builder.mul(step, ir.Constant(I64, n))) for n in range(count)]


def _ring_times_weights(
    context: Any,
    rows: Any,
    vectors: Any,
    ring: Any,
    ring_row: Any,
    block: Any,
    blocks: Any,
    weights: Any,
    to: Any,
    row: Any,
) -> Any:
    """to [rows, 16 * vectors] = ring [rows, 8 * blocks] x weights [8 * blocks, 16 * vectors].

    ring: an address; its rows are ring_row bytes apart and its blocks of 8 columns `block` bytes. row: bytes between
    the rows of `to`.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        count, width = rows.literal_value, vectors.literal_value
        ring, ring_row, block, blocks, weights, to, row = arguments[2:]
        zero = ir.Constant(ir.VectorType(F32, LANES), [0.0] * LANES)

        def add(number: Value, values: list[Value]) -> list[Value]:
            sums, at, right = values[:-2], values[-2], values[-1]
            starts = _places(builder, at, ring_row, count)
            for unit in range(8):
                left = [offset(builder, start, unit * FLOAT) for start in starts]
                sums = _tile(builder, count, width, left, offset(builder, right, unit * width * LANES * FLOAT), sums)
            return [*sums, builder.add(at, block), offset(builder, right, 8 * width * LANES * FLOAT)]

        *sums, _, _ = repeat(builder, blocks, [*[zero] * (count * width), ring, weights], add)
        for n, start in enumerate(_places(builder, to, row, count)):
            for v in range(width):
                store(Vector(builder, sums[n * width + v]), offset(builder, start, v * LANES * FLOAT))
        return context.get_dummy_value()

    return types.void(rows, vectors, ring, ring_row, block, blocks, weights, to, row), generate


ring_times_weights: Final[Any] = intrinsic(prefer_literal=True)(_ring_times_weights)


def _add_outer_products(
    context: Any,
    rows: Any,
    vectors: Any,
    left: Any,
    left_step: Any,
    right: Any,
    right_step: Any,
    count: Any,
    to: Any,
    row: Any,
) -> Any:
    """to [rows, 16 * vectors] += left [count, rows], transposed, x right [count, 16 * vectors]; count in fours.

    left, right and to: addresses; steps and row: bytes between their rows.
    """

    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        height, width = rows.literal_value, vectors.literal_value
        left, left_step, right, right_step, count, to, row = arguments[2:]
        places = [
            offset(builder, start, v * LANES * FLOAT)
            for start in _places(builder, to, row, height)
            for v in range(width)
        ]

        def add(number: Value, values: list[Value]) -> list[Value]:
            sums, at, other = values[:-2], values[-2], values[-1]
            for _ in range(4):
                factors = [offset(builder, at, n * FLOAT) for n in range(height)]
                sums = _tile(builder, height, width, factors, other, sums)
                at, other = builder.add(at, left_step), builder.add(other, right_step)
            return [*sums, at, other]

        fours = builder.ashr(count, ir.Constant(I64, 2))
        start = [load_floats(builder, at).value for at in places]
        for value, at in zip(repeat(builder, fours, [*start, left, right], add)[:-2], places, strict=True):
            store(Vector(builder, value), at)
        return context.get_dummy_value()

    return types.void(rows, vectors, left, left_step, right, right_step, count, to, row), generate


add_outer_products: Final[Any] = intrinsic(prefer_literal=True)(_add_outer_products)
