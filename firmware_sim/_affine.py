"""What the kernels spend their time in: the integer dot products, requantisation and table look-up.

Weights lie transposed and padded, so that the compiler vectorises over rows: no sum runs across lanes of a register.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from ..fixedpoint import requantize, round_shift, sat8, sigmoid, tanh
from ..qmodel import Affine
from ._jit import inlined

COLUMN_BLOCK: Final = 8  # columns multiplied in one pass over the accumulators
ROW_BLOCK: Final = 32  # rows are padded to a multiple of this, with zero weights
CACHE_LINE: Final = 64  # bytes; vectors that straddle two of them load at half the speed

BIAS, MULTIPLIER, SHIFT = range(3)

Array = npt.NDArray[Any]


class PackedAffine(NamedTuple):
    """An `Affine` as the kernels read it: two arrays of the padded sizes, since every array costs a call 0.1 us."""

    weight: Array  # int16 [columns, rows]; int16 because products of pairs are summed in int16 lanes
    rows: Array  # int32 [3, rows]: BIAS, MULTIPLIER, SHIFT


def pack_affine(affine: Affine, first: int = 0, last: int | None = None) -> PackedAffine:
    """Rows first .. last - 1 of the map (all of them by default), transposed, padded and aligned."""
    part = slice(first, last)
    return pack_rows(affine.weight[part], affine.bias[part], affine.multiplier[part], affine.shift[part])


def pack_rows(weight: Array, *constants: Array) -> PackedAffine:
    """The same of weight [rows, columns]; constants: BIAS, MULTIPLIER and SHIFT [rows]."""
    rows, columns = (_round_up(n, block) for n, block in zip(weight.shape, (ROW_BLOCK, COLUMN_BLOCK), strict=True))
    packed = _padded(np.stack(constants), (3, rows), np.int32)
    packed[SHIFT, len(weight) :] = 15  # any valid one
    return PackedAffine(_padded(weight.T, (columns, rows), np.int16), packed)


def padded_columns(columns: int) -> int:
    """The length of an operand's rows in memory: the columns that `pack_affine` makes of them."""
    return _round_up(columns, COLUMN_BLOCK)


def _round_up(n: int, block: int) -> int:
    return -(-n // block) * block


def _padded(values: Array, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.zeros(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    array: Array = buffer[start : start + size].view(dtype).reshape(shape)
    array[tuple(slice(n) for n in values.shape)] = values
    return array


# ---- dot products ----------------------------------------------------------------------------------------------------


def _pair_sum(a: Any, x: Any, b: Any, y: Any) -> Any:
    """a * x + b * y, of two weights and two operands, in the narrowest type that holds it."""
    raise AssertionError("for kernels only")


@overload(_pair_sum, strict=False)
def _pair_sum_for(a: types.Type, x: types.Type, b: types.Type, y: types.Type) -> Callable[..., Any]:
    if x == types.int8:  # 2 * 127 * 128 < 2^15
        return lambda a, x, b, y: np.int16(a * x + b * y)
    return lambda a, x, b, y: np.int32(a * x + b * y)


@inlined
def accumulate(affine: PackedAffine, x: Array, acc: Array) -> None:
    """acc[row] = bias[row] + sum of weight[column, row] * x[column]; x is int8 or int16 [padded columns]."""
    weight = affine.weight
    rows = np.uint64(weight.shape[1])
    for n in range(rows):
        acc[n] = affine.rows[BIAS, n]
    for k in range(np.uint64(0), np.uint64(weight.shape[0]), np.uint64(COLUMN_BLOCK)):
        k1, k2, k3 = k + np.uint64(1), k + np.uint64(2), k + np.uint64(3)
        k4, k5, k6, k7 = k + np.uint64(4), k + np.uint64(5), k + np.uint64(6), k + np.uint64(7)
        w0, w1, w2, w3 = weight[k], weight[k1], weight[k2], weight[k3]
        w4, w5, w6, w7 = weight[k4], weight[k5], weight[k6], weight[k7]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[k], x[k1], x[k2], x[k3], x[k4], x[k5], x[k6], x[k7]
        for n in range(rows):
            acc[n] += (
                np.int32(_pair_sum(w0[n], x0, w1[n], x1))
                + np.int32(_pair_sum(w2[n], x2, w3[n], x3))
                + np.int32(_pair_sum(w4[n], x4, w5[n], x5))
                + np.int32(_pair_sum(w6[n], x6, w7[n], x7))
            )


@inlined
def apply_affine(affine: PackedAffine, x: Array, acc: Array, out: Array) -> None:
    """out[row] = requantize(bias + weight @ x), int16, for every (padded) row; acc is int32 scratch."""
    accumulate(affine, x, acc)
    for n in range(np.uint64(affine.rows.shape[1])):
        out[n] = requantize(acc[n], affine.rows[MULTIPLIER, n], affine.rows[SHIFT, n])


# ---- tables ----------------------------------------------------------------------------------------------------------


SIGMOID, TANH = range(2)


@cache
def tables() -> Array:
    """int16 [2, 65536]: SIGMOID and TANH of every pre-activation, indexed by its bits as uint16."""
    p = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int64)
    return np.stack([sigmoid(p), tanh(p)]).astype(np.int16)


@inlined
def look_up(tables: Array, function: int, p: Array, first: Any, count: Any) -> None:
    """p = SIGMOID or TANH of p, for p[first : first + count]."""
    for n in range(first, first + count):
        p[n] = tables[function, np.uint16(p[n])]


# ---- views of the hidden state ---------------------------------------------------------------------------------------


@inlined
def write_view(h: Array, view: Array) -> None:
    """view = h as matrix products read it: rounded to int8 (w8a8) or as it is (w8a16), by the type of `view`."""
    for u in range(np.uint64(h.shape[0])):
        view[u] = sat8(round_shift(h[u], 8)) if view.itemsize == 1 else h[u]
