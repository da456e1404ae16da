"""The profile tflite-lstm on the command line: train, eval, quantize, export, verify, run, build and benchmark."""

import json
import re
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgernn import Predictor
from edgernn._tflite_lstm import FLAVOURS, Flavour
from edgernn.benchmark import benchmark, contenders
from edgernn.cli import main
from edgernn.data import Split, load
from edgernn.firmware_sim import run, run_batch
from edgernn.qmodel import HeadKind, IntArray, QuantizedModel

from . import tflite_lstm_oracle as oracle
from .command_line import fail, succeed, succeed_json
from .firmware_host import compile_c
from .models import HEADS
from .tflite_lstm_cases import make
from .training import some_model

Capture = pytest.CaptureFixture[str]


def parting(head: HeadKind | None) -> QuantizedModel:
    """A model whose outputs part in the flavours litert and cmsis on many inputs, as values."""
    model = make(9, input_size=3, hidden_size=16, head=head)
    return replace(model, task="regression", labels=())


def some_rows(model: QuantizedModel, count: int = 40) -> Any:
    """Of about the whole range of its inputs."""
    drawn = np.random.default_rng(0).uniform(-128, 128, (count, model.input_size))
    return (drawn * model.input_scale).astype(np.float32)


def each_row(model: QuantizedModel, x: IntArray, flavour: Flavour) -> IntArray:
    """The outputs after every row [T, output_size]."""
    if model.every_step:
        return run(model, x, flavour=flavour)[0]
    lengths = list(range(1, len(x) + 1))
    return run_batch(model, np.broadcast_to(x, (len(x), *x.shape)).copy(), lengths, flavour)


# ---- training --------------------------------------------------------------------------------------------------------

TRAINING = ("--cell", "lstm", "--hidden", "6", "--epochs", "2", "--profile", "tflite-lstm")
INTEGERS = [f"integers_{flavour}" for flavour in FLAVOURS]


