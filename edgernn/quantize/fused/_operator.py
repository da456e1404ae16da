"""A direction of a layer in the profile tflite-lstm over whole sequences as one operation of autograd."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from ..._tflite_lstm import check_operator_range
from ...firmware_sim._affine import PackedAffine, pack_rows, padded_columns
from ...firmware_sim._operator import OperatorCell, operator_tables
from ...firmware_sim.simd._pack import Array, aligned
from ...fixedpoint import decompose_multiplier
from ._memory import borrow, for_valid_steps
from ._once import refuse_second_derivatives
from ._operator_steps import PARTS, Gradients, Matrices, Records, run_backward, run_forward
from ._threads import over_ranges, threads_for

if TYPE_CHECKING:
    from .._cells import IntegerAffine


class OperatorDirection(NamedTuple):
    """What a direction is beside its tensors."""

    lengths: Array  # int64 [batch]
    backward: bool
    cell_exponent: int
    sequence: bool  # the hidden states are wanted, not the last one alone
    saving: bool  # gradients will be asked for


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, direction: OperatorDirection, *tensors: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x, h, c, *maps = (t.detach().numpy() for t in tensors)
        exponent, lengths = direction.cell_exponent, direction.lengths
        cell = OperatorCell(
            _pack(*maps[:3]), _pack(*maps[3:]), operator_tables(False, exponent), 30 - exponent, True, False
        )
        (batch, steps, _), units = x.shape, h.shape[1]
        last = h.astype(np.int8), c.astype(np.int16)
        hidden = np.zeros((batch, steps if direction.sequence else 0, units))
        records = _records(x, units, direction.saving)

        def run(_: int, rows: slice) -> None:
            kept = Records(*(r[rows] for r in records))
            run_forward(cell, lengths[rows], direction.backward, last[0][rows], last[1][rows], hidden[rows], kept)

        over_ranges(batch, threads_for(batch), run)
        if direction.saving:
            ctx.given = direction, cell
            ctx.save_for_backward(*tensors[3:], *(torch.from_numpy(r) for r in records))
        h_last, c_last = (torch.from_numpy(state).double() for state in last)
        return torch.from_numpy(hidden) if direction.sequence else None, h_last, c_last

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor | None, *d_last: Tensor | None) -> tuple[Any, ...]:
        refuse_second_derivatives()
        direction, cell = ctx.given
        w_in, b_in, m_in, w_rec, _, m_rec, *kept = (t.numpy() for t in ctx.saved_tensors)
        records, lengths, (rows, columns), units = Records(*kept), direction.lengths, w_in.shape, w_rec.shape[1]
        (batch, steps, _), needs_x = records.x.shape, ctx.needs_input_grad[1]
        dx = for_valid_steps(lengths, (batch, steps if needs_x else 0, columns), np.float64)
        dh, dc = _states(d_last, len(lengths), units)
        gradients = Gradients(_outputs(d_hidden, records), dh, dc, dx)
        threads, factors = threads_for(len(lengths)), (_factors(w_in, m_in), _factors(w_rec, m_rec))
        sums = _floats(threads, rows, columns + 1), _floats(threads, rows, units)

        def run(thread: int, part: slice) -> None:
            own, steps = Gradients(*(g[part] for g in gradients)), Records(*(r[part] for r in records))
            matrices = Matrices(*factors, sums[0][thread], sums[1][thread])
            run_backward(cell, lengths[part], direction.backward, steps, own, matrices)

        over_ranges(len(lengths), threads, run)
        d_in, d_rec = sums[0].sum(axis=0), sums[1].sum(axis=0)
        d_bias = d_in[:, columns]
        d_w_in, d_m_in = _map_gradients(d_in[:, :columns], w_in, m_in)
        d_w_rec, d_m_rec = _map_gradients(d_rec[:, :units], w_rec, m_rec)
        # The operator has one bias, the input's: the recurrent one is a constant 0.
        of_maps = d_w_in, d_bias * m_in, d_m_in + d_bias * b_in, d_w_rec, None, d_m_rec
        found = dx, dh[:, :units], dc[:, :units], *of_maps
        needed = zip(found, ctx.needs_input_grad[1:], strict=True)
        return None, *(torch.from_numpy(g) if needs and g is not None else None for g, needs in needed)


def _pack(weight: Array, bias: Array, multiplier: Array) -> PackedAffine:
    """Raises OverflowError for sums that the operator's 32 bits may not hold."""
    q31, exponent = decompose_multiplier(multiplier)
    try:
        check_operator_range((np.abs(bias) + 128 * np.abs(weight).sum(axis=1)).astype(np.int64), exponent)
    except ValueError as error:
        raise OverflowError(str(error)) from None
    return pack_rows(weight, bias, q31, exponent)


def _records(x: Array, units: int, saving: bool) -> Records:
    batch, steps, columns = x.shape
    operands = np.zeros((batch, steps, padded_columns(columns)), np.int8)
    operands[..., :columns] = x
    steps = steps if saving else 0
    parts, passes = borrow((batch, steps, PARTS * units), np.int16), borrow((batch, steps, 4 * units), np.uint8)
    return Records(operands, np.empty((batch, steps, units), np.int8), parts, passes)


def _outputs(gradient: Tensor | None, records: Records) -> Array:
    """[batch, time or 0, units]"""
    batch, _, units = records.before.shape
    outputs: Array = np.empty((batch, 0, units)) if gradient is None else gradient.contiguous().numpy()
    return outputs


def _states(gradients: tuple[Tensor | None, ...], batch: int, units: int) -> Array:
    """Of the final h and c, which become those of the initial ones."""
    states = _floats(len(gradients), batch, units)
    for state, gradient in zip(states, gradients, strict=True):
        if gradient is not None:
            state[:, :units] = gradient.numpy()
    return states


def _factors(weight: Array, multiplier: Array) -> Array:
    """A map as the factor of the product that gives its operand's gradient."""
    rows, columns = weight.shape
    factors = _floats(_in_eights(rows), columns)
    np.multiply(weight, multiplier[:, None], out=factors[:rows, :columns])
    return factors


def _map_gradients(products: Array, weight: Array, multiplier: Array) -> tuple[Array, Array]:
    """Of a map's integers and multipliers, from those of their products."""
    return products * multiplier[:, None], (products * weight).sum(axis=1)


def _floats(*shape: int) -> Array:
    """float64 zeros; the last of their sizes is padded to whole cache lines."""
    return aligned((*shape[:-1], _in_eights(shape[-1])), np.float64)


def _in_eights(size: int) -> int:
    return -(-size // 8) * 8


def run_operator(
    direction: OperatorDirection, x: Tensor, h: Tensor, c: Tensor, inputs: "IntegerAffine", recurrent: "IntegerAffine"
) -> tuple[Any, Tensor, Tensor]:
    """The hidden states [batch, time, units] of a direction (0 at padding; None if no sequence is wanted), and the
    final h and c [batch, units].

    All tensors are integers in float64. Raises OverflowError for weights whose sums the operator's 32 bits may not
    hold.
    """
    result: tuple[Any, Tensor, Tensor] = _Fused.apply(direction, x, h, c, *inputs, *recurrent)  # type: ignore[no-untyped-call]
    return result
