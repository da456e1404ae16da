"""The profile tflite-lstm as a file: TensorFlow Lite's own LSTM operator in int8, one a direction of a layer.

What its runtimes check late or not at all is written as they want it: one scale a weight matrix, a power of two as the
cell state's, the five intermediate tensors (of which LiteRT takes the hidden state's scale).
Source of the tensors' scales: tensorflow/lite/kernels/unidirectional_sequence_lstm.cc.
"""

from collections.abc import Sequence

import numpy as np

from ..._tflite_lstm import OPERATOR_REACH, OPERATOR_SCALE
from ...fixedpoint import STATE_VIEW_SCALE
from ...qmodel import DIRECTION_NAMES, REVERSE, IntArray, Layer, QuantizedModel
from .graph import Graph, Tensor, TFLiteFile
from .integers import IntegerNetwork
from .lstm import last_step, lstm, reversed_steps
from .shapes import reshape


def check_operators(model: QuantizedModel, form: str, batch: int | None) -> None:
    """Raise ValueError for a form that these operators have not, and for what runtimes would silently get wrong.

    A recurrent term is saturated by TensorFlow Lite Micro's reference kernels and not by CMSIS-NN's, so that both part
    where it leaves int16 and the input's term brings the sum back. Hidden states are at most 1: a row whose weights'
    magnitudes add up to OPERATOR_REACH never gets there.
    """
    if form == "step":
        raise ValueError(
            "the profile tflite-lstm has no form step: its operator keeps the states inside; use the form stream"
        )
    if batch is not None:
        raise ValueError("the profile tflite-lstm takes one sequence at a time: its operator knows no lengths")
    for index, layer in enumerate(model.layers):
        for name, direction in zip(DIRECTION_NAMES, layer.directions, strict=False):
            reach = _recurrent_reach(direction, model.view_limit)
            if reach > OPERATOR_REACH:
                raise ValueError(
                    f"layer {index}{name}: the recurrent weights of a row add up to {reach:.2f}, more than the 8 that "
                    "the operator's int16 holds: there TensorFlow Lite Micro's kernels and CMSIS-NN's differ; quantise "
                    "the float model again, which keeps them within 8"
                )


def _recurrent_reach(layer: Layer, limit: int) -> float:
    """The largest magnitude that a recurrent term can have, in real units, of hidden states up to `limit`."""
    recurrent = layer.recurrent
    bound = recurrent.accumulator_bound(limit) * recurrent.weight_scale.astype(np.float64)
    return float(bound.max()) * recurrent.input_scale


# ---- the forms -------------------------------------------------------------------------------------------------------


def write(file: TFLiteFile, model: QuantizedModel, form: str, steps: int) -> None:
    """The form sequence of so many steps (-1: any number), or the form stream."""
    if form == "sequence":
        sequence(file, model, steps)
    else:
        stream(file, model)


def sequence(file: TFLiteFile, model: QuantizedModel, steps: int) -> None:
    """x [1, T, input_size] -> y, with T = steps, or any T when steps is -1. It goes on from the states of the sequence
    before unless the interpreter resets its variables."""
    graph = file.graph("main")
    x = IntegerNetwork(model).input(graph, (1, steps, model.input_size))
    hidden = _layers(graph, model, x)
    if model.every_step:
        read = [reshape(graph, h, (1, steps, 1, h.shape[2]), "h_4d") for h in _turned(graph, hidden)]
    else:
        read = [last_step(graph, h) for h in hidden]
    shape = (1, *([steps] if model.every_step else []), model.output_size)
    y = reshape(graph, _output(graph, model, read), shape, "y")
    file.signature("serving_default", graph, {"x": x}, {"y": y})


def stream(file: TFLiteFile, model: QuantizedModel) -> None:
    """x [1, input_size] -> y [1, output_size]: the operator over one step, which keeps its states. They are zero at
    first, and again when the interpreter resets its variables."""
    graph = file.graph("main")
    x = IntegerNetwork(model).input(graph, (1, model.input_size))
    (hidden,) = _layers(graph, model, reshape(graph, x, (1, 1, model.input_size), "x_3d"))
    read = reshape(graph, hidden, (1, 1, 1, hidden.shape[2]), "h_4d")
    y = reshape(graph, _output(graph, model, [read]), (1, model.output_size), "y")
    file.signature("step", graph, {"x": x}, {"y": y})


# ---- parts -----------------------------------------------------------------------------------------------------------


def _layers(graph: Graph, model: QuantizedModel, x: Tensor) -> list[Tensor]:
    """The last layer's hidden states [1, T, hidden_size], one a direction, in the order in which it reads."""
    hidden: list[Tensor] = []
    for index, layer in enumerate(model.layers):
        read = _joined(graph, _turned(graph, hidden)) if hidden else x
        hidden = [_operator(graph, layer, read, f"{index}")]
        if layer.backward is not None:
            hidden.append(_operator(graph, layer.backward, reversed_steps(graph, read), f"{index}{REVERSE}"))
    return hidden


def _turned(graph: Graph, hidden: Sequence[Tensor]) -> list[Tensor]:
    """The hidden states of both directions in the order of the steps."""
    return [hidden[0], *(reversed_steps(graph, backward) for backward in hidden[1:])]


def _joined(graph: Graph, hidden: Sequence[Tensor]) -> Tensor:
    if len(hidden) == 1:
        return hidden[0]
    first = hidden[0]
    out = graph.tensor("joined", (*first.shape[:2], sum(h.shape[2] for h in hidden)), first.dtype, first.scale)
    graph.op("CONCATENATION", hidden, [out], axis=2)
    return out


def _operator(graph: Graph, layer: Layer, x: Tensor, place: str) -> Tensor:
    """The hidden states [1, T, hidden_size] of one direction of a layer."""
    gates, size = len(layer.gates), layer.hidden_size
    weights = [
        graph.constant("w", weight, "int8", scales[0])
        for affine in (layer.input, layer.recurrent)
        for weight, scales in zip(np.split(affine.weight, gates), np.split(affine.weight_scale, gates), strict=True)
    ]
    scales = np.float32(layer.input.input_scale) * layer.input.weight_scale
    biases = [
        graph.constant("b", bias, "int32", scale[0])
        for bias, scale in zip(np.split(_bias(layer, x.zero_point), gates), np.split(scales, gates), strict=True)
    ]
    cell_scale = 2.0**-layer.cell_exponent
    states = [
        graph.tensor(f"h_{place}", (1, size), "int8", STATE_VIEW_SCALE, variable=True),
        graph.tensor(f"c_{place}", (1, size), "int16", cell_scale, variable=True),
    ]
    within = [graph.tensor(f"p_{gate}", (0,), "int16", OPERATOR_SCALE) for gate in layer.gates]
    within.append(graph.tensor("hidden", (0,), "int8", STATE_VIEW_SCALE))
    out = graph.tensor("h", (*x.shape[:2], size), "int8", STATE_VIEW_SCALE)
    return lstm(graph, x, weights, biases, states, out, within)


def _bias(layer: Layer, zero_point: int) -> IntArray:
    """The operator subtracts the input's zero point itself: the bias without it."""
    bias: IntArray = layer.input.bias + zero_point * layer.input.weight.astype(np.int32).sum(axis=1)
    return bias


def _output(graph: Graph, model: QuantizedModel, hidden: Sequence[Tensor]) -> Tensor:
    network = IntegerNetwork(model)
    return network.output(network.arithmetic(graph), hidden)
