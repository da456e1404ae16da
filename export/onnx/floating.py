"""Float networks as ONNX's own LSTM, GRU and RNN operators, from float32 or from int8 weights."""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from ... import qmodel
from ...floatmodel import FloatArray, FloatLayer, FloatModel
from ...qmodel import STATES, Affine, Cell, IntArray, QuantizedModel
from .emitter import Emitter, Value, tensor, valid_steps

_OPERATOR: Final[dict[str, str]] = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# ONNX has the gates in the order i o f c and z r h, PyTorch in i f g o and r z n
_GATE_BLOCKS: Final = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Weights [rows, columns]: float32, or int8 with a float32 scale for each row."""

    values: FloatArray | IntArray
    scale: FloatArray | None = None

    def emit(self, g: Emitter, rows: IntArray | slice = slice(None)) -> str:
        """Float32 weights; a runtime does the cast and the scaling when it loads the file."""
        if self.scale is None:
            return g.constant(self.values[rows])
        return g.op("Mul", g.cast(self.values[rows], np.float32), self.scale[rows, None])


@dataclass(frozen=True, eq=False)
class Layer:
    """One direction of a recurrent layer, with its `backward` one if it has both. Rows are in PyTorch's order."""

    cell: Cell
    reset_after: bool
    weight_ih: Matrix
    weight_hh: Matrix
    bias_ih: FloatArray
    bias_hh: FloatArray
    backward: "Layer | None"

    @property
    def directions(self) -> "tuple[Layer, ...]":
        return (self,) if self.backward is None else (self, self.backward)

    @property
    def hidden_size(self) -> int:
        return int(self.weight_hh.values.shape[1])

    @property
    def output_size(self) -> int:
        return self.hidden_size * len(self.directions)

    @property
    def states(self) -> tuple[str, ...]:
        return STATES[self.cell]


@dataclass(frozen=True, eq=False)
class Network:
    """What both kinds of float files are made of. Without a head the output is the last layer's hidden state."""

    layers: tuple[Layer, ...]
    head: tuple[Matrix, FloatArray] | None
    every_step: bool
    input_mean: FloatArray
    input_std: FloatArray
    properties: dict[str, str]

    @property
    def input_size(self) -> int:
        return len(self.input_mean)

    @property
    def output_size(self) -> int:
        return self.layers[-1].output_size if self.head is None else len(self.head[1])


def from_float(model: FloatModel) -> Network:
    return Network(
        tuple(_float_layer(layer) for layer in model.layers),
        (Matrix(model.head_weight), model.head_bias),
        model.head == "steps",
        model.input_mean,
        model.input_std,
        {"edgernn.kind": "float", "edgernn.task": model.task, "edgernn.labels": json.dumps(model.labels)},
    )


def _float_layer(layer: FloatLayer) -> Layer:
    weights = Matrix(layer.weight_ih), Matrix(layer.weight_hh)
    backward = None if layer.backward is None else _float_layer(layer.backward)
    return Layer(layer.cell, layer.reset_after, *weights, layer.bias_ih, layer.bias_hh, backward)


def from_quantized(model: QuantizedModel) -> Network:
    """The float network that the integers stand for: weights and biases times their scales."""
    layers = [_real_layer(layer, 0 if index else model.input_zero_point) for index, layer in enumerate(model.layers)]
    dense = None if model.head is None else model.head.dense
    head = None if dense is None else (Matrix(dense.weight, dense.weight_scale), _real_bias(dense))
    properties = {"edgernn.kind": "weights_only", "edgernn.scheme": model.scheme, "edgernn.task": model.task}
    properties["edgernn.labels"] = json.dumps(model.labels)
    return Network(tuple(layers), head, model.every_step, model.input_mean, model.input_std, properties)


def _real_layer(layer: qmodel.Layer, zero_point: int) -> Layer:
    weight_ih = Matrix(layer.input.weight, layer.input.weight_scale)
    weight_hh = Matrix(layer.recurrent.weight, layer.recurrent.weight_scale)
    biases = _real_bias(layer.input, zero_point), _real_bias(layer.recurrent)
    backward = None if layer.backward is None else _real_layer(layer.backward, zero_point)
    return Layer(layer.cell, layer.reset_after, weight_ih, weight_hh, *biases, backward)


def _real_bias(affine: Affine, zero_point: int = 0) -> FloatArray:
    """The bias in real units, without the input's zero point that is folded into the integers."""
    integer = affine.bias + zero_point * affine.weight.astype(np.int64).sum(axis=1)
    scale = float(np.float32(affine.input_scale)) * affine.weight_scale.astype(np.float64)
    bias: FloatArray = (integer * scale).astype(np.float32)
    return bias


