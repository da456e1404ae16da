"""Folders that hold files of several models: what is removed, what is left out, and what is said about it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgernn.cli import main
from edgernn.qmodel import QuantizedModel
from edgernn.train import checkpoint, loop
from edgernn.train.state import TrainingState

from .command_line import FILES, fail, succeed, succeed_json

OTHER = ("train", "--hidden", "4", "--cell", "rnn", "--epochs", "1", "--qat", "none")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def mixed(trained: Path, tmp_path: Path) -> Path:
    """Integers of one model beside the float file of another one."""
    folder = tmp_path / "mixed"
    assert main([*OTHER, "-q", "-o", str(folder)]) == 0
    return Path(shutil.copy(trained / "model.ernn", folder))


def test_a_new_training_removes_what_was_made_of_the_former_model(
    capsys: pytest.CaptureFixture[str], run_folder: Path
) -> None:
    for name in ("model_T20.tflite", "model_B4.tflite", "notes.txt", "model_Test.tflite", "other.ernn"):
        (run_folder / name).touch()
    out = succeed(capsys, *OTHER, "-o", run_folder)
    kept = {"notes.txt", "model_Test.tflite", "other.ernn"}
    assert files(run_folder) == {"checkpoint.safetensors", "metrics.json", "model.safetensors", *kept}
    note = out.splitlines()[-1]
    assert note.startswith(f"{run_folder}: removed model.ernn, ")
    assert all(name in note for name in (*FILES, "model_T20.tflite", "model_B4.tflite"))
    assert succeed_json(capsys, *OTHER, "-o", run_folder)["notes"] == []


def test_the_same_training_again_keeps_what_was_made_of_it(
    capsys: pytest.CaptureFixture[str], run_folder: Path
) -> None:
    succeed(capsys, *OTHER, "-q", "-o", run_folder)
    (run_folder / "model.tflite").touch()
    for again in ((), ("--resume",)):
        assert succeed_json(capsys, *OTHER, *again, "-o", run_folder)["notes"] == []
        assert (run_folder / "model.tflite").exists()


def test_an_interrupted_training_leaves_the_former_model(
    capsys: pytest.CaptureFixture[str], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.name != "checkpoint.safetensors"}
    monkeypatch.setattr(loop, "_optimise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([*OTHER, "-q", "-o", str(run_folder)]) == 130
    capsys.readouterr()
    assert {name: (run_folder / name).read_bytes() for name in before} == before


def test_a_refused_training_removes_nothing(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    before = files(run_folder)
    wrong = ("train", "--gates", "f=0.5", "--block", "element", "-o", run_folder)
    fail(capsys, "GRU has no gate 'f'", *wrong)
    assert files(run_folder) == before


def test_overwriting_an_unfinished_training_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def stop_after_two(path: Path, state: TrainingState, data: object) -> None:
        save(path, state, data)  # type: ignore[arg-type]
        if state.epoch == 2:
            raise KeyboardInterrupt

    argv = ("train", "--hidden", "4", "--epochs", "3", "-o", str(tmp_path))
    monkeypatch.setattr(checkpoint, "save", stop_after_two)
    assert main(argv) == 130
    err = capsys.readouterr().err
    assert "go on with --resume" in err
    assert "=True" not in err
    monkeypatch.setattr(checkpoint, "save", save)
    found = succeed_json(capsys, *OTHER, "-o", tmp_path)
    assert found["notes"] == [
        f"{tmp_path}: overwriting a training stopped after epoch 2 of 3 (--resume would have gone on)"
    ]


def test_the_float_file_of_another_model_is_left_out(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    note = "model.safetensors beside it is of another model: float figures are left out"
    found = succeed_json(capsys, "eval", mixed)
    assert (list(found["models"]), found["notes"]) == (["integers"], [note])
    assert note in succeed(capsys, "eval", mixed).splitlines()
    found = succeed_json(capsys, "benchmark", mixed, "--sequences", "1")
    assert not any("float" in row["name"] for row in found["rows"])
    assert found["notes"] == [note]
    found = succeed_json(capsys, "export", mixed, "--form", "step", "--format", "onnx")
    assert {Path(file["path"]).name for file in found["files"]} == {"model_step.onnx", "model_weights.onnx"}
    assert found["notes"] == [note]


def test_integers_that_do_not_name_their_float_file(capsys: pytest.CaptureFixture[str], run_folder: Path) -> None:
    replace(QuantizedModel.load(run_folder / "model.ernn"), provenance={}).save(run_folder / "model.ernn")
    (note,) = succeed_json(capsys, "eval", run_folder / "model.ernn", "--data", "vowels")["notes"]
    assert note.startswith("model.safetensors beside it may be of another model (model.ernn does not say)")


def test_quantize_names_its_float_file(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    succeed(capsys, "quantize", mixed.with_suffix(".safetensors"), "--data", "vowels", "-q")
    found = succeed_json(capsys, "eval", mixed)
    assert (list(found["models"]), found["notes"]) == (["float", "integers"], [])


def test_quantize_removes_the_exports_of_the_integers_that_it_replaces(
    capsys: pytest.CaptureFixture[str], mixed: Path
) -> None:
    argv = ("quantize", mixed.with_suffix(".safetensors"), "--data", "vowels")
    assert succeed_json(capsys, *argv)["notes"] == []  # over another model, of which there is no export
    succeed(capsys, "export", mixed, "--form", "sequence", "-q")
    before = files(mixed.parent)
    assert succeed_json(capsys, *argv)["notes"] == []  # the same integers again
    assert files(mixed.parent) == before
    (note,) = succeed_json(capsys, *argv, "--scheme", "w8a16")["notes"]
    assert note == f"{mixed.parent}: removed model.tflite, model.onnx, model_weights.onnx of the former model"
    assert before - files(mixed.parent) == {"model.tflite", "model.onnx", "model_weights.onnx"}


def test_other_class_names_are_refused(capsys: pytest.CaptureFixture[str], mixed: Path, tmp_path: Path) -> None:
    model = QuantizedModel.load(mixed)
    replace(model, labels=tuple(reversed(model.labels))).save(mixed)
    for verb in ("eval", "verify", "benchmark"):
        fail(capsys, "(speaker 1, speaker 2, ", verb, mixed)
        fail(capsys, "are not those of the model (speaker 9, speaker 8, ", verb, mixed, "--data", "vowels")
    for number in range(9):
        for file in range(2):
            path = tmp_path / "data" / f"class {number}" / f"{file}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(["1"] * 12) + "\n")
    argv = ("quantize", mixed.with_suffix(".safetensors"), "--data", tmp_path / "data")
    fail(capsys, "(class 0, class 1, ", *argv)


@pytest.mark.parametrize(("name", "content"), [("model.tflite", None), ("model.onnx", b"hello")])
def test_verify_goes_on_after_a_damaged_file(
    capsys: pytest.CaptureFixture[str], run_folder: Path, name: str, content: bytes | None
) -> None:
    path = run_folder / name
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    engines = ["--engines", "litert,onnxruntime"]
    assert main(["verify", str(run_folder / "model.ernn"), "--sequences", "1", "--json", *engines]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    problems = {row["file"]: row["problem"] for row in found["results"] if row["file"]}
    assert {file for file, problem in problems.items() if problem} == {name}
    assert "damaged" in problems[name]
    assert set(problems) == set(FILES[:5])
