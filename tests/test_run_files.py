"""`Predictor`: every kind of file, float in and float out, gives what the kernel's integers stand for."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn import Predictor
from edgernn._files import UNSEALED, seal
from edgernn.data.rows import BadRow, parse_rows, read_rows
from edgernn.engines import ENGINES, built_library
from edgernn.export import to_onnx, to_tflite
from edgernn.qmodel import HeadKind, QuantizedModel, Scheme

from . import oracle
from .models import VARIANTS, Variant, random_model

HEADS: tuple[HeadKind | None, ...] = ("last", "steps", None)


def make(seed: int, cell: Variant = "gru", scheme: Scheme = "w8a8", **options: Any) -> QuantizedModel:
    """A random model whose inputs have a mean and a deviation."""
    model = random_model(seed, cell, scheme, **{"input_size": 3, "hidden_size": 6, **options})
    rng = np.random.default_rng([seed, 5])
    mean, std = rng.normal(0, 3, model.input_size), rng.uniform(0.5, 4, model.input_size)
    return dataclasses.replace(model, input_mean=mean.astype(np.float32), input_std=std.astype(np.float32))


def some_rows(model: QuantizedModel, count: int, seed: int) -> Any:
    rng = np.random.default_rng([seed, 6])
    return (model.input_mean + model.input_std * rng.normal(0, 1.5, (count, model.input_size))).astype(np.float32)


def expected(model: QuantizedModel, rows: Any) -> Any:
    return model.dequantize_output(oracle.run(model, model.quantize_input(rows)))


def every_row(model: QuantizedModel, rows: Any) -> Any:
    """The output after every row, [n, output_size]."""
    each = [expected(model, rows[: number + 1]) for number in range(len(rows))]
    return np.array([y[-1] if model.every_step else y for y in each])


FILES: dict[str, Callable[[QuantizedModel], bytes]] = {
    "model.tflite": lambda m: to_tflite(m),
    "model_T6.tflite": lambda m: to_tflite(m, steps=6),
    "model_B1.tflite": lambda m: to_tflite(m, batch=1),
    "model_step.tflite": lambda m: to_tflite(m, "step"),
    "model_stream.tflite": lambda m: to_tflite(m, "stream"),
    "model.onnx": lambda m: to_onnx(m),
    "model_step.onnx": lambda m: to_onnx(m, "step"),
    "model.so": lambda m: built_library(m).read_bytes(),
}


def opened(model: QuantizedModel, folder: Path, name: str, engine: str | None = None) -> Predictor:
    path = folder / name
    if name.endswith(".ernn"):
        model.save(path)
    else:
        path.write_bytes(FILES[name](model))
    return Predictor.open(path, engine)


@pytest.mark.parametrize("name", ["model.ernn", *FILES])
@pytest.mark.parametrize("number", range(len(VARIANTS)))
def test_every_kind_of_file_answers_alike(tmp_path: Path, number: int, name: str) -> None:
    head = HEADS[number % 3]
    model = make(number, VARIANTS[number], ("w8a8", "w8a16")[number % 2], layers=1 + number % 2, head=head)
    predictor = opened(model, tmp_path, name)
    rows = some_rows(model, 12, number)
    assert (predictor.input_size, predictor.labels, predictor.task) == (model.input_size, model.labels, model.task)
    assert predictor.every_step == model.every_step
    assert predictor.classifies == (head is not None)
    assert predictor.length == (6 if "T6" in name else None)
    for window in (rows[:6], rows[6:]):
        assert np.array_equal(predictor.window(window), expected(model, window))
    assert predictor.streams == (name in ("model.ernn", "model.so") or "_st" in name)
    if predictor.streams:
        steps = every_row(model, rows)
        predictor.reset()
        assert np.array_equal([predictor.step(row) for row in rows[:5].tolist()], steps[:5])
        assert np.array_equal(predictor.steps(rows[5:11]), steps[5:11])
        assert np.array_equal(predictor.step(rows[11]), steps[11])
        predictor.reset()
        assert np.array_equal(predictor.steps(rows), steps)


@pytest.mark.parametrize("name", ["model.ernn", "model.tflite", "model.onnx", "model.so"])
@pytest.mark.parametrize("head", ["last", "steps"])
def test_a_bidirectional_model_takes_windows_alone(tmp_path: Path, name: str, head: HeadKind) -> None:
    model = make(8, "lstm", head=head, bidirectional=True)
    predictor = opened(model, tmp_path, name)
    rows = some_rows(model, 7, 8)
    assert np.array_equal(predictor.window(rows), expected(model, rows))
    assert not predictor.streams
    with pytest.raises(ValueError, match="takes no single steps"):
        predictor.step(rows[0])


@pytest.mark.parametrize("engine", ["native", "litert-reference", "tflite-runtime", "tflm", "onnx-reference"])
def test_engines_by_name(tmp_path: Path, engine: str) -> None:
    model = make(9, "gru")
    rows = some_rows(model, 4, 9)
    suffix = {".tflite": "_step.tflite", ".onnx": "_step.onnx"}.get(ENGINES[engine].suffix)
    for name in ["model.ernn", *([f"model{suffix}"] if suffix else [])]:
        predictor = opened(model, tmp_path, name, engine)
        assert predictor.engine == engine
        assert np.array_equal(predictor.steps(rows), every_row(model, rows))


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_int8_weights(tmp_path: Path, form: Any) -> None:
    """Arithmetic of floats, in real units: what the runtime itself gives."""
    import onnxruntime  # type: ignore[import-untyped]

    model = make(10, "gru", head="steps")
    content = to_onnx(model, form, weights_only=True)
    (tmp_path / "weights.onnx").write_bytes(content)
    predictor, session = Predictor.open(tmp_path / "weights.onnx"), onnxruntime.InferenceSession(content)
    rows = some_rows(model, 9, 10)
    if form == "sequence":
        y = session.run(["y"], {"x": rows[None], "lengths": np.array([9], np.int32)})[0][0]
    else:
        state, steps = np.zeros((1, 6), np.float32), []
        for row in rows:
            one, state = session.run(["y", "h_0_out"], {"x": row[None], "h_0": state})
            steps.append(one[0])
        y = np.array(steps)
        assert np.array_equal(predictor.steps(rows), y)
    assert np.array_equal(predictor.window(rows), y)
    assert (predictor.labels, predictor.streams, predictor.classifies) == (model.labels, form == "step", True)


# ---- which engine ----------------------------------------------------------------------------------------------------


def test_a_library_beside_the_model_is_used_while_it_is_fresh(tmp_path: Path) -> None:
    model, other = make(11), make(12)
    model.save(tmp_path / "model.ernn")
    assert Predictor.open(tmp_path / "model.ernn").engine == "numba"
    (tmp_path / "model.so").write_bytes(built_library(model).read_bytes())
    assert Predictor.open(tmp_path / "model.ernn").engine == "native"
    assert Predictor.open(tmp_path / "model.ernn", "numba").engine == "numba"
    scaled = dataclasses.replace(model, input_mean=model.input_mean + 1)
    for stale in (other, scaled):
        stale.save(tmp_path / "model.ernn")
        predictor = Predictor.open(tmp_path / "model.ernn")
        assert predictor.engine == "numba"
        (note,) = predictor.notes
        assert "model.so is not used: it is not of model.ernn: build it anew" in note
    (tmp_path / "model.so").write_bytes(b"\x7fELF")
    assert "model.so is not used" in Predictor.open(tmp_path / "model.ernn").notes[0]


def test_a_library_that_came_with_the_model_is_not_run_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could do anything, and a model's file never does."""
    model = make(11)
    model.save(tmp_path / "model.ernn")
    (tmp_path / "model.so").write_bytes(built_library(model).read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user's"))
    predictor = Predictor.open(tmp_path / "model.ernn")
    assert predictor.engine == "numba"
    assert "model.so is not used: it was not built here: name it to run it" in predictor.notes[0]
    assert Predictor.open(tmp_path / "model.so").engine == "native"


def test_without_numba_the_compiler_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(13)
    monkeypatch.setattr("edgernn._opening.find_spec", lambda name: None)
    predictor = opened(model, tmp_path, "model.ernn")
    assert predictor.engine == "native"
    rows = some_rows(model, 5, 13)
    assert np.array_equal(predictor.steps(rows), every_row(model, rows))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="nothing is here that computes a .ernn: pip install numba, or have a C comp"):
        opened(model, tmp_path, "model.ernn")


