"""The arithmetic's primitives on torch tensors: exact integers forward, straight-through gradients backward.

Integers travel as float64, which holds them and every product of the arithmetic exactly (all stay below 2^53), so the
forward pass computes the very integers of the device. Backward, a rounding has the derivative of what it rounds
(straight-through, Bengio et al. 2013, arXiv 1308.3432) and a clamp is flat outside its limits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from .. import fixedpoint
from .._tflite_lstm import OPERATOR_SCALE, table_sigmoid, table_tanh

PRE_ACTIVATION_SCALE = fixedpoint.PRE_ACTIVATION_SCALE


class _Exact(Function):
    """forward: an exact integer function of x; backward: x's gradient times `slope` (a number or a tensor)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | float) -> Tensor:
        if isinstance(slope, Tensor):
            ctx.save_for_backward(slope)
        else:
            ctx.slope = slope
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        slope = ctx.saved_tensors[0] if ctx.saved_tensors else ctx.slope
        return gradient * slope, None, None


def _exact(x: Tensor, value: Tensor, slope: Tensor | float) -> Tensor:
    if not x.requires_grad:
        return value
    result: Tensor = _Exact.apply(x, value, slope)  # type: ignore[no-untyped-call]
    return result


def saturate(x: Tensor, bits: int) -> Tensor:
    return x.clamp(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)


def limit_weight(w: Tensor) -> Tensor:
    """Keep weights off -128: some int8 dot products overflow on it."""
    return w.clamp(-127.0, 127.0)


def within_reach(weight: Tensor, scale: Tensor, reach: float) -> Tensor:
    """weight [rows, columns], its rows shrunk as far as need be for the magnitudes of their integers, times scale
    [rows, 1], to add up to at most `reach`. A row that is within reach already is left as it is.

    Backward, a shrunk row has the gradient of a row whose sum of magnitudes is fixed: its size gets none.
    """
    found = weight.detach()
    factor, budget = torch.ones_like(scale), torch.floor(reach / scale)
    while True:
        used = limit_weight(torch.round(found * factor / scale)).abs().sum(dim=1, keepdim=True)
        beyond = used > budget
        if not bool(beyond.any()):
            break
        factor = torch.where(beyond, factor * budget / used, factor)
    size = torch.where(factor < 1.0, weight.abs().sum(dim=1, keepdim=True), 1.0)
    return weight * (factor * (size.detach() / size))


def round_half_even(x: Tensor) -> Tensor:
    """Rounding of weights, biases and inputs, once."""
    return _exact(x, torch.round(x.detach()), 1.0)


def round_half_up(x: Tensor) -> Tensor:
    """Rounding of `requantize`."""
    return _exact(x, torch.floor(x.detach() + 0.5), 1.0)


def round_shift(x: Tensor, e: int) -> Tensor:
    """fixedpoint.round_shift(x, e) of an integer-valued x."""
    return _exact(x, _half_away(torch.floor((x.detach() + 1.0) * 0.5) * 2.0 ** (1 - e)), 2.0**-e)


def rescale(x: Tensor, q31: int, exponent: int) -> Tensor:
    """fixedpoint.rescale(x, q31, exponent) of an integer-valued x; |x| * 2^exponent < 2^22 keeps the product exact."""
    doubled_high = torch.floor(x.detach() * (q31 * 2.0 ** (max(exponent, 0) - 31)) + 0.5)
    return _exact(x, _half_away(doubled_high * 2.0 ** min(exponent, 0)), q31 * 2.0 ** (exponent - 31))


def quantize_multiplier(m: Tensor) -> Tensor:
    """The real multipliers as `requantize` applies them: 15 significant bits."""
    multiplier, shift = fixedpoint.quantize_multiplier(m.detach().cpu().numpy())
    return _exact(m, torch.from_numpy(np.ldexp(multiplier.astype(np.float64), -shift)).to(m.device), 1.0)


def operator_multiplier(m: Tensor) -> Tensor:
    """The real multipliers as TensorFlow Lite Micro's LSTM operator applies them: 31 significant bits."""
    values = m.detach().cpu().numpy()
    fixedpoint.quantize_multiplier(values)  # raises for one that runtimes do not cover
    q31, exponent = fixedpoint.decompose_multiplier(values)
    return _exact(m, torch.as_tensor(np.ldexp(q31.astype(np.float64), exponent - 31), device=m.device), 1.0)


