"""Float networks as ONNX's own LSTM, GRU and RNN operators, from float32 or from int8 weights."""

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from ...floatmodel import FloatArray, FloatModel
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
    cell: Cell
    reset_after: bool
    weight_ih: Matrix
    weight_hh: Matrix
    bias_ih: FloatArray
    bias_hh: FloatArray

    @property
    def hidden_size(self) -> int:
        return int(self.weight_hh.values.shape[1])

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
        return self.layers[-1].hidden_size if self.head is None else len(self.head[1])


def from_float(model: FloatModel) -> Network:
    layers = [
        Layer(s.cell, s.reset_after, Matrix(s.weight_ih), Matrix(s.weight_hh), s.bias_ih, s.bias_hh)
        for s in model.layers
    ]
    return Network(
        tuple(layers),
        (Matrix(model.head_weight), model.head_bias),
        model.head == "steps",
        model.input_mean,
        model.input_std,
        {"edgernn.kind": "float", "edgernn.task": model.task, "edgernn.labels": json.dumps(model.labels)},
    )


def from_quantized(model: QuantizedModel) -> Network:
    """The float network that the integers stand for: weights and biases times their scales."""
    layers = [
        Layer(
            layer.cell,
            layer.reset_after,
            Matrix(layer.input.weight, layer.input.weight_scale),
            Matrix(layer.recurrent.weight, layer.recurrent.weight_scale),
            _real_bias(layer.input, 0 if index else model.input_zero_point),
            _real_bias(layer.recurrent),
        )
        for index, layer in enumerate(model.layers)
    ]
    dense = None if model.head is None else model.head.dense
    head = None if dense is None else (Matrix(dense.weight, dense.weight_scale), _real_bias(dense))
    properties = {"edgernn.kind": "weights_only", "edgernn.scheme": model.scheme, "edgernn.task": model.task}
    properties["edgernn.labels"] = json.dumps(model.labels)
    return Network(tuple(layers), head, model.every_step, model.input_mean, model.input_std, properties)


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
        directions, state = _recurrent(g, layer, every, "lengths", [])
        every, last = g.op("Squeeze", directions, [1]), g.op("Squeeze", state[0], [0])
    y = _head(g, network, every if network.every_step else last)
    if network.every_step:
        y = g.op("Transpose", g.op("Where", valid_steps(g), y, np.float32(0)), perm=[1, 0, 2])
    g.rename(y, "y")
    inputs = [tensor("x", np.float32, "N", "T", network.input_size), tensor("lengths", np.int32, "N")]
    shape = ("N", "T", network.output_size) if network.every_step else ("N", network.output_size)
    return _finish(g, network, "sequence", inputs, [tensor("y", np.float32, *shape)])


def step_graph(network: Network) -> bytes:
    """x [N, input_size] and the states [N, hidden_size] -> y [N, output_size] and the next states."""
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
    """Every hidden state [T, 1, N, H] and the last states [1, N, H] for x [T, N, columns], from `states` or zero."""
    order = np.concatenate([np.arange(layer.hidden_size) + b * layer.hidden_size for b in _GATE_BLOCKS[layer.cell]])
    weights = [g.op("Unsqueeze", matrix.emit(g, order), [0]) for matrix in (layer.weight_ih, layer.weight_hh)]
    bias = np.concatenate([layer.bias_ih[order], layer.bias_hh[order]])[None]
    inputs: list[Value] = [x, *weights, bias, lengths, *states]
    attributes = {"linear_before_reset": int(layer.reset_after)} if layer.cell == "gru" else {}
    outputs = 1 + len(layer.states)
    every, *last = g.ops(_OPERATOR[layer.cell], *inputs, outputs=outputs, hidden_size=layer.hidden_size, **attributes)
    return every, last


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
    return g.finish(f"edgernn_{kind}", inputs, outputs, {**network.properties, "edgernn.form": form})
