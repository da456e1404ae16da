"""The memory that a kernel works in: operands as the form's products read them, and states in tiles."""

from typing import Any, Final

import numpy as np

from .._jit import inlined
from ._form import LANES, Form
from ._host import host_form
from ._pack import ALIGNMENT, CONSTANTS, Array
from .tiles import ROWS

_FORM: Final = host_form() or Form()

GROUP: Final = _FORM.group
ITEM: Final = _FORM.item  # bytes of an operand's element in a plane
BYTEWISE: Final = _FORM.bytewise
FLIP_8: Final = _FORM.flips(1)[0]
FLIP_LOW: Final = _FORM.flips(2)[0]
FLIP_HIGH: Final = _FORM.flips(2)[-1]

VECTOR: Final = LANES * GROUP * ITEM  # bytes of 16 rows' weights
GATE_CONSTANTS: Final = CONSTANTS * LANES * 4  # bytes
TILE: Final = ROWS * LANES  # values of a panel's state


@inlined
def zeros(size: Any) -> Array:
    """uint8 zeros from a cache line on."""
    buffer = np.zeros(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data & (ALIGNMENT - 1)
    return buffer[start : start + size]


@inlined
def operand_memory(itemsize: Any, rows: Any, groups: Any) -> Array:
    """Bytes [planes, rows, ..] of zeros of that size as products see them, for `groups` groups of columns."""
    planes = itemsize if BYTEWISE else 1
    columns = (groups * GROUP * ITEM + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    memory = zeros(planes * rows * columns).reshape((planes, rows, columns))
    if BYTEWISE:
        memory[0] = FLIP_8 if itemsize == 1 else FLIP_LOW
        if itemsize == 2:
            memory[1] = FLIP_HIGH
    return memory


def _write_bytes(values: Array, memory: Array, row: Any) -> None:
    if values.itemsize == 1:
        for k in range(np.uint64(values.shape[0])):
            memory[0, row, k] = np.uint8(values[k]) ^ np.uint8(FLIP_8)
    else:
        for k in range(np.uint64(values.shape[0])):
            memory[0, row, k] = np.uint8(values[k] & 255) ^ np.uint8(FLIP_LOW)
            memory[1, row, k] = np.uint8((values[k] >> 8) & 255) ^ np.uint8(FLIP_HIGH)


def _write_words(values: Array, memory: Array, row: Any) -> None:
    words = memory[0, row].view(np.int16)
    for k in range(np.uint64(values.shape[0])):
        words[k] = values[k]


write_row = inlined(_write_bytes if BYTEWISE else _write_words)  # int8 or int16 values [columns] to memory[:, row]


def _read_bytes(memory: Array, row: Any, values: Array) -> None:
    for k in range(np.uint64(values.shape[0])):
        values[k] = np.int8(memory[0, row, k] ^ np.uint8(FLIP_8))


def _read_words(memory: Array, row: Any, values: Array) -> None:
    words = memory[0, row].view(np.int16)
    for k in range(np.uint64(values.shape[0])):
        values[k] = words[k]


read_row = inlined(_read_bytes if BYTEWISE else _read_words)  # int8 values [columns] back from memory[:, row]


@inlined
def state_memory(tiles: Any, panels: Any) -> Array:
    """int16 zeros [tiles, panels, ROWS, 16]."""
    return zeros(tiles * panels * TILE * 2).view(np.int16).reshape((tiles, panels, ROWS, LANES))


@inlined
def write_state(values: Array, memory: Array, row: Any) -> None:
    """int16 values [units] to a row of a state."""
    tile, place = row // np.uint64(ROWS), row % np.uint64(ROWS)
    for u in range(np.uint64(values.shape[0])):
        memory[tile, u // np.uint64(LANES), place, u % np.uint64(LANES)] = values[u]


@inlined
def read_state(memory: Array, row: Any, values: Array) -> None:
    """And back."""
    tile, place = row // np.uint64(ROWS), row % np.uint64(ROWS)
    for u in range(np.uint64(values.shape[0])):
        values[u] = memory[tile, u // np.uint64(LANES), place, u % np.uint64(LANES)]
