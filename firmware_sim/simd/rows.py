"""A direction of a layer over many sequences: blocks of eight, each of which runs all its steps before the next one.

State and operands of a block stay in the cache, and blocks do not depend on each other.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from .._affine import write_view
from .._jit import inlined, kernel
from ._form import LANES
from ._memory import (
    GATE_CONSTANTS,
    ITEM,
    TILE,
    VECTOR,
    operand_memory,
    read_row,
    read_state,
    state_memory,
    write_row,
    write_state,
    zeros,
)
from ._pack import Array
from .cells import GruResetBeforeCell, LstmCell, PackedCell
from .tiles import ROWS, Place, Projection, Source, project, reset, step

BLOCK: Final = 8
TILES: Final = BLOCK // ROWS


class _Block(NamedTuple):
    """Memory of a block of sequences."""

    tables: int  # their address
    x: Array  # operands: the step's input,
    old_view: Array  # h,
    new_view: Array
    reset_view: Array  # and r * h
    px: Array  # int16 [TILES, panels, gates, ROWS, 16]
    h: Array  # states
    c: Array
    update: Array
    valid: Array  # int16 [BLOCK, 16]: -1 in rows that have this step, else 0


@inlined
def _block(cell: PackedCell, tables: Array, itemsize: Any) -> _Block:
    panels, gates = cell.input.weights.shape[0], cell.input.weights.shape[2]
    groups = cell.recurrent.weights.shape[1]
    return _Block(
        tables.ctypes.data,
        operand_memory(itemsize, BLOCK, cell.input.weights.shape[1]),
        operand_memory(itemsize, BLOCK, groups),
        operand_memory(itemsize, BLOCK, groups),
        operand_memory(itemsize, BLOCK, groups),
        zeros(TILES * panels * gates * TILE * 2).view(np.int16).reshape((TILES, panels, gates, TILE)),
        state_memory(TILES, panels),
        state_memory(TILES, panels),
        state_memory(TILES, panels),
        np.zeros((BLOCK, LANES), np.int16),
    )


@inlined
def _source(operand: Array, tile: Any, groups: Any) -> Source:
    row = operand.shape[2]
    return Source(operand.ctypes.data + tile * ROWS * row, row, operand.shape[1] * row, groups)


@inlined
def _place(cell: Any, a_map: Any, block: _Block, view: Array, tile: Any, panel: Any, record: Any) -> Place:
    """Where tile and panel have what a step with this map needs; record: the address of what it keeps."""
    groups, gates = a_map.weights.shape[1], a_map.weights.shape[2]
    at = (tile * block.h.shape[1] + panel) * TILE * 2
    return Place(
        block.tables,
        block.px.ctypes.data + (tile * block.px.shape[1] + panel) * block.px.shape[2] * TILE * 2,
        a_map.weights.ctypes.data + panel * groups * gates * VECTOR,
        a_map.constants.ctypes.data + panel * gates * GATE_CONSTANTS,
        block.h.ctypes.data + at,
        block.c.ctypes.data + at,
        view.ctypes.data + tile * ROWS * view.shape[2] + panel * LANES * ITEM,
        block.valid.ctypes.data + tile * TILE * 2,
        scale_address(cell),
        block.update.ctypes.data + at,
        record,
    )


def scale_address(cell: PackedCell) -> int:
    """The address of an LSTM's scale; 0 of other cells."""
    raise AssertionError("for kernels only")


@overload(scale_address, strict=False)
def _scale_address_for(cell: Any) -> Callable[..., Any]:
    if cell.instance_class is LstmCell:
        return lambda cell: cell.scale.ctypes.data
    return lambda cell: 0


@inlined
def _record(saved: Any, tile: Any, number: Any, panel: Any) -> Any:
    """The address of the record of a tile's step and panel; saved: uint8 [tiles, steps, panels, bytes], or None."""
    if saved is None:
        return 0
    return saved.ctypes.data + ((tile * saved.shape[1] + number) * saved.shape[2] + panel) * saved.shape[3]


