"""ONNX files (opset 17) of a network: in exact integers, with int8 weights and float arithmetic, or in float.

Every kind comes in two forms that share their names, N sequences at once:

`sequence`: `x` [N, T, input_size] and `lengths` int32 [N] in 1 .. T -> `y` [N, output_size], from the last valid step
(in a backward direction the first), or [N, T, output_size] with zeros at padded steps when the model has an output for
every step. N and T are free. What `x` holds at padded steps changes nothing, not even NaN.

`step`: `x` [N, input_size] and the states `h_0`, `c_0`, `h_1`, .. [N, hidden_size], zero at first -> `y`
[N, output_size] and the next states `h_0_out`, ..: what a stream is fed to, one step at a time. A bidirectional model
has no such form.

Check what you feed, ONNX Runtime (1.31) hardly does. N = 0 ends the process (abort) in a float or weights-only LSTM or
GRU of both forms. T = 0 raises in an exact file; in the others y is what the state zero gives. So it is for a length of
0, in every file. A length below 0 or beyond T counts as 0 or T in an exact file, and raises in the others; so does one
length for N sequences, which an exact file takes for all of them.

The files' metadata (`edgernn.*`) tell kind, form, task and labels; of an exact one also the scales.
"""

from typing import Literal

from ...floatmodel import FloatModel
from ...qmodel import QuantizedModel
from . import floating, integer

Form = Literal["sequence", "step"]

__all__ = ["float_to_onnx", "to_onnx"]


def to_onnx(model: QuantizedModel, form: Form = "sequence", weights_only: bool = False) -> bytes:
    """The quantised model as the content of an `.onnx` file.

    Exact (the default): `x` holds the integers of `model.quantize_input` (int8, in w8a16 int16), states are int16, `y`
    is int8, or int16 without a head. Every integer equals the device's, in every conforming runtime. A loop over
    elementary operators: made to agree, not to be fast.

    weights_only: int8 weights, but float arithmetic in ONNX's own LSTM, GRU or RNN operators: as fast as the float
    model and a quarter of its size. `x` holds real units, `y` real values. This is not the device's arithmetic: it has
    no rounding and no saturation of activations.

    Raises ValueError for an unknown form, single steps of a bidirectional model, a model whose sums float64 does not
    hold exactly, one of the profile tflite-lstm (but for weights_only), or one beyond 2 GiB.
    """
    _check(model, QuantizedModel, "call convert(model) first", form)
    if weights_only:
        return _float_file(floating.from_quantized(model), form)
    if model.profile != "portable":
        raise ValueError(
            f"there is no exact ONNX file of the profile {model.profile}: ONNX's operators give other integers than "
            "TensorFlow Lite's LSTM; export it for TFLite, or train with the profile portable"
        )
    return integer.sequence_graph(model) if form == "sequence" else integer.step_graph(model)


def float_to_onnx(model: FloatModel, form: Form = "sequence") -> bytes:
    """The float model as the content of an `.onnx` file: `x` float32 in real units (the file normalises), `y` logits.

    Raises ValueError for an unknown form, single steps of a bidirectional model, or a model beyond 2 GiB.
    """
    _check(model, FloatModel, "read one with FloatModel.load(path)", form)
    return _float_file(floating.from_float(model), form)


def _float_file(network: floating.Network, form: Form) -> bytes:
    return floating.sequence_graph(network) if form == "sequence" else floating.step_graph(network)


def _check(model: object, kind: type, remedy: str, form: str) -> None:
    if not isinstance(model, kind):
        raise ValueError(f"this export needs a {kind.__name__}, not a {type(model).__name__}; {remedy}")
    if form not in ("sequence", "step"):
        raise ValueError(f"unknown form {form!r}; an ONNX file is 'sequence' or 'step'")
