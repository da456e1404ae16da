"""Backpropagation through a direction of a layer: blocks of eight sequences, each from its last step to its first."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from ...firmware_sim._jit import inlined, kernel
from ...firmware_sim.simd._form import LANES, Form
from ...firmware_sim.simd._host import host_form
from ...firmware_sim.simd._memory import zeros
from ...firmware_sim.simd._pack import Array
from ...firmware_sim.simd.rows import time_of
from ...firmware_sim.simd.tiles import ROWS as TILE_ROWS
from ._floats import FLOAT, ROWS, add_outer_products, ask_for, copy_row, ring_times_weights
from ._gradients import VECTOR, Gru, GruResetBefore, Lstm, Place, Rnn, reset_back, step_back

Cell = Lstm | Gru | GruResetBefore | Rnn

TILES: Final = ROWS // TILE_ROWS
HEIGHT, WIDTH = (host_form() or Form()).float_tile
RING: Final = 131072  # bytes of a ring at most, so that both stay in the second cache
SLOTS: Final = 16  # and slots at most
AHEAD: Final = 8  # steps before its turn an input is asked for


class Matrices(NamedTuple):
    """The transposed factors of the two products, and their gradients.

    recurrent and input, float32, are what `pack_factors` makes. d_recurrent [gates * units, units] and d_input
    [columns, gates * units] are added to, and so are the sums d_bias_x and d_bias_h [gates, units] of the two shares.
    Units are padded to a multiple of 16, and columns to one of 4.
    """

    recurrent: Array
    input: Array
    d_recurrent: Array
    d_input: Array
    d_bias_x: Array
    d_bias_h: Array


class _Block(NamedTuple):
    """Memory of a block of sequences."""

    dp_x: Array  # gradients of pre-activations, float32 [slots * ROWS, units of all gates]
    ring: Array  # and of their recurrent shares [units of all gates / 8, slots, ROWS, 8], in the order of the products
    x: Array  # operands of the slots, float32 [slots * ROWS, columns]
    views: Array
    reset_views: Array
    dview: Array  # gradients of states, float32 [ROWS, units]
    dh: Array
    dc: Array
    dx: Array  # float32 [ROWS, columns]
    alive: Array  # uint16 [ROWS]
    outputs: Array  # int64 [ROWS]: addresses
    nothing: Array  # float32 [units]: zeros
    first: Array  # uint8 [TILES, panels, bytes]: records with the initial state


@inlined
def _floats(rows: Any, columns: Any) -> Array:
    return zeros(rows * columns * FLOAT).view(np.float32).reshape((rows, columns))


@inlined
def _block(matrices: Matrices, panels: Any, record: Any) -> _Block:
    units, columns = matrices.d_recurrent.shape
    inputs = (matrices.d_input.shape[0] + LANES - 1) // LANES * LANES
    slots = max(1, min(SLOTS, RING // (units * ROWS * FLOAT)))
    return _Block(
        _floats(slots * ROWS, units + LANES),  # rows a power of two apart would share few lines of the cache
        _floats(units * slots, ROWS).reshape((units // 8, slots, ROWS, 8)),
        _floats(slots * ROWS, inputs),
        _floats(slots * ROWS, columns),
        _floats(slots * ROWS, columns),
        _floats(ROWS, columns),
        _floats(ROWS, columns),
        _floats(ROWS, columns),
        _floats(ROWS, inputs),
        np.zeros(ROWS // 4, np.int64).view(np.uint16),
        np.zeros(ROWS, np.int64),
        _floats(1, columns)[0],
        zeros(TILES * panels * record).reshape((TILES, panels, record)),
    )


# ---- products --------------------------------------------------------------------------------------------------------


def _multiply(left: Any, row: Any, block: Any, count: Any, weights: Array, to: Array) -> None:
    """to [ROWS, columns] = left x weights [8 * count, columns]; left: the address of rows of `count` blocks."""
    vectors = to.shape[1] // LANES
    for first in range(0, ROWS, HEIGHT):
        start, v = left + first * row, 0
        while v < vectors:
            panel = weights.ctypes.data + v * count * 8 * VECTOR
            at, width = to.ctypes.data + first * to.strides[0] + v * VECTOR, min(WIDTH, vectors - v)
            if width == 1:
                ring_times_weights(HEIGHT, 1, start, row, block, count, panel, at, to.strides[0])
            elif width == 2:
                ring_times_weights(HEIGHT, 2, start, row, block, count, panel, at, to.strides[0])
            else:
                ring_times_weights(HEIGHT, WIDTH, start, row, block, count, panel, at, to.strides[0])
            v += width


multiply: Final = register_jitable(_multiply)


def _add_outer(left: Any, left_step: Any, rows: Any, right: Any, right_step: Any, count: Any, to: Array) -> None:
    """to[:rows] += left, transposed, x right; both the addresses of `count` rows. rows: 4 or 8."""
    v, vectors = 0, to.shape[1] // LANES
    while v < vectors:
        width, start, at = min(WIDTH, vectors - v), right + v * VECTOR, to.ctypes.data + v * VECTOR
        if rows == HEIGHT:
            if width == 1:
                add_outer_products(HEIGHT, 1, left, left_step, start, right_step, count, at, to.strides[0])
            elif width == 2:
                add_outer_products(HEIGHT, 2, left, left_step, start, right_step, count, at, to.strides[0])
            else:
                add_outer_products(HEIGHT, WIDTH, left, left_step, start, right_step, count, at, to.strides[0])
        else:
            for row in range(0, rows, 4):
                place, factor = at + row * to.strides[0], left + row * FLOAT
                if width == 1:
                    add_outer_products(4, 1, factor, left_step, start, right_step, count, place, to.strides[0])
                elif width == 2:
                    add_outer_products(4, 2, factor, left_step, start, right_step, count, place, to.strides[0])
                else:
                    add_outer_products(4, WIDTH, factor, left_step, start, right_step, count, place, to.strides[0])
        v += width


add_outer: Final = register_jitable(_add_outer)


@inlined
def _add_recurrent_rows(ring: Array, slots: Any, first: Any, last: Any, views: Array, to: Array) -> None:
    """to[8 * first : 8 * last] += those blocks of the filled slots, transposed, x the slots' views."""
    for block in range(first, last):
        left = ring.ctypes.data + block * ring.strides[0]
        add_outer(left, 8 * FLOAT, 8, views.ctypes.data, views.strides[0], slots * ROWS, to[8 * block : 8 * block + 8])


