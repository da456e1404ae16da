"""TensorFlow Lite's LSTM operator over whole sequences, and back through them: what Cells.operator_lstm defines."""

from typing import Any, Final, NamedTuple

import numpy as np

from ..._tflite_lstm import HIDDEN_SHIFT, OPERATOR_SCALE
from ...firmware_sim._affine import TANH, Array, look_up
from ...firmware_sim._jit import inlined, kernel
from ...firmware_sim._layer import time_of
from ...firmware_sim._operator import INPUT, RECURRENT, OperatorCell, advance, pre_activations, scaled
from ...firmware_sim.simd._memory import zeros
from ...fixedpoint import STATE_SCALE, round_shift, sat8, sat16
from ._floats import ROWS

PARTS: Final = 6  # of Records.steps

_SLOPE: Final = OPERATOR_SCALE / STATE_SCALE  # of sigmoid and tanh in integers, for one in real numbers
_HIDDEN_SLOPE: Final = 2.0 ** (15 - HIDDEN_SHIFT)  # of h for o * tanh(c), a gate's integer taken as the real number


class Records(NamedTuple):
    """The operands of the steps, and what the way back needs of the valid ones: [batch, 0, ..] if there is none."""

    x: Array  # int8 [batch, time, columns, padded]
    before: Array  # int8 [batch, time, units]: the old hidden state
    steps: Array  # int16 [batch, time, PARTS * units]: gates i and f; tanh of the new cell state; o, g; the old one
    passes: Array  # uint8 [batch, time, 4 * units]: the terms of a pre-activation that no limit hides from gradients


# ---- forward ---------------------------------------------------------------------------------------------------------


@kernel
def run_forward(
    cell: OperatorCell, lengths: Array, backward: bool, h: Array, c: Array, hidden: Array, records: Records
) -> None:
    """Run every sequence from the state h int8 and c int16 [batch, units], which becomes the state after its last step.

    lengths int64 [batch]. hidden float64 [batch, time, units] is written at valid steps; it may be empty: [batch, 0,
    units].
    """
    rows, size = cell.input.rows.shape[1], np.uint64(h.shape[1])
    acc, gates, passes = np.empty(rows, np.int32), np.empty(rows, np.int16), np.empty(rows, np.uint8)
    view, saving = np.zeros(cell.recurrent.weight.shape[0], np.int8), records.steps.shape[1] > 0
    for b in range(np.uint64(h.shape[0])):
        length = np.uint64(lengths[b])
        view[: h.shape[1]] = h[b]
        for n in range(length):
            t = time_of(n, length, backward)
            pre_activations(cell, records.x[b, t], view, acc, gates, passes)
            if saving:
                _record_old(cell, gates, c[b], view, records.before[b, t], records.steps[b, t])
            advance(cell, gates, c[b], view)
            if saving:
                _record_new(gates, passes, records.steps[b, t], records.passes[b, t])
            if hidden.shape[1] > 0:
                for u in range(size):
                    hidden[b, t, u] = view[u]
        h[b] = view[: h.shape[1]]


@inlined
def _record_old(cell: OperatorCell, gates: Array, c: Array, view: Array, before: Array, step: Array) -> None:
    """What `advance` overwrites."""
    size = np.uint64(c.shape[0])
    tanh, g, old = size + size, size + size + size + size, size + size + size + size + size
    for u in range(size):
        before[u] = view[u]
        step[g + u] = gates[tanh + u]
        step[old + u] = c[u]
    look_up(cell.tables, TANH, step, g, size)


@inlined
def _record_new(gates: Array, passes: Array, step: Array, to: Array) -> None:
    for n in range(np.uint64(to.shape[0])):
        step[n] = gates[n]
        to[n] = passes[n]


# ---- products --------------------------------------------------------------------------------------------------------


@inlined
def _add_eight(factors: Array, rows: Array, to: Array) -> None:
    """to [columns] += factors [8] x rows [8, columns]."""
    a0, a1, a2, a3 = factors[0], factors[1], factors[2], factors[3]
    a4, a5, a6, a7 = factors[4], factors[5], factors[6], factors[7]
    r0, r1, r2, r3, r4, r5, r6, r7 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    for k in range(np.uint64(to.shape[0])):
        half = a0 * r0[k] + a1 * r1[k] + (a2 * r2[k] + a3 * r3[k])
        to[k] += half + (a4 * r4[k] + a5 * r5[k] + (a6 * r6[k] + a7 * r7[k]))


@inlined
def _multiply(left: Array, weight: Array, to: Array) -> None:
    """to [.., columns] += left [.., rows] x weight [rows, columns]; rows in eights, which stay in the first cache."""
    for n in range(0, weight.shape[0], 8):
        for row in range(to.shape[0]):
            _add_eight(left[row, n : n + 8], weight[n : n + 8], to[row])


@inlined
def _add_outer(left: Array, right: Array, to: Array) -> None:
    """to [rows, columns] += left [8, rows], transposed, x right [8, columns]."""
    for n in range(to.shape[0]):
        _add_eight(left[:, n], right, to[n])


# ---- backward --------------------------------------------------------------------------------------------------------


class Gradients(NamedTuple):
    """Of a direction's tensors, float64."""

    hidden: Array  # [batch, time, units], or [batch, 0, units] for none
    h: Array  # [batch, units, padded]: of the final states, and then of the initial ones
    c: Array
    x: Array  # [batch, time, columns]: written at valid steps; may be empty: [batch, 0, columns]


