"""What `verify` checks, and what it says where a file differs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgernn._artifacts import read_tflite
from edgernn.engines import (
    ENGINES,
    Engine,
    Form,
    export_path,
    fixed_path,
    select,
)
from edgernn.qmodel import QuantizedModel, Scheme
from edgernn.verify import SLOW_SEQUENCES, SLOW_STEPS, Result, Target, targets, verify

from .models import SCHEMES, random_input, random_model, with_directions

USUAL = [engine for engine in ENGINES.values() if engine.usual and not engine.one_file]  # but native: test_cli_build
CHECKED = USUAL[1:]  # all but the kernel


def check(model: QuantizedModel, engines: list[Engine]) -> list[Result]:
    sequences = [(f"drawn {index}", random_input(model, 12, seed=index)) for index in range(3)]
    return list(verify(model, targets(model, engines), sequences))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_verify_finds_no_difference(scheme: Scheme) -> None:
    results = check(random_model(14, "gru_before", scheme, hidden_size=9), USUAL)
    assert [result.engine for result in results] == [engine.name for engine in CHECKED for _ in range(3)]
    kinds = ["the model", "hidden states, adversarial models", "a padded batch"]
    assert [result.model for result in results] == kinds * len(CHECKED)
    assert all(result.problem is None and result.differences == 0 and result.integers > 0 for result in results)


def test_verify_takes_every_engine() -> None:
    """But for most of those that take a compiler's run for each model; the command line's test has them."""
    chosen = [engine for engine in select(None) if not engine.compiled or engine.name == "qemu-cortex-m4"]
    results = check(random_model(14, "lstm", hidden_size=4, input_size=3), chosen)
    assert {result.engine for result in results} == {engine.name for engine in chosen} - {"numba"}
    assert [result for result in results if result.problem or not result.integers] == []
    slow, _, batch = (result for result in results if result.engine == "onnx-reference")
    assert slow.sequences == batch.sequences / 2 == SLOW_SEQUENCES


def test_verify_takes_models_with_two_directions() -> None:
    """All layers of both directions, and a stack of which only the first has both."""
    model = random_model(15, "gru", hidden_size=4, input_size=3, layers=2, head="last", bidirectional=True)
    for one in (model, with_directions(model, [True, False])):
        results = check(one, USUAL)
        assert [result for result in results if result.problem or not result.integers] == []


# ---- files -----------------------------------------------------------------------------------------------------------


def altered(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


def weight_places(model: QuantizedModel) -> Iterator[tuple[str, Form, int, str]]:
    """(engine, form, place in its export of one weight's byte, what verify should call it)."""
    weight = model.layers[1].recurrent.weight
    size = model.layers[1].hidden_size
    row = 2 * size + 3  # the third gate, unit 3
    gate = model.layers[1].gates[2]
    for engine, form in [(each, form) for each in CHECKED for form in each.forms]:
        if form == "sequence" and engine.fixed:
            continue
        content = engine.export(model, form)
        if engine.suffix == ".tflite":
            assert content.count(weight[row].tobytes()) == 1
            place = content.index(weight[row].tobytes()) + 4
        else:
            column = np.ascontiguousarray(weight.T)
            assert content.count(column.tobytes()) == 1
            place = content.index(column.tobytes()) + 4 * len(weight) + row
        yield engine.name, form, place, f"layer 1, recurrent weight, gate {gate}, unit 3, column 4"


def test_verify_names_an_altered_weight_in_every_kind_of_file(tmp_path: Path) -> None:
    model = random_model(16, "gru", hidden_size=7, layers=2)
    for name, form, place, meaning in weight_places(model):
        engine = ENGINES[name]
        path = export_path(tmp_path / "model.ernn", form, engine.suffix)
        content = engine.export(model, form)
        path.write_bytes(altered(content, place))
        result = next(verify(model, [Target(engine, form, path)], [("drawn", random_input(model, 12, seed=0))]))
        assert result.problem is not None, (name, form)
        assert path.name in result.problem
        assert meaning in result.problem
        path.write_bytes(content)
        result = next(verify(model, [Target(engine, form, path)], [("drawn", random_input(model, 12, seed=0))]))
        assert result.problem is None


def test_any_change_of_a_file_is_a_problem_and_never_a_crash(tmp_path: Path) -> None:
    """Also where the change has no effect on what is compared, or where a runtime would crash on the graph."""
    model = random_model(17, "gru", hidden_size=4, input_size=2)
    engine = ENGINES["tflm"]
    content = engine.export(model, "step")
    path = tmp_path / "model_step.tflite"
    rng = np.random.default_rng(1)
    for place in rng.choice(len(content), 60, replace=False):
        path.write_bytes(altered(content, int(place)))
        result = next(verify(model, [Target(engine, "step", path)], []))
        assert result.problem is not None, place


def test_a_stale_export_is_a_problem(tmp_path: Path) -> None:
    model, older = random_model(18, "gru", hidden_size=4), random_model(19, "gru", hidden_size=4)
    for engine in (ENGINES["litert"], ENGINES["onnxruntime"]):
        path = export_path(tmp_path / "model.ernn", "sequence", engine.suffix)
        path.write_bytes(engine.export(older, "sequence"))
        result = next(verify(model, [Target(engine, "sequence", path)], []))
        assert result.problem is not None
        assert "it is of another model; export it anew" in result.problem


def test_a_step_file_beside_a_bidirectional_model_is_of_another_one(tmp_path: Path) -> None:
    engine, model = ENGINES["litert"], random_model(9, "gru", hidden_size=4, bidirectional=True)
    (tmp_path / "m_step.tflite").write_bytes(engine.export(random_model(9, "gru", hidden_size=4), "step"))
    results = list(verify(model, targets(model, [engine], tmp_path / "m.ernn"), []))
    problem = "m_step.tflite is of another model: a bidirectional one has no form step; delete the file"
    assert [result.problem for result in results if result.problem] == [problem]


def test_the_export_of_another_model_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    engine, model, other = ENGINES["litert"], random_model(9, "gru"), random_model(10, "lstm")
    model.save(tmp_path / "m.ernn")
    for name in ("m_step", "m_T10"):
        other.save(tmp_path / f"{name}.ernn")
        (tmp_path / f"{name}.tflite").write_bytes(engine.export(other, "sequence"))
    (tmp_path / "m.tflite").write_bytes(engine.export(model, "sequence"))
    assert [target.path for target in targets(model, [engine], tmp_path / "m.ernn")] == [tmp_path / "m.tflite"]


def test_a_file_of_a_fixed_length_is_run_at_that_length(tmp_path: Path) -> None:
    for head, steps in (("last", 5), ("steps", 30)):
        model = random_model(20, "lstm", hidden_size=4, head=head)  # type: ignore[arg-type]
        path = fixed_path(tmp_path / "model.ernn", steps)
        path.write_bytes(ENGINES["tflm"].export(model, "sequence", steps))
        found = targets(model, [ENGINES["litert"], ENGINES["tflm"]], tmp_path / "model.ernn")
        assert [(target.path, target.steps) for target in found] == [(path, steps)] * 2
        drawn = [(f"drawn {length}", random_input(model, length, seed=length)) for length in (1, 5, 12)]
        results = list(verify(model, found, drawn))
        assert [result.engine for result in results] == ["litert"] * 3 + ["tflm"] * 3
        assert all(result.problem is None and result.integers > 0 for result in results)
        place = path.read_bytes().index(model.layers[0].recurrent.weight.tobytes())
        path.write_bytes(altered(path.read_bytes(), place))
        result = next(verify(model, found[1:], drawn))
        assert result.problem is not None
        assert "recurrent weight, gate i, unit 0, column 0" in result.problem
        path.unlink()


def test_a_damaged_file_is_the_problem_of_its_target_alone(tmp_path: Path) -> None:
    model = random_model(21, "gru", hidden_size=4)
    (tmp_path / "model.tflite").write_bytes(b"hello")
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model_step.onnx").write_bytes(ENGINES["onnxruntime"].export(model, "step"))
    results = list(verify(model, targets(model, CHECKED, tmp_path / "model.ernn"), []))
    problems = {result.file: result.problem or "" for result in results}
    assert "not a TensorFlow Lite file" in problems["model.tflite"]
    assert "no such file" in problems["model.onnx"]
    assert problems["model_step.onnx"] == problems[None] == ""


def test_a_file_of_batches_is_run_in_batches(tmp_path: Path) -> None:
    model = random_model(24, "gru", hidden_size=4, head="steps")
    litert, tflm = ENGINES["litert"], ENGINES["tflm"]
    anyhow, fixed = fixed_path(tmp_path / "model.ernn", None, 3), fixed_path(tmp_path / "model.ernn", 9, 4)
    anyhow.write_bytes(litert.export(model, "sequence", None, 3))
    fixed.write_bytes(litert.export(model, "sequence", 9, 4))
    (tmp_path / "model_T09.tflite").touch()  # not what `edgernn export` calls a file
    found = targets(model, [litert, tflm], tmp_path / "model.ernn")
    assert found == [
        Target(litert, "sequence"),
        Target(litert, "sequence", anyhow, None, 3),
        Target(litert, "sequence", fixed, 9, 4),
        Target(tflm, "step"),
        Target(tflm, "sequence", fixed, 9, 4),
    ]
    drawn = [(f"drawn {length}", random_input(model, length, seed=length)) for length in (1, 5, 12)]
    results = list(verify(model, found, drawn))
    fresh, files = [None] * 2, ["model_B3.tflite", "model_T9_B4.tflite"]
    assert [result.file for result in results] == [*fresh, *files, None, *fresh, files[1], None]
    ran = ["the model", "hidden states, adversarial models", "the model", "the model", "a padded batch"]
    assert [result.model for result in results] == [*ran, *ran[:3], ran[4]]  # files of batches: the model alone
    assert all(result.problem is None and result.integers > 0 for result in results)
    place = fixed.read_bytes().index(model.layers[0].recurrent.weight.tobytes())
    fixed.write_bytes(altered(fixed.read_bytes(), place))
    result = next(verify(model, found[4:], drawn))
    assert result.problem is not None
    assert "recurrent weight, gate r, unit 0, column 0" in result.problem
    assert result.differences > 0


def test_a_change_that_could_halt_a_runtime_is_not_run(tmp_path: Path) -> None:
    """Shapes, steps of a loop (one that does not advance never ends) and scales, in each place of a file."""
    model = random_model(25, "gru", hidden_size=3, input_size=2)
    engine, path = ENGINES["litert"], tmp_path / "model.tflite"
    content = engine.export(model, "sequence")
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    constants = read_tflite(content).constants
    control = {n: c for n, c in constants.items() if c.size and (c.dtype == np.int32 or n.endswith(".scale"))}
    assert any("next" in name for name in control)
    for name, constant in control.items():
        place = constant.__array_interface__["data"][0] - start
        path.write_bytes(altered(content, place + constant.nbytes - 1))
        result = next(verify(model, [Target(engine, "sequence", path)], []))
        assert result.problem is not None, name
        assert "not run" in result.problem, name


def test_a_weight_of_the_backward_direction_is_named(tmp_path: Path) -> None:
    model = random_model(26, "gru", hidden_size=4, input_size=3, bidirectional=True)
    for name in ("litert", "onnxruntime"):
        engine = ENGINES[name]
        path = export_path(tmp_path / "model.ernn", "sequence", engine.suffix)
        content = engine.export(model, "sequence")
        assert model.layers[0].backward is not None
        weight = model.layers[0].backward.recurrent.weight
        stored = weight if name == "litert" else np.ascontiguousarray(weight.T)
        assert content.count(stored.tobytes()) == 1
        path.write_bytes(altered(content, content.index(stored.tobytes())))
        result = next(verify(model, [Target(engine, "sequence", path)], []))
        assert result.problem is not None
        assert "layer 0 backward, recurrent weight, gate r, unit 0, column 0" in result.problem


# ---- targets ---------------------------------------------------------------------------------------------------------


def test_a_slow_engine_is_given_the_first_and_the_last_sequences() -> None:
    """The drawn ones come first, the shortest of the adversarial ones last."""
    model = random_model(29, input_size=2)
    named = [(str(index), random_input(model, length, index)) for index, length in enumerate((9, 2, 6, 7, 8, 1, 5))]
    chosen = Target(ENGINES["onnx-reference"], "sequence").choose(named)
    assert [name for name, _ in chosen] == ["0", "1", "5", "6"]
    assert [len(x) for _, x in chosen] == [SLOW_STEPS, 2, 1, 5]
    assert all(np.array_equal(x, dict(named)[name][: len(x)]) for name, x in chosen)


def test_nothing_to_compare_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(1)
    with pytest.raises(
        ValueError, match="nothing to compare with: .*; name another engine: native, litert, litert-no-delegate"
    ):
        targets(model, select(["numba"]))
    for package in ("ai_edge_litert", "tflite_micro", "onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")  # where compilers and emulators are looked for
    with pytest.raises(ValueError, match=r"nothing to compare with: .*; install one: pip install 'edgernn\[run\]'"):
        targets(model, select(None))


def test_targets_are_the_files_beside_the_model(tmp_path: Path) -> None:
    model = random_model(1)
    for name in ("model.tflite", "model_stream.tflite", "model_step.onnx", "model_weights.onnx"):
        (tmp_path / name).touch()
    found = [(t.engine.name, t.path and t.path.name) for t in targets(model, USUAL, tmp_path / "model.ernn")]
    assert found == [
        ("litert", "model.tflite"),
        ("litert", "model_stream.tflite"),
        ("tflm", "model_stream.tflite"),
        ("onnxruntime", "model_step.onnx"),
    ]
    fresh = [(target.form, target.path) for target in targets(model, USUAL)]
    assert fresh == [("sequence", None), ("step", None), ("sequence", None)]
    both = random_model(1, bidirectional=True)
    assert {target.form for target in targets(both, select(None))} == {"sequence"}
