"""A direction of a layer over sequences one by one: the shortest time for a single one.

The tiles are pairs of panels of units, and the last one where they are odd: what there is to do beside the products
overlaps with the next tile's products. Only the input's share of the pre-activations is computed for several steps at
once.
"""

from collections.abc import Callable
from typing import Any

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
    sequences_of,
    swapped,
    time_of,
)
from ._memory import address_of, zeros
from ._pack import Array
from .cells import GruResetBeforeCell, PackedCell, RnnCell
from .tiles import ROWS, Place, Projection, Source, reset, step


@inlined
def _project(cell: Any, block: Block, s: Sequences, b: Any, start: Any, length: Any) -> Any:
    """px of ROWS steps from `start` on, or of those that there are: returns how many."""
    count = min(ROWS, length - start)
    for number in range(count):
        enter_step(cell.element, block, number, s, b, time_of(start + number, length, s.backward))
    size = cell.input.gates * LANE_BYTES
    for panel in range(block.panels):
        to = Projection(block.px + panel * size, block.panels * size, LANE_BYTES, 0)
        project_panel(cell, block.x, panel, to, None)
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
        while block.panels - panel >= 2:
            reset(cell, 1, 2, block.old_view, _place(cell, a_map, block, view, panel, number), False)
            panel += 2
        if block.panels > panel:
            reset(cell, 1, 1, block.old_view, _place(cell, a_map, block, view, panel, number), False)

    return run


def _by_fours(cell: Any, block: Block, number: Any) -> int:
    """Steps of four panels, where the last product has one gate alone: two panels' sums would wait for themselves.

    Returns how many panels that was. More gates at once than two panels' are read slower from the second cache.
    """
    raise AssertionError("for kernels only")


@overload(_by_fours, strict=False, jit_options={"forceinline": True})
def _by_fours_for(cell: Any, *_: types.Type) -> Callable[..., int]:
    if cell.instance_class not in (GruResetBeforeCell, RnnCell):
        return lambda cell, block, number: 0

    def run(cell: Any, block: Block, number: Any) -> int:
        (a_map, operand), panel = last_map(cell, block), 0
        while block.panels - panel >= 4:
            step(cell, 1, 4, operand, _place(cell, a_map, block, block.new_view, panel, number), False)
            panel += 4
        return panel

    return run


@inlined
def _step(cell: Any, block: Block, number: Any) -> None:
    """h, c and new_view of the step."""
    a_map, operand = last_map(cell, block)
    panel = _by_fours(cell, block, number)
    while block.panels - panel >= 2:
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
    like, maps = cell.element, (numbers.input, numbers.recurrent)
    memory = zeros(block_size(like, *maps, 1, 1, ROWS))
    block = block_at(address_of(memory), address_of(tables), like, *maps, 1, 1, ROWS)
    for b in range(s.batch):
        length = length_of(s, b)
        enter_state(like, block, 0, s, b)
        for start in range(0, length, ROWS):
            for number in range(_project(numbers, block, s, b, start, length)):
                _before(numbers, block, number)
                _step(numbers, block, number)
                leave_step(like, block, 0, s, b, time_of(start + number, length, s.backward))
                block = swapped(block)
        leave_state(block, 0, s, b)
    memory[0] = 0  # until here it must live
