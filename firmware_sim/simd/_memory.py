"""The memory that a kernel works in, by address: arrays in its loops would cost the counting of references."""

from collections.abc import Callable
from typing import Any, Final

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from .._jit import inlined
from ._cells import view
from ._form import LANES, Form
from ._host import host_form
from ._pack import ALIGNMENT, CONSTANTS, Array
from ._vector import I16, I64, Builder, Value, Vector, load, repeat, store
from .tiles import Source

_FORM: Final = host_form() or Form()

GROUP: Final = _FORM.group
ITEM: Final = _FORM.item  # bytes of an operand's element in a plane
BYTEWISE: Final = _FORM.bytewise
VECTOR: Final = LANES * GROUP * ITEM  # bytes of 16 rows' weights
GATE_CONSTANTS: Final = CONSTANTS * LANES * 4  # bytes


@inlined
def zeros(size: Any) -> Array:
    """uint8 zeros from a cache line on."""
    buffer = np.zeros(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data & (ALIGNMENT - 1)
    return buffer[start : start + size]


@inlined
def address_of(array: Array) -> Any:
    """Signed, so that sums with other numbers stay integers. It counts no reference to the array."""
    return np.int64(array.ctypes.data)


def _peek(context: Any, address: Any, like: Any) -> Any:
    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        kind: Any = ir.IntType(like.bitwidth)
        return builder.load(builder.inttoptr(arguments[0], ir.PointerType(kind)), align=1, typ=kind)

    return like(types.int64, like), generate


peek: Any = intrinsic(_peek)
"""(address, like): the number at an address, of the type of `like`."""


def _poke(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
        address, number = arguments
        builder.store(number, builder.inttoptr(address, ir.PointerType(number.type)), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


poke: Any = intrinsic(_poke)
"""(address, value): write a number to an address, in the bytes of its type: the result of an operator has eight."""


def size_of(like: Any) -> int:
    """Bytes of a number of that type."""
    raise AssertionError("for kernels only")


@overload(size_of, strict=False)
def _size_of_for(like: Any) -> Callable[..., int]:
    size = like.bitwidth // 8
    return lambda like: size


# ---- operands --------------------------------------------------------------------------------------------------------


@inlined
def operand_row(groups: Any) -> Any:
    """Bytes of a row of an operand's plane."""
    return (groups * GROUP * ITEM + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@inlined
def operand_size(like: Any, rows: Any, groups: Any) -> Any:
    """Bytes of an operand [planes, rows, columns] of values like that one."""
    return (size_of(like) if BYTEWISE else 1) * rows * operand_row(groups)


@inlined
def operand_at(address: Any, like: Any, rows: Any, groups: Any) -> Source:
    """An operand there. What lies beyond its columns makes no difference: their weights are 0."""
    row = operand_row(groups)
    return Source(address, row, rows * row, groups)


# ---- rows of values --------------------------------------------------------------------------------------------------

Move = Callable[[Builder, int, int, Value, Value, Value], None]


def _row(move: Move, sizes: Callable[[int], tuple[int, int]]) -> Any:
    """An intrinsic f(source, like, count, to, plane) on addresses: `count` values, by 16, by 4 and then one by one.

    move: of the builder, like's bytes, the number of lanes, and where these lie, go, and how far a plane is to the
    next. sizes: bytes of a value there and here, of like's.
    """

    def typed(context: Any, source: Any, like: Any, count: Any, to: Any, plane: Any) -> Any:
        size = like.bitwidth // 8
        source_size, to_size = sizes(size)

        def generate(context: Any, builder: Builder, signature: Any, arguments: Any) -> Any:
            source, _, count, to, plane = arguments

            def some(first: Value, number: Value, lanes: int) -> None:
                def body(n: Value, _: list[Value]) -> list[Value]:
                    at = builder.add(first, builder.mul(n, ir.Constant(I64, lanes)))
                    here = builder.add(source, builder.mul(at, ir.Constant(I64, source_size)))
                    there = builder.add(to, builder.mul(at, ir.Constant(I64, to_size)))
                    move(builder, size, lanes, here, there, plane)
                    return []

                repeat(builder, number, [], body)

            before = None
            for lanes in (LANES, 4, 1):
                first = ir.Constant(I64, 0) if before is None else builder.and_(count, ir.Constant(I64, -before))
                rest = builder.sub(count, first)
                some(first, builder.lshr(rest, ir.Constant(I64, lanes.bit_length() - 1)), lanes)
                before = lanes
            return context.get_dummy_value()

        return types.void(source, like, count, to, plane), generate

    return intrinsic(prefer_literal=False)(typed)


def _store_planes(planes: list[Vector], to: Value, plane: Value) -> None:
    for number, values in enumerate(planes):
        builder = values.builder
        store(values, builder.add(to, builder.mul(plane, ir.Constant(I64, number))))


def _copy(builder: Builder, size: int, lanes: int, source: Value, to: Value, plane: Value) -> None:
    store(load(builder, source, ir.IntType(8 * size), lanes), to)


def _write(builder: Builder, size: int, lanes: int, source: Value, to: Value, plane: Value) -> None:
    _store_planes(_FORM.split(load(builder, source, ir.IntType(8 * size), lanes), size), to, plane)


def _write_view(builder: Builder, size: int, lanes: int, source: Value, to: Value, plane: Value) -> None:
    _store_planes(view(_FORM, load(builder, source, I16, lanes), size), to, plane)


def _read(builder: Builder, size: int, lanes: int, source: Value, to: Value, plane: Value) -> None:
    values = load(builder, source, ir.IntType(8 * ITEM), lanes)
    store(_FORM.split(values, 1)[0] if BYTEWISE else values.to(8), to)  # a flip undoes itself


copy_row: Any = _row(_copy, lambda size: (size, size))
write_row: Any = _row(_write, lambda size: (size, ITEM))  # values to an operand's row
write_view: Any = _row(_write_view, lambda size: (2, ITEM))  # int16 h to an operand's row
read_row: Any = _row(_read, lambda size: (ITEM, 1))  # an operand's row of int8 to values
