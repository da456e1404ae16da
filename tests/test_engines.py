"""Every engine against the oracle: sequences, batches, steps with their states, and what is refused at the border."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgernn.engines import ENGINES, Engine, Form, StateStepper, select
from edgernn.engines._graphs import silence
from edgernn.engines._runtimes import _ARENA
from edgernn.qmodel import IntArray, QuantizedModel, Scheme

from . import oracle
from .models import SCHEMES, VARIANTS, Variant, random_input, random_model

COMPILED = "qemu-cortex-m4"  # stands for the engines that compile each model: test_qemu_engines has them all
TESTED = {name: engine for name, engine in ENGINES.items() if not engine.compiled or name == COMPILED}
QUICK = [engine for engine in ENGINES.values() if not engine.compiled]
FILE_ENGINES = [(engine, form) for engine in TESTED.values() for form in engine.forms]
STEP_ENGINES = [engine for engine in TESTED.values() if not engine.forms or "step" in engine.forms]
HEADS = {"lstm": "steps", "gru": "last", "gru_before": None, "rnn": "steps"}


def test_all_engines_are_here() -> None:
    """The tests below are worth nothing for an engine that is not installed."""
    assert {name: engine.missing() for name, engine in ENGINES.items()} == dict.fromkeys(ENGINES)


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_engine_and_form_gives_the_oracles_integers(cell: Variant, scheme: Scheme) -> None:
    model = random_model(11, cell, scheme, input_size=3, hidden_size=5, layers=2, head=HEADS[cell])  # type: ignore[arg-type]
    inputs = [random_input(model, steps, seed=steps) for steps in (6, 1, 4)]
    expected = [oracle.run(model, x) for x in inputs]
    for engine, form in [(ENGINES["numba"], None), *((one, form) for one in QUICK for form in one.forms)]:
        session = engine.open(model, form)
        for x, y in list(zip(inputs, expected, strict=True))[engine.slow :]:
            found = session(x)
            assert np.array_equal(found, y), (engine.name, form, len(x))
            assert found.dtype == y.dtype


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_engine_reads_both_directions(cell: Variant, scheme: Scheme) -> None:
    """Bidirectional models have the form sequence alone; TensorFlow Lite Micro gets a file for each length."""
    head = HEADS[cell]
    model = random_model(12, cell, scheme, input_size=3, hidden_size=4, layers=2, head=head, bidirectional=True)  # type: ignore[arg-type]
    inputs = [random_input(model, steps, seed=steps) for steps in (5, 1, 3)]
    expected = [oracle.run(model, x) for x in inputs]
    for engine in QUICK:
        session = engine.open(model)
        for x, y in zip(inputs, expected, strict=True):
            assert np.array_equal(session(x), y), (engine.name, len(x))


def batch_of(model: QuantizedModel) -> tuple[IntArray, IntArray, IntArray]:
    """(x, lengths, what the oracle makes of each sequence alone, with zeros after its end)."""
    x, lengths = random_input(model, 6, seed=3, batch=(4,)), np.array([6, 1, 4, 6])
    return x, lengths, oracle.run_batch(model, x, lengths)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "two directions"])
@pytest.mark.parametrize("cell", VARIANTS)
def test_a_batch_is_each_of_its_sequences_alone(cell: Variant, bidirectional: bool) -> None:
    scheme: Scheme = "w8a16" if cell == "lstm" else "w8a8"
    model = random_model(13, cell, scheme, input_size=3, hidden_size=5, head=HEADS[cell], bidirectional=bidirectional)  # type: ignore[arg-type]
    x, lengths, expected = batch_of(model)
    for engine in QUICK:
        session = engine.open_batch(model)
        found = session(x, lengths)
        assert np.array_equal(found, expected), engine.name
        assert found.dtype == expected.dtype
        if not engine.slow:
            assert np.array_equal(
                session(x[1:3, :4], lengths[1:3]), expected[1:3, :4] if model.every_step else expected[1:3]
            )


# ---- steps and states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TESTED)
def test_a_stream_answers_every_step_and_forgets_on_reset(name: str) -> None:
    model = random_model(5, "lstm", hidden_size=6, head="last")
    x = random_input(model, 4, seed=1)
    stream = ENGINES[name].stream(model)
    for _ in range(2):
        for step, row in enumerate(x):
            assert np.array_equal(stream.step(row), oracle.run(model, x[: step + 1])), step
        stream.reset()


@pytest.mark.parametrize("cell", ["lstm", "gru_before"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_goes_on_in_another_engine(cell: Variant, scheme: Scheme, tmp_path: Path) -> None:
    """One sequence, of which every engine computes two steps, from the state in the file that the one before wrote."""
    model = random_model(14, cell, scheme, input_size=3, hidden_size=5, layers=2, head="steps")
    x = random_input(model, 2 * len(STEP_ENGINES), seed=5)
    expected = oracle.run(model, x)
    model.save_state(tmp_path / "state", model.zero_state())
    for number, engine in enumerate(STEP_ENGINES):
        stepper = engine.stream(model)
        stepper.step(x[-1])  # a state of another past, to be replaced
        stepper.state = model.load_state(tmp_path / "state")
        for step in (2 * number, 2 * number + 1):
            assert np.array_equal(stepper.step(x[step]), expected[step]), (engine.name, step)
        model.save_state(tmp_path / "state", stepper.state)


@pytest.mark.parametrize("engine", STEP_ENGINES, ids=lambda engine: engine.name)
def test_a_state_is_a_copy(engine: Engine) -> None:
    model = random_model(15, "lstm", hidden_size=3, input_size=2)
    x = random_input(model, 3, seed=6)
    stepper = engine.stream(model)
    stepper.step(x[0])
    kept = stepper.state
    before = {name: value.copy() for name, value in kept.items()}
    expected = stepper.step(x[1])
    assert all(np.array_equal(kept[name], before[name]) for name in before)
    stepper.state = kept
    for value in kept.values():
        value[:] = 0
    assert np.array_equal(stepper.step(x[1]), expected)


@pytest.mark.parametrize("engine", STEP_ENGINES, ids=lambda engine: engine.name)
def test_a_foreign_state_is_refused(engine: Engine) -> None:
    model = random_model(16, "gru", hidden_size=3)
    stepper = engine.stream(model)
    for state in ({}, {"h_0": np.zeros(4, np.int16)}, {"h_0": np.zeros(3, np.int32)}, {"c_0": np.zeros(3, np.int16)}):
        with pytest.raises(ValueError, match="the state"):
            stepper.state = state
    assert not stepper.state["h_0"].any()


def test_the_form_stream_keeps_its_state_to_itself() -> None:
    model = random_model(17, "gru", hidden_size=3)
    for name in ("litert", "litert-compiled", "tflm"):
        stepper = ENGINES[name].stream(model, "stream")
        with pytest.raises(ValueError, match="the form stream keeps its state inside"):
            stepper.state  # noqa: B018
        with pytest.raises(ValueError, match="the form stream keeps its state inside"):
            stepper.state = model.zero_state()


# ---- at the border ---------------------------------------------------------------------------------------------------


def wrong_inputs(model: QuantizedModel) -> dict[str, Any]:
    x = random_input(model, 3, seed=0)
    return {
        "floats": x.astype(np.float32),
        "another integer type": x.astype(np.int16),
        "the other byte order": x.astype(">i2"),
        "a list": x.tolist(),
        "no step": x[:0],
        "a batch": x[None],
        "a channel too many": np.hstack([x, x[:, :1]]),
        "a row": x[0],
        "a number": np.int8(1),
    }


@pytest.mark.parametrize("name", TESTED)
def test_what_is_no_sequence_is_refused(name: str) -> None:
    model = random_model(18, "gru", "w8a8", input_size=2, hidden_size=3)
    x = random_input(model, 3, seed=0)
    forms: list[Form | None] = [*ENGINES[name].forms] or [None]
    calls: dict[str, Callable[[Any], IntArray]] = {f"form {form}": ENGINES[name].open(model, form) for form in forms}
    batch = ENGINES[name].open_batch(model)
    calls["a batch"] = lambda x: batch(x[None] if isinstance(x, np.ndarray) else x, np.array([3]))
    for how, call in calls.items():
        for what, wrong in wrong_inputs(model).items():
            with pytest.raises(ValueError, match="^x has"):
                pytest.fail(f"{how} takes {what}: {call(wrong)!r}")
        if how != "a batch":
            assert np.array_equal(call(x), oracle.run(model, x)), how  # and goes on
    step = ENGINES[name].stream(model).step
    for wrong in (x, x[0].astype(np.float64), x[0, :1], x[0].tolist()):
        with pytest.raises(ValueError, match="^x has"):
            step(wrong)


@pytest.mark.parametrize("name", TESTED)
def test_lengths_are_checked(name: str) -> None:
    model = random_model(19, "gru", input_size=2, hidden_size=3)
    x = random_input(model, 3, seed=0, batch=(2,))
    session = ENGINES[name].open_batch(model)
    for lengths in ([3], [3, 0], [4, 3], [3, -1], [1.0, 2.0], [[3, 3]]):
        with pytest.raises(ValueError, match="lengths"):
            session(x, np.array(lengths))


@pytest.mark.parametrize("name", TESTED)
def test_any_layout_in_memory_will_do(name: str) -> None:
    model = random_model(20, "gru", input_size=4, hidden_size=3, head="steps")
    wide = random_input(model, 8, seed=0)
    reverse, turned = wide[::-2], np.asfortranarray(wide[:4])
    for x in (reverse, turned):
        assert np.array_equal(ENGINES[name].run(model, x), oracle.run(model, x))
    stepper = ENGINES[name].stream(model)
    assert np.array_equal(stepper.step(np.repeat(wide[0], 2)[::2]), oracle.run(model, wide[:1])[0])


@pytest.mark.parametrize("name", [name for name, engine in TESTED.items() if engine.forms])
def test_a_bidirectional_model_has_no_steps(name: str) -> None:
    model = random_model(21, "gru", bidirectional=True)
    openers: list[Callable[[], object | StateStepper]] = [
        lambda: ENGINES[name].open(model, "step"),
        lambda: ENGINES[name].open(model, "stream"),
        lambda: ENGINES[name].stream(model),
    ]
    for opener in openers:
        with pytest.raises(ValueError, match="a bidirectional model reads whole sequences"):
            opener()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "form"), FILE_ENGINES, ids=lambda value: getattr(value, "name", value))
def test_foreign_and_damaged_content_is_refused(engine: Engine, form: Form) -> None:
    model = random_model(7, "gru", hidden_size=4)
    for content in (b"", b"no model", engine.export(model, form)[:200]):
        with pytest.raises(ValueError, match="refuses|not|damaged"):
            engine.open(model, form, content)


@pytest.mark.parametrize("engine", [e for e in QUICK if e.forms and not e.one_file], ids=lambda engine: engine.name)
def test_a_file_of_another_form_or_model_is_refused(engine: Engine) -> None:
    model = random_model(7, "lstm", "w8a8", hidden_size=4, input_size=3)
    for other in (
        random_model(7, "gru", "w8a8", hidden_size=4, input_size=3),
        random_model(7, "lstm", "w8a16", hidden_size=4, input_size=3),
        random_model(7, "lstm", "w8a8", hidden_size=4, input_size=5),
        random_model(7, "lstm", "w8a8", hidden_size=4, input_size=3, layers=2),
    ):
        with pytest.raises(ValueError, match="not a step file of this model"):
            engine.open(model, "step", engine.export(other, "step"))
    with pytest.raises(ValueError, match="not a step file of this model"):
        engine.open(model, "step", engine.export(model, "sequence", 4 if engine.fixed else None))
    with pytest.raises(ValueError, match="not a sequence file of this model"):
        engine.open(model, "sequence", engine.export(model, "step"))
    for form in {"stream", "loop"} - set(engine.forms):
        with pytest.raises(ValueError, match=f"{engine.name} has no form '{form}'; it has "):
            engine.open(model, form)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["litert", "litert-compiled", "tflite-runtime", "tflm"])
def test_a_file_of_a_fixed_shape_takes_no_other(name: str) -> None:
    model = random_model(8, "gru", hidden_size=4, input_size=3)
    engine = ENGINES[name]
    x = random_input(model, 5, seed=2, batch=(2,))
    session = engine.open(model, "sequence", engine.export(model, "sequence", 4))
    with pytest.raises(ValueError, match="exported for 4 steps at a time, x has 5"):
        session(x[0])
    assert np.array_equal(session(x[0, :4]), oracle.run(model, x[0, :4]))
    plain = engine.open_batch(model, engine.export(model, "sequence", 5))
    assert np.array_equal(plain(x[:1], np.array([5]))[0], oracle.run(model, x[0]))
    with pytest.raises(ValueError, match="takes no lengths, all 5 steps are valid: export it with a batch"):
        plain(x[:1], np.array([3]))
    batch = engine.open_batch(model, engine.export(model, "sequence", 5, 2))
    with pytest.raises(ValueError, match="exported for 2 sequences at a time, x has 1"):
        batch(x[:1], np.array([5]))
    with pytest.raises(ValueError, match="exported for 5 steps at a time, x has 4"):
        batch(x[:, :4], np.array([4, 4]))
    assert np.array_equal(batch(x, np.array([5, 2]))[1], oracle.run(model, x[1, :2]))


def test_a_file_without_the_output_is_refused() -> None:
    model = random_model(9, "gru", hidden_size=4, input_size=3)
    engine = ENGINES["onnxruntime"]
    for form in engine.forms:
        file = onnx.load_model_from_string(engine.export(model, form))
        (output,) = (value for value in file.graph.output if value.name == "y")
        file.graph.node.append(onnx.helper.make_node("Identity", ["y"], ["other"]))
        output.name = "other"
        with pytest.raises(ValueError, match=rf"not a {form} file of this model \(.*; outputs other"):
            engine.open(model, form, file.SerializeToString())


def test_the_kernel_takes_no_form_and_no_file() -> None:
    model = random_model(9, "gru", hidden_size=4)
    engine, content = ENGINES["numba"], ENGINES["litert"].export(model, "sequence")
    for opener in (
        lambda: engine.open(model, "sequence"),
        lambda: engine.open(model, content=content),
        lambda: engine.open_batch(model, content),
        lambda: engine.stream(model, "stream"),
        lambda: engine.stream(model, content=content),
    ):
        with pytest.raises(ValueError, match="numba runs the model itself: it has no form, and reads no exported file"):
            opener()


def test_micro_finds_memory_for_a_large_batch() -> None:
    model = random_model(10, "gru", hidden_size=2, input_size=64, head="last", bidirectional=True)
    x = random_input(model, 10, seed=3, batch=(6000,))
    content = ENGINES["tflm"].export(model, "sequence", 10, len(x))
    assert x.nbytes > 2 * (_ARENA + 20 * len(content))  # more than its first two tries have
    lengths = np.random.default_rng(3).integers(1, 11, len(x))
    found = ENGINES["tflm"].open_batch(model, content)(x, lengths)
    for row in (0, 1, 4000, 5999):
        assert np.array_equal(found[row], oracle.run(model, x[row, : lengths[row]])), row


def test_two_threads_may_silence_the_terminal() -> None:
    """The second one would take what the first one put in the terminal's place for the terminal."""
    first_is_in, first_is_out = threading.Event(), threading.Event()

    def first() -> None:
        with silence():
            first_is_in.set()
            time.sleep(0.2)
        first_is_out.set()

    def second() -> None:
        first_is_in.wait()
        with silence():
            first_is_out.wait(30)

    kept, before = os.dup(2), os.fstat(2)
    threads = [threading.Thread(target=target) for target in (first, second)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert os.path.samestat(os.fstat(2), before)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# ---- which are here --------------------------------------------------------------------------------------------------


def test_a_missing_runtime_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert select(None) == list(ENGINES.values())
    monkeypatch.setitem(sys.modules, "tflite_micro", None)  # what `import` finds where it is not installed
    assert ENGINES["tflm"].missing() == "pip install tflite-micro"
    assert [engine.name for engine in select(None)] == [name for name in ENGINES if name != "tflm"]
    with pytest.raises(ValueError, match="tflm is not installed here: pip install tflite-micro"):
        select(["tflm"])
    monkeypatch.setitem(sys.modules, "onnx", None)  # ONNX Runtime is there, but nothing writes its files
    assert ENGINES["onnxruntime"].missing() == "pip install 'edgernn[export]'"
    with pytest.raises(ValueError, match="unknown engine 'tpu'; known are numba, native, litert, .*, onnx-reference"):
        select(["tpu"])


def test_run_is_open_once() -> None:
    model = random_model(6, "gru")
    x = random_input(model, 5, seed=2)
    for engine in TESTED.values():
        assert np.array_equal(engine.run(model, x), oracle.run(model, x)), engine.name


def test_the_form_sequence_takes_no_single_steps() -> None:
    for name in ("litert", "tflm", "onnxruntime"):
        with pytest.raises(ValueError, match="the form sequence takes no single steps; name step, or stream"):
            ENGINES[name].stream(random_model(1, "gru"), "sequence")
