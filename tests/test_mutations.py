"""No file from outside crashes a reader, stops it, takes memory, or passes for what it is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgernn._artifacts import read_artifact, read_onnx, read_tflite
from edgernn._files import read_bytes
from edgernn.floatmodel import FloatModel
from edgernn.nn import SequenceModel
from edgernn.qmodel import QuantizedModel

from .command_line import ROOT
from .forgery import Container
from .models import random_model
from .networks import build
from .soak_files import Tally, outcomes

FILES = 1500


def test_damaged_and_forged_files() -> None:
    tally = Tally()
    for outcome in outcomes(range(FILES)):
        tally.add(outcome)
    assert not tally.failures, "\n".join(map(str, tally.failures))
    assert tally.readers.total() == FILES
    for reader in ("QuantizedModel", "FloatModel", "SequenceModel", "state", "tflite", "onnx", "checkpoint"):
        assert tally.readers[reader, "refused"] > 5, f"{reader} was hardly attacked"
    assert tally.count("another valid") > FILES / 50, "hardly a forged file reached what lies behind the checks"


# ---- forged headers, with a checksum that fits -----------------------------------------------------------------------


def forged(path: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """The file with tensors and header edited, and its checksum computed anew."""
    file = Container.parse(path.read_bytes())
    edit(file.tensors, file.header)
    content, fits = file.pack(forge=True)
    assert fits
    path.write_bytes(content)
    return path


@pytest.fixture
def ernn(tmp_path: Path) -> Path:
    random_model(4, "gru", input_size=2, hidden_size=3).save(tmp_path / "model.ernn")
    return tmp_path / "model.ernn"


@pytest.fixture
def float_model(tmp_path: Path) -> Path:
    build("lstm").save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, h: h.update(labels="abc"), "'abc' is not list"),
        (lambda t, h: h.update(labels=[0, 1, 2]), "0 is not str"),
        (lambda t, h: h.update(provenance=[]), r"\[\] is not dict"),
        (lambda t, h: h.update(provenance={"loss": float("nan")}), "damaged"),
        (lambda t, h: h.update(provenance={"loss": float("inf")}), "damaged"),
        (lambda t, h: h.update(provenance={"deep": nested(900)}), None),
        (lambda t, h: h.update(arithmetic_version=True), "a field or a value that is not the model's"),
        (lambda t, h: h.update(arithmetic_version=1.0), "a field or a value that is not the model's"),
        (lambda t, h: h.update(activation="relu"), "a field or a value that is not the model's"),
        (lambda t, h: h["layers"][0].update(peephole=True), "a field or a value that is not the model's"),
        (lambda t, h: h["layers"][0].update(cell_exponents=[0] * 100_000), "100000 directions"),
        (lambda t, h: h.update(input_scale=1e300), "input_scale must be positive and finite"),
        (lambda t, h: h.update(input_scale=1e-60), "input_scale must be positive and finite"),
        (lambda t, h: h.update(input_scale=h["input_scale"] * (1 + 2**-40)), "a field or a value that is not"),
        (lambda t, h: h.update(input_zero_point=2**70), "outside the range"),
        (lambda t, h: t.update(input_std=t["input_std"] * np.float32(1e-38) * np.float32(1e-7)), "input_std"),
    ],
)
def test_forged_headers_of_ernn(ernn: Path, edit: Any, message: str | None) -> None:
    path = forged(ernn, edit)
    if message is None:
        QuantizedModel.load(path)
        return
    with pytest.raises(ValueError, match=message) as caught:
        QuantizedModel.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [FloatModel.load, SequenceModel.load], ids=["FloatModel", "SequenceModel"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, h: h.update(hidden_size=20_000), r"must be float32 \(80000, 5\)"),
        (lambda t, h: h.update(hidden_size=10**30), "must be float32"),
        (lambda t, h: h.update(hidden_size=-7), "hidden_size must be at least 1, not -7"),
        (lambda t, h: h.update(hidden_size=float(h["hidden_size"])), "7.0 is not int"),
        (lambda t, h: h.update(input_size=float("inf")), "damaged"),
        (lambda t, h: h.update(num_layers=10**15), "wrong type.*rnn.weight_ih_l2"),
        (lambda t, h: h.update(output_size=0), "output_size must be at least 1"),
        (lambda t, h: h.update(reset_after=False), "reset_after=False is a GRU variant"),
        (lambda t, h: h.update(labels="abc"), "'abc' is not list"),
        (lambda t, h: h.update(proj_size=4), "unknown tensors or fields: proj_size"),
        (lambda t, h: t.update(extra=np.zeros(2, np.float32)), "unknown tensors or fields: extra"),
        (lambda t, h: t.update(input_mean=t["input_mean"].astype(np.float64)), "input_mean must be float32"),
    ],
)
def test_forged_headers_of_float_models(float_model: Path, read: Any, edit: Any, message: str) -> None:
    path = forged(float_model, edit)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t, h: h.update(dropout="0.0"),
        lambda t, h: h.update(dropout=7.0),
        lambda t, h: h.update(quantization={"weights": 8}),
        lambda t, h: h.update(quantization={"weights": 8, "activations": 8, "per_channel": 1, "learn_scales": False}),
        lambda t, h: h.update(bias=False),
        lambda t, h: t.update({"rnn.weight_ih_l0_mask": np.zeros((28, 5), np.bool_)}),
    ],
)
def test_what_a_sequence_model_would_not_keep_is_refused(float_model: Path, edit: Any) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        SequenceModel.load(forged(float_model, edit))


def test_a_key_that_is_there_twice(ernn: Path) -> None:
    """Readers of JSON take the first or the last: this one takes neither."""
    content = ernn.read_bytes()
    size = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + size])
    header = entries["__metadata__"]["edgernn"]
    entries["__metadata__"]["edgernn"] = header.replace('"labels":', '"labels": ["x", "y", "z"], "labels":')
    text = json.dumps(entries).encode()
    ernn.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(ValueError, match="damaged"):
        QuantizedModel.load(ernn)


# ---- files that are no files, and files that change ------------------------------------------------------------------


def test_what_is_no_regular_file_or_too_large(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.ernn")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**31)
    for name, message in (("model.ernn", "no such file"), ("large.onnx", "2,147,483,648 bytes, more than any")):
        for read in (QuantizedModel.load, SequenceModel.load, read_artifact, read_bytes):
            with pytest.raises(ValueError, match=message):
                read(tmp_path / name)


def test_a_file_that_is_overwritten_while_it_is_read(ernn: Path) -> None:
    """By a plain copy, for instance: what was mapped into memory would be gone, and the process with it."""
    code = """