class Matrices(NamedTuple):
    """The two maps, float64 [4 * units, columns]; columns are padded to whole cache lines."""

    input: Array  # weights times multipliers; rows are padded to a multiple of 8
    recurrent: Array
    d_input: Array  # gradients of these products, which are added to; the first column after them is the bias's
    d_recurrent: Array


class _Block(NamedTuple):
    """A step of eight sequences, float64 [ROWS, ..]."""

    d_input: Array  # gradients of the terms of the pre-activations
    d_recurrent: Array
    inputs: Array  # the terms' operands, with a 1 for the bias
    before: Array
    dx: Array


@inlined
def _floats(columns: Any) -> Array:
    return zeros(ROWS * columns * 8).view(np.float64).reshape((ROWS, columns))


@inlined
def _block(matrices: Matrices, columns: Any) -> _Block:
    rows, inputs = matrices.input.shape[0], _floats(matrices.d_input.shape[1])
    inputs[:, columns] = 1.0
    before, dx = _floats(matrices.recurrent.shape[1]), _floats(matrices.input.shape[1])
    return _Block(_floats(rows), _floats(rows), inputs, before, dx)


@inlined
def _gates_back(cell: OperatorCell, size: Any, step: Array, dh: Array, dc: Array, dp: Array) -> None:
    """From the gradients of a step's new state to those of its pre-activations, dp, and of its old cell state, dc."""
    unit, finer = STATE_SCALE, 2.0 ** (cell.product_shift - 15)
    f0, tanh0, o0, g0 = size, size + size, size + size + size, size + size + size + size
    for u in range(size):
        i, f, tanh = np.int32(step[u]), np.int32(step[f0 + u]), np.int32(step[tanh0 + u])
        o, g, c = np.int32(step[o0 + u]), np.int32(step[g0 + u]), np.int32(step[g0 + size + u])
        y_i, y_f, y_g, y_o, y_c = i * unit, f * unit, g * unit, o * unit, tanh * unit
        h = round_shift(o * tanh, HIDDEN_SHIFT)
        d = dh[u] * _HIDDEN_SLOPE if h == sat8(h) else 0.0
        dp[o0 + u] = d * y_c * (y_o * (1.0 - y_o) * _SLOPE)
        d = dc[u] + d * y_o * ((1.0 - y_c * y_c) * finer)
        new = scaled(cell, f * c, 15) + scaled(cell, i * g, cell.product_shift)
        d = d if new == sat16(new) else 0.0
        dc[u] = d * y_f
        dp[f0 + u] = d * (c * unit) * (y_f * (1.0 - y_f) * _SLOPE)
        d /= finer
        dp[u] = d * y_g * (y_i * (1.0 - y_i) * _SLOPE)
        dp[tanh0 + u] = d * y_i * ((1.0 - y_g * y_g) * _SLOPE)


@inlined
def _step_back(
    cell: OperatorCell, records: Records, gradients: Gradients, block: _Block, row: Any, b: Any, t: Any
) -> None:
    """Sequence b's step at t, the block's `row`: all but the products."""
    size, columns = np.uint64(records.before.shape[2]), np.uint64(gradients.x.shape[2])
    d, passes = gradients.h[b], records.passes[b, t]
    to_input, to_recurrent = block.d_input[row], block.d_recurrent[row]
    if gradients.hidden.shape[1] > 0:
        for u in range(size):
            d[u] += gradients.hidden[b, t, u]
    _gates_back(cell, size, records.steps[b, t], d, gradients.c[b], to_input)
    d[:] = 0
    for n in range(np.uint64(passes.shape[0])):
        dp = to_input[n]
        to_input[n] = dp if passes[n] & INPUT else 0.0
        to_recurrent[n] = dp if passes[n] & RECURRENT else 0.0
    for k in range(columns):
        block.inputs[row, k] = records.x[b, t, k]
    for u in range(size):
        block.before[row, u] = records.before[b, t, u]


@inlined
def _leave(block: _Block, lengths: Array, backward: bool, start: Any, number: Any, dx: Array) -> None:
    """The gradients of the step's inputs."""
    for b in range(start, min(start + ROWS, dx.shape[0])):
        if number < lengths[b]:
            to = dx[b, time_of(np.uint64(number), np.uint64(lengths[b]), backward)]
            for k in range(np.uint64(to.shape[0])):
                to[k] = block.dx[b - start, k]


@kernel
def run_backward(
    cell: OperatorCell, lengths: Array, backward: bool, records: Records, gradients: Gradients, matrices: Matrices
) -> None:
    """The gradients of what `run_forward` computed and recorded, all in integers."""
    batch, block = gradients.h.shape[0], _block(matrices, gradients.x.shape[2])
    for start in range(0, batch, ROWS):
        part = slice(start, min(start + ROWS, batch))
        for number in range(lengths[part].max() - 1, -1, -1):
            block.d_input[:] = 0
            block.d_recurrent[:] = 0
            for b in range(start, part.stop):
                if number < lengths[b]:
                    t = time_of(np.uint64(number), np.uint64(lengths[b]), backward)
                    _step_back(cell, records, gradients, block, b - start, b, t)
            _multiply(block.d_recurrent, matrices.recurrent, gradients.h[part])
            _add_outer(block.d_recurrent, block.before, matrices.d_recurrent)
            _add_outer(block.d_input, block.inputs, matrices.d_input)
            if gradients.x.shape[1] > 0:
                block.dx[:] = 0
                _multiply(block.d_input, matrices.input, block.dx)
                _leave(block, lengths, backward, start, number, gradients.x)
