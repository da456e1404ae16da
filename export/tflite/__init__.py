"""TensorFlow Lite files from a QuantizedModel, written with `flatbuffers` alone."""

import json
from typing import Any, Final, Literal, get_args

import numpy as np

from ..._files import UNSEALED, seal
from ...floatmodel import FloatModel
from ...qmodel import QuantizedModel
from . import forms, operators
from .floating import FloatNetwork
from .graph import TFLiteFile
from .integers import IntegerNetwork
from .network import Network
from .shapes import ANY

__all__ = ["FloatForm", "Form", "float_to_tflite", "to_tflite"]

Form = Literal["sequence", "step", "stream"]
FloatForm = Literal["sequence", "step"]

MIN_RUNTIME_VERSION: Final = "2.14.0"  # tflite-runtime 2.14.0 computes the same integers; older ones were not tried
_TENSOR_BYTES_MAX: Final = 2**31 - 1  # runtimes count a tensor's bytes in int32


def to_tflite(
    model: QuantizedModel, form: Form = "sequence", steps: int | None = None, batch: int | None = None
) -> bytes:
    """The model as a .tflite file which LiteRT and TensorFlow Lite Micro compute alike, to the bit.

    sequence: x [1, T, input_size] -> y [1, output_size], or y [1, T, output_size] when the model has an output for
        every step. T is `steps`; if that is None, T is any number >= 1, set by resizing the input (LiteRT alone can).
    step: x [1, input_size] and the states h_0 (for an LSTM c_0 as well), h_1, .. [1, hidden_size] -> y [1, output_size]
        and the new states h_0_out, .. The first step takes zeros.
    stream: x [1, input_size] -> y [1, output_size]; the states are kept inside. The signature `reset` sets them to
        zero (in TensorFlow Lite Micro, the interpreter's Reset).

    With `batch`, the first axis of all of them is that number in place of 1, and a sequence has a second input,
    `lengths` int32 [batch]: how many steps of each are valid, 1 .. T. The steps after them are padding, whatever they
    hold: they change no state, and their outputs are 0.

    A model of the profile tflite-lstm becomes TensorFlow Lite's own LSTM operator, in the forms sequence and stream and
    without `batch`. Runtimes compute it in the flavours of `firmware_sim.run`. It keeps its states in variables of the
    interpreter, from a sequence to the next too, unless its reset_all_variables (in TensorFlow Lite Micro, Reset) is
    called; there is no signature `reset`. TensorFlow Lite Micro built with CMSIS-NN's kernels loses them after every
    call, so that it cannot run the form stream.

    x is int8 (w8a8) or int16 (w8a16), y int8 (int16 hidden states for a model without a head), states are int16. All
    carry their scales and zero points; quantise on the host (`QuantizedModel.quantize_input`), because runtimes round
    float inputs differently. The signature is `serving_default`, for stream `step`. The metadata entry `edgernn` is
    JSON: arithmetic version, scheme, form, batch, task, whether there is an output for every step, labels,
    normalisation, QuantizedModel.fingerprint, and a checksum of the file.

    Raises ValueError for an unknown form, steps < 1, steps with a form other than sequence, batch < 1, a bidirectional
    model in steps, a tensor of 2 GiB or more, and an output scale that float32 cannot hold; in the profile tflite-lstm
    for the form step, a batch, and recurrent weights that can bring a gate beyond int16.
    """
    _check(model, form, steps, batch)
    network = IntegerNetwork(model)
    file = _file(network, model.scheme if model.profile == "portable" else model.profile, form)
    if model.profile == "tflite-lstm":
        operators.write(file, model, form, ANY if steps is None else steps)
    elif form == "sequence":
        forms.sequence(file, network, ANY if steps is None else steps, batch)
    elif form == "step":
        forms.step(file, network, batch or 1)
    else:
        forms.stream(file, network, batch or 1)
    return _finish(file, _metadata(model, form, batch))