def sequence_graph(network: Network) -> bytes:
    """x [N, T, input_size], lengths [N] -> y [N, output_size], or [N, T, output_size] for every step."""
    g = Emitter()
    every, last = g.op("Transpose", _normalised(g, network), perm=[1, 0, 2]), ""
    for layer in network.layers:
        hidden, state = _recurrent(g, layer, every, "lengths", [])
        every, last = _side_by_side(g, layer, hidden), _side_by_side(g, layer, state[0])
    y = _head(g, network, every if network.every_step else last)
    if network.every_step:
        y = g.op("Transpose", g.op("Where", valid_steps(g), y, np.float32(0)), perm=[1, 0, 2])
    g.rename(y, "y")
    inputs = [tensor("x", np.float32, "N", "T", network.input_size), tensor("lengths", np.int32, "N")]
    shape = ("N", "T", network.output_size) if network.every_step else ("N", network.output_size)
    return _finish(g, network, "sequence", inputs, [tensor("y", np.float32, *shape)])


def step_graph(network: Network) -> bytes:
    """x [N, input_size] and the states [N, hidden_size] -> y [N, output_size] and the next states.

    Raises ValueError for a bidirectional network.
    """
    if any(layer.backward for layer in network.layers):
        raise ValueError("a bidirectional model reads whole sequences; export it in the form 'sequence'")
    g = Emitter()
    inputs = [tensor("x", np.float32, "N", network.input_size)]
    outputs = [tensor("y", np.float32, "N", network.output_size)]
    hidden = g.op("Unsqueeze", _normalised(g, network), [0])
    for index, layer in enumerate(network.layers):
        names = [f"{state}_{index}" for state in layer.states]
        _, following = _recurrent(g, layer, hidden, "", [g.op("Unsqueeze", name, [0]) for name in names])
        for name, state in zip(names, following, strict=True):
            inputs.append(tensor(name, np.float32, "N", layer.hidden_size))
            outputs.append(tensor(f"{name}_out", np.float32, "N", layer.hidden_size))
            g.rename(g.op("Squeeze", state, [0]), f"{name}_out")
        hidden = following[0]
    g.rename(_head(g, network, g.op("Squeeze", hidden, [0])), "y")
    return _finish(g, network, "step", inputs, outputs)


def _normalised(g: Emitter, network: Network) -> str:
    return g.op("Div", g.op("Sub", "x", network.input_mean), network.input_std)


def _recurrent(g: Emitter, layer: Layer, x: str, lengths: str, states: list[str]) -> tuple[str, list[str]]:
    """Hidden states [T, D, N, H] and final states [D, N, H] of D directions, from `states` or zero; x [T, N, columns].

    A sequence's final states are those of its last valid step, in a backward direction those of its first.
    """
    order = np.concatenate([np.arange(layer.hidden_size) + b * layer.hidden_size for b in _GATE_BLOCKS[layer.cell]])
    weight_ih = g.stack(*(one.weight_ih.emit(g, order) for one in layer.directions))
    weight_hh = g.stack(*(one.weight_hh.emit(g, order) for one in layer.directions))
    bias = np.stack([np.concatenate([one.bias_ih[order], one.bias_hh[order]]) for one in layer.directions])
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if layer.cell == "gru":
        attributes["linear_before_reset"] = int(layer.reset_after)
    if layer.backward is not None:
        attributes["direction"] = "bidirectional"
    inputs: list[Value] = [x, weight_ih, weight_hh, bias, lengths, *states]
    every, *last = g.ops(_OPERATOR[layer.cell], *inputs, outputs=1 + len(layer.states), **attributes)
    return every, last


def _side_by_side(g: Emitter, layer: Layer, h: str) -> str:
    """[.., D, N, H] -> [.., N, D * H] for the layer's D directions."""
    return g.concat(*(g.op("Gather", h, np.int64(index), axis=-3) for index in range(len(layer.directions))))


def _head(g: Emitter, network: Network, h: str) -> str:
    if network.head is None:
        return h
    matrix, bias = network.head
    return g.op("Add", g.op("MatMul", h, g.op("Transpose", matrix.emit(g), perm=[1, 0])), bias)


def _finish(
    g: Emitter,
    network: Network,
    form: str,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> bytes:
    kind = network.properties["edgernn.kind"]
    shape = {"edgernn.every_step": json.dumps(network.every_step), "edgernn.output_size": str(network.output_size)}
    return g.finish(f"edgernn_{kind}", inputs, outputs, {**network.properties, **shape, "edgernn.form": form})