@inlined
def _add_input(block: _Block, slots: Any, to: Array) -> None:
    """to [columns, units of all gates] += the filled slots' inputs, transposed, x their gradients."""
    for column in range(0, to.shape[0], 8):
        rows = min(8, to.shape[0] - column)
        left, right = block.x.ctypes.data + column * FLOAT, block.dp_x.ctypes.data
        part = to[column : column + rows]
        add_outer(left, block.x.strides[0], rows, right, block.dp_x.strides[0], slots * ROWS, part)


# ---- a step ----------------------------------------------------------------------------------------------------------


@inlined
def _place(
    cell: Any,
    saved: Array,
    matrices: Matrices,
    block: _Block,
    tile: Any,
    first: Any,
    number: Any,
    slot: Any,
    panel: Any,
) -> Place:
    record = saved.ctypes.data + (((first + tile) * saved.shape[1] + number) * saved.shape[2] + panel) * saved.shape[3]
    previous = record - saved.shape[2] * saved.shape[3]
    if number == 0:
        previous = block.first.ctypes.data + (tile * saved.shape[2] + panel) * saved.shape[3]
    row, distance = tile * TILE_ROWS, panel * VECTOR
    state = row * block.dh.strides[0] + distance
    ring = panel * 2 * block.ring.strides[0] + (slot * ROWS + row) * 8 * FLOAT
    view = (slot * ROWS + row) * block.views.strides[0] + distance
    units = block.views.shape[1]
    return Place(
        cell.numbers.ctypes.data,
        record,
        previous,
        record - 2 * saved.shape[2] * saved.shape[3],
        block.alive.ctypes.data + row * 2,
        block.outputs.ctypes.data + row * 8,
        distance,
        block.dview.ctypes.data + state,
        block.dh.ctypes.data + state,
        block.dc.ctypes.data + state,
        block.dh.strides[0],
        block.dp_x.ctypes.data + (slot * ROWS + row) * block.dp_x.strides[0] + distance,
        block.dp_x.strides[0],
        units * FLOAT,
        block.ring.ctypes.data + ring,
        block.ring.strides[0],
        units // 8 * block.ring.strides[0],
        block.views.ctypes.data + view,
        block.reset_views.ctypes.data + view,
        block.views.strides[0],
        matrices.d_bias_x.ctypes.data + distance,
        matrices.d_bias_h.ctypes.data + distance,
        units * FLOAT,
    )


