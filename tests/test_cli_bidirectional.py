"""The command line with bidirectional models, which read their input whole."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgernn.cli import main
from edgernn.data import load
from edgernn.qmodel import HeadKind, QuantizedModel

from . import oracle
from .command_line import TRAINING, fail, succeed, succeed_json
from .models import random_model

ARGUMENTS = (*TRAINING, "--bidirectional")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both") / "run"
    assert main(["train", *ARGUMENTS, "-q", "-o", str(folder)]) == 0
    return folder


def test_train_and_eval_agree(capsys: pytest.CaptureFixture[str], model_folder: Path) -> None:
    layer = QuantizedModel.load(model_folder / "model.ernn").layers[0]
    assert [direction.hidden_size for direction in layer.directions] == [8, 8]
    assert all((direction.recurrent.weight == 0).mean() >= 0.5 for direction in layer.directions)
    models = succeed_json(capsys, "eval", model_folder / "model.ernn")["models"]
    metrics = json.loads((model_folder / "metrics.json").read_text())["test"]
    assert models["integers"]["accuracy"] == models["fake-quantised"]["accuracy"] == metrics["integer"]["accuracy"]


def test_resume_needs_the_same_directions(
    capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "run"))
    succeed(capsys, "train", *ARGUMENTS, "--resume", "-q", "-o", folder)
    assert (folder / "model.ernn").read_bytes() == (model_folder / "model.ernn").read_bytes()
    message = "bidirectional was True, now it is False"
    fail(capsys, message, "train", *TRAINING, "--resume", "-q", "-o", folder)


def test_inspect_shows_both_directions(capsys: pytest.CaptureFixture[str], model_folder: Path) -> None:
    found = succeed_json(capsys, "inspect", model_folder / "model.ernn", "--data", "vowels")
    maps = ["layer 0 input", "layer 0 recurrent", "layer 0 backward input", "layer 0 backward recurrent", "head"]
    assert [entry["name"] for entry in found["maps"]] == maps
    assert found["bidirectional"]
    assert found["macs_per_step"] == 2 * 3 * 8 * (12 + 8) + 9 * 16
    assert found["state_bytes"] == 2 * 2 * 8
    assert all(0 <= share <= 1 for share in found["saturation"].values())
    assert "0 backward" in succeed(capsys, "inspect", model_folder / "model.ernn")
    found = succeed_json(capsys, "inspect", model_folder / "model.safetensors")
    assert [entry["name"] for entry in found["maps"]] == maps
    assert found["bidirectional"]


@pytest.mark.parametrize("engine", ["numba", "litert", "tflm", "onnxruntime"])
def test_run_predicts_once_all_rows_are_read(
    capsys: pytest.CaptureFixture[str], model_folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    model, test = QuantizedModel.load(model_folder / "model.ernn"), load("vowels").test
    rows = test.x[5, : test.lengths[5]]
    expected = model.labels[int(np.argmax(oracle.run(model, model.quantize_input(rows))))]
    text = "\n".join(",".join(repr(float(value)) for value in row) for row in rows) + "\n"
    for options in ((), ("--last",)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        out = succeed(capsys, "run", model_folder / "model.ernn", "-", "--engine", engine, "-q", *options)
        assert [line.split("\t")[0] for line in out.splitlines()] == [expected]


@pytest.mark.parametrize("head", ["steps", None])
def test_run_prints_an_output_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path, head: HeadKind | None) -> None:
    model = random_model(5, "lstm", head=head, input_size=3, hidden_size=4, bidirectional=True)
    model.save(tmp_path / "model.ernn")
    rows = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    y = oracle.run(model, model.quantize_input(rows))
    out = succeed_json_lines(succeed(capsys, "run", tmp_path / "model.ernn", tmp_path / "rows.npy", "--json", "-q"))
    if head is None:
        assert [record["values"] for record in out] == model.dequantize_output(y).astype(float).tolist()
    else:
        assert [record["label"] for record in out] == [model.labels[int(np.argmax(row))] for row in y]


def succeed_json_lines(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_run_without_rows(capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 12), np.float32))
    fail(capsys, "none.npy", "run", model_folder / "model.ernn", tmp_path / "none.npy")


def test_quantize_after_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--cell", "lstm", "--bidirectional", "--hidden", "4", "--epochs", "1", "--qat", "none", "-q")
    succeed(capsys, "train", *options, "-o", tmp_path)
    found = succeed_json(capsys, "quantize", tmp_path / "model.safetensors", "--data", "vowels", "--per-tensor")
    assert abs(found["float"]["accuracy"] - found["integers"]["accuracy"]) < 0.05
    directions = QuantizedModel.load(tmp_path / "model.ernn").layers[0].directions
    assert [len(set(direction.recurrent.weight_scale.tolist())) for direction in directions] == [1, 1]
