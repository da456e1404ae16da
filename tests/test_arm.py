"""The suite of `make test-arm` without its emulator: it must not pass over a fault, a crash or an absent engine."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from edgernn.engines import ENGINES
from edgernn.firmware_sim.native._compiler import this_machine

from .arm.device import Check, checks, ways
from .arm.install import LIMIT, SYSTEMS, Install
from .arm.runs import Run
from .arm.suite import PARTS, cases, write
from .arm.user import Answer, Line
from .arm.userland import PI_5, ROOT

CASE = next(case for case in cases() if case.model.every_step and not case.model.bidirectional and len(case.x) > 1)


def test_only_the_file_with_other_weights_differs(tmp_path: Path) -> None:
    engine, folder = ENGINES["litert"], tmp_path / f"{CASE.seed}"
    write(CASE, folder)
    first = CASE.model.layers[0]
    turned = dataclasses.replace(first, input=dataclasses.replace(first.input, weight=-first.input.weight))
    other = dataclasses.replace(CASE.model, layers=(turned, *CASE.model.layers[1:]))
    (folder / "step.tflite").write_bytes(engine.export(other, "step"))
    found = dict(zip(ways(engine, CASE.model), checks(engine, folder), strict=True))
    assert all(check.problem is None and check.integers > 0 for check in found.values()), f"{CASE}: {found}"
    assert [way for way, check in found.items() if check.differences] == ["step"], f"{CASE}: {found}"


def test_a_file_that_the_engine_refuses_is_a_failure(tmp_path: Path) -> None:
    engine, folder = ENGINES["onnxruntime"], tmp_path / f"{CASE.seed}"
    write(CASE, folder)
    (folder / "batch.onnx").write_bytes(b"not a model")
    problems = {way: check.problem for way, check in zip(ways(engine, CASE.model), checks(engine, folder), strict=True)}
    assert [way for way, problem in problems.items() if problem] == ["batch"], f"{CASE}: {problems}"


@pytest.mark.parametrize(
    ("found", "exit_code", "expected"),
    [
        ([Check(0, 6), Check(1, 6)], 0, []),
        ([Check(0, 6), Check(1, 6, 2)], 0, ["litert on cortex-a72: seed 1, step: 2 of 6 integers differ"]),
        ([Check(0, problem="refused"), Check(1, 6)], 0, ["litert on cortex-a72: seed 0, step: refused"]),
        ([Check(0, 6)], -11, ["litert on cortex-a72: stopped before seed 1, step (exit code -11: signal 11)"]),
        ([Check(0, 6)], 0, ["litert on cortex-a72: stopped before seed 1, step (exit code 0: signal 11)"]),
        ([], 1, ["litert on cortex-a72: stopped before seed 0, step (exit code 1: signal 11)"]),
        ([Check(0, 6), Check(1, 6)], -11, ["litert on cortex-a72: stopped after the last check (exit code -11"]),
    ],
)
def test_whatever_is_not_equal_is_a_failure(found: list[Check], exit_code: int, expected: list[str]) -> None:
    run = Run("litert", "cortex-a72", ["seed 0, step", "seed 1, step"], found, "", exit_code, "signal 11", 1.0)
    failures = run.failures()
    assert len(failures) == len(expected)
    assert all(failure.startswith(start) for failure, start in zip(failures, expected, strict=True)), failures


def test_kernels_of_another_form_are_a_failure() -> None:
    run = Run("numba", "cortex-a76", ["seed 0, step"], [Check(0, 6)], "numba 0.68.1, neon", 0, "", 1.0, "neondot")
    assert run.failures() == ["numba, neondot, on cortex-a76: numba 0.68.1, neon: not with neondot"]


def test_every_cell_by_vector_instructions_and_by_the_readable_kernels() -> None:
    suite = cases()
    for simd in (True, False):
        taken = [part.cases(suite) for part in PARTS if part.engine == "numba" and (part.simd != "off") == simd]
        assert len(taken) == 2
        assert sorted(case.seed for case in taken[0] + taken[1]) == [case.seed for case in suite]


@pytest.mark.parametrize(
    ("extras", "packages", "expected"),
    [
        ("run", {"edgernn": 3.0, "numpy": LIMIT - 4}, []),
        ("run", {"edgernn": 3.0, "numpy": LIMIT - 3}, ["edgernn[run] on Raspberry Pi OS bookworm: 400 MB, and"]),
        ("", {"edgernn": 3.0, "torch": 900.0}, ["edgernn on Raspberry Pi OS bookworm: brings torch"]),
        ("run,export", {"edgernn": 3.0, "onnx": LIMIT}, []),
    ],
)
def test_torch_and_a_large_installation_are_failures(
    extras: str, packages: dict[str, float], expected: list[str]
) -> None:
    failures = Install(SYSTEMS[0], extras, packages).failures()
    assert len(failures) == len(expected)
    assert all(failure.startswith(start) for failure, start in zip(failures, expected, strict=True)), failures


def test_nothing_but_training_needs_torch() -> None:
    """As the metadata says it, which pip goes by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needing = [name for name, needed in extras.items() if any(one.startswith("torch") for one in needed)]
    assert (needing, [one for one in project["dependencies"] if one.startswith("torch")]) == (["train"], [])


@pytest.mark.parametrize(
    ("line", "stdout", "exit_code", "expected"),
    [
        (Line("edgernn checks"), "anything", 0, []),
        (Line("edgernn run m x", like="vowels"), "speaker 1\n", 0, []),
        (
            Line("edgernn run m x", like="vowels"),
            "speaker 2\n",
            0,
            ["edgernn run m x on cortex-a72: predicts"],
        ),
        (Line("edgernn verify m", PI_5), "", 1, ["edgernn verify m on cortex-a76: exit code 1"]),
    ],
)
def test_an_answer_that_is_not_as_here_is_a_failure(
    line: Line, stdout: str, exit_code: int, expected: list[str]
) -> None:
    failures = Answer(line, stdout, "", exit_code).failures({"vowels": "speaker 1\n"})
    assert len(failures) == len(expected)
    assert all(failure.startswith(start) for failure, start in zip(failures, expected, strict=True)), failures


@pytest.mark.parametrize(
    ("kernel", "bits", "machine"),
    [
        ("aarch64", 64, "aarch64"),
        ("aarch64", 32, "arm"),
        ("armv8l", 32, "arm"),
        ("armv7l", 32, "arm"),
        ("x86_64", 64, "x86_64"),
        ("x86_64", 32, "i386"),
    ],
)
def test_the_system_decides_what_is_compiled_not_the_kernel(
    kernel: str, bits: int, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: kernel)
    monkeypatch.setattr("sys.maxsize", 2 ** (bits - 1) - 1)
    assert this_machine() == machine
