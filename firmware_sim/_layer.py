"""The two kernels: a direction of a recurrent layer and a dense head over a batch of sequences."""

from typing import Any

import numpy as np

from ..fixedpoint import round_shift, sat8
from ._affine import ROW_BLOCK, Array, PackedAffine, apply_affine, write_view
from ._cells import ZERO, PackedCell, Scratch, step, tally
from ._jit import inlined, kernel

TIME_BLOCK = 64  # steps whose input projection is computed at once


@inlined
def time_of(number: Any, length: Any, backward: bool) -> Any:
    """The place in the sequence of the step that a direction computes after `number` others."""
    return length - np.uint64(1) - number if backward else number


@kernel
def run_layer(
    cell: PackedCell,
    tables: Array,
    x: Array,
    lengths: Array,
    h: Array,
    c: Array,
    hidden: Array,
    views: Array,
    backward: bool,
    saturation: Any,
) -> None:
    """Run every sequence from the state h, c [batch, hidden_size] int16, which becomes the state after its last step.

    x [batch, time, padded inputs] int8 or int16; lengths int64 [batch]: how many steps are valid. hidden int16 [batch,
    time, output_size] and views [batch, time, padded output_size], of x's type, are written for the valid steps: the
    first hidden_size columns, or the next ones by the backward direction, which computes the last valid step first.
    Either may be empty: [.., .., 0].
    saturation: None, or int64 [gates + 2], to which the limits met are added: each gate's, h's, c's.
    """
    rows, size = cell.input.rows.shape[1], np.uint64(h.shape[1])
    operand_size = cell.recurrent.weight.shape[0]
    scratch = Scratch(
        np.empty(rows, np.int32),
        np.empty(rows + ROW_BLOCK, np.int16),  # a part of it may be written as padded rows
        np.empty(size, np.int16),
        np.zeros(operand_size, views.dtype),
    )
    view = np.zeros(operand_size, views.dtype)
    px = np.empty((min(TIME_BLOCK, x.shape[1]), rows), np.int16)
    column = size if backward else ZERO
    for b in range(np.uint64(x.shape[0])):
        state, cell_state, length = h[b], c[b], np.uint64(lengths[b])
        write_view(state, view)
        for start in range(ZERO, length, np.uint64(TIME_BLOCK)):
            steps = min(np.uint64(TIME_BLOCK), length - start)
            for n in range(steps):
                apply_affine(cell.input, x[b, time_of(start + n, length, backward)], scratch.acc, px[n])
            for n in range(steps):
                step(cell, tables, px[n], state, cell_state, view, scratch, saturation)
                write_view(state, view)
                t = time_of(start + n, length, backward)
                if hidden.shape[2] > 0:
                    for u in range(size):
                        hidden[b, t, column + u] = state[u]
                if views.shape[2] > 0:
                    for u in range(size):
                        views[b, t, column + u] = view[u]
                tally(saturation, -2, state, ZERO, size)
                tally(saturation, -1, cell_state, ZERO, np.uint64(c.shape[1]))


@kernel
def run_head(dense: PackedAffine, views: Array, lengths: Array, last: bool, y: Array) -> None:
    """y int8 [batch, time, outputs] of every valid step; with `last`, y [batch, 1, outputs] of the last valid one."""
    acc = np.empty(dense.rows.shape[1], np.int32)
    wide = np.empty(dense.rows.shape[1], np.int16)
    for b in range(np.uint64(views.shape[0])):
        first = np.uint64(lengths[b] - 1) if last else np.uint64(0)
        for t in range(first, np.uint64(lengths[b])):
            apply_affine(dense, views[b, t], acc, wide)
            for n in range(np.uint64(y.shape[2])):
                y[b, t - first, n] = sat8(round_shift(wide[n], 8))
