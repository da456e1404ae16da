"""Engines against the oracle, exported files read back, adversarial models, and what `verify` says when it differs."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgernn._adversarial import adversarial_inputs, adversarial_models
from edgernn._artifacts import read_artifact, read_onnx, read_tflite
from edgernn.engines import ENGINES, Engine, Form, Graph, Tensors, export_path, fixed_path, select
from edgernn.export import to_onnx
from edgernn.qmodel import QuantizedModel, Scheme
from edgernn.verify import Result, Target, targets, verify

from . import oracle
from .models import SCHEMES, VARIANTS, Variant, random_input, random_model

FILE_ENGINES = [(engine, form) for engine in ENGINES.values() for form in engine.forms]


# ---- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_engine_and_form_gives_the_oracles_integers(cell: Variant, scheme: Scheme) -> None:
    head = {"lstm": "steps", "gru": "last", "gru_before": None, "rnn": "steps"}[cell]
    model = random_model(11, cell, scheme, input_size=3, hidden_size=5, layers=2, head=head)  # type: ignore[arg-type]
    inputs = [random_input(model, steps, seed=steps) for steps in (6, 1, 4)]
    expected = [oracle.run(model, x) for x in inputs]
    sessions = {f"{engine.name} {form}": engine.open(model, form) for engine, form in FILE_ENGINES}
    for name, session in {"numba": ENGINES["numba"].open(model), **sessions}.items():
        for x, y in zip(inputs, expected, strict=True):
            found = session(x)
            assert np.array_equal(found, y), (name, len(x))
            assert found.dtype == y.dtype


@pytest.mark.parametrize("name", ENGINES)
def test_a_stream_answers_every_step_and_forgets_on_reset(name: str) -> None:
    model = random_model(5, "lstm", hidden_size=6, head="last")
    x = random_input(model, 7, seed=1)
    stream = ENGINES[name].stream(model)
    for _ in range(2):
        for step, row in enumerate(x):
            assert np.array_equal(stream.step(row), oracle.run(model, x[: step + 1])), step
        stream.reset()


def test_run_is_open_once() -> None:
    model = random_model(6, "gru")
    x = random_input(model, 5, seed=2)
    for engine in ENGINES.values():
        assert np.array_equal(engine.run(model, x), oracle.run(model, x)), engine.name


@pytest.mark.parametrize(("engine", "form"), FILE_ENGINES, ids=lambda value: getattr(value, "name", value))
def test_foreign_and_damaged_content_is_refused(engine: Engine, form: Form) -> None:
    model = random_model(7, "gru", hidden_size=4)
    for content in (b"", b"no model", engine.export(model, form)[:200]):
        with pytest.raises(ValueError, match="refuses|not|damaged"):
            engine.open(model, form, content)


def test_a_file_of_another_form_or_cell_is_refused() -> None:
    model, other = random_model(7, "lstm", hidden_size=4), random_model(7, "gru", hidden_size=4)
    for engine in (ENGINES["litert"], ENGINES["onnxruntime"]):
        with pytest.raises(ValueError, match="not a step file of this model"):
            engine.open(model, "step", engine.export(model, "sequence"))
        with pytest.raises(ValueError, match="not a step file of this model"):
            engine.open(model, "step", engine.export(other, "step"))


def test_a_missing_runtime_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [engine.name for engine in select(None)] == list(ENGINES)
    monkeypatch.setitem(sys.modules, "tflite_micro", None)  # what `import` finds where it is not installed
    assert ENGINES["tflm"].missing() == "pip install tflite-micro"
    assert [engine.name for engine in select(None)] == ["numba", "litert", "onnxruntime"]
    with pytest.raises(ValueError, match="tflm is not installed here: pip install tflite-micro"):
        select(["tflm"])
    monkeypatch.setitem(sys.modules, "onnx", None)  # ONNX Runtime is there, but nothing writes its files
    assert ENGINES["onnxruntime"].missing() == "pip install 'edgernn[export]'"
    with pytest.raises(ValueError, match="unknown engine 'tpu'; known are numba, litert, tflm, onnxruntime"):
        select(["tpu"])


# ---- reading files back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sequence", "step", "stream"])
def test_tflite_constants_hold_the_weights(form: Form) -> None:
    model = random_model(8, "lstm", hidden_size=6, input_size=4)
    artifact = read_tflite(ENGINES["litert"].export(model, form))
    found = [c.reshape(len(c), -1) for c in artifact.constants.values() if c.dtype == np.int8]
    for weight in (model.layers[0].input.weight, model.layers[0].recurrent.weight):
        assert any(np.array_equal(constant, weight) for constant in found)
    assert artifact.inputs[0] == "x"
    assert artifact.outputs[0] == "y"
    assert artifact.operators["CONV_2D"] == 3


def test_the_weights_and_the_words_of_the_model_are_found_again() -> None:
    model = random_model(8, "lstm", hidden_size=6, input_size=4, layers=2)
    maps = [affine for layer in model.layers for affine in (layer.input, layer.recurrent)]
    maps += [model.head.dense] if model.head else []
    exact, floating = (read_onnx(to_onnx(model, weights_only=only)) for only in (False, True))
    for artifact in (read_tflite(ENGINES["litert"].export(model, "step")), exact, floating):
        zeros = sorted(int((artifact.constants[name] == 0).sum()) for name in artifact.weights)
        assert zeros == sorted(int((affine.weight == 0).sum()) for affine in maps)
        for scale in artifact.weights.values():
            known = [np.sort(affine.weight_scale) for affine in maps]
            assert artifact is exact or any(np.array_equal(np.sort(scale.ravel()), one) for one in known)  # type: ignore[union-attr]
        assert artifact.metadata["scheme"] == model.scheme
        assert artifact.metadata["labels"] == list(model.labels)


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_readers_survive_damage(name: str) -> None:
    """Any byte changed, any cut: an Artifact or a ValueError, nothing else."""
    content = ENGINES[name].export(random_model(9, "gru", hidden_size=4, input_size=2), "step")
    read = read_tflite if name == "litert" else read_onnx
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        try:
            read(bytes(damaged[: int(rng.integers(len(content)))] if rng.random() < 0.2 else damaged))
        except ValueError:
            refused += 1
    assert 0 < refused < 300


def test_read_artifact_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.tflite: No such file"):
        read_artifact(tmp_path / "absent.tflite")
    for name in ("a.tflite", "a.onnx"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name}: .*not a"):
            read_artifact(tmp_path / name)


# ---- adversarial models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_adversarial_models_reach_the_limits(cell: Variant, scheme: Scheme) -> None:
    model = random_model(10, cell, scheme, layers=2, head="steps")
    made = dict(adversarial_models(model, seed=3))
    shifts = {name: made[name].layers[0].recurrent.shift for name in made}
    assert np.abs(made["saturating"].layers[0].input.weight).min() == 127
    assert shifts["largest multipliers"].min() < 15
    assert shifts["smallest multipliers"].max() >= 45
    assert np.ptp(shifts["mixed"]) > 15
    for other in made.values():
        assert other.output_size == model.output_size
        assert [layer.hidden_size for layer in other.layers] == [layer.hidden_size for layer in model.layers]
    again = dict(adversarial_models(model, seed=3))["mixed"]
    assert np.array_equal(again.layers[1].input.weight, made["mixed"].layers[1].input.weight)


def test_wide_adversarial_models_still_fit_their_accumulators() -> None:
    wide = random_model(12, "rnn", "w8a8", input_size=2, hidden_size=700)
    assert len(adversarial_models(wide)) == 4
    narrow = random_model(12, "rnn", "w8a16", input_size=1, hidden_size=1)
    assert len(adversarial_models(narrow)) == 4


def test_adversarial_inputs_cover_the_range() -> None:
    for scheme in SCHEMES:
        model = random_model(13, "gru", scheme)
        inputs = dict(adversarial_inputs(model))
        assert inputs["all minimum"].max() == -model.input_limit
        assert inputs["all maximum"].min() == model.input_limit - 1
        assert set(np.unique(inputs["alternating"])) == {-model.input_limit, model.input_limit - 1}
        assert {x.dtype for x in inputs.values()} == {np.dtype(model.input_dtype)}
        assert {len(x) for x in inputs.values()} == {1, 24}


# ---- verify ----------------------------------------------------------------------------------------------------------


def check(model: QuantizedModel, engines: list[Engine]) -> list[Result]:
    sequences = [(f"drawn {index}", random_input(model, 12, seed=index)) for index in range(3)]
    return list(verify(model, targets(engines), sequences))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_verify_finds_no_difference(scheme: Scheme) -> None:
    for cell in ("lstm", "gru_before"):
        results = check(random_model(14, cell, scheme, hidden_size=9), list(ENGINES.values()))
        assert [result.engine for result in results] == [name for name in list(ENGINES)[1:] for _ in range(2)]
        assert all(result.problem is None and result.differences == 0 and result.integers > 0 for result in results)


class FaultyGraph:
    """A runtime with a fault: from step 5 on, the lowest bit of unit 3 of layer 1 is wrong."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._step = graph, 0
        self.inputs, self.outputs = graph.inputs, graph.outputs

    def __call__(self, feeds: Tensors) -> Tensors:
        result = {name: value.copy() for name, value in self._graph(feeds).items()}
        if self._step >= 5 and "h_1_out" in result:
            result["h_1_out"][0, 3] ^= 1
            if result["y"].dtype == np.int16:
                result["y"][0, 3] ^= 1
            else:
                result["y"][0, 2] ^= 1
        self._step += 1
        return result

    def reset(self) -> None:
        self._step = 0
        self._graph.reset()


