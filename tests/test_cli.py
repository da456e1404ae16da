"""The command line from end to end on a tiny training."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgernn.cli import main
from edgernn.data import load
from edgernn.engines import ENGINES
from edgernn.firmware_sim.emulation import PROGRAMS
from edgernn.qmodel import QuantizedModel

from . import oracle
from .command_line import FILES, TRAINING, fail, succeed, succeed_json


def test_train_writes_its_files(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "checkpoint.safetensors",
        "metrics.json",
        "model.ernn",
        "model.safetensors",
        *FILES,
    }
    model = QuantizedModel.load(trained / "model.ernn")
    checksum = hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    assert model.provenance == {"data": "vowels", "seed": 3, "epochs": 3, "float_sha256": checksum}
    assert (model.layers[0].cell, model.layers[0].hidden_size, model.scheme) == ("gru", 8, "w8a8")
    zeros = np.mean(model.layers[0].recurrent.weight == 0)
    assert zeros >= 0.5


def test_train_prints_what_it_reached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ("train", "--cell", "rnn", "--hidden", "4", "--epochs", "2", "-o", tmp_path)
    code = main([str(part) for part in argv])
    out = capsys.readouterr().out
    assert code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())["test"]
    for kind in ("float", "fake_quant", "integer"):
        assert f"{100 * metrics[kind]['accuracy']:.2f} %" in out
    assert f"{(tmp_path / 'model.ernn').stat().st_size:,} bytes" in out


def test_train_resumes(capsys: pytest.CaptureFixture[str], trained: Path, run_folder: Path) -> None:
    """A finished run resumed is measured again: the same model, bit for bit."""
    succeed(capsys, "train", *TRAINING, "--resume", "-q", "-o", run_folder)
    assert (run_folder / "model.ernn").read_bytes() == (trained / "model.ernn").read_bytes()


def test_train_in_float_alone_then_quantize(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--hidden", "4", "--epochs", "1", "--cell", "lstm", "--qat", "none", "-q")
    succeed(capsys, "train", *options, "-o", tmp_path)
    assert not (tmp_path / "model.ernn").exists()
    for method in ("minmax", "percentile", "mse"):
        found = succeed_json(
            capsys,
            "quantize",
            tmp_path / "model.safetensors",
            "--data",
            "vowels",
            "--method",
            method,
            "--scheme",
            "w8a16",
        )
        assert found["path"] == str(tmp_path / "model.ernn")
        assert abs(found["float"]["accuracy"] - found["integers"]["accuracy"]) < 0.05
    assert QuantizedModel.load(tmp_path / "model.ernn").scheme == "w8a16"
    assert "integers w8a8" in succeed(
        capsys, "quantize", tmp_path / "model.safetensors", "--data", "vowels", "-o", tmp_path / "b" / "small.ernn"
    )
    assert QuantizedModel.load(tmp_path / "b" / "small.ernn").scheme == "w8a8"


def test_train_takes_the_options_of_qat_and_pruning(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--hidden", "8", "--epochs", "3", "--per-tensor", "--learn-scales", "--block", "4x1", "-q")
    succeed(capsys, "train", *options, "--gates", "r=0.5, z=0.75", "-o", tmp_path)
    layer = QuantizedModel.load(tmp_path / "model.ernn").layers[0]
    assert len(set(layer.input.weight_scale.tolist())) == len(set(layer.recurrent.weight_scale.tolist())) == 1
    r, z, _ = ((gate == 0).mean() for gate in np.split(layer.recurrent.weight, 3))
    assert r >= 0.5
    assert z >= 0.75
    config = json.loads((tmp_path / "metrics.json").read_text())["config"]
    assert (config["per_channel"], config["learn_scales"], config["gates"]) == (False, True, {"r": 0.5, "z": 0.75})


def test_export_prints_sizes(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    model = trained / "model.ernn"
    found = succeed_json(capsys, "export", model, "--form", "sequence,step,stream", "-o", tmp_path / "all")
    assert {Path(file["path"]).name: file["bytes"] for file in found["files"]} == {
        name: (trained / name).stat().st_size for name in FILES
    }
    succeed(capsys, "export", model, "--format", "tflite", "--form", "step", "-o", tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"model_step.tflite", "model_float.tflite"}


def test_export_says_which_form_has_no_file(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    found = succeed_json(capsys, "export", trained / "model.ernn", "--form", "stream", "-o", tmp_path)
    assert found["notes"] == ["stream is a TFLite form: there is no ONNX file of it"]


def test_export_of_a_fixed_length(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    model = run_folder / "model.ernn"
    options = ("--format", "tflite", "--form", "sequence", "--steps", "9")
    found = succeed_json(capsys, "export", model, *options)["files"]
    assert [Path(file["path"]).name for file in found] == ["model_T9.tflite", "model_float.tflite"]
    rows = succeed_json(capsys, "verify", model, "--sequences", "3", "--engines", "litert,tflm")["results"]
    assert {row["engine"] for row in rows if row["file"] == "model_T9.tflite"} == {"litert", "tflm"}


def test_verify_passes(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    out = succeed(capsys, "verify", trained / "model.ernn", "--sequences", "4")
    assert "0 differences" in out
    assert "4 test sequences of vowels" in out
    assert "onnx-reference is slow: given at most 4 sequences, and 6 steps of each" in out
    for name in (*FILES[:5], *list(ENGINES)[1:]):
        assert f"{name} " in out
    found = succeed_json(capsys, "verify", trained / "model.ernn", "--sequences", "2", "--engines", "tflm,numba")
    assert found["ok"]
    assert {row["engine"] for row in found["results"]} == {"tflm"}
    assert all(row["differences"] == 0 and row["integers"] > 0 for row in found["results"])


def test_verify_without_data(capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: Path) -> None:
    model = dataclasses.replace(QuantizedModel.load(trained / "model.ernn"), provenance={})
    model.save(tmp_path / "model.ernn")
    out = succeed(capsys, "verify", tmp_path / "model.ernn", "--engines", "onnxruntime", "--sequences", "3")
    assert "3 random sequences" in out
    assert "fresh export" in out


@pytest.mark.parametrize("name", FILES[:5])
def test_verify_names_an_altered_weight(capsys: pytest.CaptureFixture[str], run_folder: Path, name: str) -> None:
    weight = QuantizedModel.load(run_folder / "model.ernn").layers[0].input.weight
    row, column = 8 + 5, int(np.flatnonzero(weight[8 + 5])[0])  # gate z of unit 5, a weight that is not pruned
    content = bytearray((run_folder / name).read_bytes())
    if name.endswith(".onnx"):
        place = content.index(np.ascontiguousarray(weight.T).tobytes()) + column * len(weight) + row
    else:
        place = content.index(weight.tobytes()) + row * weight.shape[1] + column
    content[place] ^= 0x40
    (run_folder / name).write_bytes(content)

    engine = "onnxruntime" if name.endswith(".onnx") else "litert"
    verify = ["verify", str(run_folder / "model.ernn"), "--engines", engine, "--sequences"]
    assert main([*verify, "5"]) == 1
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "was altered" in line)
    changed = int(weight[row, column])
    assert f"is {int(np.int8(changed ^ 0x40))} in place of {changed}" in line
    assert f"layer 0, input weight, gate z, unit 5, column {column}" in line
    assert name in line
    assert "0 differences in" not in out

    assert main([*verify, "1", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert main([*verify, "1", "-q"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "unit 5" in captured.err
    assert captured.err.count("\n") == 1


def test_verify_lists_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tflite_micro", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)  # what `import` finds where it is not installed
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    out = succeed(capsys, "verify", trained / "model.ernn", "--sequences", "1")
    assert "not installed: qemu-rv32imc (apt install gcc-riscv64-unknown-elf qemu-system-misc)" in out
    assert "not installed: tflm (pip install tflite-micro)" in out
    assert "not installed: onnx-reference (pip install 'edgernn[export]')" in out
    assert "not installed: tflite-runtime (EDGERNN_TFLITE_RUNTIME names /nowhere/python, which is not there)" in out
    fail(
        capsys,
        "tflm is not installed here: pip install tflite-micro",
        "verify",
        trained / "model.ernn",
        "--engines",
        "tflm",
    )


def test_eval_agrees_with_training(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    models = succeed_json(capsys, "eval", trained / "model.ernn")["models"]
    metrics = json.loads((trained / "metrics.json").read_text())["test"]
    assert models["integers"]["accuracy"] == models["fake-quantised"]["accuracy"] == metrics["integer"]["accuracy"]
    assert f"{100 * models['float']['accuracy']:.2f} %" in succeed(capsys, "eval", trained / "model.ernn")


def test_eval_of_integers_alone(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "model.ernn", tmp_path / "alone.ernn")
    assert list(succeed_json(capsys, "eval", tmp_path / "alone.ernn")["models"]) == ["integers"]
    assert "alone.safetensors is missing" in succeed(capsys, "eval", tmp_path / "alone.ernn", "--data", "vowels")


def test_benchmark(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    report = succeed_json(capsys, "benchmark", trained / "model.ernn", "--sequences", "2")
    rows = report["rows"]
    assert [row["name"] for row in rows] == [
        "torch float",
        "onnxruntime float",
        "litert float",
        "onnxruntime int8 weights",
        "numba",
        "native",
        "litert",
        "tflm",
        "onnxruntime exact",
    ]
    found = {row["name"]: row for row in rows}
    metrics = json.loads((trained / "metrics.json").read_text())["test"]
    for name in ("numba", "native", "litert", "tflm", "onnxruntime exact"):
        assert found[name]["equals_kernel"] is True
        assert found[name]["quality"] == pytest.approx(metrics["integer"]["accuracy"])
    for name in ("onnxruntime float", "litert float"):
        assert found["torch float"]["quality"] == found[name]["quality"]
    assert found["torch float"]["sequence"]["ratio"] == found["torch float"]["step"]["ratio"] == 1
    assert found["litert"]["bytes"] == (trained / "model.tflite").stat().st_size
    assert found["litert float"]["bytes"] == (trained / "model_float.tflite").stat().st_size
    times = [row[what] for row in rows for what in ("sequence", "step")]
    assert all(0 < time["median"] <= time["p95"] for time in times)
    assert all(row["memory"] > 10_000_000 for row in rows), [row["memory_note"] for row in rows]
    assert (report["reference"], report["kernel"]) == ("torch float", "numba")
    assert report["fingerprints"] == [QuantizedModel.load(trained / "model.ernn").fingerprint]


def test_inspect_every_kind_of_file(capsys: pytest.CaptureFixture[str], trained: Path, run_folder: Path) -> None:
    found = succeed_json(capsys, "inspect", trained / "model.ernn", "--data", "vowels")
    assert found["macs_per_step"] == 3 * 8 * (12 + 8) + 9 * 8
    assert found["maps"][0]["zero_unit_blocks"] == found["maps"][1]["zero_unit_blocks"] == 0.5
    assert set(found["saturation"]) >= {"input", "layer 0 gate r", "layer 0 hidden state"}
    assert all(0 <= share <= 1 for share in found["saturation"].values())
    out = succeed(capsys, "inspect", trained / "model.ernn")
    assert "speaker 9" in out
    assert "layer 0 recurrent" in out
    assert succeed_json(capsys, "inspect", trained / "model.safetensors")["weights"] == 3 * 8 * (12 + 8) + 9 * 8
    integers = QuantizedModel.load(trained / "model.ernn")
    found = succeed_json(capsys, "inspect", trained / "model_step.tflite")
    assert list(found["outputs"]) == ["y", "h_0_out"]
    assert (found["scheme"], found["form"], found["labels"]) == ("w8a8", "step", list(integers.labels))
    assert [entry["shape"] for entry in found["maps"]] == [[24, 1, 1, 12], [24, 1, 1, 8], [9, 1, 1, 8]]
    assert found["maps"][0]["zeros"] == np.mean(integers.layers[0].input.weight == 0)
    assert found["maps"][1]["weight_scale"][1] == integers.layers[0].recurrent.weight_scale.max()
    shutil.copy(trained / "model_step.tflite", run_folder / "MODEL.TFLITE")
    assert succeed_json(capsys, "inspect", run_folder / "MODEL.TFLITE")["maps"] == found["maps"]
    shutil.copy(trained / "model_weights.onnx", run_folder / "MODEL.ONNX")
    assert "weights_only" in succeed(capsys, "inspect", run_folder / "MODEL.ONNX")
    assert "CONV_2D" in succeed(capsys, "inspect", trained / "model.tflite")
    assert succeed_json(capsys, "inspect", trained / "model.onnx", "-v")["operator_counts"]["Scan"] == 1


@pytest.mark.parametrize("engine", ["numba", "litert", "tflm", "onnxruntime"])
def test_run_predicts_every_step(
    capsys: pytest.CaptureFixture[str], trained: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    model = QuantizedModel.load(trained / "model.ernn")
    rows = load("vowels").test.x[0, :6]
    expected = [int(np.argmax(oracle.run(model, model.quantize_input(rows[: step + 1])))) for step in range(len(rows))]
    text = "\n".join(",".join(repr(float(value)) for value in row) for row in rows) + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeff" + text))
    lines = [
        line.split("\t")
        for line in succeed(capsys, "run", trained / "model.ernn", "-", "--engine", engine, "-q").splitlines()
    ]
    assert [label for label, _ in lines] == [model.labels[index] for index in expected]
    assert all(1 / 9 <= float(score) <= 1 for _, score in lines)


def test_run_reads_files(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    rows = load("vowels").test.x[1, :5]
    np.save(tmp_path / "rows.npy", rows)
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", fmt="%.9g", header=",".join("abcdefghijkl"), comments="")
    outputs = [
        succeed(capsys, "run", trained / "model.ernn", tmp_path / f"rows.{kind}", "-q") for kind in ("npy", "csv")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 5
    last = succeed(capsys, "run", trained / "model.ernn", tmp_path / "rows.npy", "--last", "-q")
    assert last == outputs[0].splitlines(keepends=True)[-1]
    last_as_json = succeed(capsys, "run", trained / "model.ernn", tmp_path / "rows.npy", "--last", "--json", "-q")
    record = json.loads(last_as_json)
    assert record["label"] == last.split("\t")[0]


def test_a_regression_from_training_to_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Targets that are real numbers, one a step."""
    options = ("--data", "battery", "--hidden", "4", "--epochs", "1", "--batch-size", "64", "--qat", "none", "-q")
    succeed(capsys, "train", *options, "-o", tmp_path)
    succeed(capsys, "quantize", tmp_path / "model.safetensors", "--data", "battery", "-q")
    assert "mae" in succeed(capsys, "eval", tmp_path / "model.ernn", "-v")
    np.save(tmp_path / "rows.npy", load("battery").test.x[0, :3])
    model = QuantizedModel.load(tmp_path / "model.ernn")
    expected = model.dequantize_output(oracle.run(model, model.quantize_input(load("battery").test.x[0, :3])))
    out = succeed(capsys, "run", tmp_path / "model.ernn", tmp_path / "rows.npy", "-q")
    assert [float(line) for line in out.splitlines()] == [float(f"{value:.6g}") for value in expected[:, 0]]


def test_checks_lists_what_is_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pieces = {piece["name"]: piece for piece in succeed_json(capsys, "checks")["packages"]}
    assert pieces["numpy"]["version"] == np.__version__
    assert pieces["onnxruntime"]["install"] == "pip install 'edgernn[run]'"
    assert "missing" in succeed(capsys, "checks")


def test_checks_lists_the_engines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    found = succeed_json(capsys, "checks")
    engines = {engine["name"]: engine for engine in found["engines"]}
    assert list(engines) == list(ENGINES)
    assert {name for name, engine in engines.items() if engine["install"]} == {"tflm"}
    assert engines["tflite-runtime-reference"]["reads"] == ".tflite"
    lines = succeed(capsys, "checks").splitlines()
    assert {program["name"]: program["install"] for program in found["programs"]} == dict.fromkeys(("cc", *PROGRAMS))
    assert all(re.match(r"[a-z]* ?\d", program["version"]) for program in found["programs"])
    (line,) = [line for line in lines if line.startswith("tflm ")]
    assert "no " in line
    assert line.endswith("pip install tflite-micro")