@pytest.mark.parametrize(
    ("name", "engine", "message"),
    [
        ("model.tflite", "numba", "numba reads no .tflite; these do: litert"),
        ("model.onnx", "litert", "litert reads no .onnx; these do: onnxruntime, onnx-reference"),
        ("model.so", "numba", "is run by the engine native, not by numba"),
        ("model.ernn", "tpu", "unknown engine 'tpu'"),
        ("model.tflite", "tpu", "tpu reads no .tflite"),
    ],
)
def test_an_engine_that_does_not_read_the_file(tmp_path: Path, name: str, engine: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(make(14), tmp_path, name, engine)


# ---- files that are refused ------------------------------------------------------------------------------------------


def resealed(content: bytes, old: str, new: str) -> bytes:
    """The file with words of its description changed to as many others, and a checksum that fits."""
    start = content.index(b"checksum") + len("checksum")
    checksum = next(content[at : at + 16] for at in range(start, start + 9) if content[at : at + 16].decode().isalnum())
    assert len(old) == len(new)
    assert content.count(old.encode()) == 1
    return seal(content.replace(checksum, UNSEALED.encode()).replace(old.encode(), new.encode()))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"arithmetic_version":1',
            '"arithmetic_version":2',
            "needs arithmetic version 2, this edgernn knows version 1",
        ),
        ('"every_step"', '"every_stop"', "it does not say its every_step; export the model anew"),
        ('"every_step":false', '"every_step":"no" ', "every_step is 'no'"),
        ('"labels"', '"nobody"', None),
        ('"w8a8"', '"w4a4"', "description is damaged"),
        ('"class 1","class 2"', '"class 1 - class 2"', "2 labels for 3 outputs"),
        ('"form":"step"', '"form":"loop"', "not the form loop that it says"),
        ('"task":"classification"', '"task":"classificatiom"', "unknown task"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(resealed(to_tflite(random_model(15), "step"), old, new))
    if message is None:
        assert Predictor.open(path).labels == ()
        return
    with pytest.raises(ValueError, match=message) as error:
        Predictor.open(path)
    assert str(error.value).startswith(str(path))


def test_a_newer_onnx_is_refused(tmp_path: Path) -> None:
    import onnx

    graph = onnx.load_model_from_string(to_onnx(random_model(15)))
    for entry in graph.metadata_props:
        if entry.key == "edgernn.arithmetic_version":
            entry.value = "2"
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match="model.onnx: it needs arithmetic version 2"):
        Predictor.open(tmp_path / "model.onnx")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    import onnx

    graph = onnx.load_model_from_string(to_onnx(random_model(15)))
    del graph.metadata_props[:]
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match="not a file of this edgernn: it does not say its form, task, every_step"):
        Predictor.open(tmp_path / "model.onnx")
    content = to_tflite(random_model(15))
    (tmp_path / "model.tflite").write_bytes(content.replace(b"edgernn\0", b"foreign\0"))
    with pytest.raises(ValueError, match="not a file of this edgernn: it does not say its form, task, every_step"):
        Predictor.open(tmp_path / "model.tflite")
    with pytest.raises(ValueError, match="not one of the files that predict: .ernn, .tflite, .onnx, .so"):
        Predictor.open(tmp_path / "model.txt")


