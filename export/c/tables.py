"""The sigmoid table as the kernels index it: an entry's value in the upper half of a word, its slope in the lower."""

import numpy as np

from ...fixedpoint import SIGMOID_TABLE
from .rows import Array


def tables(kind: str) -> dict[str, Array]:
    """Arrays by their names in C, as the kernels/activation_.. of a layout read them."""
    return {"small": _one_side, "fast": _both_sides, "mve": _apart, "entries": _entries}[kind]()


def _one_side() -> dict[str, Array]:
    """[256], the values less 1/2. From 255 on sigmoid is 32767 / 32768; tanh reads 0 .. 254."""
    value = np.append(SIGMOID_TABLE[:255], [SIGMOID_TABLE[254]]) - 32768
    slope = np.append(np.diff(SIGMOID_TABLE), [0])
    return {"ern_table": _words(2 * value, slope)}


def _both_sides() -> dict[str, Array]:
    """[512] each, of the intervals -256 .. 255, the values less 1/2; an interval's lower end is its value's."""
    above, slope = SIGMOID_TABLE[:255] - 32768, np.diff(SIGMOID_TABLE)
    below = -(SIGMOID_TABLE[255:0:-1] - 32768)
    value = np.concatenate([[-32767], below, above, [32767]])
    slopes = np.concatenate([[0], slope[::-1], slope, [0]])
    ends = value.copy()
    ends[[0, 1, -1]] = -32766, -32766, 32766  # sigmoid stays within 1 / 32768 .. 32767 / 32768
    flat = slopes.copy()
    flat[1] = 0
    return {"ern_sigmoid_table": _words(ends + 1, flat), "ern_tanh_table": _words(value, slopes)}


def _apart() -> dict[str, Array]:
    """[257], values and slopes of one side. From 255 on sigmoid is 32767 / 32768; tanh reads 0 .. 254."""
    values = np.append(SIGMOID_TABLE[:255], [SIGMOID_TABLE[254]] * 2)
    slopes = np.append(np.diff(SIGMOID_TABLE), [0, 0])
    return {"ern_values": values.astype(np.uint16), "ern_slopes": slopes.astype(np.uint16)}


def _entries() -> dict[str, Array]:
    """[257], the values of one side, the last twice."""
    return {"ern_values": np.append(SIGMOID_TABLE, SIGMOID_TABLE[-1:]).astype(np.uint16)}


def _words(value: Array, slope: Array) -> Array:
    return ((value & 0xFFFF) << 16 | slope).astype(np.uint32)
