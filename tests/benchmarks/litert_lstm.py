"""TensorFlow Lite's own LSTM operator, in float and in int8, as a file: what a converter makes of a Keras LSTM.

Written with the schema that comes with ai-edge-litert; the product writes its graphs itself, and not this operator.
Source of the tensors' order and of the intermediates: tensorflow/lite/kernels/unidirectional_sequence_lstm.cc.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_OPERATOR: Final = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_GATE_SCALE: Final = 2.0**-12
_CELL_SCALE: Final = 2.0**-12
STATE_SCALE: Final = 2.0**-7


class Weights(NamedTuple):
    """[gates, hidden_size, inputs], [gates, hidden_size, hidden_size], [gates, hidden_size]; gates in torch's order,
    which is this operator's too."""

    input: Array
    recurrent: Array
    bias: Array


class _File:
    """One graph under construction, with the schema's own objects."""

    def __init__(self) -> None:
        self.schema = import_module("ai_edge_litert.schema_py_generated")
        self.model = self.schema.ModelT()
        self.graph = self.schema.SubGraphT()
        self.graph.tensors = []
        self.model.version, self.model.subgraphs, self.model.buffers = 3, [self.graph], [self.schema.BufferT()]

    def tensor(
        self, shape: Sequence[int], dtype: str, scale: float = 0.0, values: Array | None = None, variable: bool = False
    ) -> int:
        """The place of a new tensor; a scale of 0 means that it has none."""
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = list(shape), getattr(self.schema.TensorType, dtype.upper())
        tensor.isVariable, tensor.buffer = variable, 0
        if scale:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def finish(self, inputs: list[int], output: int, intermediates: list[int]) -> bytes:
        schema = self.schema
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, _OPERATOR)
        operator.inputs, operator.outputs, operator.intermediates = inputs, [output], intermediates
        operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
        operator.builtinOptions = schema.UnidirectionalSequenceLSTMOptionsT()
        operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH
        self.model.operatorCodes = [code]
        self.graph.operators, self.graph.inputs, self.graph.outputs = [operator], inputs[:1], [output]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def float_lstm(weights: Weights, steps: int) -> bytes:
    """x [1, steps, inputs] -> y [1, steps, hidden_size]."""
    file = _File()

    def constants(values: Array) -> list[int]:
        return [file.tensor(one.shape, "float32", values=one.astype(np.float32)) for one in values]

    hidden_size, inputs = weights.input.shape[1:]
    x = file.tensor([1, steps, inputs], "float32")
    kernels, bias = [*constants(weights.input), *constants(weights.recurrent)], constants(weights.bias)
    states = [file.tensor([1, hidden_size], "float32", variable=True) for _ in range(2)]
    y = file.tensor([1, steps, hidden_size], "float32")
    return file.finish([x, *kernels, *[-1] * 3, *bias, *[-1] * 2, *states, *[-1] * 4], y, [])


def int8_lstm(weights: Weights, steps: int, input_scale: float) -> bytes:
    """The same with int8 x of this scale, y of STATE_SCALE, a weight scale a gate, and an int16 cell state."""
    file = _File()

    def constants(values: Array) -> list[tuple[int, float]]:
        scales = [float(np.abs(one).max()) / 127 for one in values]
        integers = [np.rint(one / scale).astype(np.int8) for one, scale in zip(values, scales, strict=True)]
        return [(file.tensor(w.shape, "int8", s, w), s) for w, s in zip(integers, scales, strict=True)]

    hidden_size, inputs = weights.input.shape[1:]
    x = file.tensor([1, steps, inputs], "int8", input_scale)
    kernels, recurrent = constants(weights.input), constants(weights.recurrent)
    bias = []
    for (_, scale), real in zip(kernels, weights.bias, strict=True):
        integers = np.rint(real / (input_scale * scale)).astype(np.int32)
        bias.append(file.tensor(real.shape, "int32", input_scale * scale, integers))
    h = file.tensor([1, hidden_size], "int8", STATE_SCALE, variable=True)
    c = file.tensor([1, hidden_size], "int16", _CELL_SCALE, variable=True)
    y = file.tensor([1, steps, hidden_size], "int8", STATE_SCALE)
    between = [file.tensor([0], "int16", _GATE_SCALE) for _ in range(4)] + [file.tensor([0], "int8", STATE_SCALE)]
    places = [place for place, _ in (*kernels, *recurrent)]
    return file.finish([x, *places, *[-1] * 3, *bias, *[-1] * 2, h, c, *[-1] * 4], y, between)
