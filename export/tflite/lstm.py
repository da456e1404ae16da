"""TensorFlow Lite's operator for a whole LSTM layer, of floats and of int8, and what stands around it.

Source of the tensors' order: tensorflow/lite/kernels/unidirectional_sequence_lstm.cc.
"""

from collections.abc import Sequence
from typing import Final

from .graph import Graph, Tensor
from .shapes import reshape

_TANH: Final = 4  # of ActivationFunctionType
_TIME: Final = 0b010  # the axis of [batch, T, size] in a mask
_OTHERS: Final = 0b101


def lstm(
    graph: Graph,
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    states: Sequence[Tensor],
    out: Tensor,
    within: Sequence[Tensor] = (),
) -> Tensor:
    """out: the hidden states [batch, T, hidden_size] of x [batch, T, size].

    weights: the input's of every gate, then the recurrent ones. states: variable tensors, h and c. within: the
    intermediate tensors that tell int8's scales.
    """
    inputs = [x, *weights, *[None] * 3, *biases, *[None] * 2, *states, *[None] * 4]  # no peepholes, projection, norms
    graph.op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [out], within, fused_activation_function=_TANH)
    return out


def reversed_steps(graph: Graph, x: Tensor) -> Tensor:
    """x [batch, T, size] from its last step to its first."""
    out = graph.tensor("reversed", x.shape, x.dtype, x.scale, x.zero_point)
    graph.op("REVERSE_V2", [x, graph.constant("axis", [1])], [out])
    return out


def last_step(graph: Graph, x: Tensor) -> Tensor:
    """The last step of x [batch, T, size], as [batch, 1, 1, size]."""
    batch, _, size = x.shape
    bounds = [graph.constant(name, values) for name, values in (("begin", (0, -1, 0)), ("end", (0, 0, 0)))]
    out = graph.tensor("last", (batch, 1, size), x.dtype, x.scale)
    inputs = [x, *bounds, graph.constant("strides", (1, 1, 1))]
    graph.op("STRIDED_SLICE", inputs, [out], begin_mask=_OTHERS, end_mask=_OTHERS | _TIME)
    return reshape(graph, out, (batch, 1, 1, size), "last_4d")
