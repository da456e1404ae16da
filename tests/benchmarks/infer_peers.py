"""What infers beside edgernn: the same float weights in torch, ONNX Runtime, LiteRT and TensorFlow Lite Micro.

One thread each, and of several ways the fastest: ONNX Runtime with its memory bound beforehand, and its dynamic
quantisation with a scale a matrix.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgernn.engines._graphs import silence

from .litert_lstm import STATE_SCALE, Weights, float_lstm, int8_lstm
from .train_peers import FLOAT

Array = npt.NDArray[Any]
Run = Callable[[], Array]

TORCH: Final = "torch float"
ORT: Final = "ORT float"
_GATE_BLOCKS: Final = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}  # ONNX's order of torch's gates
_INPUT_SCALE: Final = 4 / 127  # the inputs lie within +-4
_ARENA: Final = 1 << 24  # bytes, for TensorFlow Lite Micro
_INT8_ENGINES: Final = ("x86", "qnnpack")  # torch's, the fastest first


class Peer(NamedTuple):
    """error: the largest difference from torch's float outputs."""

    name: str
    run: Run
    error: float


def float_input(batch: int, steps: int, inputs: int) -> torch.Tensor:
    return torch.randn(batch, steps, inputs).clamp(-4, 4)


def module(cell: str, inputs: int, hidden_size: int) -> nn.RNNBase:
    return FLOAT[cell](inputs, hidden_size, batch_first=True).eval()


def torch_call(rnn: nn.Module, x: torch.Tensor) -> Run:
    """Hidden states [batch, steps, hidden_size]."""

    @torch.inference_mode()
    def call() -> Array:
        return np.asarray(rnn(x)[0])

    return call


def torch_int8(rnn: nn.RNNBase, x: torch.Tensor) -> Run:
    """torch.ao's dynamic quantisation in the fastest engine that there is."""
    engine = next(name for name in _INT8_ENGINES if name in torch.backends.quantized.supported_engines)
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which has no recurrent modules
        quantize = import_module("torch.ao.quantization").quantize_dynamic
        quantized = quantize(nn.Sequential(rnn), {type(rnn)}, dtype=torch.qint8)
    return torch_call(quantized, x)


# ---- ONNX Runtime ----------------------------------------------------------------------------------------------------


