"""An affine map's integers as the forms read them."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ._form import LANES, Form

Array = npt.NDArray[Any]

BIAS, MULTIPLIER, LEFT, RIGHT = range(4)  # of every row, int32
CONSTANTS: Final = 4
ALIGNMENT: Final = 64  # bytes: vectors that straddle cache lines load at half the speed


class PackedMap(NamedTuple):
    """The rows of all gates of 16 units make up a panel; units and columns are padded with zeros."""

    weights: Array  # int8 or int16 [panels, groups of columns, gates, 16, group]
    constants: Array  # int32 [panels, gates, CONSTANTS, 16]


def pack_map(
    form: Form, itemsize: int, gates: int, weight: Array, bias: Array, multiplier: Array, shift: Array
) -> PackedMap:
    """weight [gates * units, columns], values of int8; bias, multiplier and shift [gates * units] as in `requantize`.

    The numbers may be floats that hold integers; itemsize: bytes of an operand's element. Raises OverflowError for rows
    whose sums are too large for the form's requantisation, which the readable kernels can do.
    """
    units, columns = weight.shape[0] // gates, weight.shape[1]
    panels, groups = -(-units // LANES), -(-columns // form.group)
    weights = aligned((panels, groups, gates, LANES, form.group), np.int8 if form.bytewise else np.int16)
    matrix = weights.transpose(2, 0, 3, 1, 4)  # [gates, panels, 16, groups, group]
    if (panels * LANES, groups * form.group) == (units, columns):
        matrix[...] = weight.reshape(matrix.shape)
    else:
        padded = np.zeros((gates, panels * LANES, groups * form.group), weights.dtype)
        padded[:, :units, :columns] = weight.reshape(gates, units, columns)
        matrix[...] = padded.reshape(matrix.shape)
    left = np.maximum(17 - shift, 0)
    largest = np.abs(bias) + np.abs(weight).sum(axis=1, dtype=np.int64) * (128 if itemsize == 1 else 32768)
    if (largest * 2.0**left >= 2.0**31).any():
        raise OverflowError("sums beyond what can be shifted within int32")
    offset = bias - form.excess(itemsize) * weight.sum(axis=1, dtype=np.int64)
    constants = aligned((panels, gates, CONSTANTS, LANES), np.int32)
    rows = np.zeros((CONSTANTS, gates, panels * LANES), np.int64)
    rows[RIGHT] = 1  # any valid one
    rows[:, :, :units] = np.stack([offset, multiplier, left, shift + left - 16]).reshape(CONSTANTS, gates, units)
    constants[...] = rows.reshape(CONSTANTS, gates, panels, LANES).transpose(
        2, 1, 0, 3
    )  # the bias may wrap: sums do too
    return PackedMap(weights, constants)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.zeros(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    array: Array = buffer[start : start + size].view(dtype).reshape(shape)
    return array
