"""A direction of a layer over whole sequences as one operation of autograd."""

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from ... import fixedpoint
from ...firmware_sim._affine import tables
from ...firmware_sim.simd import cells
from ...firmware_sim.simd._form import LANES
from ...firmware_sim.simd._pack import Array
from ...firmware_sim.simd.rows import run_rows
from ...firmware_sim.simd.tiles import GATES, SAVED, record_size
from ...firmware_sim.simd.tiles import ROWS as TILE_ROWS
from ...qmodel import Cell, Scheme
from ._backward import Matrices, run_backward
from ._gradients import FORWARD, Gru, GruResetBefore, Lstm, Rnn, numbers
from ._maps import Map, Scales, Sums, padded
from ._memory import borrow, for_valid_steps
from ._once import refuse_second_derivatives
from ._threads import over_ranges, threads_for

_KINDS: Final[dict[Cell, type[Any]]] = {"lstm": Lstm, "gru": Gru, "rnn": Rnn}


class Direction(NamedTuple):
    """What a direction is beside its tensors. name: of the direction, for errors."""

    name: str
    cell: Cell
    scheme: Scheme
    reset_after: bool
    cell_exponent: int
    view_scale: float
    zero_point: int  # of the input
    per_channel: bool
    backward: bool
    saving: bool  # gradients will be asked for
    sequence: bool  # the outputs are wanted, not the final state alone

    @property
    def kind(self) -> type[Any]:
        return GruResetBefore if self.cell == "gru" and not self.reset_after else _KINDS[self.cell]

    @property
    def dtype(self) -> type[np.generic]:
        """Of the operands."""
        return np.int8 if self.scheme == "w8a8" else np.int16


