"""`export --format c` on the command line: the folders, names, targets and packages; wrong ones; the self-test runs."""

import subprocess
from pathlib import Path

import pytest

from edgernn.export.c.packages import PACKAGES
from edgernn.qmodel import QuantizedModel

from .command_line import fail, succeed, succeed_json
from .firmware_host import compile_c
from .models import random_model


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.ernn"
    random_model(4, "gru", input_size=5, layers=2).save(path)
    return path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_for_the_target(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    found = succeed_json(capsys, "export", model_file, "--format", "c", "--target", "cortex-m4")
    folder = model_file.parent / "model_cortex-m4"
    assert {Path(file["path"]).name for file in found["files"]} == {"model.h", "model.c", "model_test.c"}
    assert names(folder) == {"model.h", "model.c", "model_test.c"}
    compile_c(folder / "model.c", folder / "model_test.c", "-o", folder / "test")
    assert subprocess.run([folder / "test"]).returncode == 0
    assert f'MODEL_MODEL_HASH "{QuantizedModel.load(model_file).fingerprint}"' in (folder / "model.h").read_text()


def test_another_name_and_folder_beside_other_formats(
    capsys: pytest.CaptureFixture[str], model_file: Path, tmp_path: Path
) -> None:
    succeed(capsys, "export", model_file, "--format", "c,tflite", "--name", "wave", "-o", tmp_path / "out")
    assert names(tmp_path / "out") == {
        "model.tflite",
        "model_step.tflite",
        "model_generic/wave.h",
        "model_generic/wave.c",
        "model_generic/wave_test.c",
    }


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package(capsys: pytest.CaptureFixture[str], model_file: Path, kind: str) -> None:
    succeed(capsys, "export", model_file, "--format", "c", "--package", kind)
    assert "src/model.c" in names(model_file.parent / f"model_generic_{kind}")


def test_the_vectors_are_of_the_data_that_trained_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first test sequence of vowels; a model of unknown data has a random one."""
    steps = {}
    for name, provenance in (("known", {"data": "vowels", "seed": 0}), ("unknown", {})):
        path = tmp_path / f"{name}.ernn"
        model = random_model(1, "gru", input_size=12, output_size=9)
        QuantizedModel(model.layers, model.head, model.input_scale, model.input_zero_point, provenance=provenance).save(
            path
        )
        succeed(capsys, "export", path, "--format", "c")
        text = (tmp_path / f"{name}_generic" / f"{name}_test.c").read_text()
        steps[name] = int(text.split("#define STEPS ")[1].split()[0])
    assert steps == {"known": 19, "unknown": 20}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "c", "--target", "cortex-m99"), "unknown target 'cortex-m99'; known are generic"),
        (("--format", "c", "--name", "9lives"), "no C identifier"),
        (("--format", "c", "--name", "a/../b"), "no C identifier"),
        (("--format", "c", "--name", ""), "no C identifier"),
        (("--format", "c", "--name", "Arduino", "--package", "arduino"), "a header of Arduino's own"),
        (("--format", "c", "--form", "step"), "--form goes with --format tflite and onnx"),
        (("--format", "c", "--package", "conan"), "unknown package 'conan'; known are cmake"),
        (("--target", "cortex-m4"), "--target goes with --format c"),
        (("--format", "onnx", "--name", "x"), "--name goes with --format c"),
        (("--format", "tflite", "--package", "cmake"), "--package goes with --format c"),
    ],
)
def test_wrong_options(
    capsys: pytest.CaptureFixture[str], model_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = names(model_file.parent)
    fail(capsys, message, "export", model_file, *arguments)
    assert names(model_file.parent) == before


def test_a_file_whose_name_is_no_identifier(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    odd = model_file.rename(model_file.with_name("my-model 2.ernn"))
    fail(capsys, "_, 40 at most); choose another with --name", "export", odd, "--format", "c")
    succeed(capsys, "export", odd, "--format", "c", "--name", "my_model")
    assert (odd.parent / "my-model 2_generic" / "my_model.c").is_file()


def test_a_new_name_replaces_the_old_one(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    succeed(capsys, "export", model_file, "--format", "c")
    folder = model_file.parent / "model_generic"
    (folder / "main.c").write_text("int main(void);")
    (folder / "main.h").write_text("mine")
    found = succeed(capsys, "export", model_file, "--format", "c", "--name", "other")
    assert "removed the former" in found
    assert names(folder) == {"main.c", "main.h", "other.h", "other.c", "other_test.c"}


def test_a_file_that_is_a_folder(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    """Nothing is written when something cannot be."""
    (model_file.parent / "model_generic" / "model.c").mkdir(parents=True)
    fail(capsys, "model.c is a folder", "export", model_file, "--format", "c")
    assert names(model_file.parent) == {"model.ernn"}


def test_a_folder_that_is_a_file(capsys: pytest.CaptureFixture[str], model_file: Path) -> None:
    (model_file.parent / "model_generic").write_text("here first")
    fail(capsys, "cannot write into", "export", model_file, "--format", "c")
