"""Float .tflite files give torch's outputs in LiteRT."""

from typing import Any

import numpy as np
import pytest

from edgernn._artifacts import read_tflite
from edgernn.export import float_to_tflite
from edgernn.qmodel import HeadKind

from .models import VARIANTS, Variant, random_model
from .test_export_onnx_float import PATTERNS, random_float_model
from .tflite_runtimes import RESOLVERS, interpreter

TOLERANCE = 2e-5


def names(details: list[dict[str, Any]]) -> dict[str, int]:
    return {entry["name"]: entry["index"] for entry in details}


def sequences(content: bytes, resolver: Any) -> Any:
    """run(x [T, input_size]) -> y, the interpreter's variables cleared before each."""
    engine = interpreter(content, resolver)
    places, outputs = names(engine.get_input_details()), names(engine.get_output_details())

    def run(x: Any) -> Any:
        engine.resize_tensor_input(places["x"], (1, *x.shape))
        engine.allocate_tensors()
        engine.reset_all_variables()
        engine.set_tensor(places["x"], x[None])
        engine.invoke()
        return engine.get_tensor(outputs["y"])[0]

    return run


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("cell", VARIANTS)
def test_sequences_equal_torch(cell: Variant, head: HeadKind, pattern: list[bool]) -> None:
    network, model, x = random_float_model(91, cell, head, pattern)
    content = float_to_tflite(model)
    for resolver in RESOLVERS:
        run = sequences(content, resolver)
        for row, length in zip(x, (13, 1, 6, 13), strict=True):
            real = (row[None, :length] - model.input_mean) / model.input_std
            want = network.run(real, np.array([length]))[0]
            np.testing.assert_allclose(run(row[:length]), want, rtol=0, atol=TOLERANCE, err_msg=f"{resolver} {length}")


@pytest.mark.parametrize("cell", VARIANTS)
def test_steps_equal_torch(cell: Variant) -> None:
    network, model, x = random_float_model(92, cell, "steps")
    want = network.run((x - model.input_mean) / model.input_std, np.full(4, 13))
    for resolver in RESOLVERS:
        engine = interpreter(float_to_tflite(model, "step"), resolver)
        run, inputs = engine.get_signature_runner("serving_default"), engine.get_input_details()
        for row, wanted in zip(x, want, strict=True):
            states = {i["name"]: np.zeros(i["shape"], np.float32) for i in inputs if i["name"] != "x"}
            for values, y in zip(row, wanted, strict=True):
                out = run(x=values[None], **states)
                states = {name: out[f"{name}_out"] for name in states}
                np.testing.assert_allclose(out["y"][0], y, rtol=0, atol=TOLERANCE, err_msg=f"{resolver}")


@pytest.mark.parametrize(("cell", "count"), [("lstm", 4), ("gru", 0)])
def test_an_lstm_is_one_operator_a_direction(cell: Variant, count: int) -> None:
    operators = read_tflite(float_to_tflite(random_float_model(93, cell, "last", [True, True])[1])).operators
    assert operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == count
    assert operators["WHILE"] == (0 if count else 4)


def test_the_file_tells_what_it_is() -> None:
    model = random_float_model(94, "lstm", "last")[1]
    found = dict(read_tflite(float_to_tflite(model, "step")).metadata)
    assert len(found.pop("checksum")) == 16
    assert found == {
        "every_step": False,
        "description": "edgernn lstm 5-11-11 float step",
        "kind": "float",
        "form": "step",
        "task": "classification",
        "labels": list(model.labels),
    }


def test_errors() -> None:
    model = random_float_model(95, "gru", "last", [True, True])[1]
    with pytest.raises(ValueError, match="bidirectional model reads whole sequences"):
        float_to_tflite(model, "step")
    stream: Any = "stream"
    with pytest.raises(ValueError, match="unknown form 'stream'; a float file is 'sequence' or 'step'"):
        float_to_tflite(model, stream)
    integers: Any = random_model(96)
    with pytest.raises(ValueError, match="needs a FloatModel, not a QuantizedModel"):
        float_to_tflite(integers)
