"""The model files: what they keep, and that a damaged or foreign one never becomes another model."""

import dataclasses
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as unpack
from safetensors.numpy import load_file, save, save_file

from edgernn._ernn import FILE_FORMAT
from edgernn._files import read_tensors, write_atomic, write_tensors
from edgernn.floatmodel import FILE_FORMAT as FLOAT_FORMAT
from edgernn.floatmodel import FloatModel
from edgernn.qmodel import QuantizedModel

from . import oracle
from .models import SCHEMES, VARIANTS, Variant, random_input, random_model

PATH = "model.ernn"


def arrays_of(model: QuantizedModel) -> list[Any]:
    """Everything a model consists of, as comparable values."""
    affines = [affine for layer in model.layers for affine in (layer.input, layer.recurrent)]
    if model.head:
        affines.append(model.head.dense)
    parts: list[Any] = [
        (
            a.weight.tolist(),
            a.bias.tolist(),
            a.weight_scale.tolist(),
            np.float32(a.input_scale),
            np.float32(a.output_scale),
        )
        for a in affines
    ]
    parts += [(layer.cell, layer.reset_after, layer.cell_exponent) for layer in model.layers]
    parts += [model.head and model.head.kind, np.float32(model.input_scale), model.input_zero_point, model.scheme]
    parts += [model.input_mean.tolist(), model.input_std.tolist(), model.labels, model.task, dict(model.provenance)]
    return parts


# ---- the file keeps the model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["last", "steps", None])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_round_trip(tmp_path: Path, cell: Variant, scheme: Any, head: Any) -> None:
    for seed, layers in ((11, 1), (12, 3)):
        rng = np.random.default_rng(seed)
        model = random_model(seed, cell, scheme, hidden_size=5, layers=layers, head=head, saturating=seed == 12)
        model = replace(
            model,
            input_mean=rng.normal(0, 1, model.input_size).astype(np.float32),
            input_std=rng.uniform(0.1, 3, model.input_size).astype(np.float32),
            task="regression" if seed == 12 else "classification",
            provenance={"epochs": 3, "nested": {"ä": [1.5, None, True]}},
        )
        model.save(tmp_path / PATH)
        loaded = QuantizedModel.load(tmp_path / PATH)
        assert arrays_of(loaded) == arrays_of(model)
        x = random_input(model, 6, seed)
        y = oracle.run(loaded, x)
        assert np.array_equal(y, oracle.run(model, x)), f"seed {seed}"
        assert y.dtype == loaded.output_dtype == (np.int16 if head is None else np.int8)
        assert y.shape == ((loaded.output_size,) if head == "last" else (6, loaded.output_size))


def test_the_file_is_plain_safetensors_with_json(tmp_path: Path) -> None:
    model = random_model(1, "lstm", layers=2)
    model.save(tmp_path / PATH)
    tensors = load_file(tmp_path / PATH)
    assert np.array_equal(tensors["layers.1.recurrent.weight"], model.layers[1].recurrent.weight)
    assert tensors["head.bias"].dtype == np.int32
    size = struct.unpack("<Q", (tmp_path / PATH).read_bytes()[:8])[0]
    header = json.loads(json.loads((tmp_path / PATH).read_bytes()[8 : 8 + size])["__metadata__"]["edgernn"])
    assert header["format"] == "edgernn.quantized_model"
    assert header["layers"][0] == {
        "cell": "lstm",
        "reset_after": True,
        "cell_exponents": [model.layers[0].cell_exponent],
    }


def test_strided_arrays_are_saved_by_value(tmp_path: Path) -> None:
    model = random_model(2, "rnn", hidden_size=4)
    layer = model.layers[0]
    weight = np.asfortranarray(layer.recurrent.weight)
    bias = np.repeat(layer.recurrent.bias, 2)[::2]
    strided = replace(layer, recurrent=replace(layer.recurrent, weight=weight, bias=bias))
    replace(model, layers=(strided,)).save(tmp_path / PATH)
    assert arrays_of(QuantizedModel.load(tmp_path / PATH)) == arrays_of(model)


