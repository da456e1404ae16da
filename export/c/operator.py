"""The profile tflite-lstm in C: what kernels/operator.h reads beside the stream of weights, and is called with."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from .layouts import GENERAL, Layout
from .rows import Array, Rows

CELL: Final = "operator"  # of ern_operator_step

_WORD: Final = 32


def factors(layout: Layout, maps: Sequence[Rows], lefts: Sequence[int], hidden_size: int) -> Array:
    """int64 [gates * maps, 4]: multiplier, half, right and sign of every gate's maps, as an ern_factor has them."""
    gates = range(0, len(maps[0].multiplier), hidden_size)
    rows = [_factor(layout, one, left, gate) for gate in gates for one, left in zip(maps, lefts, strict=True)]
    return np.array(rows, np.int64)


def _factor(layout: Layout, rows: Rows, left: int, row: int) -> list[int]:
    assert rows.right is not None
    multiplier, shift, right = (int(values[row]) for values in (rows.multiplier, rows.shift, rows.right))
    if left == GENERAL or layout.small_products:
        multiplier = multiplier << 8 | (rows.bits - shift)
    else:
        multiplier <<= _WORD - left - shift
    return [multiplier, 1 << right >> 1, right, int(right > 0)]