@pytest.mark.parametrize("head", ["last", "steps"])
def test_verify_names_the_place_of_a_fault(head: str) -> None:
    model = random_model(15, "gru", hidden_size=6, layers=2, head=head)  # type: ignore[arg-type]
    right = ENGINES["litert"].load
    assert right is not None
    faulty = dataclasses.replace(
        ENGINES["litert"], name="faulty", forms=("step",), load=lambda content: FaultyGraph(right(content))
    )
    own, hostile = check(model, [faulty])
    assert own.differences > 0
    assert own.first is not None
    assert (own.first.sequence, own.first.step, own.first.output) == ("drawn 0", 5, 2)
    expected = oracle.run(model, random_input(model, 12, seed=0)[:6]).reshape(-1, 3)[-1][2]
    assert (own.first.expected, own.first.found) == (expected, expected ^ 1)
    assert own.problem is not None
    assert "sequence 'drawn 0', step 5, output 2" in own.problem
    assert "layer 1, step 5, unit 3" in own.problem
    assert hostile.problem is not None
    assert "layer 1, step 5, unit 3" in hostile.problem


def altered(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


def weight_places(model: QuantizedModel) -> Iterator[tuple[str, Form, int, str]]:
    """(engine, form, place in its export of one weight's byte, what verify should call it)."""
    weight = model.layers[1].recurrent.weight
    size = model.layers[1].hidden_size
    row = 2 * size + 3  # the third gate, unit 3
    gate = model.layers[1].gates[2]
    for engine, form in FILE_ENGINES:
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
        (result, _) = verify(model, [Target(engine, form, path)], [("drawn", random_input(model, 12, seed=0))])
        assert result.problem is not None, (name, form)
        assert path.name in result.problem
        assert meaning in result.problem
        path.write_bytes(content)
        (result, _) = verify(model, [Target(engine, form, path)], [("drawn", random_input(model, 12, seed=0))])
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
        (result, fresh) = verify(model, [Target(engine, "step", path)], [])
        assert result.problem is not None, place
        assert fresh.problem is None


def test_a_stale_export_is_a_problem(tmp_path: Path) -> None:
    model, older = random_model(18, "gru", hidden_size=4), random_model(19, "gru", hidden_size=4)
    for engine in (ENGINES["litert"], ENGINES["onnxruntime"]):
        path = export_path(tmp_path / "model.ernn", "sequence", engine.suffix)
        path.write_bytes(engine.export(older, "sequence"))
        (result, _) = verify(model, [Target(engine, "sequence", path)], [])
        assert result.problem is not None
        assert "export" in result.problem


def test_a_file_of_a_fixed_length_is_run_at_that_length(tmp_path: Path) -> None:
    for head, steps in (("last", 5), ("steps", 30)):
        model = random_model(20, "lstm", hidden_size=4, head=head)  # type: ignore[arg-type]
        path = fixed_path(tmp_path / "model.ernn", steps)
        path.write_bytes(ENGINES["tflm"].export(model, "sequence", steps))
        found = targets([ENGINES["litert"], ENGINES["tflm"]], tmp_path / "model.ernn")
        assert [(target.path, target.steps) for target in found] == [(path, steps)] * 2
        drawn = [(f"drawn {length}", random_input(model, length, seed=length)) for length in (1, 5, 12)]
        results = list(verify(model, found, drawn))
        assert [result.engine for result in results] == ["litert", "litert", "tflm", "tflm"]
        assert all(result.problem is None and result.integers > 0 for result in results)
        place = path.read_bytes().index(model.layers[0].recurrent.weight.tobytes())
        path.write_bytes(altered(path.read_bytes(), place))
        (result, _) = verify(model, found[1:], drawn)
        assert result.problem is not None
        assert "recurrent weight, gate i, unit 0, column 0" in result.problem
        path.unlink()


def test_a_damaged_file_is_the_problem_of_its_target_alone(tmp_path: Path) -> None:
    model = random_model(21, "gru", hidden_size=4)
    (tmp_path / "model.tflite").write_bytes(b"hello")
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model_step.onnx").write_bytes(ENGINES["onnxruntime"].export(model, "step"))
    results = list(verify(model, targets(select(None), tmp_path / "model.ernn"), []))
    problems = {result.file: result.problem or "" for result in results}
    assert "not a TensorFlow Lite file" in problems["model.tflite"]
    assert "Is a directory" in problems["model.onnx"]
    assert problems["model_step.onnx"] == problems[None] == ""


def test_nothing_to_compare_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nothing to compare with: .*; name another engine: litert, tflm, onnxruntime"):
        targets(select(["numba"]))
    for package in ("ai_edge_litert", "tflite_micro", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"nothing to compare with: .*; install one: pip install 'edgernn\[run\]'"):
        targets(select(None))


def test_targets_are_the_files_beside_the_model(tmp_path: Path) -> None:
    for name in ("model.tflite", "model_stream.tflite", "model_step.onnx", "model_weights.onnx"):
        (tmp_path / name).touch()
    found = [
        (target.engine.name, target.path and target.path.name)
        for target in targets(select(None), tmp_path / "model.ernn")
    ]
    assert found == [
        ("litert", "model.tflite"),
        ("litert", "model_stream.tflite"),
        ("tflm", "model_stream.tflite"),
        ("onnxruntime", "model_step.onnx"),
    ]
    assert [target.path for target in targets(select(None), None)] == [None, None, None]
