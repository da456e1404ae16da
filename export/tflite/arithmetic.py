"""The primitives of the integer arithmetic as TensorFlow Lite operators, one method each.

These are the operators that LiteRT (optimised and reference kernels) and TensorFlow Lite Micro compute alike to the
bit, and as `fixedpoint` does:

    requantize      CONV_2D 1x1, int16 by int8, int64 bias (FULLY_CONNECTED is rounded differently in every runtime)
    sigmoid, tanh   LOGISTIC, TANH on int16 of scale 1/3072 (with 2^-12 or 2^-11 LiteRT computes other integers)
    round_shift     MUL of int16 where the scales' ratio is a power of two; QUANTIZE int16 -> int8
    rescale         QUANTIZE int16 -> int16; MUL of int16 to the cell state's scale
    sat16(a + b)    ADD, SUB of int16 with three equal scales
    a or b          SELECT_V2
"""

from collections.abc import Sequence

import numpy as np

from ...fixedpoint import PRE_ACTIVATION_SCALE, STATE_SCALE, STATE_VIEW_SCALE
from ...qmodel import Affine, Scheme
from .graph import Graph, Scale, Tensor
from .schema import TENSOR_TYPES

_CHANNELS = 3  # the axis of [batch, 1, 1, size], the shape CONV_2D wants


class Arithmetic:
    """Appends operators on tensors [batch, 1, 1, size] to a graph, int16 unless said otherwise."""

    def __init__(self, graph: Graph, scheme: Scheme) -> None:
        self.graph = graph
        self._scheme = scheme

    def affine(self, affine: Affine, x: Tensor, rows: slice = slice(None), name: str = "p") -> Tensor:
        """requantize(bias + weight @ x) for these rows; x is int16, or int8 that is widened."""
        x, weight, scale = self._widen(x), affine.weight[rows], affine.weight_scale[rows]
        size = len(weight)
        bias_scale = np.float32(affine.input_scale) * scale
        kernel = self.graph.constant("w", weight.reshape(size, 1, 1, -1), "int8", scale)
        bias = self.graph.constant("b", affine.bias[rows], "int64", bias_scale)
        out = self.graph.tensor(name, (*x.shape[:-1], size), "int16", affine.output_scale)
        self.graph.op("CONV_2D", [x, kernel, bias], [out], padding=1, stride_w=1, stride_h=1)  # padding 1 = VALID
        return out

    def add(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        """sat16(a + b); the scales are equal."""
        return self._pointwise("ADD", [a, b], name, a.scale, pot_scale_int16=False)

    def sub(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        """sat16(a - b); the scales are equal."""
        return self._pointwise("SUB", [a, b], name, a.scale, pot_scale_int16=False)

    def mul(self, a: Tensor, b: Tensor, name: str, scale: float = STATE_SCALE) -> Tensor:
        """sat16 of a * b in the scale given; its ratio to the product's scale is a power of two."""
        return self._pointwise("MUL", [a, b], name, scale)

    def sigmoid(self, p: Tensor, name: str) -> Tensor:
        """Q0.15 sigmoid of a pre-activation."""
        return self._pointwise("LOGISTIC", [p], name, STATE_SCALE)

    def tanh(self, p: Tensor, name: str) -> Tensor:
        """Q0.15 tanh of a pre-activation."""
        return self._pointwise("TANH", [p], name, STATE_SCALE)

    def pre_activation(self, c: Tensor, name: str) -> Tensor:
        """The LSTM's cell state in the scale that tanh takes."""
        return self._pointwise("QUANTIZE", [c], name, PRE_ACTIVATION_SCALE)

    def split(self, p: Tensor, names: str) -> list[Tensor]:
        """The equal parts of a tensor, a one-letter name each."""
        axis = self.graph.constant("axis", _CHANNELS)
        parts = [
            self.graph.tensor(name, (*p.shape[:-1], p.shape[-1] // len(names)), p.dtype, p.scale) for name in names
        ]
        self.graph.op("SPLIT", [axis, p], parts, num_splits=len(names))
        return parts

    def view(self, h: Tensor) -> Tensor:
        """The hidden state as others read it: rounded to int8 in w8a8 (unless it is that view), itself in w8a16."""
        return self.narrow(h, "h8", STATE_VIEW_SCALE) if self._scheme == "w8a8" and h.dtype == "int16" else h

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors of one scale, one after the other along the channels."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        shape = (*first.shape[:-1], sum(part.shape[-1] for part in parts))
        out = self.graph.tensor("joined", shape, first.dtype, first.scale)
        self.graph.op("CONCATENATION", parts, [out], axis=_CHANNELS)
        return out

    def select(self, valid: Tensor, a: Tensor, b: Tensor, name: str) -> Tensor:
        """a where `valid` (bool [batch, 1, 1, 1]), else b; b may be one row for all of the batch."""
        out = self.graph.tensor(name, a.shape, a.dtype, a.scale, a.zero_point)
        self.graph.op("SELECT_V2", [valid, a, b], [out])
        return out

    def narrow(self, v: Tensor, name: str, scale: float) -> Tensor:
        """sat8(round_shift(v, 8)): int16 -> int8 of 256 times the scale."""
        out = self.graph.tensor(name, v.shape, "int8", scale)
        self.graph.op("QUANTIZE", [v], [out])
        return out

    def cast(self, v: Tensor, dtype: str) -> Tensor:
        """The same integers in another type."""
        out = self.graph.tensor(v.dtype, v.shape, dtype, v.scale)
        self.graph.op("CAST", [v], [out], in_data_type=TENSOR_TYPES[v.dtype], out_data_type=TENSOR_TYPES[dtype])
        return out

    def _widen(self, v: Tensor) -> Tensor:
        """The same integers as int16. A zero point is dropped: the bias of the affine map that follows holds it."""
        return v if v.dtype == "int16" else self.cast(v, "int16")

    def _pointwise(self, op: str, inputs: list[Tensor], name: str, scale: Scale | None, **options: bool) -> Tensor:
        out = self.graph.tensor(name, inputs[0].shape, inputs[0].dtype, scale)
        self.graph.op(op, inputs, [out], **options)
        return out
