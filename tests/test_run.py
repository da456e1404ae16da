"""`edgernn run`: what it prints for rows, windows and bad rows, and how it ends."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from edgernn import Predictor
from edgernn.cli import main
from edgernn.export import to_onnx, to_tflite
from edgernn.firmware_sim import Stream
from edgernn.firmware_sim import run as kernel
from edgernn.qmodel import QuantizedModel

from .command_line import ROOT, fail, written
from .models import random_model

COMMAND = [sys.executable, "-m", "edgernn.cli", "run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.ernn (a class a sequence), steps.ernn (one a step), both.ernn (bidirectional), and exports of the first."""
    place = tmp_path_factory.mktemp("models")
    model = classifier()
    model.save(place / "model.ernn")
    (place / "model.tflite").write_bytes(to_tflite(model))
    (place / "model_T5.tflite").write_bytes(to_tflite(model, steps=5))
    (place / "model_step.tflite").write_bytes(to_tflite(model, "step"))
    (place / "model.onnx").write_bytes(to_onnx(model))
    random_model(31, "lstm", input_size=2, hidden_size=5, head="steps").save(place / "steps.ernn")
    random_model(32, "gru", input_size=2, hidden_size=5, head="steps", bidirectional=True).save(place / "both.ernn")
    return place


def classifier() -> QuantizedModel:
    return random_model(30, "gru", input_size=2, hidden_size=5)


def some_rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, 9]).normal(0, 1, (count, 2)).astype(np.float32)


def text_of(rows: Any) -> str:
    return "".join(",".join(map(repr, row)) + "\n" for row in rows.astype(float).tolist())


def table(folder: Path, lines: str) -> Path:
    return written(folder / "rows.csv", lines)