@pytest.mark.parametrize("name", ["model.ernn", "model.tflite", "model_step.tflite", "model_step.onnx", "model.so"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    """One bit that is another, or an end that is missing: never an answer."""
    model = make(16, "gru", hidden_size=4, input_size=2)
    opened(model, tmp_path, name)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(16)
    for number in range(30):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        kept = int(rng.integers(len(content))) if number % 5 == 0 else len(content)
        (tmp_path / name).write_bytes(damaged[:kept])
        with pytest.raises(ValueError, match=name):
            Predictor.open(tmp_path / name)


def test_a_batch_is_refused(tmp_path: Path) -> None:
    for form in ("sequence", "step"):
        (tmp_path / "model.tflite").write_bytes(to_tflite(random_model(15), form, batch=4))
        with pytest.raises(ValueError, match="exported for 4 sequences at a time; export it without --batch"):
            Predictor.open(tmp_path / "model.tflite")


def test_a_label_that_is_the_place_of_the_checksum() -> None:
    model = random_model(15)
    odd = dataclasses.replace(model, labels=(UNSEALED, "b", "c"))
    for export in (to_tflite, to_onnx):
        with pytest.raises(ValueError, match="do not use it as a label"):
            export(odd)


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    model = make(17, input_size=3)
    predictor = opened(model, tmp_path, "model.ernn")
    with pytest.raises(ValueError, match="3 channels"):
        predictor.step([1, 2])
    with pytest.raises(ValueError, match="NaN"):
        predictor.steps([[1, 2, float("nan")]])
    with pytest.raises(ValueError, match="exported for 6 steps, there are 5"):
        opened(model, tmp_path, "model_T6.tflite").window(some_rows(model, 5, 17))


def test_the_interface_says_what_the_model_says(tmp_path: Path) -> None:
    """Of .tflite and .onnx, to the bit: the same scales, means and names as the model's own."""
    model = make(18, "lstm")
    for name in ("model_step.tflite", "model_step.onnx", "model.so"):
        found = json.loads(opened(model, tmp_path, name)._interface.to_json())  # type: ignore[union-attr]
        assert found == json.loads(model.interface.to_json())


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("1,,3", "missing values", "'' is not a number"),
        ("1,nan,3", "missing values", "'nan' is not a finite"),
        ("1,inf,3", "missing values", "not a finite"),
        ("1,1e39,3", "missing values", "not a finite"),
        ("1,?,3", "missing values", "'\\?' is not a number"),
        ("1,x,3", "not numbers", "'x' is not a number"),
        ("1,1_0,3", "not numbers", "'1_0' is not a number"),
        ("1,\ufffd,3", "not numbers", "cannot be read as text"),
        ("1,\0,3", "not numbers", "cannot be read as text"),
        ("1,2", "wrong number of fields", "2 fields, the model has 3 channels"),
        ("1,2,3,4", "wrong number of fields", "4 fields"),
        ("1;2;3", "wrong number of fields", "fields are separated by ';': use commas"),
    ],
)
def test_bad_rows(line: str, kind: str, message: str) -> None:
    for before in ([], ["0,0,0\n"], ["a,b,c\n", "0,0,0\n"], ["\n"]):
        *_, row = parse_rows([*before, f"{line}\n"], 3, "it")
        assert isinstance(row, BadRow)
        assert row.kind == kind
        with pytest.raises(ValueError, match=message):
            raise ValueError(row.message)
        assert row.message.startswith(f"it, line {len(before) + 1}: ")