@inlined
def _project(cell: Any, block: _Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """px of the step."""
    panels, groups, gates = cell.input.weights.shape[0], cell.input.weights.shape[1], cell.input.weights.shape[2]
    for panel in range(panels):
        weights = cell.input.weights.ctypes.data + panel * groups * gates * VECTOR
        constants = cell.input.constants.ctypes.data + panel * gates * GATE_CONSTANTS
        for tile in range(tiles):
            source = _source(block.x, tile, groups)
            at = block.px.ctypes.data + (tile * panels + panel) * gates * TILE * 2
            to = Projection(at, LANES * 2, TILE * 2, _record(saved, first + tile, number, panel))
            if saved is None:
                project(cell, source, weights, constants, to, False)
            else:
                project(cell, source, weights, constants, to, True)


def _before(cell: Any, block: _Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """The first half of a step that has two."""
    raise AssertionError("for kernels only")


@overload(_before, strict=False, jit_options={"forceinline": True})
def _before_for(cell: Any, *_: types.Type) -> Callable[..., None]:
    if cell.instance_class is not GruResetBeforeCell:
        return lambda cell, block, tiles, first, number, saved: None

    def run(cell: Any, block: _Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
        for panel in range(block.h.shape[1]):
            for tile in range(tiles):
                record = _record(saved, first + tile, number, panel)
                source = _source(block.old_view, tile, cell.recurrent.weights.shape[1])
                place = _place(cell, cell.recurrent, block, block.reset_view, tile, panel, record)
                if saved is None:
                    reset(cell, ROWS, 1, source, place, False)
                else:
                    reset(cell, ROWS, 1, source, place, True)

    return run


def _last_map(cell: Any, block: _Block) -> Any:
    """The map of the step's last product, and its operand."""
    raise AssertionError("for kernels only")


@overload(_last_map, strict=False)
def _last_map_for(cell: Any, block: Any) -> Callable[..., Any]:
    if cell.instance_class is GruResetBeforeCell:
        return lambda cell, block: (cell.candidate, block.reset_view)
    return lambda cell, block: (cell.recurrent, block.old_view)


@inlined
def _step(cell: Any, block: _Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """h, c and new_view of the step."""
    a_map, operand = _last_map(cell, block)
    for panel in range(block.h.shape[1]):
        for tile in range(tiles):
            source = _source(operand, tile, a_map.weights.shape[1])
            record = _record(saved, first + tile, number, panel)
            place = _place(cell, a_map, block, block.new_view, tile, panel, record)
            if saved is None:
                step(cell, ROWS, 1, source, place, False)
            else:
                step(cell, ROWS, 1, source, place, True)


@inlined
def time_of(number: Any, length: Any, backward: bool) -> Any:
    """The place in the sequence of the step that a direction computes after `number` others."""
    return length - 1 - number if backward else number


@inlined
def _enter(block: _Block, x: Array, lengths: Array, number: Any, backward: bool) -> None:
    """The inputs of step `number`, of the rows that have one."""
    for row in range(x.shape[0]):
        if number < lengths[row]:
            write_row(x[row, time_of(number, lengths[row], backward)], block.x, row)
        elif number == lengths[row]:
            block.valid[row] = 0


@inlined
def _leave(block: _Block, lengths: Array, number: Any, backward: bool, hidden: Array, views: Array) -> None:
    """Write the step's h and its view to the output of the rows that have one."""
    for row in range(lengths.shape[0]):
        if number < lengths[row]:
            time = time_of(number, lengths[row], backward)
            if hidden.shape[2] > 0:
                read_state(block.h, np.uint64(row), hidden[row, time])
            if views.itemsize == 1:
                read_row(block.new_view, row, views[row, time])
            else:
                read_state(block.h, np.uint64(row), views[row, time])


@kernel
def run_rows(
    cell: PackedCell,
    tables: Array,
    x: Array,
    lengths: Array,
    h: Array,
    c: Array,
    hidden: Array,
    views: Array,
    backward: bool,
    saved: Array | None,
) -> None:
    """Run every sequence from the state h, c [batch, hidden_size] int16, which becomes the state after its last step.

    x [batch, time, inputs] int8 or int16; lengths int64 [batch]: how many steps are valid. hidden int16 and views, of
    x's type, [batch, time, hidden_size] are written for valid steps; hidden may be empty: [.., .., 0]. The backward
    direction computes the last valid step first. c is [batch, 0] but for LSTMs. saved: uint8 [tiles of ROWS sequences,
    steps, panels, record_size(cell)] for a training step, with records in the order of computation.
    """
    block = _block(cell, tables, views.itemsize)
    for start in range(0, x.shape[0], BLOCK):
        count = min(BLOCK, x.shape[0] - start)
        tiles, first = (count + ROWS - 1) // ROWS, start // ROWS
        valid_steps = lengths[start : start + count]
        block.valid[:] = 0
        for row in range(count):
            block.valid[row] = -1
            write_state(h[start + row], block.h, np.uint64(row))
            write_state(c[start + row], block.c, np.uint64(row))
            view = np.empty(h.shape[1], views.dtype)
            write_view(h[start + row], view)
            write_row(view, block.old_view, row)
        for number in range(valid_steps.max()):
            _enter(block, x[start : start + count], valid_steps, number, backward)
            _project(cell, block, tiles, first, number, saved)
            _before(cell, block, tiles, first, number, saved)
            _step(cell, block, tiles, first, number, saved)
            _leave(block, valid_steps, number, backward, hidden[start : start + count], views[start : start + count])
            block = _swapped(block)
        for row in range(count):
            read_state(block.h, np.uint64(row), h[start + row])
            read_state(block.c, np.uint64(row), c[start + row])


@inlined
def _swapped(block: _Block) -> _Block:
    """What was new is old."""
    return _Block(
        block.tables,
        block.x,
        block.new_view,
        block.old_view,
        block.reset_view,
        block.px,
        block.h,
        block.c,
        block.update,
        block.valid,
    )