@inlined
def _enter(block: _Block, x: Array, outputs: Array, lengths: Array, number: Any, slot: Any, backward: bool) -> None:
    """Which rows have this step, their inputs, and where the gradients of their outputs are."""
    for row in range(lengths.shape[0]):
        block.outputs[row] = block.nothing.ctypes.data
        if number < lengths[row]:
            block.alive[row] = 0xFFFF
            time = time_of(number, lengths[row], backward)
            way = x.strides[1] * (AHEAD if backward else -AHEAD)
            copy_row(x[row, time].ctypes.data, x.shape[2], block.x[slot * ROWS + row].ctypes.data, way)
            if outputs.shape[1] > 0:
                block.outputs[row] = outputs[row, time].ctypes.data
                way = outputs.strides[1] * (AHEAD if backward else -AHEAD)
                ask_for(block.outputs[row] + way, outputs.strides[1], False)


@inlined
def _multiply_ring(block: _Block, slot: Any, first: Any, count: Any, weights: Array) -> None:
    """The gradient of views: `count` blocks of the slot, from `first` on, x weights, whose row 0 is theirs."""
    left = block.ring.ctypes.data + first * block.ring.strides[0] + slot * ROWS * 8 * FLOAT
    multiply(left, 8 * FLOAT, block.ring.strides[0], count, weights, block.dview)


def _recurrent(
    cell: Cell, saved: Array, matrices: Matrices, block: _Block, tiles: Any, first: Any, n: Any, s: Any
) -> None:
    """From the gradient of the step's views to that of the views before it."""
    raise AssertionError("for kernels only")


@overload(_recurrent, strict=False, jit_options={"forceinline": True})
def _recurrent_for(cell: Any, *_: Any) -> Callable[..., None]:
    def plain(cell: Any, saved: Any, matrices: Any, block: Any, tiles: Any, first: Any, n: Any, s: Any) -> None:
        for panel in range(saved.shape[2]):
            for tile in range(tiles):
                step_back(cell, _place(cell, saved, matrices, block, tile, first, n, s, panel))
        _multiply_ring(block, s, 0, block.ring.shape[0], matrices.recurrent)

    def reset_before(cell: Any, saved: Any, matrices: Any, block: Any, tiles: Any, first: Any, n: Any, s: Any) -> None:
        for panel in range(saved.shape[2]):
            for tile in range(tiles):
                step_back(cell, _place(cell, saved, matrices, block, tile, first, n, s, panel))
        blocks, units = block.ring.shape[0], block.views.shape[1]
        split, middle = 2 * blocks // 3, 2 * units * units
        _multiply_ring(block, s, split, blocks - split, matrices.recurrent[middle:])
        for panel in range(saved.shape[2]):
            for tile in range(tiles):
                reset_back(cell, _place(cell, saved, matrices, block, tile, first, n, s, panel))
        _multiply_ring(block, s, 0, split, matrices.recurrent[:middle])

    return reset_before if cell.instance_class is GruResetBefore else plain


def _add_recurrent(cell: Cell, matrices: Matrices, block: _Block, slots: Any) -> None:
    """The recurrent matrix's gradient of the filled slots."""
    raise AssertionError("for kernels only")


@overload(_add_recurrent, strict=False, jit_options={"forceinline": True})
def _add_recurrent_for(cell: Any, *_: Any) -> Callable[..., None]:
    def plain(cell: Any, matrices: Any, block: Any, slots: Any) -> None:
        _add_recurrent_rows(block.ring, slots, 0, block.ring.shape[0], block.views, matrices.d_recurrent)

    def reset_before(cell: Any, matrices: Any, block: Any, slots: Any) -> None:
        blocks = block.ring.shape[0]
        split = 2 * blocks // 3
        _add_recurrent_rows(block.ring, slots, 0, split, block.views, matrices.d_recurrent)
        _add_recurrent_rows(block.ring, slots, split, blocks, block.reset_views, matrices.d_recurrent)

    return reset_before if cell.instance_class is GruResetBefore else plain


