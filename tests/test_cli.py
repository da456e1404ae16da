"""The command line from end to end on a tiny training, and one clear line for everything that is wrong."""

import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.cli import VERBS, main
from edgernn.data import load
from edgernn.qmodel import QuantizedModel

from . import oracle

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("--data", "vowels", "--hidden", "8", "--epochs", "3", "--sparsity", "0.5", "--seed", "3")
FILES = (
    "model.tflite",
    "model_step.tflite",
    "model_stream.tflite",
    "model.onnx",
    "model_step.onnx",
    "model_weights.onnx",
    "model_float.onnx",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny trained model and all its exports."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train = ["train", *TRAINING, "-q", "-o"]
    assert main([*train, str(folder)]) == 0
    assert main(["export", str(folder / "model.ernn"), "--form", "sequence,step,stream", "-q"]) == 0
    return folder


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def succeed(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def succeed_json(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed(capsys, *argv, "--json"))
    return found


def subprocess_of(*argv: str | Path, code: str = "pass", **options: Any) -> subprocess.CompletedProcess[str]:
    program = f"import sys; {code}; from edgernn.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


# ---- the way of a model ----------------------------------------------------------------------------------------------


def test_train_writes_its_files(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "checkpoint.safetensors",
        "metrics.json",
        "model.ernn",
        "model.safetensors",
        *FILES,
    }
    model = QuantizedModel.load(trained / "model.ernn")
    assert model.provenance == {"data": "vowels", "seed": 3, "epochs": 3}
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


def test_export_prints_sizes(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    model = trained / "model.ernn"
    found = succeed_json(capsys, "export", model, "--form", "sequence,step,stream", "-o", tmp_path / "all")
    assert {Path(file["path"]).name: file["bytes"] for file in found["files"]} == {
        name: (trained / name).stat().st_size for name in FILES
    }
    succeed(capsys, "export", model, "--format", "tflite", "--form", "step", "-o", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["model_step.tflite"]


def test_verify_passes(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    out = succeed(capsys, "verify", trained / "model.ernn", "--sequences", "4")
    assert "0 differences" in out
    assert "4 test sequences of vowels" in out
    for name in FILES[:5]:
        assert name in out
    found = succeed_json(capsys, "verify", trained / "model.ernn", "--sequences", "2", "--engines", "tflm,numba")
    assert found["ok"]
    assert {row["engine"] for row in found["results"]} == {"tflm"}
    assert all(row["differences"] == 0 and row["integers"] > 0 for row in found["results"])


def test_verify_without_data(capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: Path) -> None:
    import dataclasses

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

    assert main(["verify", str(run_folder / "model.ernn"), "--sequences", "5"]) == 1
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "was altered" in line)
    changed = int(weight[row, column])
    assert f"is {int(np.int8(changed ^ 0x40))} in place of {changed}" in line
    assert f"layer 0, input weight, gate z, unit 5, column {column}" in line
    assert name in line
    assert "0 differences in" not in out

    assert main(["verify", str(run_folder / "model.ernn"), "--sequences", "1", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert main(["verify", str(run_folder / "model.ernn"), "--sequences", "1", "-q"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "unit 5" in captured.err
    assert captured.err.count("\n") == 1


def test_verify_lists_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)  # what `import` finds where it is not installed
    out = succeed(capsys, "verify", trained / "model.ernn", "--sequences", "1")
    assert "not installed: tflm (pip install tflite-micro)" in out
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
    rows = succeed_json(capsys, "benchmark", trained / "model.ernn", "--sequences", "2")["rows"]
    assert [row["name"] for row in rows] == [
        "torch float",
        "numba",
        "litert",
        "tflm",
        "onnxruntime exact",
        "onnxruntime int8 weights",
        "onnxruntime float",
    ]
    found = {row["name"]: row for row in rows}
    metrics = json.loads((trained / "metrics.json").read_text())["test"]
    for name in ("numba", "litert", "tflm", "onnxruntime exact"):
        assert found[name]["equals_kernel"] is True
        assert found[name]["quality"] == pytest.approx(metrics["integer"]["accuracy"])
    assert found["torch float"]["quality"] == found["onnxruntime float"]["quality"]
    assert found["torch float"]["sequence_ratio"] == found["torch float"]["step_ratio"] == 1
    assert found["litert"]["bytes"] == (trained / "model.tflite").stat().st_size
    assert all(row["sequence_seconds"] > 0 and row["step_seconds"] > 0 for row in rows)


def test_inspect_every_kind_of_file(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    found = succeed_json(capsys, "inspect", trained / "model.ernn", "--data", "vowels")
    assert found["macs_per_step"] == 3 * 8 * (12 + 8) + 9 * 8
    assert found["maps"][0]["zero_unit_blocks"] == found["maps"][1]["zero_unit_blocks"] == 0.5
    assert set(found["saturation"]) >= {"input", "layer 0 gate r", "layer 0 hidden state"}
    assert all(0 <= share <= 1 for share in found["saturation"].values())
    out = succeed(capsys, "inspect", trained / "model.ernn")
    assert "speaker 9" in out
    assert "layer 0 recurrent" in out
    assert succeed_json(capsys, "inspect", trained / "model.safetensors")["weights"] == 3 * 8 * (12 + 8) + 9 * 8
    assert succeed_json(capsys, "inspect", trained / "model_step.tflite")["outputs"] == ["y", "h_0_out"]
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
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    lines = [
        line.split("\t")
        for line in succeed(capsys, "run", trained / "model.ernn", "-", "--engine", engine).splitlines()
    ]
    assert [label for label, _ in lines] == [model.labels[index] for index in expected]
    assert all(1 / 9 <= float(score) <= 1 for _, score in lines)


def test_run_reads_files(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    rows = load("vowels").test.x[1, :5]
    np.save(tmp_path / "rows.npy", rows)
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", fmt="%.9g", header=",".join("abcdefghijkl"), comments="")
    outputs = [succeed(capsys, "run", trained / "model.ernn", tmp_path / f"rows.{kind}") for kind in ("npy", "csv")]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 5
    last = succeed(capsys, "run", trained / "model.ernn", tmp_path / "rows.npy", "--last")
    assert last == outputs[0].splitlines(keepends=True)[-1]
    record = json.loads(succeed(capsys, "run", trained / "model.ernn", tmp_path / "rows.npy", "--last", "--json"))
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
    out = succeed(capsys, "run", tmp_path / "model.ernn", tmp_path / "rows.npy")
    assert [float(line) for line in out.splitlines()] == [float(f"{value:.6g}") for value in expected[:, 0]]


def test_checks_lists_what_is_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pieces = {piece["name"]: piece for piece in succeed_json(capsys, "checks")["packages"]}
    assert pieces["numpy"]["version"] == np.__version__
    assert pieces["onnxruntime"]["install"] == "pip install 'edgernn[run]'"
    assert "missing" in succeed(capsys, "checks")


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def fail(capsys: pytest.CaptureFixture[str], message: str, *argv: str | Path) -> None:
    code = main([str(part) for part in argv])
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("edgernn")
    assert message in err


Spoil = Callable[[Path], Sequence[str | Path]]


def spoiled_model(folder: Path) -> Path:
    content = bytearray((folder / "model.ernn").read_bytes())
    content[-1] ^= 1
    (folder / "bad.ernn").write_bytes(content)
    return folder / "bad.ernn"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


WRONG: dict[str, tuple[str, Spoil]] = {
    # usage
    "no verb": ("VERB", lambda d: []),
    "unknown verb": ("invalid choice: 'fly'", lambda d: ["fly"]),
    "unknown option": ("unrecognized arguments: --fly", lambda d: ["checks", "--fly"]),
    "no model": ("the following arguments are required: MODEL", lambda d: ["verify"]),
    # train
    "unknown cell": ("invalid choice: 'gpu'", lambda d: ["train", "--cell", "gpu"]),
    "hidden 0": ("--hidden: must be at least 1, not 0", lambda d: ["train", "--hidden", "0"]),
    "hidden far too many": ("memory", lambda d: ["train", "--hidden", "3000000", "-o", d / "new"]),
    "hidden word": ("--hidden: must be a whole number", lambda d: ["train", "--hidden", "many"]),
    "sparsity 1": ("--sparsity: must be at least 0 and below 1", lambda d: ["train", "--sparsity", "1"]),
    "learning rate nan": ("--learning-rate: must be positive", lambda d: ["train", "--learning-rate", "nan"]),
    "unknown data": ("no data set and no folder", lambda d: ["train", "--data", "nowhere"]),
    "unknown block": ("block", lambda d: ["train", "--block", "round", "--sparsity", "0.5", "-o", d / "new"]),
    "few epochs": ("epochs=1 is too few", lambda d: ["train", "--epochs", "1", "-o", d / "new"]),
    "seed below 0": ("seed", lambda d: ["train", "--seed", "-1", "-o", d / "new"]),
    "reset of an lstm": ("--reset-before is a GRU variant", lambda d: ["train", "--cell", "lstm", "--reset-before"]),
    "train into a file": ("cannot write into", lambda d: ["train", "-o", d / "model.ernn" / "sub"]),
    "nothing to resume": ("nothing to resume", lambda d: ["train", "--resume", "-q", "-o", d / "elsewhere"]),
    "another model's checkpoint": (
        "hidden_size",
        lambda d: ["train", *TRAINING, "--hidden", "9", "--resume", "-q", "-o", d],
    ),
    # quantize
    "quantize nothing": ("no such file", lambda d: ["quantize", d / "no.safetensors", "--data", "vowels"]),
    "quantize integers": ("edgernn.sequence_model", lambda d: ["quantize", d / "model.ernn", "--data", "vowels"]),
    "quantize twice": ("already quantised", lambda d: ["quantize", d / "model.safetensors", "--data", "vowels"]),
    "quantize without data": ("required: --data", lambda d: ["quantize", d / "model.safetensors"]),
    "unknown scheme": ("invalid choice: 'w2a2'", lambda d: ["quantize", d / "m", "--data", "v", "--scheme", "w2a2"]),
    # export
    "export nothing": ("no such file", lambda d: ["export", d / "no.ernn"]),
    "export damage": ("damaged", lambda d: ["export", spoiled_model(d), "-o", d / "new"]),
    "export emptiness": ("not an edgernn file", lambda d: ["export", written(d / "e.ernn", b""), "-o", d / "new"]),
    "unknown format": ("unknown format 'hex'", lambda d: ["export", d / "model.ernn", "--format", "hex"]),
    "unknown form": ("unknown form 'loop'", lambda d: ["export", d / "model.ernn", "--form", "loop"]),
    "export into a file": ("cannot write into", lambda d: ["export", d / "model.ernn", "-o", d / "metrics.json"]),
    # verify
    "unknown engine": ("unknown engine 'tpu'", lambda d: ["verify", d / "model.ernn", "--engines", "tpu"]),
    "no engine": ("--engines: names nothing", lambda d: ["verify", d / "model.ernn", "--engines", ","]),
    "verify damage": ("damaged", lambda d: ["verify", spoiled_model(d)]),
    "verify cut file": (
        "model.tflite: a damaged TensorFlow Lite file",
        lambda d: [
            "verify",
            written(d / "model.tflite", (d / "model.tflite").read_bytes()[:900]).with_name("model.ernn"),
        ],
    ),
    "verify foreign file": (
        "model.onnx: not an ONNX file",
        lambda d: ["verify", written(d / "model.onnx", b"hello").with_name("model.ernn"), "--engines", "onnxruntime"],
    ),
    "verify other data": (
        "3 channels, the model needs 12",
        lambda d: ["verify", d / "model.ernn", "--data", "battery"],
    ),
    "verify 0 sequences": ("must be at least 1", lambda d: ["verify", d / "model.ernn", "--sequences", "0"]),
    # eval and benchmark
    "eval other data": ("3 channels, the model needs 12", lambda d: ["eval", d / "model.ernn", "--data", "battery"]),
    "eval nothing": ("no such file", lambda d: ["eval", d / "no.ernn"]),
    "benchmark nothing": ("no such file", lambda d: ["benchmark", d / "no.ernn"]),
    "benchmark no data": ("nowhere", lambda d: ["benchmark", d / "model.ernn", "--data", "nowhere"]),
    # inspect
    "inspect nothing": ("no such file", lambda d: ["inspect", d / "no.ernn"]),
    "inspect no tflite": ("No such file", lambda d: ["inspect", d / "no.tflite"]),
    "inspect a text": ("not one of the files", lambda d: ["inspect", d / "metrics.json"]),
    "inspect damage": ("not a TensorFlow Lite file", lambda d: ["inspect", written(d / "x.tflite", b"TFL3")]),
    "inspect saturation": ("only a .ernn", lambda d: ["inspect", d / "model.onnx", "--data", "vowels"]),
    # run
    "run nothing": ("no such file", lambda d: ["run", d / "model.ernn", d / "no.csv"]),
    "run nan": ("finite", lambda d: ["run", d / "model.ernn", written(d / "n.csv", ",".join(["nan"] * 12) + "\n")]),
    "run words": ("not a number", lambda d: ["run", d / "model.ernn", written(d / "w.csv", "1,2\nx,3\n")]),
    "run narrow": ("3 numbers", lambda d: ["run", d / "model.ernn", written(d / "t.csv", "1,2,3\n")]),
    "run emptiness": ("no rows", lambda d: ["run", d / "model.ernn", written(d / "e.csv", b"")]),
    "run bad npy": ("not a .npy file", lambda d: ["run", d / "model.ernn", written(d / "e.npy", b"x")]),
    "run no engine": ("unknown engine 'tpu'", lambda d: ["run", d / "model.ernn", d / "a.csv", "--engine", "tpu"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], run_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(run_folder.parent)
    message, spoil = WRONG[name]
    argv = spoil(run_folder)
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    fail(capsys, message, *argv)
    assert {path: path.read_bytes() for path in run_folder.parent.rglob("*") if path.is_file()} == before


def test_verbose_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "no.ernn"), "-v"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("edgernn inspect: ")


@pytest.mark.parametrize(
    ("package", "command", "argv"),
    [
        ("torch", "pip install 'edgernn[train]'", ["train", "-o", "new"]),
        ("torch", "pip install 'edgernn[train]'", ["eval", "model.ernn"]),
        ("onnx", "pip install 'edgernn[export]'", ["export", "model.ernn", "-o", "new"]),
        ("flatbuffers", "pip install 'edgernn[export]'", ["export", "model.ernn", "-o", "new"]),
    ],
)
def test_a_missing_package_is_one_line(run_folder: Path, package: str, command: str, argv: list[str]) -> None:
    paths = [str(run_folder / part) if part in ("model.ernn", "new") else part for part in argv]
    result = subprocess_of(*paths, code=f"sys.modules[{package!r}] = None")
    assert result.returncode == 2
    assert result.stderr == f"edgernn {argv[0]}: this needs {package}, which is not installed: {command}\n"
    assert not (run_folder / "new").exists()


def test_integers_run_without_torch_and_onnx(run_folder: Path) -> None:
    np.save(run_folder / "rows.npy", load("vowels").test.x[0, :3])
    hidden = "sys.modules |= dict.fromkeys(['torch', 'onnx', 'onnxruntime', 'flatbuffers', 'ai_edge_litert'])"
    for argv in (["run", "model.ernn", "rows.npy"], ["inspect", "model.ernn"]):
        result = subprocess_of(argv[0], *(run_folder / part for part in argv[1:]), code=hidden)
        assert (result.returncode, result.stderr) == (0, "")


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'numba', 'onnx', 'tqdm', 'safetensors'}"
    code = f"import atexit; atexit.register(lambda: print({heavy} & set(sys.modules)))"
    for argv in (["--help"], ["train", "--help"], ["--version"]):
        result = subprocess_of(*argv, code=code)
        assert result.returncode == 0
        assert result.stderr == ""
        assert result.stdout.endswith("set()\n")
    assert all(verb in subprocess_of("--help").stdout for verb in VERBS)


def test_interrupted_while_it_waits(trained: Path) -> None:
    """A row gives its prediction at once; Ctrl-C then ends the program with one line."""
    command = [sys.executable, "-m", "edgernn.cli", "run", str(trained / "model.ernn"), "-"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(",".join(["0.5"] * 12) + "\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("speaker ")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == "edgernn run: interrupted\n"


def test_a_reader_that_leaves_is_no_error(trained: Path, tmp_path: Path) -> None:
    rows = written(tmp_path / "many.csv", (",".join(["0.5"] * 12) + "\n") * 20_000)
    command = [sys.executable, "-m", "edgernn.cli", "run", str(trained / "model.ernn"), str(rows)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