class _Fused(Function):
    @staticmethod
    def forward(
        ctx: Any,
        direction: Direction,
        lengths: Array,
        x: Tensor,
        integers: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        input_scale: Tensor | float,
        scale_ih: Tensor | None,
        scale_hh: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        maps = _maps(direction, w_ih, w_hh, b_ih, b_hh, input_scale, scale_ih, scale_hh)
        batch, steps, units, is_lstm = len(x), x.shape[1], w_hh.shape[1], direction.cell == "lstm"
        operands = integers.numpy()
        first = _initial(h, batch, units), _initial(c if is_lstm else None, batch, units if is_lstm else 0)
        last = first[0].copy(), first[1].copy()
        packed = _packed(direction, maps[0], maps[1])
        views = for_valid_steps(lengths, (batch, steps, units if direction.sequence else 0), direction.dtype)
        hidden = np.empty((batch, steps, 0), np.int16)
        saved = None
        if direction.saving:
            shape = -(-batch // TILE_ROWS), steps, padded(units) // LANES, record_size(type(packed))
            saved = borrow(shape, np.uint8)

        def run(_: int, rows: slice) -> None:
            sequences = operands[rows], lengths[rows], last[0][rows], last[1][rows], hidden[rows], views[rows]
            run_rows(packed, tables(), *sequences, direction.backward, None if saved is None else saved[_tiles(rows)])

        over_ranges(batch, threads_for(batch), run)
        if saved is not None:
            ctx.given = direction, maps, lengths, first
            ctx.save_for_backward(x, torch.from_numpy(saved))
        outputs = torch.from_numpy(views) if direction.sequence else None
        h_last, c_last = (torch.from_numpy(state).float() for state in last)
        return None if outputs is None else outputs.float(), outputs, h_last, c_last if is_lstm else None

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor | None, _: None, *d_last: Tensor | None) -> tuple[Any, ...]:
        refuse_second_derivatives()
        x, saved = ctx.saved_tensors[0].float().numpy(), ctx.saved_tensors[1].numpy()
        direction, maps, lengths, (h0, c0) = ctx.given
        kind, batch, rows = FORWARD[direction.kind], len(x), padded(h0.shape[1])
        gates, names, needs_x = GATES[kind], SAVED[kind], ctx.needs_input_grad[2]
        outputs = _outputs(d_outputs, batch, rows)
        dh, dc = (_gradient(g, like) for g, like in zip(d_last, (h0, c0), strict=True))
        dx = for_valid_steps(lengths, (*x.shape[:2], x.shape[2] if needs_x else 0), np.float32)
        threads = threads_for(batch)
        d_recurrent = np.zeros((threads, gates * rows, rows), np.float32)
        d_input = np.zeros((threads, -(-x.shape[2] // 4) * 4, gates * rows), np.float32)
        d_bias_x, d_bias_h = np.zeros((2, threads, gates, rows), np.float32)
        factors = _factors(direction, maps[0], maps[1], needs_x)
        is_lstm = direction.cell == "lstm"
        cell = direction.kind(numbers(direction.scheme, direction.cell_exponent if is_lstm else None))
        slots = names.index("h"), names.index("c") if is_lstm else 0

        def run(thread: int, part: slice) -> None:
            sums = d_recurrent[thread], d_input[thread], d_bias_x[thread], d_bias_h[thread]
            sequences = x[part], h0[part], c0[part], outputs[part], dh[part], dc[part], dx[part]
            kept = saved[_tiles(part)], lengths[part]
            run_backward(cell, slots, *kept, direction.backward, *sequences, Matrices(*factors, *sums))

        over_ranges(batch, threads, run)
        learned = any(ctx.needs_input_grad[10:])
        d_in = maps[0].gradients(Sums(np.ascontiguousarray(d_input.transpose(0, 2, 1)), d_bias_x), learned)
        d_rec = maps[1].gradients(Sums(d_recurrent, d_bias_h), learned)
        db_hh = d_in.bias.copy()  # autograd adds to gradients in place
        if kind is cells.GruCell:
            n = slice(2 * h0.shape[1], None)
            db_hh = np.concatenate([d_in.bias[: n.start], d_rec.bias[n]])
        scales = (np.array(d_in.scales[0]), d_in.scale, d_rec.scale) if learned else ()
        found = None, None, dx, None, dh, dc if is_lstm else None, d_in.weight, d_rec.weight, d_in.bias, db_hh, *scales
        return tuple(
            torch.from_numpy(found[n]) if needed and found[n] is not None else None
            for n, needed in enumerate(ctx.needs_input_grad)
        )


def _tiles(rows: slice) -> slice:
    return slice(rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS))


def _initial(state: Tensor | None, batch: int, units: int) -> Array:
    """int16 [batch, units]"""
    return np.zeros((batch, units), np.int16) if state is None else state.detach().to(torch.int16).numpy()


def _gradient(gradient: Tensor | None, like: Array) -> Array:
    """A copy of a final state's gradient, which becomes the initial one's."""
    return np.zeros(like.shape, np.float32) if gradient is None else gradient.numpy().copy()


def _outputs(gradient: Tensor | None, batch: int, units: int) -> Array:
    """float32 [batch, time or 0, units]"""
    if gradient is None:
        return np.empty((batch, 0, units), np.float32)
    if gradient.shape[2] < units:
        gradient = torch.nn.functional.pad(gradient, (0, units - gradient.shape[2]))
    outputs: Array = gradient.contiguous().numpy()
    return outputs


def _maps(
    direction: Direction,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    input_scale: Tensor | float,
    scale_ih: Tensor | None,
    scale_hh: Tensor | None,
) -> tuple[Map, Map]:
    """The input's and the recurrent map. A bias of the recurrent product is added where the input's is, but for n in
    torch's GRU: there r scales it."""
    to = fixedpoint.PRE_ACTIVATION_SCALE
    w_in, w_rec, given_in, given_rec = (t.detach().numpy() for t in (w_ih, w_hh, b_ih, b_hh))
    b_in, b_rec = given_in + given_rec, np.zeros(len(given_rec), np.float32)
    if direction.cell == "gru" and direction.reset_after:
        n = slice(2 * w_hh.shape[1], None)
        b_in[n], b_rec[n] = given_in[n], given_rec[n]
    scales = Scales(float(input_scale), to, direction.zero_point), Scales(direction.view_scale, to, 0)
    given = [None if scale is None else scale.detach().numpy() for scale in (scale_ih, scale_hh)]
    inputs = Map.of(f"weight_ih_{direction.name}", w_in, b_in, given[0], scales[0], direction.per_channel)
    recurrent = Map.of(f"weight_hh_{direction.name}", w_rec, b_rec, given[1], scales[1], direction.per_channel)
    return inputs, recurrent


def _packed(direction: Direction, inputs: Map, recurrent: Map) -> cells.PackedCell:
    kind, zero = FORWARD[direction.kind], direction.dtype()
    packed = inputs.pack(GATES[kind], zero.itemsize)
    if kind is cells.GruResetBeforeCell:
        split = 2 * recurrent.w.shape[1]
        rz, n = recurrent.pack(2, zero.itemsize, slice(split)), recurrent.pack(1, zero.itemsize, slice(split, None))
        return cells.GruResetBeforeCell(packed, rz, n, zero)
    again = recurrent.pack(GATES[kind], zero.itemsize)
    if kind is cells.LstmCell:
        return cells.LstmCell(packed, again, _scale_array(direction.cell_exponent), zero)
    return (cells.GruCell if kind is cells.GruCell else cells.RnnCell)(packed, again, zero)


_scale_array = cache(cells.scale_array)


def _factors(direction: Direction, inputs: Map, recurrent: Map, needs_x: bool) -> tuple[Array, Array]:
    """The recurrent product's and the input's."""
    gates, split = GATES[FORWARD[direction.kind]], 2 * recurrent.w.shape[1]
    if direction.kind is GruResetBefore:
        parts = recurrent.factors(2, slice(split)), recurrent.factors(1, slice(split, None))
        factors = np.concatenate(parts)
    else:
        factors = recurrent.factors(gates)
    return factors, inputs.factors(gates) if needs_x else np.empty(0, np.float32)


def run_direction(direction: Direction, *tensors: Any) -> tuple[Any, Any, Tensor, Any]:
    """The views [batch, time, units] of a direction, as floats for autograd and as the integers that they are (None and
    None if no sequence is wanted); the final h and c [batch, units] as floats (c is None but for LSTMs).

    tensors: lengths int64 [batch] as an array; x [batch, time, columns] twice, with gradients if it has some and as
    integers; h, c (or None: 0), integers in float32; the float32 weights and biases; the float64 scales: of the input,
    and of the two matrices where they are learned. Raises OverflowError for weights whose sums the SIMD kernels cannot
    requantize.
    """
    result: tuple[Any, Any, Tensor, Any] = _Fused.apply(direction, *tensors)  # type: ignore[no-untyped-call]
    return result