@pytest.mark.parametrize(
    "array", [np.float64(0.5), np.array(True), np.zeros((0, 3), np.int8), np.eye(3)[::2].T], ids=str
)
def test_tensors_keep_their_shapes(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    write_tensors(tmp_path / PATH, {"array": np.asarray(array)}, {"format": "shapes"})
    found = read_tensors(tmp_path / PATH, "shapes")[0]["array"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(found, array)


# ---- damaged and foreign files ---------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The bytes of a small model's file."""
    random_model(4, "gru", input_size=2, hidden_size=2, output_size=2).save(tmp_path / PATH)
    return (tmp_path / PATH).read_bytes()


def test_truncated_files(tmp_path: Path, whole: bytes) -> None:
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        write_atomic(tmp_path / PATH, whole[:length])
        with pytest.raises(ValueError, match="not an edgernn file, or cut short or damaged") as caught:
            QuantizedModel.load(tmp_path / PATH)
        assert str(tmp_path / PATH) in str(caught.value)


def test_no_flipped_byte_gives_another_model(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / PATH
    expected = arrays_of(QuantizedModel.load(path))
    rng = np.random.default_rng(5)
    refused = 0
    for position in range(len(whole)):
        for flip in (0x01, int(rng.integers(2, 256))):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                loaded = QuantizedModel.load(path)
            except ValueError:
                refused += 1
                continue
            assert arrays_of(loaded) == expected, f"byte {position} ^ {flip:#x}"
    assert refused > 1.9 * len(whole)


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    random_model(1, "lstm").save(tmp_path / "a.ernn")
    random_model(1, "lstm").save(tmp_path / "b.ernn")
    assert (tmp_path / "a.ernn").read_bytes() == (tmp_path / "b.ernn").read_bytes()


@pytest.mark.parametrize("value", [np.zeros(1), float("nan"), {1, 2}])
def test_provenance_that_is_not_json_is_refused(tmp_path: Path, value: object) -> None:
    model = dataclasses.replace(random_model(1), provenance={"seed": value})
    with pytest.raises(ValueError, match="JSON"):
        model.save(tmp_path / PATH)
    assert not list(tmp_path.iterdir())


def test_appended_and_foreign_bytes(tmp_path: Path, whole: bytes) -> None:
    for content in (whole + b"\0", b"", b"\0" * 200, b"PK\x03\x04" + whole, b"\x1c\x00\x00\x00TFL3" + bytes(200)):
        (tmp_path / PATH).write_bytes(content)
        with pytest.raises(ValueError, match="not an edgernn file, or cut short or damaged"):
            QuantizedModel.load(tmp_path / PATH)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_wrong_header_lengths(tmp_path: Path, whole: bytes, size: int) -> None:
    (tmp_path / PATH).write_bytes(struct.pack("<Q", size) + whole[8:])
    with pytest.raises(ValueError, match="not an edgernn file"):
        QuantizedModel.load(tmp_path / PATH)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ernn", tmp_path, tmp_path / "none" / PATH):
        with pytest.raises(ValueError, match="no such file"):
            QuantizedModel.load(path)
        with pytest.raises(ValueError, match="no such file"):
            FloatModel.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "a safetensors file without edgernn's header"),
        ({"framework": "pt"}, "a safetensors file without edgernn's header"),
        ({"edgernn": "{}"}, "a safetensors file without edgernn's header"),
        ({"edgernn": "not json"}, "damaged"),
        ({"edgernn": "[]"}, "damaged"),
        ({"edgernn": "null"}, "damaged"),
        ({"edgernn": '"text"'}, "damaged"),
        ({"edgernn": "[" * 100_000}, "damaged"),
        ({"edgernn": '{"format": "edgernn.quantized_model"}'}, "without edgernn's header"),
        ({"edgernn": '{"format": "edgernn.sequence_model", "sha256": ""}'}, "a float model .*, but a quantised model"),
        ({"edgernn": '{"format": "edgernn.quantized_model", "sha256": null}'}, "checksum does not match"),
        ({"edgernn": f'{{"format": "edgernn.quantized_model", "sha256": "{"0" * 64}"}}'}, "checksum does not match"),
    ],
)
def test_foreign_safetensors(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / PATH, metadata)
    with pytest.raises(ValueError, match=message):
        QuantizedModel.load(tmp_path / PATH)


Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, h: h.update(arithmetic_version=2), "needs arithmetic version 2, this edgernn computes version 1"),
        (lambda t, h: h.update(arithmetic_version=None), "needs arithmetic version None"),
        (lambda t, h: h.pop("arithmetic_version"), "missing or has a wrong type.*arithmetic_version"),
        (lambda t, h: h.update(scheme="w4a4"), "unknown scheme 'w4a4'; known are w8a8, w8a16"),
        (lambda t, h: h.update(scheme=["w8a8"]), "unknown scheme"),
        (lambda t, h: h.update(scheme="w8a16"), "input_scale|input_zero_point"),
        (lambda t, h: h.update(task="ranking"), "unknown task 'ranking'"),
        (lambda t, h: h.pop("task"), "missing or has a wrong type"),
        (lambda t, h: h.update(head="mean"), "unknown head 'mean'; known are last, steps"),
        (lambda t, h: h.update(head=None), "unknown tensors: head.bias, head.weight, head.weight_scale"),
        (lambda t, h: h.update(layers=[]), "unknown tensors|at least one layer"),
        (lambda t, h: h.update(layers=7), "missing or has a wrong type"),
        (lambda t, h: h["layers"].append(h["layers"][0]), "missing or has a wrong type"),
        (lambda t, h: h["layers"][0].update(cell="qrnn"), "unknown cell 'qrnn'; known are lstm, gru, rnn"),
        (lambda t, h: h["layers"][0].update(cell="lstm"), "rows"),
        (lambda t, h: h["layers"][0].update(cell={}), "missing or has a wrong type"),
        (lambda t, h: h["layers"][0].update(cell_exponents=[3]), "cell_exponent must be 0 for gru, not 3"),
        (lambda t, h: h["layers"][0].update(cell_exponents=["x"]), "wrong type.*'x' is not int"),
        (lambda t, h: h["layers"][0].update(reset_after="false"), "wrong type.*'false' is not bool"),
        (lambda t, h: h.update(input_scale=0.0), "must be positive and finite"),
        (lambda t, h: h.update(input_scale="wide"), "wrong type.*'wide' is not float"),
        (lambda t, h: h.update(output_scale=None), "missing or has a wrong type"),
        (lambda t, h: h.update(input_zero_point=128), "input_zero_point 128 is outside the range"),
        (lambda t, h: h.update(input_zero_point=1.5), "wrong type.*1.5 is not int"),
        (lambda t, h: h.update(labels=["only one"]), "1 labels for 3 outputs"),
        (lambda t, h: h.update(labels=3), "missing or has a wrong type"),
        (lambda t, h: h.update(provenance=3), "missing or has a wrong type"),
        (lambda t, h: t.pop("input_mean"), "missing or has a wrong type.*input_mean"),
        (lambda t, h: t.update(extra=np.zeros(1)), "unknown tensors: extra"),
        (
            lambda t, h: t.update({"head.bias": t["head.bias"].astype(np.int64)}),
            "head: bias must be a 1-d array of int32",
        ),
        (lambda t, h: t.update({"head.weight": np.full_like(t["head.weight"], -128)}), r"head: weights must lie in"),
        (lambda t, h: t.update(input_std=-t["input_std"]), "input_std must be positive"),
    ],
)
def test_files_with_a_valid_checksum_and_wrong_content(tmp_path: Path, edit: Edit, message: str) -> None:
    path = tmp_path / PATH
    random_model(6, "gru", input_size=2, hidden_size=4).save(path)
    tensors, header = read_tensors(path, FILE_FORMAT)
    edit(tensors, header)
    write_tensors(path, tensors, header)
    with pytest.raises(ValueError, match=message) as caught:
        QuantizedModel.load(path)
    assert str(path) in str(caught.value)


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_save_makes_folders_and_replaces_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / PATH
    for seed in (1, 2):
        model = random_model(seed)
        model.save(str(path))
        assert arrays_of(QuantizedModel.load(str(path))) == arrays_of(model)
    assert [entry.name for entry in path.parent.iterdir()] == [PATH]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / PATH, tmp_path / "taken", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="cannot write .*choose a folder you can write to"):
            random_model(1).save(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "taken"]
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / PATH
    random_model(1).save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        random_model(2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [PATH]


def test_provenance_that_is_not_json_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError)):
        replace(random_model(1), provenance={"when": object()}).save(tmp_path / PATH)
    assert list(tmp_path.iterdir()) == []


