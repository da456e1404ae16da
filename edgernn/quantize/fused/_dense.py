"""The dense head as one operation of autograd."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from ...firmware_sim._jit import kernel
from ...firmware_sim.simd._pack import Array
from ...fixedpoint import requantize, round_shift, sat8
from ._maps import Map, Scales, Sums
from ._once import refuse_second_derivatives

VIEW_LIMIT: Final = 32638  # the largest int16 that is not clamped when it becomes an int8


@kernel
def _forward(
    values: Array, narrow: bool, w: Array, real: Array, shifts: Array, step: float, v: Array, n: Array, y: Array
) -> None:
    """v: the operand, of int16 values their int8 view if they are to be narrowed. n: the int8 outputs sat8(round_shift(
    requantize(w v + b), 8)), with 512 added where something was clamped. y: them times 256 steps."""
    for row in range(values.shape[0]):
        operand, given = v[row], values[row]
        for k in range(np.uint64(v.shape[1])):
            operand[k] = given[k]
        if narrow:
            for k in range(np.uint64(v.shape[1])):
                operand[k] = sat8(round_shift(np.int32(given[k]), 8))
        for output in range(w.shape[0]):
            weights, total = w[output], np.int64(0)
            for k in range(np.uint64(v.shape[1])):
                total += np.int32(operand[k]) * np.int32(weights[k])
            total += np.int64(real[0, output])
            multiplier, shift = shifts[0, output], shifts[1, output]
            wide = (total * multiplier + (1 << (shift - 1))) >> shift
            rounded = round_shift(requantize(total, multiplier, shift), 8)
            n[row, output] = sat8(rounded)
            y[row, output] = np.float32(np.float64(sat8(rounded)) * (step * 256.0))
            if wide != requantize(total, multiplier, shift) or rounded != sat8(rounded):
                n[row, output] += 512


@kernel
def _backward(
    dy: Array,
    n: Array,
    narrow: bool,
    w: Array,
    real: Array,
    step: float,
    values: Array,
    v: Array,
    sums: Sums,
    dv: Array,
) -> float:
    """The gradients' sums, and those of the values to dv. Returns the sum of dy times the int8 outputs."""
    sums.weight[:] = 0
    sums.bias[:] = 0
    through_step = 0.0
    for row in range(dy.shape[0]):
        operand, to = v[row], dv[row]
        to[:] = 0
        for output in range(w.shape[0]):
            integer = n[row, output]
            if integer > 255:
                integer -= 512
            through_step += np.float64(dy[row, output]) * integer
            if integer == n[row, output]:
                dp = np.float32(dy[row, output] * step)  # the int8 has 256 times the int16's scale
                factor = np.float32(dp * real[1, output])
                weights, total = w[output], sums.weight[0, output]
                sums.bias[0, 0, output] += dp
                for k in range(np.uint64(to.shape[0])):
                    total[k] += dp * operand[k]
                    to[k] += factor * np.float32(weights[k])
        if narrow:
            given = values[row]
            for k in range(np.uint64(to.shape[0])):
                to[k] = to[k] * np.float32(2.0**-8) if given[k] <= VIEW_LIMIT else np.float32(0)
    return through_step


class _Dense(Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        narrow: bool,
        view_scale: float,
        per_channel: bool,
        weight: Tensor,
        bias: Tensor,
        output_scale: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        step = output_scale.item()
        given = None if scale is None else scale.detach().numpy()
        scales = Scales(view_scale, step, 0)
        dense = Map.of("head", weight.detach().numpy(), bias.detach().numpy(), given, scales, per_channel)
        rows = values.detach().reshape(-1, values.shape[-1]).numpy()
        y = torch.empty(*values.shape[:-1], len(dense.w))
        v, n = np.empty(rows.shape, np.float32), np.empty((len(rows), len(dense.w)), np.int16)
        _forward(rows, narrow, dense.w, dense.real, dense.shifts, step, v, n, y.numpy().reshape(n.shape))
        ctx.made = dense, narrow, step, v, n
        ctx.save_for_backward(values)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        refuse_second_derivatives()
        (values,) = ctx.saved_tensors
        dense, narrow, step, v, n = ctx.made
        sums = Sums(np.empty((1, *dense.w.shape), np.float32), np.empty((1, 1, len(dense.w)), np.float32))
        dv = torch.empty(values.shape)
        dy, rows = gradient.contiguous().numpy().reshape(n.shape), values.numpy().reshape(v.shape)
        through_step = _backward(dy, n, narrow, dense.w, dense.real, step, rows, v, sums, dv.numpy().reshape(v.shape))
        learned = any(ctx.needs_input_grad[6:])
        d = dense.gradients(sums, learned)
        d_output = d.scales[1] + 256.0 * through_step
        result = [dv, None, None, None, d.weight, d.bias, d_output, d.scale]
        needed = zip(result, ctx.needs_input_grad, strict=True)
        return tuple(torch.as_tensor(value) if needs else None for value, needs in needed)


def run_dense(
    values: Tensor,
    narrow: bool,
    view_scale: float,
    per_channel: bool,
    weight: Tensor,
    bias: Tensor,
    output_scale: Tensor,
    scale: Tensor | None,
) -> Tensor:
    """The real outputs of a dense head, float32, for integers [.., columns] in float32.

    narrow: they are int16 and the head reads their int8 views. scale: float64 [rows], the weights' if it is learned.
    """
    y: Tensor = _Dense.apply(values, narrow, view_scale, per_channel, weight, bias, output_scale, scale)  # type: ignore[no-untyped-call]
    return y
