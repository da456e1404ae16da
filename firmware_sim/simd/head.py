"""A dense head over the hidden states of many sequences or steps."""

from typing import Any

import numpy as np

from ...fixedpoint import round_shift, sat8
from .._jit import inlined, kernel
from ._blocks import by_numbers, project_panel
from ._form import LANES
from ._memory import address_of, operand_at, operand_size, peek, size_of, write_row, zeros
from ._pack import Array
from .cells import Dense
from .tiles import ROWS, Projection, Source


@inlined
def _dense(dense: Any, operand: Source, to: Any) -> None:
    """int16 [ROWS, panels, 16] of the operand's rows."""
    size = LANES * 2
    for panel in range(dense.input.panels):
        project_panel(dense, operand, panel, Projection(to + panel * size, dense.input.panels * size, 0, 0), None)


@kernel
def run_head(dense: Dense, views: Array, lengths: Array, last: bool, y: Array) -> None:
    """y int8 [batch, time, outputs] of every valid step; with `last`, y [batch, 1, outputs] of the last valid one."""
    numbers = by_numbers(dense)
    size = operand_size(dense.element, ROWS, numbers.input.groups)
    columns = numbers.input.panels * LANES
    memory = zeros(size + ROWS * columns * 2)
    operand = operand_at(address_of(memory), dense.element, ROWS, numbers.input.groups)
    wide = address_of(memory) + size
    together = ROWS if last else 1  # sequences
    for first in range(0, views.shape[0], together):
        total = min(ROWS, views.shape[0] - first) if last else lengths[first]
        for start in range(0, total, ROWS):
            count = min(ROWS, total - start)
            for row in range(count):
                b, t = (first + row, lengths[first + row] - 1) if last else (first, start + row)
                view = address_of(views) + (b * views.shape[1] + t) * views.shape[2] * size_of(dense.element)
                write_row(view, dense.element, views.shape[2], operand.address + row * operand.row, operand.plane)
            _dense(numbers, operand, wide)
            for row in range(count):
                b, t = (first + row, 0) if last else (first, start + row)
                for n in range(y.shape[2]):
                    y[b, t, n] = sat8(round_shift(peek(wide + (row * columns + n) * 2, np.int16(0)), 8))
    memory[0] = 0  # until here it must live
