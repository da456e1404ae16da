"""A direction of a layer over many sequences: blocks of eight, each of which runs all its steps before the next one.

State and operands of a block stay in the cache, and blocks do not depend on each other.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import overload

from .._jit import inlined, kernel
from ._blocks import (
    Block,
    Sequences,
    block_at,
    block_size,
    by_numbers,
    enter_state,
    enter_step,
    last_map,
    leave_state,
    leave_step,
    length_of,
    place,
    project_panel,
    rows_from,
    sequences_of,
    swapped,
)
from ._blocks import time_of as time_of
from ._form import LANES
from ._memory import address_of, poke, zeros
from ._pack import Array
from .cells import GruResetBeforeCell, PackedCell
from .tiles import ROWS, Projection, reset, step

BLOCK: Final = 8
TILES: Final = BLOCK // ROWS
ROW: Final = LANES * 2  # bytes of a row of a state


@inlined
def _record(saved: Any, tile: Any, number: Any, panel: Any) -> Any:
    """The address of the record of a tile's step and panel; saved: uint8 [tiles, steps, panels, bytes], or None."""
    if saved is None:
        return 0
    return address_of(saved) + ((tile * saved.shape[1] + number) * saved.shape[2] + panel) * saved.shape[3]


@inlined
def _project(cell: Any, block: Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """px of the step."""
    size = ROWS * ROW
    for panel in range(block.panels):
        for tile in range(tiles):
            at = block.px + (tile * block.panels + panel) * cell.input.gates * size
            to = Projection(at, ROW, size, _record(saved, first + tile, number, panel))
            project_panel(cell, rows_from(block.x, tile * ROWS), panel, to, saved)


def _before(cell: Any, block: Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """The first half of a step that has two."""
    raise AssertionError("for kernels only")


@overload(_before, strict=False, jit_options={"forceinline": True})
def _before_for(cell: Any, *_: types.Type) -> Callable[..., None]:
    if cell.instance_class is not GruResetBeforeCell:
        return lambda cell, block, tiles, first, number, saved: None

    def run(cell: Any, block: Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
        for panel in range(block.panels):
            for tile in range(tiles):
                record = _record(saved, first + tile, number, panel)
                operand = rows_from(block.old_view, tile * ROWS)
                at = place(cell, cell.recurrent, block, block.reset_view, tile, panel, tile, record)
                if saved is None:
                    reset(cell, ROWS, 1, operand, at, False)
                else:
                    reset(cell, ROWS, 1, operand, at, True)

    return run


@inlined
def _step(cell: Any, block: Block, tiles: Any, first: Any, number: Any, saved: Any) -> None:
    """h, c and new_view of the step."""
    a_map, view = last_map(cell, block)
    for panel in range(block.panels):
        for tile in range(tiles):
            record = _record(saved, first + tile, number, panel)
            operand = rows_from(view, tile * ROWS)
            at = place(cell, a_map, block, block.new_view, tile, panel, tile, record)
            if saved is None:
                step(cell, ROWS, 1, operand, at, False)
            else:
                step(cell, ROWS, 1, operand, at, True)


@inlined
def _set_valid(block: Block, row: Any, value: Any) -> None:
    for lane in range(LANES):
        poke(block.valid + row * ROW + 2 * lane, np.int16(value))


@inlined
def _begin(like: Any, block: Block, s: Sequences, start: Any, count: Any) -> Any:
    """Bring the rows' states in; returns the number of the block's steps."""
    steps = 0
    for row in range(count):
        enter_state(like, block, row, s, start + row)
        steps = max(steps, length_of(s, start + row))
    for row in range(BLOCK):
        _set_valid(block, row, -1 if row < count else 0)
    return steps


@inlined
def _enter(like: Any, block: Block, s: Sequences, start: Any, count: Any, number: Any) -> None:
    """The inputs of step `number`, of the rows that have one."""
    for row in range(count):
        length = length_of(s, start + row)
        if number < length:
            enter_step(like, block, row, s, start + row, time_of(number, length, s.backward))
        elif number == length:
            _set_valid(block, row, 0)


@inlined
def _leave(like: Any, block: Block, s: Sequences, start: Any, count: Any, number: Any) -> None:
    """The outputs of step `number`, of the rows that have one."""
    for row in range(count):
        length = length_of(s, start + row)
        if number < length:
            leave_step(like, block, row, s, start + row, time_of(number, length, s.backward))


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
    x's type, [batch, time, hidden_size] are written for valid steps: in wider ones the first columns, or the last ones
    by the backward direction, which computes the last valid step first; either may be empty: [.., .., 0]. c is
    [batch, 0] but for LSTMs. saved: uint8 [tiles of ROWS sequences, steps, panels, record_size(cell)] for a training
    step, with records in the order of computation.
    """
    numbers, s = by_numbers(cell), sequences_of(x, lengths, h, c, hidden, views, backward)
    like, maps = cell.element, (numbers.input, numbers.recurrent)
    memory = zeros(block_size(like, *maps, TILES, ROWS, 0))
    block = block_at(address_of(memory), address_of(tables), like, *maps, TILES, ROWS, 0)
    for start in range(0, s.batch, BLOCK):
        count = min(BLOCK, s.batch - start)
        tiles, first = (count + ROWS - 1) // ROWS, start // ROWS
        for number in range(_begin(like, block, s, start, count)):
            _enter(like, block, s, start, count, number)
            _project(numbers, block, tiles, first, number, saved)
            _before(numbers, block, tiles, first, number, saved)
            _step(numbers, block, tiles, first, number, saved)
            _leave(like, block, s, start, count, number)
            block = swapped(block)
        for row in range(count):
            leave_state(block, row, s, start + row)
    memory[0] = 0  # until here it must live