def records(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(the objects on stdout, the summary, which is the last line on stderr)."""
    assert main(["run", *map(str, argv), "--json"]) == 0
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], json.loads(err.splitlines()[-1])["summary"]


def scores(model: QuantizedModel, y: Any) -> Any:
    odds = np.exp(model.dequantize_output(y).astype(np.float64))
    return odds / odds.sum()


def answer(model: QuantizedModel, y: Any) -> dict[str, Any]:
    each = pytest.approx(scores(model, y), rel=1e-9)
    return {"label": model.labels[int(np.argmax(y))], "score": pytest.approx(scores(model, y).max()), "scores": each}


# ---- after every row -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.ernn", "model_step.tflite", "steps.ernn"])
@pytest.mark.parametrize("source", ["npy", "csv", "-"])
def test_a_prediction_after_every_row(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    source: str,
) -> None:
    """Of a stream, whose state is carried on, however many rows are computed at once."""
    model = QuantizedModel.load(folder / name) if name == "steps.ernn" else classifier()
    rows = some_rows(1030 if source != "-" else 20)  # more than one block of a file
    np.save(tmp_path / "rows.npy", rows)
    table(tmp_path, text_of(rows))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text_of(rows)))
    stream = Stream(model)
    expected = [{"row": n, **answer(model, stream.step(x))} for n, x in enumerate(model.quantize_input(rows), 1)]
    found, summary = records(capsys, folder / name, "-" if source == "-" else tmp_path / f"rows.{source}")
    assert found == expected
    assert (summary["rows"], summary["predictions"], summary["bad_rows"]) == (len(rows), len(rows), {})


def test_text_and_last(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    model, rows = classifier(), some_rows(7)
    path, stream = table(tmp_path, text_of(rows)), Stream(model)
    lines = [f"{model.labels[np.argmax(y)]}\t{scores(model, y).max():.4f}" for y in map(stream.step, quantized(rows))]
    assert main(["run", str(folder / "model.ernn"), str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == lines
    assert err.startswith("edgernn run: 7 rows, 7 predictions by numba; ")
    assert err.endswith(" us\n")
    assert main(["run", str(folder / "model.ernn"), str(path), "--last", "-q"]) == 0
    assert capsys.readouterr() == (f"{lines[-1]}\n", "")


def quantized(rows: Any) -> Any:
    return classifier().quantize_input(rows)


@pytest.mark.parametrize("profile", ["portable", "tflite-lstm"])
def test_hidden_states_are_values(capsys: pytest.CaptureFixture[str], tmp_path: Path, profile: Any) -> None:
    rows = some_rows(4)
    model = random_model(5, "lstm", input_size=rows.shape[1], profile=profile).without_head()
    model.save(tmp_path / "bare.ernn")
    np.save(tmp_path / "rows.npy", rows)
    found, _ = records(capsys, tmp_path / "bare.ernn", tmp_path / "rows.npy")
    expected = model.dequantize_output(kernel(model, model.quantize_input(rows))[0]).astype(float)
    assert [record["values"] for record in found] == expected.tolist()


# ---- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "hop"), [(5, None), (5, 2), (5, 7), (1, 1), (17, 3), (20, None)])
@pytest.mark.parametrize("name", ["model.ernn", "model.tflite", "model_step.tflite", "model.onnx"])
def test_windows(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, name: str, size: int, hop: int | None
) -> None:
    model, rows = classifier(), some_rows(20)
    np.save(tmp_path / "rows.npy", rows)
    options = ["--window", str(size), *(["--hop", str(hop)] if hop else [])]
    found, summary = records(capsys, folder / name, tmp_path / "rows.npy", *options)
    assert found == [
        {
            "row": start + size,
            "start": start + 1,
            **answer(model, kernel(model, quantized(rows[start : start + size]))[0]),
        }
        for start in range(0, 21 - size, hop or size)
    ]
    assert summary["predictions"] == len(found)


def test_the_length_of_a_file_is_its_window(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", some_rows(12))
    file, rows = folder / "model_T5.tflite", tmp_path / "rows.npy"
    assert [record["start"] for record in records(capsys, file, rows)[0]] == [1, 6]
    assert [record["start"] for record in records(capsys, file, rows, "--window", "5", "--hop", "3")[0]] == [1, 4, 7]
    fail(capsys, "was exported for windows of 5 rows, not 6", "run", file, rows, "--window", "6")
    message = "tflm takes sequences of one length alone: export it with --steps N"
    fail(capsys, message, "run", folder / "model.tflite", rows, "--engine", "tflm")


@pytest.mark.parametrize(
    ("count", "options", "left"),
    [(12, ("--window", "5"), 2), (10, ("--window", "5"), 0), (12, ("--window", "5", "--hop", "2"), 1)]
    + [(14, ("--window", "5", "--hop", "6"), 2), (12, ("--window", "5", "--hop", "6"), 0)],
)
def test_rows_in_no_window_are_told(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, count: int, options: tuple[str, ...], left: int
) -> None:
    np.save(tmp_path / "rows.npy", some_rows(count))
    assert main(["run", str(folder / "model.ernn"), str(tmp_path / "rows.npy"), *options]) == 0
    err = capsys.readouterr().err
    assert (f"the last {left} rows are no whole window of 5 and were dropped" in err) == bool(left)


def test_windows_with_an_output_a_row(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    rows = some_rows(8)
    np.save(tmp_path / "rows.npy", rows)
    for name in ("steps.ernn", "both.ernn"):
        model = QuantizedModel.load(folder / name)
        found, summary = records(capsys, folder / name, tmp_path / "rows.npy", "--window", "4", "--hop", "2")
        assert summary["predictions"] == len(found) == 12
        assert found == [
            {"row": start + step + 1, "start": start + 1, **answer(model, y)}
            for start in (0, 2, 4)
            for step, y in enumerate(kernel(model, model.quantize_input(rows[start : start + 4]))[0])
        ]


def test_without_windows_all_rows_are_one_sequence(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    rows = some_rows(9)
    np.save(tmp_path / "rows.npy", rows)
    for name in ("model.tflite", "model.onnx"):
        (found,), _ = records(capsys, folder / name, tmp_path / "rows.npy")
        assert found == {"row": 9, **answer(classifier(), kernel(classifier(), quantized(rows))[0])}
    both = QuantizedModel.load(folder / "both.ernn")
    found_of_both, _ = records(capsys, folder / "both.ernn", tmp_path / "rows.npy")
    y = kernel(both, both.quantize_input(rows))[0]
    assert found_of_both == [{"row": n, **answer(both, one)} for n, one in enumerate(y, 1)]


# ---- bad rows --------------------------------------------------------------------------------------------------------

GOOD = some_rows(8, 1)
SPOILED = [*text_of(GOOD).splitlines()]
SPOILED[2:2] = ["0.5,nan", "0.5"]  # rows 3 and 4
SPOILED[7:7] = ["0.5,x"]  # row 8
BAD = (3, 4, 8)


@pytest.mark.parametrize("source", ["rows.csv", "-"])
@pytest.mark.parametrize("name", ["model.ernn", "model_step.tflite"])
def test_bad_rows_leave_the_state_as_it_is(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    name: str,
) -> None:
    text = "\n".join(["a,b", "", *SPOILED]) + "\n"
    table(tmp_path, text)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    stream, good = Stream(classifier()), iter(quantized(GOOD))
    place = "stdin" if source == "-" else str(tmp_path / source)
    messages = [f"{place}, line {n + 2}: " for n in BAD]
    assert main(["run", str(folder / name), source if source == "-" else str(tmp_path / source), "--json"]) == 0
    out, err = capsys.readouterr()
    for number, record in enumerate(map(json.loads, out.splitlines()), 1):
        if number in BAD:
            assert record["row"] == number
            assert record["error"].startswith(messages[BAD.index(number)])
        else:
            assert record == {"row": number, **answer(classifier(), stream.step(next(good)))}
    assert next(good, None) is None
    *warnings, summary = err.splitlines()
    assert json.loads(summary)["summary"]["bad_rows"] == {
        "missing values": 1,
        "wrong number of fields": 1,
        "not numbers": 1,
    }
    assert all(message in warning for message, warning in zip(messages, warnings, strict=True))


def test_bad_rows_in_text(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "\n".join(["1", "nan,2", *SPOILED, "nan,3"]))
    assert main(["run", str(folder / "model.ernn"), str(path)]) == 0
    out, err = capsys.readouterr()
    assert [n for n, line in enumerate(out.splitlines(), 1) if line == "-"] == [1, 2, 5, 6, 10, 14]
    assert err.count("such rows are left out") == 3
    assert (
        "14 rows, 8 predictions by numba; 2 bad rows: wrong number of fields; 3 bad rows: missing values; 1 bad" in err
    )
    assert main(["run", str(folder / "model.ernn"), str(path), "-q"]) == 0
    assert capsys.readouterr() == (out, "")


def test_windows_with_bad_rows_have_no_answer(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    found, summary = records(
        capsys, folder / "model.ernn", table(tmp_path, "\n".join(SPOILED)), "--window", "3", "--hop", "2"
    )
    assert [(record["start"], record["row"], "error" in record) for record in found] == [
        (1, 3, True),
        (3, 5, True),
        (5, 7, False),
        (7, 9, True),
        (9, 11, False),
    ]
    assert found[2] == {"row": 7, "start": 5, **answer(classifier(), kernel(classifier(), quantized(GOOD[2:5]))[0])}
    assert (summary["predictions"], sum(summary["bad_rows"].values())) == (2, 3)


def test_a_whole_sequence_without_its_bad_rows(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    path = table(tmp_path, "\n".join(SPOILED))
    (one,), summary = records(capsys, folder / "model.tflite", path)
    assert one == {"row": 11, **answer(classifier(), kernel(classifier(), quantized(GOOD))[0])}
    assert sum(summary["bad_rows"].values()) == 3
    found, _ = records(capsys, folder / "both.ernn", path)
    both = QuantizedModel.load(folder / "both.ernn")
    y = kernel(both, both.quantize_input(GOOD))[0]
    assert [record["row"] for record in found if "error" in record] == list(BAD)
    assert [record["scores"] for record in found if "error" not in record] == [answer(both, one)["scores"] for one in y]


def test_strict_ends_at_the_first_bad_row(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "\n".join(SPOILED))
    assert main(["run", str(folder / "model.ernn"), str(path), "--strict"]) == 2
    out, err = capsys.readouterr()
    assert err == f"edgernn run: {path}, line 3: 'nan' is not a finite float32 value; remove or fill such values\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows of numbers"),
        ("a,b\n", "holds no rows of numbers"),
        ("1\n2\n", "line 1: 1 fields, the model"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--strict",), ("--json",), ("--last",), ("--window", "2")])
def test_not_one_good_row(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, content: str, message: str, options: Any
) -> None:
    """One line and no output: most often it is the wrong file."""
    for name in ("model.ernn", "both.ernn"):
        fail(capsys, message, "run", folder / name, table(tmp_path, content), *options)


def test_many_bad_rows_do_not_wait_for_ever(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "nan,1\n" * 2500)
    assert main(["run", str(folder / "model.ernn"), str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "-\n" * 2500
    assert err == f"edgernn run: {path}, line 1: 'nan' is not a finite float32 value; remove or fill such values\n"


def test_usage(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    rows = table(tmp_path, text_of(some_rows(3)))
    fail(capsys, "give --window too", "run", folder / "model.ernn", rows, "--hop", "2")
    fail(capsys, "must be at least 1", "run", folder / "model.ernn", rows, "--window", "0")
    fail(capsys, "holds 3 rows, 0 of them bad: no whole window", "run", folder / "model.ernn", rows, "--window", "4")
    fail(capsys, "rows of 3 numbers, the model has 2", "run", folder / "model.ernn", npy(tmp_path, np.zeros((2, 3))))
    fail(capsys, "not one of the files that predict", "run", rows, rows)


def npy(folder: Path, values: Any) -> Path:
    np.save(folder / "other.npy", values)
    return folder / "other.npy"


# ---- how it ends -----------------------------------------------------------------------------------------------------


def ends(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr


def test_stdin_is_answered_row_by_row_until_interrupted(folder: Path) -> None:
    """Noise that is no text is survived; Ctrl-C ends with the summary and 130."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*COMMAND, str(folder / "model.ernn"), "-"], cwd=ROOT, **pipes) as process:
        stdin, stdout, stderr = ends(process)
        for line, wanted in ((b"0.5,1\n", b"class "), (b"\xff\xfe\x00\x80\n", b"-\n"), (b"0.25,-1\n", b"class ")):
            stdin.write(line)
            stdin.flush()
            assert stdout.readline().startswith(wanted)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        warning, summary, last = stderr.read().decode().splitlines()
    assert warning.startswith("edgernn run: stdin, line 2: cannot be read as text; ")
    assert summary.startswith("edgernn run: 3 rows, 2 predictions by numba; 1 bad row: not numbers; ")
    assert last == "edgernn run: interrupted"


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    """`| head -1`, while rows go on coming."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*COMMAND, str(folder / "model.ernn"), "-"], cwd=ROOT, **pipes) as process:
        stdin, stdout, stderr = ends(process)
        stdin.write(b"0.5,1\n")
        stdin.flush()
        stdout.readline()
        stdout.close()
        stdin.write(b"0.5,1\n" * 10)
        stdin.close()
        assert process.wait(timeout=30) == 0
        assert stderr.read() == b""


def test_predictor_is_what_the_package_shows() -> None:
    import edgernn

    assert edgernn.Predictor is Predictor