def operator_rescale(x: Tensor, multiplier: Tensor) -> Tensor:
    """fixedpoint.rescale of an integer-valued x, with the 31-bit multipliers of `operator_multiplier` for each row."""
    fraction, exponent = torch.frexp(multiplier.detach())
    left = torch.exp2(exponent.clamp(min=0).double())
    shifted = (x.detach() * left).round().clamp(-(2.0**31), 2.0**31 - 1)  # as much as an int32 accumulator can hold
    doubled_high = (shifted.long() * (fraction * 2.0**31).long() + (1 << 30)) >> 31  # beyond what float64 holds
    return _exact(x * multiplier, _half_away(doubled_high.double() * torch.exp2(exponent.clamp(max=0).double())), 1.0)


def sigmoid(p: Tensor) -> Tensor:
    """fixedpoint.sigmoid of an integer-valued pre-activation."""
    value = _table("sigmoid", p.device)[p.detach().long() + 32768]
    y = value * fixedpoint.STATE_SCALE
    return _exact(p, value, y * (1.0 - y) * (PRE_ACTIVATION_SCALE / fixedpoint.STATE_SCALE))


def tanh(p: Tensor) -> Tensor:
    """fixedpoint.tanh of an integer-valued pre-activation."""
    value = _table("tanh", p.device)[p.detach().long() + 32768]
    y = value * fixedpoint.STATE_SCALE
    return _exact(p, value, (1.0 - y * y) * (PRE_ACTIVATION_SCALE / fixedpoint.STATE_SCALE))


def operator_sigmoid(p: Tensor) -> Tensor:
    """_tflite_lstm.table_sigmoid of an integer-valued pre-activation."""
    value = _operator_sigmoid_table(p.device)[p.detach().long() + 32768]
    y = value * fixedpoint.STATE_SCALE
    return _exact(p, value, y * (1.0 - y) * (OPERATOR_SCALE / fixedpoint.STATE_SCALE))


def operator_tanh(v: Tensor, fraction: int) -> Tensor:
    """_tflite_lstm.table_tanh of an integer-valued pre-activation (fraction 12) or cell state."""
    value = _operator_tanh_table(fraction, v.device)[v.detach().long() + 32768]
    y = value * fixedpoint.STATE_SCALE
    return _exact(v, value, (1.0 - y * y) * (2.0**-fraction / fixedpoint.STATE_SCALE))


def _half_away(x: Tensor) -> Tensor:
    """Nearest integer, ties away from zero (x is a dyadic rational far below 2^52, so the sum is exact)."""
    return torch.sign(x) * torch.floor(x.abs() + 0.5)


@cache
def _table(name: str, device: torch.device) -> Tensor:
    function = {"sigmoid": fixedpoint.sigmoid, "tanh": fixedpoint.tanh}[name]
    return torch.from_numpy(function(np.arange(-32768, 32768)).astype(np.float64)).to(device)


@cache
def _operator_sigmoid_table(device: torch.device) -> Tensor:
    return torch.from_numpy(table_sigmoid(np.arange(-32768, 32768)).astype(np.float64)).to(device)


@cache
def _operator_tanh_table(fraction: int, device: torch.device) -> Tensor:
    return torch.from_numpy(table_tanh(np.arange(-32768, 32768), fraction).astype(np.float64)).to(device)


@dataclass(frozen=True)
class Primitives:
    """The primitives as one object, so that the cells can be run over others (smooth ones, to check gradients)."""

    saturate: Callable[[Tensor, int], Tensor] = saturate
    limit_weight: Callable[[Tensor], Tensor] = limit_weight
    round_half_even: Callable[[Tensor], Tensor] = round_half_even
    round_half_up: Callable[[Tensor], Tensor] = round_half_up
    round_shift: Callable[[Tensor, int], Tensor] = round_shift
    rescale: Callable[[Tensor, int, int], Tensor] = rescale
    quantize_multiplier: Callable[[Tensor], Tensor] = quantize_multiplier
    sigmoid: Callable[[Tensor], Tensor] = sigmoid
    tanh: Callable[[Tensor], Tensor] = tanh
    operator_multiplier: Callable[[Tensor], Tensor] = operator_multiplier
    operator_rescale: Callable[[Tensor, Tensor], Tensor] = operator_rescale
    operator_sigmoid: Callable[[Tensor], Tensor] = operator_sigmoid
    operator_tanh: Callable[[Tensor, int], Tensor] = operator_tanh