@inlined
def _leave(block: _Block, dx: Array, lengths: Array, number: Any, backward: bool) -> None:
    """The gradients of the step's inputs."""
    for row in range(lengths.shape[0]):
        if number < lengths[row]:
            to, values = dx[row, time_of(number, lengths[row], backward)], block.dx[row]
            way = dx.strides[1] * (AHEAD if backward else -AHEAD)
            ask_for(to.ctypes.data + way, dx.strides[1], True)
            for k in range(np.uint64(to.shape[0])):
                to[k] = values[k]


# ---- all of them -----------------------------------------------------------------------------------------------------


@inlined
def _start(block: _Block, h: Array, c: Array, dh: Array, dc: Array, slot_h: Any, slot_c: Any) -> None:
    """The initial state, and the gradients of the final one, of the block's sequences."""
    block.dp_x[:] = 0
    block.ring[:] = 0
    block.dview[:] = 0
    block.dh[:] = 0
    block.dc[:] = 0
    block.alive[:] = 0
    block.outputs[:] = block.nothing.ctypes.data
    states = block.first.view(np.int16)  # [TILES, panels, ..]
    for row in range(h.shape[0]):
        tile, place = row // TILE_ROWS, row % TILE_ROWS
        for u in range(h.shape[1]):
            at = place * LANES + u % LANES
            states[tile, u // LANES, slot_h * TILE_ROWS * LANES + at] = h[row, u]
            block.dh[row, u] = dh[row, u]
        for u in range(c.shape[1]):
            at = place * LANES + u % LANES
            states[tile, u // LANES, slot_c * TILE_ROWS * LANES + at] = c[row, u]
            block.dc[row, u] = dc[row, u]


@inlined
def _end(cell: Cell, block: _Block, h: Array, dh: Array, dc: Array) -> None:
    """The gradients of the initial state."""
    share, limit = cell.numbers[0], cell.numbers[1]
    for row in range(h.shape[0]):
        for u in range(h.shape[1]):
            through_view = block.dview[row, u] * share if h[row, u] <= limit else np.float32(0)
            dh[row, u] = block.dh[row, u] + through_view
        for u in range(dc.shape[1]):
            dc[row, u] = block.dc[row, u]


@kernel
def run_backward(
    cell: Cell,
    slots: tuple[int, int],
    saved: Array,
    lengths: Array,
    backward: bool,
    x: Array,
    h: Array,
    c: Array,
    outputs: Array,
    dh: Array,
    dc: Array,
    dx: Array,
    matrices: Matrices,
) -> None:
    """The gradients of what `run_rows` computed and saved, all in integers.

    slots: where h and c lie in records. x float32 [batch, time, columns]; h int16 [batch, units] and c [batch, units or
    0] the initial state. outputs float32 [batch, time, units], a multiple of 16 of them, are the gradients of the
    views, [batch, 0, ..] if there are none. dh and dc, of the sizes of h and c, are gradients of the final state and
    become those of the initial one. dx [batch, time, columns] is written at valid steps; it may be empty: [.., .., 0].
    """
    block = _block(matrices, saved.shape[2], saved.shape[3])
    capacity, units = block.ring.shape[1], matrices.d_recurrent.shape[0]
    for start in range(0, h.shape[0], ROWS):
        part = slice(start, min(start + ROWS, h.shape[0]))
        tiles, first, valid_steps = (part.stop - start + TILE_ROWS - 1) // TILE_ROWS, start // TILE_ROWS, lengths[part]
        _start(block, h[part], c[part], dh[part], dc[part], slots[0], slots[1])
        slot = 0
        for number in range(valid_steps.max() - 1, -1, -1):
            _enter(block, x[part], outputs[part], valid_steps, number, slot, backward)
            _recurrent(cell, saved, matrices, block, tiles, first, number, slot)
            if dx.shape[2] > 0:
                left = block.dp_x.ctypes.data + slot * ROWS * block.dp_x.strides[0]
                multiply(left, block.dp_x.strides[0], 8 * FLOAT, units // 8, matrices.input, block.dx)
                _leave(block, dx[part], valid_steps, number, backward)
            slot += 1
            if slot == capacity or number == 0:
                _add_recurrent(cell, matrices, block, slot)
                _add_input(block, slot, matrices.d_input)
                slot = 0
        _end(cell, block, h[part], dh[part], dc[part])