def test_train_and_eval_show_every_flavour(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = succeed_json(capsys, "train", *TRAINING, "-o", tmp_path)["test"]
    assert list(found) == ["float", "fake_quant", "integer_litert", "integer_tflm", "integer_cmsis"]
    assert found["integer_tflm"] == found["fake_quant"]
    models = succeed_json(capsys, "eval", tmp_path / "model.ernn")["models"]
    assert list(models) == ["float", "fake-quantised", *INTEGERS]
    assert [models[name] for name in INTEGERS] == [found[f"integer_{flavour}"] for flavour in FLAVOURS]
    assert models["integers_litert"]["loss"] != models["integers_tflm"]["loss"]
    for flavour in FLAVOURS:
        assert f"integers {flavour} " in succeed(capsys, "eval", tmp_path / "model.ernn")
        assert f"integers {flavour} " in succeed(capsys, "train", *TRAINING, "--resume", "-o", tmp_path)
    fail(capsys, "another config: profile was", "train", *TRAINING[:-2], "--resume", "-o", tmp_path)


def test_quantize_after_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    succeed(capsys, "train", *TRAINING[:-2], "--qat", "none", "-q", "-o", tmp_path)
    arguments = ("quantize", tmp_path / "model.safetensors", "--data", "vowels", "--profile", "tflite-lstm")
    for method in ("minmax", "percentile", "mse"):
        found = succeed_json(capsys, *arguments, "--method", method)
        for name in INTEGERS:
            assert abs(found["float"]["accuracy"] - found[name]["accuracy"]) < 0.05
    assert QuantizedModel.load(tmp_path / "model.ernn").profile == "tflite-lstm"
    assert "integers w8a8 cmsis" in succeed(capsys, *arguments)
    fail(capsys, "the profile tflite-lstm has the scheme w8a8, not w8a16", *arguments, "--scheme", "w8a16")
    assert found["notes"] == []


def test_quantize_tells_how_many_rows_it_shrank(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = some_model(load("vowels", 0), "lstm")
    with torch.no_grad():
        model.rnn.weight_hh_l0.fill_(0.1)
        model.rnn.weight_hh_l0[:3] = 9.0 / model.rnn.hidden_size
    model.save(tmp_path / "large.safetensors")
    arguments = ("quantize", tmp_path / "large.safetensors", "--data", "vowels")
    (note,) = succeed_json(capsys, *arguments, "--profile", "tflite-lstm")["notes"]
    rows = 4 * model.rnn.hidden_size
    assert note == f"3 of {rows} rows of recurrent weights were shrunk until they add up to 8, as int16 needs it"
    assert succeed_json(capsys, *arguments, "-o", tmp_path / "portable.ernn")["notes"] == []


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--profile tflite-lstm is for LSTMs; give --cell lstm with it, not gru", ()),
        ("--profile tflite-lstm is for LSTMs; give --cell lstm with it, not rnn", ("--cell", "rnn")),
        ("--profile tflite-lstm has 8-bit activations; give --qat w8a8", ("--cell", "lstm", "--qat", "w8a16")),
        ("--profile tflite-lstm is about integers; give --qat w8a8", ("--cell", "lstm", "--qat", "none")),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, message: str, arguments: tuple[str, ...]
) -> None:
    fail(capsys, message, "train", "--profile", "tflite-lstm", *arguments, "-o", tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_quantize_refuses_other_cells(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = some_model(load("vowels", 0), "gru")
    model.save(tmp_path / "gru.safetensors")
    message = "the profile tflite-lstm is one of LSTMs, the cell is gru; use the profile portable"
    arguments = ("--data", "vowels", "--profile", "tflite-lstm")
    fail(capsys, message, "quantize", tmp_path / "gru.safetensors", *arguments)
    assert not (tmp_path / "gru.ernn").exists()


# ---- export and verify -----------------------------------------------------------------------------------------------


def test_the_command_line_exports_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.ernn"
    make(17, input_size=4, hidden_size=5, head="last").save(path)
    said = succeed(capsys, "export", path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.ernn", "model.tflite", "model_stream.tflite"]
    assert "reset the interpreter's variables" in said
    assert "lose the states after every call" in said
    names = "numba,litert,litert-reference,tflm"
    said = succeed(capsys, "verify", path, "--engines", names, "--sequences", "3")
    assert "compared with the kernel's flavour litert: litert, litert-reference\n" in said
    assert "compared with the kernel's flavour tflm: tflm\n" in said
    assert "the flavours tflm and cmsis differ in 0 of" in said
    found = succeed_json(capsys, "verify", path, "--engines", "numba,litert,tflm", "--sequences", "3")
    assert found["flavours"] == {"numba": "litert", "litert": "litert", "tflm": "tflm"}
    assert [one["flavours"] for one in found["flavour_differences"]] == [["litert", "tflm"], ["tflm", "cmsis"]]


def test_the_command_line_tells_what_the_profile_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.ernn"
    make(18, input_size=4, hidden_size=5, head="last").save(path)
    assert main(["verify", str(path), "--engines", "tflm,onnxruntime", "--sequences", "2"]) == 1
    assert "onnxruntime has no profile tflite-lstm: ONNX has no operator" in capsys.readouterr().out
    refused = "nothing to compare with: onnxruntime has no profile tflite-lstm"
    fail(capsys, refused, "verify", path, "--engines", "onnxruntime")
    fail(capsys, "no exact ONNX file of the profile tflite-lstm", "export", path, "--format", "onnx")


def test_onnx_asked_for_by_name_is_refused(tmp_path: Path, capsys: Capture) -> None:
    make(19, head="last").save(tmp_path / "model.ernn")
    for formats in ("tflite,onnx", "onnx,c"):
        fail(capsys, "no exact ONNX file of the profile", "export", tmp_path / "model.ernn", "--format", formats)
    assert [one.name for one in tmp_path.iterdir()] == ["model.ernn"]


def test_notes_are_of_the_forms_that_were_written(tmp_path: Path, capsys: Capture) -> None:
    make(20, head="last").save(tmp_path / "model.ernn")
    about = {"sequence": "sequence: it goes on from the states", "stream": "stream: not for TensorFlow Lite Micro"}
    for forms in (["sequence"], ["stream"], ["sequence", "stream"]):
        options = ("--format", "tflite", "--form", ",".join(forms))
        notes = succeed_json(capsys, "export", tmp_path / "model.ernn", *options)["notes"]
        assert len(notes) == len(forms)
        assert all(note.startswith(about[form]) for form, note in zip(forms, notes, strict=True))
    assert succeed_json(capsys, "export", tmp_path / "model.ernn", "--format", "c")["notes"] == []


def test_a_bundle_is_refused(tmp_path: Path, capsys: Capture) -> None:
    make(21, head="last").save(tmp_path / "model.ernn")
    message = "which the profile tflite-lstm keeps inside the runtime: train with the profile portable"
    fail(capsys, message, "export", tmp_path / "model.ernn", "--bundle", "pi")
    assert [one.name for one in tmp_path.iterdir()] == ["model.ernn"]


@pytest.mark.parametrize(("head", "bidirectional"), [("steps", False), *product(HEADS, [True])])
def test_the_self_test_of_the_c_is_of_cmsis(
    tmp_path: Path, capsys: Capture, head: HeadKind | None, bidirectional: bool
) -> None:
    model = make(22, hidden_size=5, head=head, layers=2, bidirectional=True) if bidirectional else parting(head)
    model.save(tmp_path / "model.ernn")
    succeed(capsys, "export", tmp_path / "model.ernn", "--format", "c")
    folder = tmp_path / "model_generic"
    x, y = vectors((folder / "model_test.c").read_text())
    x = x.reshape(-1, model.input_size)
    assert np.array_equal(y, oracle.run(model, x, "cmsis").ravel())
    assert bidirectional or not np.array_equal(y, oracle.run(model, x, "litert").ravel())
    compile_c(folder / "model.c", folder / "model_test.c", "-o", folder / "test")
    assert subprocess.run([folder / "test"]).returncode == 0


def vectors(text: str) -> list[IntArray]:
    """The inputs and the expected outputs in NAME_test.c."""
    found = re.findall(r"(inputs|expected)\[\d+\] = \{(.*?)\}", text, re.DOTALL)
    assert [name for name, _ in found] == ["inputs", "expected"]
    return [np.array(body.split(","), np.int8) for _, body in found]


# ---- run and build ---------------------------------------------------------------------------------------------------


def printed(capsys: Capture, *argv: str | Path) -> list[list[float]]:
    lines = succeed(capsys, "run", *argv, "--json", "--quiet").splitlines()
    return [json.loads(line)["values"] for line in lines]


@pytest.mark.parametrize("head", ["steps", "last"])
def test_run_computes_the_flavour_of_the_file(tmp_path: Path, capsys: Capture, head: HeadKind) -> None:
    """With and without windows: a model and its TFLite files by LiteRT's, what was built of it by that of the C,
    although it lies beside the model."""
    model = parting(head)
    rows = some_rows(model)
    np.save(tmp_path / "rows.npy", rows)
    model.save(tmp_path / "model.ernn")
    succeed(capsys, "export", tmp_path / "model.ernn")
    succeed(capsys, "build", tmp_path / "model.ernn")
    x = model.quantize_input(rows)
    whole, windows = {}, {}
    for flavour in ("litert", "cmsis"):
        real = model.dequantize_output(each_row(model, x, flavour))
        parts = [np.atleast_2d(run(model, part, flavour=flavour)[0]) for part in np.split(x, 5)]
        whole[flavour] = real.astype(float).tolist()
        windows[flavour] = model.dequantize_output(np.concatenate(parts)).astype(float).tolist()
    assert whole["litert"] != whole["cmsis"]
    assert windows["litert"] != windows["cmsis"]
    flavours: dict[str, Flavour] = {"model.ernn": "litert", "model_stream.tflite": "litert", "model.so": "cmsis"}
    for name, flavour in flavours.items():
        assert printed(capsys, tmp_path / name, tmp_path / "rows.npy") == whole[flavour], name
        assert printed(capsys, tmp_path / name, tmp_path / "rows.npy", "--window", "8") == windows[flavour], name
    sequence = tmp_path / "model.tflite", tmp_path / "rows.npy"
    assert printed(capsys, *sequence) == (whole["litert"] if head == "steps" else whole["litert"][-1:])
    assert printed(capsys, *sequence, "--window", "8") == windows["litert"]


@pytest.mark.parametrize("name", ["model.ernn", "model.tflite", "model_stream.tflite"])
def test_hidden_states_are_values(tmp_path: Path, capsys: Capture, name: str) -> None:
    model = make(9, input_size=3, hidden_size=16, head=None)
    model.save(tmp_path / "model.ernn")
    succeed(capsys, "export", tmp_path / "model.ernn")
    predictor = Predictor.open(tmp_path / name)
    assert not predictor.classifies
    rows = some_rows(model, 12)
    wanted = oracle.run(model, model.quantize_input(rows), "litert") / np.float32(128)
    assert np.array_equal(predictor.window(rows), wanted)
    assert predictor.streams == (name != "model.tflite")
    if predictor.streams:
        predictor.reset()
        assert np.array_equal([predictor.step(row) for row in rows], wanted)


# ---- benchmark -------------------------------------------------------------------------------------------------------


def test_benchmark_compares_each_engine_with_its_flavour(tmp_path: Path) -> None:
    model = parting("steps")
    model.save(tmp_path / "model.ernn")
    rows = some_rows(model)
    x = model.quantize_input(rows)
    assert not np.array_equal(run(model, x, flavour="litert")[0], run(model, x, flavour="tflm")[0])
    split = Split(rows[None], np.array([len(rows)]), np.zeros((1, len(rows), model.output_size), np.float32))
    found = [one for one in contenders(model, tmp_path / "model.ernn", None) if one.name in ("numba", "tflm")]
    assert [(row.name, row.equals_kernel) for row in benchmark(found, split, 1)] == [("numba", True), ("tflm", True)]