def onnx_model(cell: str, rnn: nn.RNNBase, states: bool = False) -> Any:
    """X [steps, batch, inputs] -> Y [steps, 1, batch, hidden_size] in ONNX's own operator, which has no transposition
    to do in this order. With states, also initial_h, initial_c -> Y_h, Y_c."""
    from onnx import TensorProto, helper, numpy_helper

    weight_ih, weight_hh, bias_ih, bias_hh = (value.detach().numpy() for value in rnn.parameters())
    hidden_size, inputs = weight_hh.shape[1], weight_ih.shape[1]
    rows = np.concatenate([np.arange(hidden_size) + block * hidden_size for block in _GATE_BLOCKS[cell]])
    constants = {"W": weight_ih[rows], "R": weight_hh[rows], "B": np.concatenate([bias_ih[rows], bias_hh[rows]])}
    own = [f"initial_{name}" for name in ("h", "c")[: 2 if cell == "lstm" else 1]] if states else []
    finals = [f"Y_{name[-1]}" for name in own]
    options: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    reads = ["X", *constants, "", *own] if states else ["X", *constants]
    node = helper.make_node(cell.upper(), reads, ["Y", *finals], hidden_size=hidden_size, **options)

    def values(names: list[str], *shape: int | str) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]

    graph = helper.make_graph(
        [node],
        cell,
        values(["X"], "T", "N", inputs) + values(own, 1, "N", hidden_size),
        values(["Y"], "T", 1, "N", hidden_size) + values(finals, 1, "N", hidden_size),
        [numpy_helper.from_array(array[None], name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def onnx_session(content: bytes) -> Any:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx_call(content: bytes, x: torch.Tensor, hidden_size: int) -> Run:
    """Hidden states [steps, 1, batch, hidden_size] of x [batch, steps, inputs], in memory that is bound once."""
    import onnxruntime

    session, (batch, steps, _) = onnx_session(content), x.shape
    given = np.ascontiguousarray(x.numpy().transpose(1, 0, 2))
    found = np.zeros((steps, 1, batch, hidden_size), np.float32)
    bound = session.io_binding()
    bound.bind_ortvalue_input("X", onnxruntime.OrtValue.ortvalue_from_numpy(given))  # shares the arrays' memory
    bound.bind_ortvalue_output("Y", onnxruntime.OrtValue.ortvalue_from_numpy(found))

    def call() -> Array:
        session.run_with_iobinding(bound)
        return found

    return call


def onnx_int8(model: Any) -> bytes:
    """With DynamicQuantizeLSTM in place of LSTM; there is no such operator for the others."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(model, path, weight_type=QuantType.QInt8)
        finally:
            logging.disable(logging.NOTSET)
        content = path.read_bytes()
    if b"DynamicQuantizeLSTM" not in content:
        raise RuntimeError("ONNX Runtime has left the LSTM in float")
    return content


# ---- TensorFlow Lite's operator --------------------------------------------------------------------------------------


def operator_weights(rnn: nn.RNNBase) -> Weights:
    weight_ih, weight_hh, bias_ih, bias_hh = (value.detach().numpy() for value in rnn.parameters())
    size = weight_hh.shape[1]
    bias = (bias_ih + bias_hh).reshape(4, size)
    return Weights(weight_ih.reshape(4, size, -1), weight_hh.reshape(4, size, size), bias)


def litert_call(content: bytes, x: Array) -> Run:
    """Hidden states [1, steps, hidden_size] of a file with one input and one output."""
    from ai_edge_litert import interpreter  # type: ignore[import-untyped]

    with silence():  # a banner
        runner = interpreter.Interpreter(model_content=content, num_threads=1)
        runner.allocate_tensors()
    source, target = (details()[0]["index"] for details in (runner.get_input_details, runner.get_output_details))

    def call() -> Array:
        runner.reset_all_variables()
        runner.set_tensor(source, x)
        runner.invoke()
        return np.asarray(runner.get_tensor(target))

    return call


def tflm_call(content: bytes, x: Array) -> Run:
    from tflite_micro import runtime  # type: ignore[import-untyped]

    runner = runtime.Interpreter.from_bytes(content, arena_size=_ARENA)

    def call() -> Array:
        runner.reset()
        runner.set_input(x, 0)
        runner.invoke()
        return np.asarray(runner.get_output(0))

    return call


# ---- all of them -----------------------------------------------------------------------------------------------------


def peers(cell: str, hidden_size: int, steps: int, inputs: int, quick: bool) -> Iterator[Peer]:
    """One sequence in every peer that has the cell, torch's float module first, ONNX Runtime's float operator second;
    in a quick run no other."""
    x, rnn = float_input(1, steps, inputs), module(cell, inputs, hidden_size)
    expected = torch_call(rnn, x)().reshape(steps, hidden_size)
    runs = float_runs(cell, rnn, x) | ({} if quick else integer_runs(cell, rnn, x))
    for name, (run, scale) in runs.items():
        yield Peer(name, run, float(np.abs(run().reshape(steps, hidden_size) * scale - expected).max()))


def float_runs(cell: str, rnn: nn.RNNBase, x: torch.Tensor) -> dict[str, tuple[Run, float]]:
    """By name, a call and what to multiply its outputs with."""
    content = onnx_model(cell, rnn).SerializeToString()
    return {TORCH: (torch_call(rnn, x), 1.0), ORT: (onnx_call(content, x, rnn.hidden_size), 1.0)}


def integer_runs(cell: str, rnn: nn.RNNBase, x: torch.Tensor) -> dict[str, tuple[Run, float]]:
    """Of the same kind: everything else, LiteRT's float operator included."""
    runs: dict[str, tuple[Run, float]] = {}
    if cell != "rnn":
        runs["torch dynamic int8"] = torch_int8(rnn, x), 1.0
    if cell == "lstm":
        runs["ORT dynamic int8"] = onnx_call(onnx_int8(onnx_model(cell, rnn)), x, rnn.hidden_size), 1.0
        weights, steps = operator_weights(rnn), x.shape[1]
        integers = np.rint(x.numpy() / _INPUT_SCALE).astype(np.int8)
        file = int8_lstm(weights, steps, _INPUT_SCALE)
        runs["LiteRT float operator"] = litert_call(float_lstm(weights, steps), x.numpy()), 1.0
        runs["LiteRT int8 operator"] = litert_call(file, integers), STATE_SCALE
        runs["TFLM int8 operator"] = tflm_call(file, integers), STATE_SCALE
    return runs