def float_to_tflite(model: FloatModel, form: FloatForm = "sequence") -> bytes:
    """The float model as a .tflite file for LiteRT: `x` float32 in real units (the file normalises), `y` logits.

    sequence: x [1, T, input_size], T any number >= 1, -> y [1, output_size], or y [1, T, output_size] for every step.
        An LSTM is TensorFlow Lite's own operator (as a converter makes it of Keras' layer): it goes on from the states
        of the sequence before unless the interpreter's reset_all_variables is called. GRU and RNN are loops.
    step: x [1, input_size] and the states h_0, c_0, h_1, .. [1, hidden_size], zero at first -> y [1, output_size] and
        the next states h_0_out, ..

    Raises ValueError for an unknown form, single steps of a bidirectional model, and a tensor of 2 GiB or more.
    """
    if not isinstance(model, FloatModel):
        found = type(model).__name__
        raise ValueError(f"this export needs a FloatModel, not a {found}; read one with FloatModel.load(path)")
    if form not in get_args(FloatForm):
        raise ValueError(f"unknown form {form!r}; a float file is {' or '.join(map(repr, get_args(FloatForm)))}")
    if form == "step" and any(layer.backward for layer in model.layers):
        raise ValueError("a bidirectional model reads whole sequences; export it in the form 'sequence'")
    _check_bytes(max(layer.weight_ih.nbytes + layer.weight_hh.nbytes for layer in model.layers))
    network = FloatNetwork(model)
    file = _file(network, "float", form)
    if form == "sequence":
        forms.sequence(file, network, ANY, None)
    else:
        forms.step(file, network, 1)
    facts = {"kind": "float", "form": form, "task": model.task, "every_step": network.every_step}
    return _finish(file, facts | _labels(model))


def _file(network: Network, numbers: str, form: str) -> TFLiteFile:
    layers = "-".join(f"{'2x' if layer.backward else ''}{layer.hidden_size}" for layer in network.layers)
    return TFLiteFile(f"edgernn {network.layers[0].cell} {network.input_size}-{layers} {numbers} {form}")


def _finish(file: TFLiteFile, metadata: dict[str, Any]) -> bytes:
    file.metadata("edgernn", json.dumps({**metadata, "checksum": UNSEALED}, separators=(",", ":")).encode())
    file.metadata("min_runtime_version", MIN_RUNTIME_VERSION.encode().ljust(16, b"\0"))
    return seal(file.pack())


def _check(model: QuantizedModel, form: str, steps: int | None, batch: int | None) -> None:
    if not isinstance(model, QuantizedModel):
        raise ValueError(f"to_tflite needs a QuantizedModel, not a {type(model).__name__}; call convert(model) first")
    if form not in get_args(Form):
        raise ValueError(f"unknown form {form!r}; known are {', '.join(get_args(Form))}")
    if model.output_scale > float(np.finfo(np.float32).max):
        raise ValueError(f"the output scale {model.output_scale} is beyond float32; scale the regression's target down")
    for name, number in (("steps", steps), ("batch", batch)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}")
    if form != "sequence":
        model.check_streaming()
        if steps is not None:
            raise ValueError(
                f"steps={steps} goes with the form sequence; {form} takes one step a call, leave steps out"
            )
    if model.profile == "tflite-lstm":
        operators.check_operators(model, form, batch)
    _check_bytes(_largest_tensor(model, steps or 1, batch or 1))


def _check_bytes(size: int) -> None:
    if size > _TENSOR_BYTES_MAX:
        raise ValueError(f"a tensor of {size} bytes is beyond TFLite's 2 GiB; use fewer steps or a smaller batch")


def _largest_tensor(model: QuantizedModel, steps: int, batch: int) -> int:
    """Bytes of the file's largest tensor, a sequence or the pre-activations of a step, if all were int16."""
    sequences = [model.input_size, *([model.output_size] if model.every_step else [])]
    if model.bidirectional:
        sequences += [layer.output_size for layer in model.layers]
    return 2 * batch * max((steps + 1) * max(sequences), *(layer.input.rows for layer in model.layers))


def _metadata(model: QuantizedModel, form: str, batch: int | None) -> dict[str, Any]:
    """What a program that runs the file needs beside the tensors' scales."""
    entry: dict[str, Any] = {
        "arithmetic_version": model.arithmetic_version,
        "scheme": model.scheme,
        "form": form,
        "task": model.task,
        "every_step": model.every_step,
        "fingerprint": model.fingerprint,
    }
    if model.profile != "portable":
        entry["profile"] = model.profile
    if batch is not None:
        entry["batch"] = batch
    entry |= _labels(model)
    if model.input_mean.any() or (model.input_std != 1).any():
        # str of a float32 is its shortest exact decimal
        entry["input_mean"] = [float(str(value)) for value in model.input_mean]
        entry["input_std"] = [float(str(value)) for value in model.input_std]
    return entry


def _labels(model: QuantizedModel | FloatModel) -> dict[str, Any]:
    return {"labels": list(model.labels)} if model.labels else {}
