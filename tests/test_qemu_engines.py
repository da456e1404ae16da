"""The engines that compile a model's C export and emulate it, against the oracle; their files, what `verify` says."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgernn.cli import main
from edgernn.engines import ENGINES, EmulatedEngine, select, stepwise
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation import CORES
from edgernn.firmware_sim.emulation.cores import Memory
from edgernn.qmodel import IntArray, QuantizedModel
from edgernn.verify import COMPILED_ADVERSARIAL, Result, Target, targets, verify

from . import oracle
from .models import SCHEMES, VARIANTS, random_input, random_model, with_directions

ENGINES_OF_CORES = {name: engine for name, engine in ENGINES.items() if isinstance(engine, EmulatedEngine)}
HEADS = {"lstm": "steps", "gru": "last", "gru_before": None, "rnn": "last"}


def engine_of(core: str) -> EmulatedEngine:
    return ENGINES_OF_CORES[f"qemu-{core}"]


def test_there_is_an_engine_for_every_core() -> None:
    """But Cortex-M0+, whose instructions are those of Cortex-M0: it runs that one's files."""
    cores = {engine.core for engine in ENGINES_OF_CORES.values()}
    assert cores == set(CORES) - {"cortex-m0plus"}
    assert engine_of("cortex-m0").targets == ("cortex-m0", "cortex-m0plus", "generic")


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("name", ENGINES_OF_CORES)
def test_sequences_batches_and_steps(name: str, turn: int) -> None:
    """Two of the four cells on each core, one in each scheme, one of two layers."""
    number = 2 * list(ENGINES_OF_CORES).index(name) + turn
    cell, scheme = VARIANTS[(number + number // 4) % 4], SCHEMES[(number + number // 2) % 2]
    model = random_model(number, cell, scheme, layers=1 + turn, head=HEADS[cell])  # type: ignore[arg-type]
    engine = ENGINES[name]
    x, lengths = random_input(model, 9, seed=number, batch=(4,)), np.array([9, 1, 4, 7])
    expected = oracle.run(model, x[0])
    assert np.array_equal(engine.open(model)(x[0]), expected)
    assert np.array_equal(engine.open_batch(model)(x, lengths), oracle.run_batch(model, x, lengths))
    stream = engine.stream(model)
    assert np.array_equal(stepwise(stream, model.every_step)(x[0]), expected)
    stream.reset()
    for row in x[0, :4]:
        stream.step(row)
    other = engine.stream(model)
    other.state = stream.state
    assert {key: len(value) for key, value in other.state.items()} == {
        key: spec.size for key, spec in model.states.items()
    }
    assert {value.dtype for value in other.state.values()} == {np.dtype(np.int16)}
    assert np.array_equal([other.step(row) for row in x[0, 4:]][-1], np.atleast_2d(expected)[-1])


@pytest.mark.parametrize("name", ENGINES_OF_CORES)
def test_both_directions(name: str) -> None:
    number = list(ENGINES_OF_CORES).index(name)
    cell, scheme = VARIANTS[number % 4], SCHEMES[number % 2]
    model = random_model(number, cell, scheme, layers=2, head=HEADS[cell], bidirectional=True)  # type: ignore[arg-type]
    if number % 3 == 0:
        model = with_directions(model, [number % 2 == 0, number % 2 == 1])
    x, lengths = random_input(model, 6, seed=number, batch=(3,)), np.array([6, 1, 4])
    assert np.array_equal(ENGINES[name].open_batch(model)(x, lengths), oracle.run_batch(model, x, lengths))


def test_a_sequence_longer_than_the_memory() -> None:
    """In pieces where there is one direction; what needs it whole is refused with the bytes that lack."""
    engine = engine_of("cortex-m0")
    model = random_model(5, "rnn", input_size=6, hidden_size=3, head="steps")
    x = random_input(model, 5000, seed=1)
    assert np.array_equal(engine.open(model)(x), run(model, x)[0])
    both = random_model(5, "rnn", input_size=6, hidden_size=3, head="steps", bidirectional=True)
    session = engine.open(both)
    with pytest.raises(ValueError, match=r"the sequence is too long for cortex-m0: it needs [\d,]+ bytes of RAM more"):
        session(x)
    assert np.array_equal(session(x[:20]), run(both, x[:20])[0])


# ---- files -----------------------------------------------------------------------------------------------------------


def export(model: QuantizedModel, folder: Path, target: str, name: str = "model") -> Path:
    """The files that `edgernn export` writes for model.ernn in `folder`: the path of the source."""
    path = folder / f"model_{target}" / f"{name}.c"
    path.parent.mkdir()
    for file, text in engine_of("cortex-m4").sources(model, name, target).items():
        (path.parent / file).write_text(text)
    return path


def compared(model: QuantizedModel, names: Sequence[str], folder: Path) -> list[Result]:
    sequences = [("drawn", random_input(model, 12, seed=0))]
    return list(verify(model, targets(model, select(names), folder / "model.ernn"), sequences))


def test_a_source_of_the_model_is_run_on_its_core(tmp_path: Path) -> None:
    model = random_model(6, "gru", hidden_size=4)
    for target, name in (
        ("cortex-m4", "net"),
        ("generic", "model"),
        ("cortex-m0plus", "model"),
        ("raspberry-pi", "pi"),
    ):
        (export(model, tmp_path, target, name).parent / f"{name}_test.c").touch()
    found = {
        core: [(target.file, target.form) for target in targets(model, [engine_of(core)], tmp_path / "model.ernn")]
        for core in ("cortex-m0", "cortex-m4", "cortex-m7")
    }
    forms = ("sequence", "step")
    generic = [("model_generic/model.c", form) for form in forms]
    assert found["cortex-m4"] == [*(("model_cortex-m4/net.c", form) for form in forms), *generic]
    assert found["cortex-m0"] == [*(("model_cortex-m0plus/model.c", form) for form in forms), *generic]
    assert found["cortex-m7"] == generic
    results = compared(model, ["qemu-cortex-m4", "qemu-cortex-m0"], tmp_path)
    assert [result.problem or result.skipped for result in results] == [None] * len(results)
    assert [(result.file, result.model) for result in results[:7]] == [
        ("model_cortex-m4/net.c", "the model"),
        (None, "hidden states, adversarial models"),
        ("model_cortex-m4/net.c", "the model, step by step"),
        (None, "hidden states, adversarial models, step by step"),
        ("model_generic/model.c", "the model"),
        ("model_generic/model.c", "the model, step by step"),
        (None, "a padded batch"),
    ]
    assert all(result.integers for result in results)


def test_a_source_that_is_not_the_models_export_is_not_run(tmp_path: Path) -> None:
    model, other = (random_model(seed, "gru", hidden_size=4) for seed in (6, 7))
    path = export(model, tmp_path, "cortex-m4")
    header, source = path.with_suffix(".h"), path.read_text()

    def problems() -> set[str | None]:
        found = compared(model, ["qemu-cortex-m4"], tmp_path)
        return {result.problem for result in found if result.file}

    assert problems() == {None}
    place = source.rindex("static const ")
    digit = next(index for index in range(source.index("{", place), len(source)) if source[index] in "1234")
    path.write_text(f"{source[:digit]}{int(source[digit]) + 1}{source[digit + 1 :]}")
    (problem,) = problems()
    assert problem is not None
    assert problem.startswith("model_cortex-m4: model.c was altered: line ")
    assert problem.endswith(" (not run)")
    path.write_text(source)
    text = header.read_text()
    header.write_text(text.replace("_INPUT_ZERO_POINT (", "_INPUT_ZERO_POINT (1 + "))
    (problem,) = problems()
    assert problem is not None
    assert "model.h was altered: line " in problem
    header.write_text(re.sub(r'_EDGERNN_VERSION ".*"', '_EDGERNN_VERSION "0.0.9"', text))
    assert problems() == {"model_cortex-m4: model.c was written by edgernn 0.0.9; export it anew (not run)"}
    header.write_text("#pragma once\n")
    assert problems() == {
        "model_cortex-m4: model.h is no header of an export for cortex-m4 or generic; export it anew (not run)"
    }
    header.unlink()
    (problem,) = problems()
    assert problem is not None
    assert "no such file" in problem
    for file, content in engine_of("cortex-m4").sources(other).items():
        (path.parent / file).write_text(content)
    assert problems() == {"model_cortex-m4: model.c is of another model; export it anew (not run)"}


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m55", "rv32imc"])
def test_content_must_be_an_export_of_the_model(core: str) -> None:
    model, other = (random_model(seed, "lstm", hidden_size=3) for seed in (8, 9))
    engine = engine_of(core)
    x = random_input(model, 5, seed=2)
    for target in engine.targets:
        content = engine.sources(model, "net", target)["net.c"].encode()
        assert np.array_equal(engine.open(model, "sequence", content)(x), oracle.run(model, x))
    for wrong in (b"", b"int x;", content + b"\n", engine.export(other, "step")):
        with pytest.raises(ValueError, match=f"not an export of this model for {core} by this edgernn; export it anew"):
            engine.open(model, "step", wrong)


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_a_model_too_large_for_a_core_is_not_compared_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CORES, "cortex-m0", replace(CORES["cortex-m0"], rom=Memory(0, 4096)))
    model = random_model(10, "lstm", input_size=20, hidden_size=20, head="last")
    results = compared(model, ["qemu-cortex-m0"], tmp_path)
    problem = "the model is too large for cortex-m0: it exceeds 4,096 bytes of ROM by "
    assert [(result.integers, result.problem) for result in results] == [(0, None)]
    assert (results[0].skipped or "").startswith(problem)
    with pytest.raises(MemoryError):
        ENGINES["qemu-cortex-m0"].open(model)
    model.save(tmp_path / "model.ernn")
    assert main(["verify", str(tmp_path / "model.ernn"), "--sequences", "1", "--engines", "qemu-cortex-m0"]) == 1
    assert f"qemu-cortex-m0: {problem}" in capsys.readouterr().out


def test_one_adversarial_model_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[QuantizedModel] = []
    real = EmulatedEngine._graph

    def spy(self: EmulatedEngine, model: QuantizedModel, *rest: object) -> object:
        opened.append(model)
        return real(self, model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EmulatedEngine, "_graph", spy)
    model = random_model(11, "gru", hidden_size=4)
    engine = engine_of("cortex-m4")
    results = list(verify(model, [Target(engine, "sequence")], [("drawn", random_input(model, 3, 0))]))
    assert [result.problem for result in results] == [None] * 3
    assert len({model.fingerprint for model in opened}) == 3  # the model, its hidden states, and the adversarial one
    assert COMPILED_ADVERSARIAL == "mixed"


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = "apt install gcc-arm-none-eabi qemu-system-arm"
    assert engine_of("cortex-m55").missing() == command
    with pytest.raises(ValueError, match=f"the engine qemu-cortex-m55 is not installed here: {command}"):
        select(["qemu-cortex-m55"])
    with pytest.raises(ValueError, match="qemu-rv32imc .*: apt install gcc-riscv64-unknown-elf qemu-system-misc"):
        select(["qemu-rv32imc"])
    assert not set(ENGINES_OF_CORES) & {engine.name for engine in select(None)}


def test_outputs_are_arrays_of_their_own() -> None:
    model = random_model(12, "gru", hidden_size=3, head="steps")
    session = ENGINES["qemu-cortex-m4"].open(model)
    x = random_input(model, 4, seed=3)
    first: IntArray = session(x)
    kept = first.copy()
    session(x[::-1].copy())
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(session(x), kept)