import os, sys, time
from edgernn.qmodel import QuantizedModel
path, content = sys.argv[1], open(sys.argv[1], "rb").read()
child = os.fork()
while child == 0:
    with open(path, "wb") as file:
        for start in range(0, len(content), 512):
            file.write(content[start : start + 512])
            file.flush()
end, loaded = time.monotonic() + 1, 0
while time.monotonic() < end or not loaded:
    try:
        QuantizedModel.load(path)
        loaded += 1
    except ValueError:
        pass
os.kill(child, 9)
"""
    subprocess.run([sys.executable, "-c", code, str(ernn)], cwd=ROOT, check=True)


# ---- exports ---------------------------------------------------------------------------------------------------------


def flatbuffer(graphs: int, tensors: int, name: bytes) -> bytes:
    """A small `.tflite` in which many graphs are one graph, and its many tensors are one tensor with a long name."""
    builder = flatbuffers.Builder(0)
    text = builder.CreateByteVector(name)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, text, 0)
    tensor = builder.EndObject()
    builder.StartVector(4, tensors, 4)
    for _ in range(tensors):
        builder.PrependUOffsetTRelative(tensor)
    vector = builder.EndVector()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    graph = builder.EndObject()
    builder.StartVector(4, graphs, 4)
    for _ in range(graphs):
        builder.PrependUOffsetTRelative(graph)
    vector = builder.EndVector()
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(2, vector, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(("graphs", "tensors", "name"), [(20_000, 20_000, 4), (1, 20_000, 200_000), (20_000, 1, 9)])
def test_a_tflite_whose_parts_are_one_part(graphs: int, tensors: int, name: int) -> None:
    """Every graph is a table of a few bytes that names the same vector of tensors, and those the same name."""
    content = flatbuffer(graphs, tensors, b"a" * name)
    assert len(content) < 400_000
    with pytest.raises(ValueError, match="a damaged TensorFlow Lite file"):
        read_tflite(content)


def onnx_with(tensor: TensorProto) -> bytes:
    node = helper.make_node("Identity", [tensor.name], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    content: bytes = helper.make_model(helper.make_graph([node], "g", [], [output], [tensor])).SerializeToString()
    return content


def test_an_onnx_that_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(np.ones(4, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    with pytest.raises(ValueError, match="the values of w are in another file"):
        read_onnx(onnx_with(tensor))


@pytest.mark.parametrize("dims", [[2**40], [-1], [2**62, 4], [2, 3], [1] * 100, [2**63 - 1, 2**63 - 1]])
def test_an_onnx_whose_shapes_do_not_fit_its_values(dims: list[int]) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=np.ones(4, np.float32).tobytes())
    with pytest.raises(ValueError, match="not an ONNX file, or damaged"):
        read_onnx(onnx_with(tensor))
