"""The profile tflite-lstm in C: what kernels/operator.h reads beside the stream of weights, and how it is called."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from .layouts import GENERAL, PACKED, Layout
from .rows import Array, Rows

CELL: Final = "operator"  # of ern_operator_step

_PLAIN: Final = 0  # sums as they are, in place of a left shift: every gate has its own


def left(layout: Layout, rows: Rows, limit: int) -> int:
    """PACKED where two rows' sums can share a word, GENERAL where a shifted sum would leave 32 bits."""
    bound, up = rows.accumulator_bound(limit), _up(rows)
    if layout.packs and bound.max() < 2**23:
        return PACKED
    return _PLAIN if (bound << up).max() < 2**31 else GENERAL


def factors(maps: Sequence[Rows], hidden_size: int) -> Array:
    """int64 [gates * maps, 6]: of every gate the fields of an ern_factor for the input and for the hidden state."""
    return np.array([_factor(one, row) for row in range(0, len(maps[0].bias), hidden_size) for one in maps], np.int64)


def _factor(rows: Rows, row: int) -> list[int]:
    assert rows.exponent is not None
    up, right = int(_up(rows)[row]), max(-int(rows.exponent[row]), 0)
    return [up, int(rows.multiplier[row]), 1 << right >> 1, right, int(right > 0), PACKED - up]


def _up(rows: Rows) -> Array:
    """By how much sums are shifted left, so that the high word of the product is what `rescale` rounds first."""
    assert rows.exponent is not None
    up: Array = np.maximum(rows.exponent, 0) + 1
    return up
