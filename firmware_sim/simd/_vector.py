"""Vectors of LLVM's in the notation of the arithmetic: what `a + b`, `a >> 3` or `a.saturate(16)` do to every lane.

A vector may be wider than a register: LLVM splits it. Operators take another vector of the same type, or an int.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Union

import llvmlite.binding as llvm
import llvmlite.ir as ir
from numba.core import cgutils as numba_cgutils

cgutils: Any = numba_cgutils
Builder = Any  # llvmlite.ir.IRBuilder
Value = Any  # of llvmlite.ir; an address is one of type i64

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER: Final = ir.PointerType(ir.IntType(8))
_PREFETCH: Final = "llvm.prefetch.p0" if llvm.llvm_version_info >= (16,) else "llvm.prefetch.p0i8"  # typed pointers

Operand = Union["Vector", int]


class Vector:
    """Integer (signed unless said otherwise) or float lanes, and the builder that computes with them."""

    def __init__(self, builder: Builder, value: Value) -> None:
        self.builder, self.value = builder, value

    @property
    def lanes(self) -> int:
        return int(self.value.type.count)

    @property
    def element(self) -> Any:
        return self.value.type.element

    def _new(self, value: Value) -> "Vector":
        return Vector(self.builder, value)

    def _other(self, operand: Operand | float) -> Value:
        if isinstance(operand, Vector):
            return operand.value
        return ir.Constant(self.value.type, [operand] * self.lanes)

    def __add__(self, other: Operand) -> "Vector":
        return self._new(self.builder.add(self.value, self._other(other)))

    def __sub__(self, other: Operand) -> "Vector":
        return self._new(self.builder.sub(self.value, self._other(other)))

    def __mul__(self, other: Operand) -> "Vector":
        return self._new(self.builder.mul(self.value, self._other(other)))

    def __and__(self, other: Operand) -> "Vector":
        return self._new(self.builder.and_(self.value, self._other(other)))

    def __or__(self, other: Operand) -> "Vector":
        return self._new(self.builder.or_(self.value, self._other(other)))

    def __xor__(self, other: Operand) -> "Vector":
        return self._new(self.builder.xor(self.value, self._other(other)))

    def __lshift__(self, other: Operand) -> "Vector":
        return self._new(self.builder.shl(self.value, self._other(other)))

    def __rshift__(self, other: Operand) -> "Vector":
        return self._new(self.builder.ashr(self.value, self._other(other)))

    def shift_right_unsigned(self, bits: Operand) -> "Vector":
        """Zeros come in from the left."""
        return self._new(self.builder.lshr(self.value, self._other(bits)))

    def compare(self, relation: str, other: Operand) -> "Vector":
        """Lanes of one bit."""
        return self._new(self.builder.icmp_signed(relation, self.value, self._other(other)))

    def filled(self, value: int) -> "Vector":
        """A vector of this type with the value in every lane."""
        return self._new(self._other(value))

    def where(self, true: "Vector", false: "Vector") -> "Vector":
        """`true` where this vector of bits is set, `false` elsewhere."""
        return self._new(self.builder.select(self.value, true.value, false.value))

    def sign(self) -> "Vector":
        """-1 in lanes below zero, else 0."""
        return self >> int(self.element.width - 1)

    def to(self, bits: int) -> "Vector":
        """The lanes with this many bits: sign-extended, or their low bits."""
        kind = ir.VectorType(ir.IntType(bits), self.lanes)
        if bits == self.element.width:
            return self
        convert = self.builder.sext if bits > self.element.width else self.builder.trunc
        return self._new(convert(self.value, kind))

    def saturate(self, bits: int) -> "Vector":
        """The lanes clamped to, and with, this many bits."""
        low, high = self._other(-(1 << (bits - 1))), self._other((1 << (bits - 1)) - 1)
        clamped: Vector = self.call("llvm.smax", self.call("llvm.smin", self, self._new(high)), self._new(low))
        return clamped.to(bits)

    def add_saturating(self, other: Operand) -> "Vector":
        return self.call("llvm.sadd.sat", self, self._new(self._other(other)))

    def call(self, name: str, *operands: "Vector") -> "Vector":
        """One of LLVM's generic functions, which has the vector's type in its name and as that of its result."""
        suffix = f"v{self.lanes}{'f32' if self.element == F32 else f'i{self.element.width}'}"
        return self._new(call(self.builder, f"{name}.{suffix}", self.value.type, *(v.value for v in operands)))

    def to_float(self) -> "Vector":
        return self._new(self.builder.sitofp(self.value, ir.VectorType(F32, self.lanes)))

    def as_lanes(self, element: Any, lanes: int) -> "Vector":
        """The same bits, cut into other lanes."""
        return self._new(self.builder.bitcast(self.value, ir.VectorType(element, lanes)))

    def shuffle(self, other: "Vector", lanes: Sequence[int]) -> "Vector":
        """Those lanes of this vector, numbered from 0, and the other, numbered on from there."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self._new(self.builder.shuffle_vector(self.value, other.value, mask))

    def part(self, first: int, count: int) -> "Vector":
        return self if count == self.lanes else self.shuffle(self, range(first, first + count))

    def parts(self, lanes: int) -> list["Vector"]:
        return [self.part(first, lanes) for first in range(0, self.lanes, lanes)]


