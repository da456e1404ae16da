"""The engines that compile a model's C export and emulate it, against the oracle; their files, what `verify` says."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgernn.cli import main
from edgernn.engines import ENGINES, EmulatedEngine, select, stepwise
from edgernn.export.c.packages import PACKAGES
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation import CORES
from edgernn.firmware_sim.emulation.cores import Memory
from edgernn.qmodel import IntArray, QuantizedModel
from edgernn.verify import COMPILED_ADVERSARIAL, Result, Target, targets, verify

from . import oracle
from .command_line import succeed, succeed_json
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
    for one in (path, header):  # an error, not a wait
        text = one.read_text()
        one.unlink()
        os.mkfifo(one)
        assert problems() == {f"{one}: not a regular file"}
        one.unlink()
        one.write_text(text)
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


def test_the_two_forms_of_a_source_have_one_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model(6, "gru", hidden_size=4)
    model.save(tmp_path / "model.ernn")
    path = export(model, tmp_path, "cortex-m4")
    path.write_text(f"\n{path.read_text()}")
    argv = ["verify", str(tmp_path / "model.ernn"), "--sequences", "1", "--engines", "qemu-cortex-m4"]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert out.count("\nqemu-cortex-m4 (") == out.count("was altered: line 1") == 1
    assert main([*argv, "-q"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("bidirectional", [False, True])
def test_everything_that_export_writes_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bidirectional: bool
) -> None:
    file = tmp_path / "net.ernn"
    random_model(13, "lstm", hidden_size=4, head="last", bidirectional=bidirectional).save(file)
    succeed(capsys, "export", file, "--format", "tflite,c", "--target", "cortex-m4")
    for kind in PACKAGES:
        succeed(capsys, "export", file, "--format", "c", "--package", kind, "--name", "Sensor_test")
    rows = succeed_json(capsys, "verify", file, "--sequences", "2", "--engines", "qemu-cortex-m4,litert")["results"]
    found = [(row["file"], row["model"]) for row in rows if row["file"] and row["engine"] == "qemu-cortex-m4"]
    sources = ["net_cortex-m4/net.c", *(f"net_generic_{kind}/src/Sensor_test.c" for kind in PACKAGES)]
    forms = ["the model"] if bidirectional else ["the model", "the model, step by step"]
    assert found == [(source, form) for source in sources for form in forms]
    assert all(row["integers"] > 0 for row in rows)


@pytest.mark.parametrize(("kind", "headers", "others"), [("cmake", "include", "src"), ("arduino", "src", "include")])
def test_an_altered_or_stale_package_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, headers: str, others: str
) -> None:
    file, package = tmp_path / "net.ernn", tmp_path / f"net_generic_{kind}"
    model, other = (random_model(seed, "rnn", hidden_size=4) for seed in (6, 7))
    other.save(file)
    succeed(capsys, "export", file, "--format", "c", "--package", kind)
    engine = engine_of("cortex-m3")

    def problem() -> str:
        found = list(verify(model, targets(model, [engine], file), [("drawn", random_input(model, 3, seed=0))]))
        assert {result.file for result in found} == {f"net_generic_{kind}/src/net.c", None}
        (one,) = {result.problem for result in found if result.file}
        return one or ""

    assert problem() == f"net_generic_{kind}: net.c is of another model; export it anew (not run)"
    model.save(file)
    succeed(capsys, "export", file, "--format", "c", "--package", kind)
    assert problem() == ""
    header = package / headers / "net.h"
    for path in (package / "src" / "net.c", header):
        text = path.read_text()
        path.write_text(f"{text}\n")
        number = text.count("\n") + 1
        assert problem().startswith(f"net_generic_{kind}: {path.name} was altered: line {number}")
        path.write_text(text)
    second = package / others / "net.h"
    second.parent.mkdir(exist_ok=True)
    second.write_text(f"\n{header.read_text()}")
    assert "net.h was altered: line 1" in problem()
    second.unlink()
    header.unlink()
    assert problem().endswith("net.h: no such file")


def test_other_ends_of_lines_are_no_change(tmp_path: Path) -> None:
    """As version control on Windows writes them; it is run."""
    model = random_model(6, "gru", hidden_size=4)
    path = export(model, tmp_path, "cortex-m4")
    for file in (path, path.with_suffix(".h")):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    results = [result for result in compared(model, ["qemu-cortex-m4"], tmp_path) if result.file]
    assert len(results) == 2
    assert all(result.problem is None and result.integers for result in results)
    path.write_bytes(path.read_bytes().replace(b"int8_t", b"\rint8_t", 1))
    results = [result for result in compared(model, ["qemu-cortex-m4"], tmp_path) if result.file]
    assert all("was altered" in (result.problem or "") for result in results)


def test_sources_of_the_users_own_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model(6, "gru", hidden_size=4)
    model.save(tmp_path / "model.ernn")
    folder = export(model, tmp_path, "cortex-m4").parent
    (folder / "mine.c").write_text('#include "model.h"\nint main(void) { return MODEL_INPUT_SIZE; }\n')
    (folder / "yours.c").write_text("int yours;\n")
    (folder / "yours.h").write_text("extern int yours;\n")
    (folder / "model_test.c").write_text('#include "model.h"\n')
    argv = ("verify", tmp_path / "model.ernn", "--sequences", "1", "--engines", "qemu-cortex-m4")
    found = succeed_json(capsys, *argv)
    assert {row["file"] for row in found["results"]} == {"model_cortex-m4/model.c", None}
    notes = [note for note in found["notes"] if "edgernn's" in note]
    assert notes == [f"not edgernn's, left alone: model_cortex-m4/{name}.c" for name in ("mine", "yours")]
    assert notes[0] in succeed(capsys, *argv)
    (folder / "mine.c").unlink()
    (folder / "mine.c").mkdir()
    assert main([str(part) for part in argv]) == 1
    assert "mine.c: not a regular file" in capsys.readouterr().out


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