# ---- FloatModel ------------------------------------------------------------------------------------------------------


def float_file(cell: str = "gru", layers: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and header of a float model with 3 inputs, 4 units and 2 outputs."""
    rng = np.random.default_rng(0)
    rows = {"gru": 12, "lstm": 16, "rnn": 4}[cell]
    shapes: dict[str, tuple[int, ...]] = {
        "head.weight": (2, 4),
        "head.bias": (2,),
        "input_mean": (3,),
        "input_std": (3,),
    }
    for index in range(layers):
        shapes[f"rnn.weight_ih_l{index}"] = (rows, 4 if index else 3)
        shapes[f"rnn.weight_hh_l{index}"] = (rows, 4)
        shapes[f"rnn.bias_ih_l{index}"] = shapes[f"rnn.bias_hh_l{index}"] = (rows,)
    tensors = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    header = {"format": FLOAT_FORMAT, "cell": cell, "hidden_size": 4, "input_size": 3, "num_layers": layers}
    header |= {
        "bidirectional": False,
        "output_size": 2,
        "reset_after": True,
        "head": "last",
        "labels": ["a", "b"],
        "task": "classification",
    }
    return tensors, header


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_float_model_round_trip(tmp_path: Path, cell: str) -> None:
    tensors, header = float_file(cell)
    write_tensors(tmp_path / "model.safetensors", tensors, header)
    model = FloatModel.load(tmp_path / "model.safetensors")
    assert (model.input_size, model.output_size, model.labels, model.head) == (3, 2, ("a", "b"), "last")
    assert [(layer.cell, layer.input_size, layer.hidden_size) for layer in model.layers] == [(cell, 3, 4), (cell, 4, 4)]
    assert np.array_equal(model.layers[1].weight_ih, tensors["rnn.weight_ih_l1"])
    assert np.array_equal(model.layers[0].bias_hh, tensors["rnn.bias_hh_l0"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, h: h.pop("cell"), "missing or has a wrong type.*cell"),
        (lambda t, h: h.update(cell="qrnn"), "missing or has a wrong type.*qrnn"),
        (lambda t, h: h.update(hidden_size=5), r"rnn.weight_ih_l0 must be float32 \(15, 3\), not float32 \(12, 3\)"),
        (lambda t, h: h.update(hidden_size=None), "missing or has a wrong type"),
        (lambda t, h: h.update(hidden_size="many"), "wrong type.*'many' is not int"),
        (lambda t, h: h.update(num_layers=3), "missing or has a wrong type.*rnn.weight_ih_l2"),
        (lambda t, h: h.update(output_size=3, labels=[]), r"head.weight must be float32 \(3, 4\)"),
        (lambda t, h: h.update(labels=["a"]), "1 labels for 2 outputs"),
        (lambda t, h: h.update(num_layers=0), "num_layers must be at least 1"),
        (lambda t, h: h.update(head="mean"), "unknown head 'mean'"),
        (lambda t, h: h.update(task="ranking"), "unknown task 'ranking'"),
        (lambda t, h: t.update(input_std=np.zeros(3, np.float32)), "input_std must be positive"),
        (lambda t, h: t.pop("head.bias"), "missing or has a wrong type.*head.bias"),
        (lambda t, h: t.update({"head.bias": np.zeros(2)}), "head.bias must be float32"),
        (lambda t, h: t.update({"head.bias": np.array([0, np.nan], np.float32)}), "head.bias contains NaN"),
        (lambda t, h: h.update(labels=None), "missing or has a wrong type"),
        (lambda t, h: h.update(format=FILE_FORMAT), "is a quantised model .*, but a float model .* is needed here"),
    ],
)
def test_float_model_errors(tmp_path: Path, edit: Edit, message: str) -> None:
    path = tmp_path / "model.safetensors"
    tensors, header = float_file()
    edit(tensors, header)
    write_tensors(path, tensors, header)
    with pytest.raises(ValueError, match=message) as caught:
        FloatModel.load(path)
    assert str(path) in str(caught.value)


def test_float_model_refuses_damage(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, *float_file())
    whole = path.read_bytes()
    for position in range(len(whole) - 1, 8, -97):
        damaged = bytearray(whole)
        damaged[position] ^= 0x04
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="model.safetensors"):
            FloatModel.load(path)
    foreign = save(unpack(whole))
    path.write_bytes(foreign)
    with pytest.raises(ValueError, match="without edgernn's header"):
        FloatModel.load(path)
