"""The memory that a kernel works in, by address: arrays in its loops would cost the counting of references."""

from collections.abc import Callable
from typing import Any, Final

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from .._jit import inlined
from ._form import LANES, Form
from ._host import host_form
from ._pack import ALIGNMENT, CONSTANTS, Array
from ._vector import Builder
from .tiles import Source

_FORM: Final = host_form() or Form()

GROUP: Final = _FORM.group
ITEM: Final = _FORM.item  # bytes of an operand's element in a plane
BYTEWISE: Final = _FORM.bytewise
FLIP_8: Final = _FORM.flips(1)[0]
FLIP_LOW: Final = _FORM.flips(2)[0]
FLIP_HIGH: Final = _FORM.flips(2)[-1]

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


@inlined
def copy_row(source: Any, to: Any, count: Any) -> None:
    """Copy int16 [count]."""
    for n in range(count):
        poke(to + 2 * n, peek(source + 2 * n, np.int16(0)))


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
    """An operand of zeros there, as products see them."""
    row = operand_row(groups)
    size = rows * row
    if BYTEWISE:
        for n in range(size):
            poke(address + n, np.uint8(FLIP_8 if size_of(like) == 1 else FLIP_LOW))
        if size_of(like) == 2:
            for n in range(size):
                poke(address + size + n, np.uint8(FLIP_HIGH))
    return Source(address, row, size, groups)


def _write_bytes(values: Any, like: Any, count: Any, operand: Source, row: Any) -> None:
    to = operand.address + row * operand.row
    if size_of(like) == 1:
        for k in range(count):
            poke(to + k, np.uint8(peek(values + k, np.uint8(0)) ^ FLIP_8))
    else:
        for k in range(count):
            value = peek(values + 2 * k, np.uint16(0))
            poke(to + k, np.uint8(value ^ FLIP_LOW))
            poke(to + operand.plane + k, np.uint8((value >> 8) ^ FLIP_HIGH))


def _write_words(values: Any, like: Any, count: Any, operand: Source, row: Any) -> None:
    to = operand.address + row * operand.row
    for k in range(count):
        poke(to + 2 * k, np.int16(peek(values + size_of(like) * k, like)))


write_row = inlined(_write_bytes if BYTEWISE else _write_words)
"""Values like that one [count], by address, to a row of an operand."""


def _read_bytes(operand: Source, row: Any, count: Any, to: Any) -> None:
    source = operand.address + row * operand.row
    for k in range(count):
        poke(to + k, np.uint8(peek(source + k, np.uint8(0)) ^ FLIP_8))


def _read_words(operand: Source, row: Any, count: Any, to: Any) -> None:
    source = operand.address + row * operand.row
    for k in range(count):
        poke(to + k, np.int8(peek(source + 2 * k, np.int16(0))))


read_row = inlined(_read_bytes if BYTEWISE else _read_words)
"""A row of an operand of int8 [count] to an address."""
