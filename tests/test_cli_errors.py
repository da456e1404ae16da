"""One clear line for everything that is wrong, and for a program that is interrupted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.cli import VERBS, main
from edgernn.cli._options import NOISE_MAX
from edgernn.cli._output import json_line
from edgernn.train.config import INPUT_NOISE_MAX

from .command_line import ROOT, TRAINING, fail, subprocess_of, written

# Raises SIGINT where this module is searched for.
INTERRUPTED_IMPORT = """
import signal

class Interrupt:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt)
"""
Spoil = Callable[[Path], Sequence[str | Path]]


def spoiled_model(folder: Path) -> Path:
    content = bytearray((folder / "model.ernn").read_bytes())
    content[-1] ^= 1
    (folder / "bad.ernn").write_bytes(content)
    return folder / "bad.ernn"


def folder(path: Path) -> Path:
    path.mkdir()
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
    "gates without shares": ("--gates: must be GATE=SHARE,..", lambda d: ["train", "--gates", "r"]),
    "gate without a name": ("--gates: must be GATE=SHARE,..", lambda d: ["train", "--gates", "=0.5"]),
    "gate twice": ("--gates: names a gate twice", lambda d: ["train", "--gates", "r=0.5, r =0.6"]),
    "gate share 2": ("--gates: must be at least 0 and below 1", lambda d: ["train", "--gates", "r=2"]),
    "gates in unit blocks": ("--gates needs --block element", lambda d: ["train", "--gates", "r=0.5", "-o", d / "new"]),
    "unknown gate": (
        "GRU has no gate 'f'; it has r, z, n",
        lambda d: ["train", "--gates", "f=0.5", "--block", "element", "-q", "-o", d.parent / "new"],
    ),
    "scales of floats": (
        "--learn-scales is about integers; give --qat",
        lambda d: ["train", "--qat", "none", "--learn-scales", "-o", d / "new"],
    ),
    "one float scale": (
        "--per-tensor is about integers; give --qat",
        lambda d: ["train", "--qat", "none", "--per-tensor", "-o", d / "new"],
    ),
    "unknown block": ("block", lambda d: ["train", "--block", "round", "--sparsity", "0.5", "-o", d / "new"]),
    "few epochs": ("epochs=1 is too few", lambda d: ["train", "--epochs", "1", "-o", d / "new"]),
    "seed below 0": ("--seed: must be 0 .. 2**63 - 1, not -1", lambda d: ["train", "--seed", "-1", "-o", d / "new"]),
    "huge seed": ("--seed: must be 0 .. 2**63 - 1", lambda d: ["eval", d / "model.ernn", "--seed", str(2**63)]),
    "word for a seed": ("--seed: must be a whole number", lambda d: ["verify", d / "model.ernn", "--seed", "x"]),
    "dropout in one layer": ("give --layers 2 or more", lambda d: ["train", "--dropout", "0.5", "-o", d / "new"]),
    "noise alone": ("--noise: must be 0 .. 10 standard", lambda d: ["train", "--noise", "1e30", "-o", d / "new"]),
    "the test part": (
        "name the training part beside it, A_TRAIN.ts",
        lambda d: ["train", "--data", written(d / "A_TEST.ts", "@data\n"), "-o", d / "new"],
    ),
    "reset of an lstm": ("--reset-before is a GRU variant", lambda d: ["train", "--cell", "lstm", "--reset-before"]),
    "train into a file": ("cannot write into", lambda d: ["train", "-o", d / "model.ernn" / "sub"]),
    "nothing to resume": ("nothing to resume", lambda d: ["train", "--resume", "-q", "-o", d / "elsewhere"]),
    "another model's checkpoint": (
        "hidden_size",
        lambda d: ["train", *TRAINING, "--hidden", "9", "--resume", "-q", "-o", d],
    ),
    # quantize
    "quantize nothing": ("no such file", lambda d: ["quantize", d / "no.safetensors", "--data", "vowels"]),
    "quantize integers": (
        "a float model (.safetensors) is needed",
        lambda d: ["quantize", d / "model.ernn", "--data", "vowels"],
    ),
    "quantize twice": ("already quantised", lambda d: ["quantize", d / "model.safetensors", "--data", "vowels"]),
    "quantize without data": ("required: --data", lambda d: ["quantize", d / "model.safetensors"]),
    "unknown scheme": ("invalid choice: 'w2a2'", lambda d: ["quantize", d / "m", "--data", "v", "--scheme", "w2a2"]),
    # export
    "export nothing": ("no such file", lambda d: ["export", d / "no.ernn"]),
    "export damage": ("damaged", lambda d: ["export", spoiled_model(d), "-o", d / "new"]),
    "export emptiness": ("not an edgernn file", lambda d: ["export", written(d / "e.ernn", b""), "-o", d / "new"]),
    "unknown format": ("unknown format 'hex'", lambda d: ["export", d / "model.ernn", "--format", "hex"]),
    "unknown form": ("unknown form 'loop'", lambda d: ["export", d / "model.ernn", "--form", "loop"]),
    "stream for onnx": (
        "stream is a TFLite form; add tflite to --format",
        lambda d: ["export", d / "model.ernn", "--form", "stream,step", "--format", "onnx", "-o", d / "new"],
    ),
    "steps of a step": ("--steps fixes", lambda d: ["export", d / "model.ernn", "--form", "step", "--steps", "4"]),
    "steps for onnx": ("--steps fixes", lambda d: ["export", d / "model.ernn", "--format", "onnx", "--steps", "4"]),
    "0 steps": ("--steps: must be at least 1", lambda d: ["export", d / "model.ernn", "--steps", "0"]),
    "export into a file": ("cannot write into", lambda d: ["export", d / "model.ernn", "-o", d / "metrics.json"]),
    # verify
    "unknown engine": ("unknown engine 'tpu'", lambda d: ["verify", d / "model.ernn", "--engines", "tpu"]),
    "no engine": ("--engines: names nothing", lambda d: ["verify", d / "model.ernn", "--engines", ","]),
    "verify damage": ("damaged", lambda d: ["verify", spoiled_model(d)]),
    "verify nothing": (
        "nothing to compare with: numba is the reference itself; name another engine: native, litert",
        lambda d: ["verify", d / "model.ernn", "--engines", "numba"],
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
    "inspect a folder": ("is a folder; name a file in it, such as ", lambda d: ["inspect", d]),
    "eval of a folder": ("x.ernn is a folder", lambda d: ["eval", folder(d.parent / "x.ernn")]),
    "inspect no tflite": ("no such file", lambda d: ["inspect", d / "no.tflite"]),
    "inspect a text": ("not one of the files", lambda d: ["inspect", d / "metrics.json"]),
    "inspect damage": ("not a TensorFlow Lite file", lambda d: ["inspect", written(d / "x.tflite", b"TFL3")]),
    "inspect saturation": ("only a .ernn", lambda d: ["inspect", d / "model.onnx", "--data", "vowels"]),
    # run
    "run semicolons": (
        "s.csv, line 1: fields are separated by ';': use commas",
        lambda d: ["run", d / "model.ernn", written(d / "s.csv", "1;2\n")],
    ),
    "run nothing": ("no such file", lambda d: ["run", d / "model.ernn", d / "no.csv"]),
    "run nan": ("finite", lambda d: ["run", d / "model.ernn", written(d / "n.csv", ",".join(["nan"] * 12) + "\n")]),
    "run words": (
        "w.csv, line 1: 'x' is not a number",
        lambda d: ["run", d / "model.ernn", written(d / "w.csv", ",".join(["x", *"12345678901"]) + "\n")],
    ),
    "run narrow": (
        "3 fields, the model has 12 channels",
        lambda d: ["run", d / "model.ernn", written(d / "t.csv", "1,2,3\n")],
    ),
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


def test_nothing_to_resume_leaves_no_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fail(capsys, "nothing to resume", "train", "--resume", "-q", "-o", tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n", "stdin, line 1: 2 fields"),
        ("", "stdin: holds no rows"),
        ("1;2\n", "stdin, line 1: fields are"),
        (b"\xff\xfe1", "stdin, line 1: cannot be read as text"),
    ],
)
def test_stdin_is_named(trained: Path, content: str | bytes, message: str) -> None:
    command = [sys.executable, "-X", "utf8", "-m", "edgernn.cli", "run", str(trained / "model.ernn"), "-"]
    given = content.encode() if isinstance(content, str) else content
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, check=False, env=strict)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.decode().startswith(f"edgernn run: {message}")


def test_json_holds_no_nan() -> None:
    values = {
        "a": [float("nan"), np.float32("inf"), 1.5],
        "b": {"c": np.array([-np.inf, 2.0])},
        "d": (np.int8(3), None),
    }
    assert json.loads(json_line(values)) == {"a": [None, None, 1.5], "b": {"c": [None, 2.0]}, "d": [3, None]}
    assert "NaN" not in json_line(values)


def test_the_bound_of_noise_is_the_one_of_training() -> None:
    assert NOISE_MAX == INPUT_NOISE_MAX


def test_help_of_run_speaks_of_rows() -> None:
    text = " ".join(subprocess_of("run", "--help").stdout.split())
    assert "print one JSON object a prediction" in text
    assert "no warnings, no summary" in text
    assert 'a line with - (with --json: an "error") stands in its place' in text
    assert "print errors alone" in subprocess_of("eval", "--help").stdout


def test_verbose_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "no.ernn"), "-v"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("edgernn inspect: ")


@pytest.mark.parametrize(
    ("package", "command", "argv"),
    [
        ("torch", "pip install 'edgernn[train]'", ["train", "-o", "new"]),
        ("torch", "pip install 'edgernn[train]'", ["quantize", "model.safetensors", "--data", "vowels"]),
        ("onnx", "pip install 'edgernn[export]'", ["export", "model.ernn", "-o", "new"]),
        ("flatbuffers", "pip install 'edgernn[export]'", ["export", "model.ernn", "-o", "new"]),
    ],
)
def test_a_missing_package_is_one_line(run_folder: Path, package: str, command: str, argv: list[str]) -> None:
    paths = [str(run_folder / part) if part.startswith(("model.", "new")) else part for part in argv]
    result = subprocess_of(*paths, code=f"sys.modules[{package!r}] = None")
    assert result.returncode == 2
    assert result.stderr == f"edgernn {argv[0]}: this needs {package}, which is not installed: {command}\n"
    assert not (run_folder / "new").exists()


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
        summary, last = process.stderr.read().splitlines()
        assert summary.startswith("edgernn run: 1 row, 1 prediction by numba; ")
        assert last == "edgernn run: interrupted"


@pytest.mark.parametrize("module", ["edgernn.cli.quantize", "numpy", "torch"])
def test_interrupted_while_it_starts(module: str) -> None:
    """Ctrl-C while modules are imported, those of the verbs included."""
    result = subprocess_of("train", code=INTERRUPTED_IMPORT.format(name=module))
    assert result.returncode == 130
    assert result.stdout == ""
    assert result.stderr in ("edgernn: interrupted\n", "edgernn train: interrupted\n")


def test_a_closed_stdout_is_no_error(trained: Path) -> None:
    for streams in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        command = f'"{sys.executable}" -m edgernn.cli inspect "{trained / "model.ernn"}" {streams}'
        result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_full_disk_is_one_line(trained: Path) -> None:
    command = f'"{sys.executable}" -m edgernn.cli inspect "{trained / "model.ernn"}" > /dev/full'
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "edgernn inspect: input or output: No space left on device\n")


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