def concatenate(vectors: Sequence[Vector]) -> Vector:
    """One vector of the lanes of all, in order; they have the same type."""
    if len(vectors) == 1:
        return vectors[0]
    if len(vectors) % 2:
        return concatenate([*vectors, vectors[-1]]).part(0, len(vectors) * vectors[0].lanes)
    pairs = zip(vectors[::2], vectors[1::2], strict=True)
    return concatenate([a.shuffle(b, range(2 * a.lanes)) for a, b in pairs])


# ---- memory ----------------------------------------------------------------------------------------------------------


def offset(builder: Builder, address: Value, distance: Value | int) -> Value:
    """The address `distance` bytes on."""
    if isinstance(distance, int):
        if distance == 0:
            return address
        distance = ir.Constant(I64, distance)
    return builder.add(address, distance)


def load(builder: Builder, address: Value, element: Any, lanes: int) -> Vector:
    kind = ir.VectorType(element, lanes)
    return Vector(builder, builder.load(_pointer(builder, address, kind), align=1))


def splat(builder: Builder, value: Value, lanes: int) -> Vector:
    """The scalar in every lane."""
    kind = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return Vector(builder, builder.shuffle_vector(single, undefined, zeros))


def broadcast(builder: Builder, address: Value, element: Any, lanes: int) -> Vector:
    """The one element that lies there, in every lane."""
    return splat(builder, builder.load(_pointer(builder, address, element), align=1), lanes)


def store(vector: Vector, address: Value) -> None:
    builder = vector.builder
    builder.store(vector.value, _pointer(builder, address, vector.value.type), align=1)


def constant(builder: Builder, element: Any, values: Sequence[int]) -> Vector:
    return Vector(builder, ir.Constant(ir.VectorType(element, len(values)), list(values)))


def _pointer(builder: Builder, address: Value, kind: Any) -> Value:
    return builder.bitcast(builder.inttoptr(address, _POINTER), ir.PointerType(kind))


def prefetch(builder: Builder, address: Value, size: int, writing: bool) -> None:
    """Ask for `size` bytes to be brought near: all of them to be written soon, or to the second cache to be read."""
    write, level, data = (ir.Constant(I32, n) for n in (int(writing), 3 if writing else 2, 1))
    for line in range(0, size, 64):
        pointer = builder.inttoptr(offset(builder, address, line), _POINTER)
        call(builder, _PREFETCH, ir.VoidType(), pointer, write, level, data)


# ---- control ---------------------------------------------------------------------------------------------------------


def call(builder: Builder, name: str, result: Any, *operands: Value) -> Value:
    """A function of LLVM's, declared on the way."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def repeat(
    builder: Builder, count: Value, start: Sequence[Value], body: Callable[[Value, list[Value]], Sequence[Value]]
) -> list[Value]:
    """for n in range(count): values = body(n, values). Returns the last values."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("repeat", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    number = builder.phi(I64)
    number.add_incoming(ir.Constant(I64, 0), before)
    values = [builder.phi(value.type) for value in start]
    for value, first in zip(values, start, strict=True):
        value.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", number, count), inside, after)
    builder.position_at_end(inside)
    following = body(number, values)
    for value, new in zip(values, following, strict=True):
        value.add_incoming(new, builder.block)
    number.add_incoming(builder.add(number, ir.Constant(I64, 1)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return values