def test_good_rows() -> None:
    lines = ["\ufeffa,b\r\n", "\n", "1,2\r\n", "  \n", " 3 , -4e2\n", "3e38,-3.4e38\n", "5,6"]
    assert list(parse_rows(lines, 2, "it")) == [[1, 2], [3, -400], pytest.approx([3e38, -3.4e38]), [5, 6]]
    assert list(parse_rows(["\ufeff1,2\n", "a,b\n"], 2, "it"))[0] == [1, 2]
    assert [type(row) for row in parse_rows(["a,b\n", "c,d\n"], 2, "it")] == [BadRow]


def test_rows_of_files(tmp_path: Path) -> None:
    values = np.arange(3000, dtype=np.float64).reshape(1500, 2)
    values[[3, 1400], [0, 1]] = np.nan, np.inf
    np.save(tmp_path / "rows.npy", values)
    np.savetxt(tmp_path / "rows.csv", values, delimiter=",")
    for name, unit, shift in (("rows.npy", "row", 1), ("rows.csv", "line", 1)):
        found = list(read_rows(tmp_path / name, 2))
        assert [number for number, row in enumerate(found) if isinstance(row, BadRow)] == [3, 1400]
        assert all(f", {unit} {n + shift}: " in found[n].message for n in (3, 1400))  # type: ignore[union-attr]
        good = np.array([row for row in found if not isinstance(row, BadRow)])
        assert np.array_equal(good, np.delete(values, [3, 1400], axis=0))
    with pytest.raises(ValueError, match="rows of 2 numbers, the model has 3 channels"):
        list(read_rows(tmp_path / "rows.npy", 3))
    for name, message in (("none.csv", "no such file"), ("rows.txt", "rows come from a .csv or .npy")):
        with pytest.raises(ValueError, match=message):
            list(read_rows(tmp_path / name, 2))
