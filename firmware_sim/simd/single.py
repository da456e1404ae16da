"""A direction of a layer over sequences one by one: the shortest time for a single one.

The tiles are panels of units of the one sequence. Only the input's share of the pre-activations is computed for several
steps at once.
"""

from collections.abc import Callable
from typing import Any, Final

from numba import types
from numba.extending import overload

from .._jit import inlined, kernel
from ._blocks import (
    LANE_BYTES,
    Block,
    Map,
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
    time_of,
)
from ._memory import address_of, zeros
from ._pack import Array
from .cells import GruResetBeforeCell, PackedCell
from .tiles import ROWS, Place, Projection, Source, reset, step

STEPS: Final = 16  # whose input projection is computed at once


@inlined
def _project(cell: Any, block: Block, s: Sequences, b: Any, start: Any, length: Any) -> Any:
    """px of the steps from `start` on; returns how many."""
    count = min(STEPS, length - start)
    for number in range(count):
        enter_step(cell.element, block, number, s, b, time_of(start + number, length, s.backward))
    size = cell.input.gates * LANE_BYTES
    row = block.panels * size
    for number in range(0, count, ROWS):
        for panel in range(block.panels):
            to = Projection(block.px + number * row + panel * size, row, LANE_BYTES, 0)
            project_panel(cell, rows_from(block.x, number), panel, to, None)
    return count


@inlined
def _place(cell: Any, a_map: Map, block: Block, view: Source, panel: Any, number: Any) -> Place:
    return place(cell, a_map, block, view, 0, panel, number, 0)


def _before(cell: Any, block: Block, number: Any) -> None:
    """The first half of a step that has two."""
    raise AssertionError("for kernels only")


@overload(_before, strict=False, jit_options={"forceinline": True})
def _before_for(cell: Any, *_: types.Type) -> Callable[..., None]:
    if cell.instance_class is not GruResetBeforeCell:
        return lambda cell, block, number: None

    def run(cell: Any, block: Block, number: Any) -> None:
        a_map, view, panel = cell.recurrent, block.reset_view, 0
        while block.panels - panel >= 4:
            reset(cell, 1, 4, block.old_view, _place(cell, a_map, block, view, panel, number), False)
            panel += 4
        if block.panels - panel >= 2:
            reset(cell, 1, 2, block.old_view, _place(cell, a_map, block, view, panel, number), False)
            panel += 2
        if block.panels > panel:
            reset(cell, 1, 1, block.old_view, _place(cell, a_map, block, view, panel, number), False)

    return run


@inlined
def _step(cell: Any, block: Block, number: Any) -> None:
    """h, c and new_view of the step."""
    a_map, operand = last_map(cell, block)
    panel = 0
    while block.panels - panel >= 4:
        step(cell, 1, 4, operand, _place(cell, a_map, block, block.new_view, panel, number), False)
        panel += 4
    if block.panels - panel >= 2:
        step(cell, 1, 2, operand, _place(cell, a_map, block, block.new_view, panel, number), False)
        panel += 2
    if block.panels > panel:
        step(cell, 1, 1, operand, _place(cell, a_map, block, block.new_view, panel, number), False)


@kernel
def run_single(
    cell: PackedCell,
    tables: Array,
    x: Array,
    lengths: Array,
    h: Array,
    c: Array,
    hidden: Array,
    views: Array,
    backward: bool,
) -> None:
    """What `run_rows` does, one sequence after the other."""
    numbers, s = by_numbers(cell), sequences_of(x, lengths, h, c, hidden, views, backward)
    steps = (min(STEPS, s.time) + ROWS - 1) // ROWS * ROWS
    like, maps = cell.element, (numbers.input, numbers.recurrent)
    memory = zeros(block_size(like, *maps, 1, 1, steps))
    block = block_at(address_of(memory), address_of(tables), like, *maps, 1, 1, steps)
    for b in range(s.batch):
        length = length_of(s, b)
        enter_state(like, block, 0, s, b)
        for start in range(0, length, STEPS):
            for number in range(_project(numbers, block, s, b, start, length)):
                _before(numbers, block, number)
                _step(numbers, block, number)
                leave_step(like, block, 0, s, b, time_of(start + number, length, s.backward))
                block = swapped(block)
        leave_state(block, 0, s, b)
    memory[0] = 0  # until here it must live
