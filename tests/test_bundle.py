"""`edgernn export --bundle pi`: the folder's script computes the kernel's integers where there is no edgernn."""

import dataclasses
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.cli import _bundle
from edgernn.firmware_sim import Stream
from edgernn.firmware_sim import run as kernel
from edgernn.qmodel import QuantizedModel

from .command_line import fail, succeed, succeed_json
from .models import random_model

NAMES = {
    "model.tflite",
    "model.onnx",
    "run.py",
    "run_onnx.py",
    "requirements.txt",
    "README.txt",
    "sample.csv",
    "expected.txt",
}
SITE = Path(np.__file__).parents[1]
# A Python that finds the packages of this one, but for those hidden
PROGRAM = """
import sys, runpy
sys.path.append({site!r})
sys.modules.update(dict.fromkeys({hidden!r}))  # None: not to be imported
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RUNTIMES = {"run.py": ("edgernn", "onnxruntime"), "run_onnx.py": ("edgernn", "ai_edge_litert")}  # and what is not there


def run_script(script: Path, *argv: str | Path, stdin: str = "") -> list[str]:
    """The lines that it prints, in a process that has NumPy and its runtime alone."""
    program = PROGRAM.format(site=str(SITE), hidden=RUNTIMES[script.name])
    command = [sys.executable, "-I", "-S", "-c", program, str(script), *map(str, argv)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def print_integers(script: Path) -> Path:
    """The script, changed to print its outputs as they come out of the network."""
    lines = script.read_text().splitlines()
    (place,) = (n for n, line in enumerate(lines) if line.startswith("    print(") and '"-"' not in line)
    script.write_text("\n".join([*lines[:place], "    print(*y)"]))
    return script


def some_model(seed: int, **changes: Any) -> QuantizedModel:
    task = changes.pop("task", "classification")
    rng = np.random.default_rng(seed)
    model = random_model(seed, hidden_size=7, input_size=changes.pop("input_size", 3), **changes)
    mean, std = rng.normal(0, 100, model.input_size), rng.uniform(1e-3, 50, model.input_size)
    model = dataclasses.replace(model, input_mean=mean.astype(np.float32), input_std=std.astype(np.float32), task=task)
    return dataclasses.replace(model, labels=()) if task == "regression" else model


def rows_for(model: QuantizedModel, seed: int) -> Any:
    """Real inputs [9, input_size] over the whole range and beyond."""
    reach = 1.2 * model.input_limit * model.input_scale
    drawn = np.random.default_rng(seed).uniform(-reach, reach, (9, model.input_size))
    return (drawn * model.input_std + model.input_mean).astype(np.float32)


MODELS: dict[str, dict[str, Any]] = {
    "gru last": {"cell": "gru", "input_size": 1},
    "lstm steps w8a16": {"cell": "lstm", "head": "steps", "scheme": "w8a16", "layers": 2},
    "rnn steps regression": {"cell": "rnn", "head": "steps", "task": "regression", "output_size": 1},
    "gru_before without a head": {"cell": "gru_before", "head": None},
    "both ways, last": {"cell": "lstm", "bidirectional": True},
    "both ways, steps, regression": {"cell": "gru", "head": "steps", "bidirectional": True, "task": "regression"},
}


@pytest.mark.parametrize("script", RUNTIMES)
@pytest.mark.parametrize("name", MODELS)
def test_the_script_computes_the_kernels_integers(name: str, script: str, tmp_path: Path) -> None:
    seed = 40 + list(MODELS).index(name)
    model = some_model(seed, **MODELS[name])
    _bundle.write(tmp_path / "pi", _bundle.bundle(model))
    real = rows_for(model, seed)
    (tmp_path / "rows.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in real))
    integers = kernel(model, model.quantize_input(real))[0]
    if not model.bidirectional and not model.every_step:  # the script answers after every row
        stream = Stream(model)
        integers = np.array([stream.step(x) for x in model.quantize_input(real)])
    lines = run_script(print_integers(tmp_path / "pi" / script), tmp_path / "rows.csv")
    assert np.array_equal([line.split() for line in lines], np.atleast_2d(integers).astype(str)), f"seed {seed}"


@pytest.mark.parametrize("name", ["gru last", "rnn steps regression", "both ways, last"])
def test_the_sample_gives_what_is_expected(name: str, tmp_path: Path) -> None:
    model = some_model(60, **MODELS[name])
    _bundle.write(tmp_path / "pi", _bundle.bundle(model))
    expected = (tmp_path / "pi" / "expected.txt").read_text().splitlines()
    assert len(expected) == (1 if model.bidirectional else 20)
    for script in RUNTIMES:
        assert run_script(tmp_path / "pi" / script, tmp_path / "pi" / "sample.csv") == expected
        assert len((tmp_path / "pi" / script).read_text().splitlines()) < 50  # short enough to read and to change


def test_export_of_a_trained_model(capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path) -> None:
    model = trained / "model.ernn"
    folder = tmp_path / "device"
    found = succeed_json(capsys, "export", model, "--bundle", "pi", "-o", folder)
    assert {path.name for path in folder.iterdir()} == NAMES
    assert {file["path"]: file["bytes"] for file in found["files"]} == {
        str(path): path.stat().st_size for path in folder.iterdir()
    }
    assert (folder / "model.tflite").read_bytes() == (trained / "model_step.tflite").read_bytes()
    assert (folder / "model.onnx").read_bytes() == (trained / "model_step.onnx").read_bytes()
    sample, expected = (folder / "sample.csv").read_text(), (folder / "expected.txt").read_text().splitlines()
    assert len(expected) == sample.count("\n")
    # a row that is none leaves the state as it was; blank lines are no rows
    spoilt = f"\n{sample}1,2,nan\n".replace("\n", "\n\nx,y\n", 1)
    assert run_script(folder / "run_onnx.py", stdin=spoilt) == ["-", *expected, "-"]
    assert [line.split("\t")[0] for line in expected] == labels_after_rows(model, sample)


def labels_after_rows(path: Path, sample: str) -> list[str]:
    model = QuantizedModel.load(path)
    stream = Stream(model)
    rows = [[float(value) for value in line.split(",")] for line in sample.splitlines()]
    return [model.labels[int(np.argmax(stream.step(x)))] for x in model.quantize_input(rows)]


def test_the_default_folder_is_beside_the_model(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    succeed(capsys, "export", run_folder / "model.ernn", "--bundle", "pi", "-q")
    first = {path: path.read_bytes() for path in (run_folder / "model_pi").iterdir()}
    (run_folder / "model_pi" / "run.py").write_text("changed")
    succeed(capsys, "export", run_folder / "model.ernn", "--bundle", "pi", "-q")
    assert {path: path.read_bytes() for path in (run_folder / "model_pi").iterdir()} == first
    assert not list(run_folder.glob(".*"))


def test_a_folder_with_other_files_is_left_alone(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    before = {path: path.read_bytes() for path in run_folder.iterdir()}
    fail(
        capsys, "which is no part of a bundle", "export", run_folder / "model.ernn", "--bundle", "pi", "-o", run_folder
    )
    place = run_folder / "model.ernn"
    fail(capsys, "is no folder", "export", run_folder / "model.ernn", "--bundle", "pi", "-o", place)
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == before


def test_a_failure_leaves_the_former_bundle(tmp_path: Path) -> None:
    _bundle.write(tmp_path / "pi", {"run.py": b"former"})
    bad: Any = {"run.py": b"new", "model.tflite": 5}
    with pytest.raises(TypeError):
        _bundle.write(tmp_path / "pi", bad)
    assert [path.name for path in tmp_path.iterdir()] == ["pi"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "pi").iterdir()} == {"run.py": b"former"}


@pytest.mark.parametrize("argv", [("--form", "step"), ("--steps", "3"), ("--target", "cortex-m4"), ("--format", "c")])
def test_options_of_other_exports_are_refused(
    capsys: pytest.CaptureFixture[str], trained: Path, argv: tuple[str, ...]
) -> None:
    fail(capsys, f"{argv[0]} does not go with --bundle", "export", trained / "model.ernn", "--bundle", "pi", *argv)
    fail(capsys, "unknown bundle 'p'; known are pi", "export", trained / "model.ernn", "--bundle", "p")


def test_the_pinned_versions_have_been_run(tmp_path: Path) -> None:
    """None is newer than what these tests ran with, and every one that the script may need is named."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".")[:3]]

    _bundle.write(tmp_path, _bundle.bundle(some_model(70)))
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    pins = dict(line.removeprefix("# ").split("==") for line in lines if "==" in line)
    assert set(pins) == {"numpy", "ai-edge-litert", "onnxruntime"}
    for package, pin in pins.items():
        assert numbers(pin) <= numbers(version(package)), package
