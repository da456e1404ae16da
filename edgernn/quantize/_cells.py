"""One time step of every cell on integer-valued tensors, as the arithmetic defines it, with gradients.

States are float64 tensors [batch, hidden_size] that hold integers; `px` [batch, gates * hidden_size] is the input's
pre-activation, already requantized.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from .. import fixedpoint
from ..qmodel import Cell, Profile, Scheme
from ._ops import Primitives


class IntegerAffine(NamedTuple):
    """weight [rows, columns] and bias [rows] integers, multiplier [rows] as the arithmetic applies it: all float64."""

    weight: Tensor
    bias: Tensor
    multiplier: Tensor


@dataclass(frozen=True)
class IntegerLayer:
    """The integers of one layer for one forward pass."""

    cell: Cell
    profile: Profile
    scheme: Scheme
    reset_after: bool
    cell_exponent: int
    input: IntegerAffine
    recurrent: IntegerAffine


class Cells:
    """The steps of the arithmetic over its primitives."""

    def __init__(self, ops: Primitives | None = None) -> None:
        self.ops = ops or Primitives()

    def affine(self, a: IntegerAffine, x: Tensor) -> Tensor:
        """int16 [.., rows] = requantize(bias + weight @ x)."""
        p: Tensor = self.ops.saturate(self.ops.round_half_up(linear(x, a.weight, a.bias) * a.multiplier), 16)
        return p

    def operator_affine(self, a: IntegerAffine, x: Tensor) -> Tensor:
        """int16 [.., rows]: `affine` as TensorFlow Lite's LSTM operator requantizes."""
        p: Tensor = self.ops.saturate(self.ops.operator_rescale(linear(x, a.weight, a.bias), a.multiplier), 16)
        return p

    def project(self, layer: IntegerLayer, x: Tensor) -> Tensor:
        """px [.., rows] of the layer's operands x [.., columns]."""
        return (self.affine if layer.profile == "portable" else self.operator_affine)(layer.input, x)

    def view(self, h: Tensor, scheme: Scheme) -> Tensor:
        """The hidden state as a matrix product reads it: int8 in w8a8, itself in w8a16."""
        return self.narrow(h) if scheme == "w8a8" else h

    def narrow(self, v: Tensor) -> Tensor:
        """int16 -> int8 with 256 times the scale."""
        int8: Tensor = self.ops.saturate(self.ops.round_shift(v, 8), 8)
        return int8

    def step(self, layer: IntegerLayer, px: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next (h, c); c belongs to the LSTM and passes through the others."""
        if layer.profile == "tflite-lstm":
            return self.operator_lstm(layer, px, h, c)
        if layer.cell == "lstm":
            return self.lstm(layer, px, h, c)
        return (self.gru(layer, px, h) if layer.cell == "gru" else self.rnn(layer, px, h)), c

    def lstm(self, layer: IntegerLayer, px: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ops = self.ops
        p = ops.saturate(px + self.affine(layer.recurrent, self.view(h, layer.scheme)), 16)
        p_i, p_f, p_g, p_o = p.chunk(4, dim=-1)
        i, f, g, o = ops.sigmoid(p_i), ops.sigmoid(p_f), ops.tanh(p_g), ops.sigmoid(p_o)
        remembered = ops.saturate(ops.round_shift(f * c, 15), 16)
        c = ops.saturate(remembered + ops.saturate(ops.round_shift(i * g, 30 - layer.cell_exponent), 16), 16)
        squashed = ops.tanh(ops.saturate(ops.rescale(c, *fixedpoint.cell_rescale(layer.cell_exponent)), 16))
        return ops.saturate(ops.round_shift(o * squashed, 15), 16), c

    def operator_lstm(self, layer: IntegerLayer, px: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The operator in TensorFlow Lite Micro's arithmetic: h is int8 with the scale 2^-7, and has no other view.

        Source: tensorflow/lite/micro/kernels/lstm_eval.cc. Its multipliers here are powers of two, by which it rounds
        as round_shift does.
        """
        ops, k = self.ops, layer.cell_exponent
        p_i, p_f, p_g, p_o = ops.saturate(px + self.operator_affine(layer.recurrent, h), 16).chunk(4, dim=-1)
        i, f, o = ops.operator_sigmoid(p_i), ops.operator_sigmoid(p_f), ops.operator_sigmoid(p_o)
        written = ops.round_shift(i * ops.operator_tanh(p_g, 12), 30 - k)
        c = ops.saturate(ops.round_shift(f * c, 15) + written, 16)
        return ops.saturate(ops.round_shift(o * ops.operator_tanh(c, k), 23), 8), c

    def gru(self, layer: IntegerLayer, px: Tensor, h: Tensor) -> Tensor:
        ops, size = self.ops, h.shape[-1]
        u = layer.recurrent
        px_rz, px_n = px[..., : 2 * size], px[..., 2 * size :]
        if layer.reset_after:
            ph = self.affine(u, self.view(h, layer.scheme))
            r, z = ops.sigmoid(ops.saturate(px_rz + ph[..., : 2 * size], 16)).chunk(2, dim=-1)
            inner = ops.saturate(ops.round_shift(r * ph[..., 2 * size :], 15), 16)
        else:
            u_rz, u_n = (IntegerAffine(*(t[rows] for t in u)) for rows in (slice(2 * size), slice(2 * size, None)))
            r, z = ops.sigmoid(ops.saturate(px_rz + self.affine(u_rz, self.view(h, layer.scheme)), 16)).chunk(2, dim=-1)
            inner = self.affine(u_n, self.view(ops.saturate(ops.round_shift(r * h, 15), 16), layer.scheme))
        n = ops.tanh(ops.saturate(px_n + inner, 16))
        h_next: Tensor = ops.saturate(ops.saturate(n - ops.round_shift(z * n, 15), 16) + ops.round_shift(z * h, 15), 16)
        return h_next

    def rnn(self, layer: IntegerLayer, px: Tensor, h: Tensor) -> Tensor:
        h_next: Tensor = self.ops.tanh(
            self.ops.saturate(px + self.affine(layer.recurrent, self.view(h, layer.scheme)), 16)
        )
        return h_next
