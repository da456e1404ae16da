"""Is every engine equal to the kernel, integer for integer? And if not: where does the first difference arise?

Exported files are run as they are, and compared with a fresh export: a changed constant is named.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Final

import numpy as np

from ._adversarial import STEPS, Named, adversarial_inputs, adversarial_models
from ._artifacts import Artifact, read_artifact, read_onnx, read_tflite
from .engines import ENGINES, Engine, Form, Session, export_path, fixed_path
from .qmodel import IntArray, QuantizedModel

REFERENCE: Final = ENGINES["numba"]


@dataclass(frozen=True)
class Target:
    """What is checked: an engine with a file, or (path None) with a fresh export; `steps` where its length is fixed."""

    engine: Engine
    form: Form
    path: Path | None = None
    steps: int | None = None

    def open(self, model: QuantizedModel, content: bytes | None = None) -> Session:
        """A function from x to the engine's integers. Raises ValueError when the engine refuses the file."""
        if content is None and self.steps is not None:
            content = self.export(model)
        return self.engine.open(model, self.form, content)

    def export(self, model: QuantizedModel) -> bytes:
        return self.engine.export(model, self.form, self.steps)

    def cut(self, x: IntArray) -> IntArray:
        """x [T, input_size], with its steps cut off or repeated to the fixed length."""
        return x if self.steps is None else np.resize(x, (self.steps, x.shape[1]))

    def failed(self, model: str, problem: object) -> "Result":
        return Result(self.engine.name, self.path.name if self.path else None, model, 0, 0, 0, None, str(problem))


@dataclass(frozen=True)
class Difference:
    """A target's first difference: the sequence, its first differing step, the output, both values."""

    sequence: str
    step: int
    output: int
    expected: int
    found: int


@dataclass(frozen=True)
class Result:
    """One line of the table: a target over the model itself, or over its hidden states and the adversarial models.

    problem: what is wrong and where, in words; None when all is equal. Integers: how many outputs were compared.
    """

    engine: str
    file: str | None
    model: str
    sequences: int
    integers: int
    differences: int
    first: Difference | None = None
    problem: str | None = None


def targets(engines: Sequence[Engine], model_file: Path | None = None) -> list[Target]:
    """Every export beside the model's file that an engine reads; a fresh export for an engine without such a file.

    Raises ValueError when there is nothing to compare with the kernel.
    """
    if all(engine is REFERENCE for engine in engines):
        here = [name for name, engine in ENGINES.items() if engine is not REFERENCE and engine.missing() is None]
        cure = f"name another engine: {', '.join(here)}" if here else f"install one: {ENGINES['litert'].missing()}"
        raise ValueError(f"nothing to compare with: {REFERENCE.name} is the reference itself; {cure}")
    found: list[Target] = []
    for engine in engines:
        if engine is REFERENCE:
            continue
        paths = [(form, export_path(model_file, form, engine.suffix)) for form in engine.forms] if model_file else []
        files = [Target(engine, form, path) for form, path in paths if path.exists()]
        if model_file and engine.suffix == ".tflite":
            files += [Target(engine, "sequence", path, steps) for steps, path in _fixed_files(model_file)]
        found += files or [Target(engine, engine.forms[0])]
    return found


def _fixed_files(model_file: Path) -> Iterator[tuple[int, Path]]:
    """(steps, path) of the exports of a fixed length beside the model."""
    for path in sorted(model_file.parent.glob(f"{escape(model_file.stem)}_T*.tflite")):
        steps = path.stem.removeprefix(f"{model_file.stem}_T")
        if steps.isdecimal() and int(steps) > 0 and path == fixed_path(model_file, int(steps)):
            yield int(steps), path


def verify(model: QuantizedModel, targets: Sequence[Target], sequences: Named, seed: int = 0) -> Iterator[Result]:
    """Compare each target with the kernel, on these (name, x [T, input_size]) and on adversarial integers and models.

    A file that cannot be read, or that its engine refuses, is that target's problem; the others are still checked.
    """
    own = [*sequences, *adversarial_inputs(model, seed)]
    others = [("hidden states", model.without_head(), own)]  # all of them: an output of the last step tells little
    for name, other in adversarial_models(model, seed):
        parts = [other.without_head(), *([other] if name == "mixed" else [])]
        others += [(name, part, adversarial_inputs(part, seed, random=2)) for part in parts]
    for target in targets:
        try:
            yield _compare_file(model, target, own) if target.path else _compare(model, target, own)
        except (ValueError, RuntimeError, OSError) as error:
            yield target.failed("the model", error)
        fresh = replace(target, path=None, steps=target.steps and min(target.steps, STEPS))
        yield _merge([_compare_other(other, fresh, inputs, name) for name, other, inputs in others])


def _compare_file(model: QuantizedModel, target: Target, sequences: Named) -> Result:
    """Check the file as it lies there. One whose graph is not this model's is not run: runtimes can crash on it."""
    assert target.path is not None
    content, fresh = target.path.read_bytes(), target.export(model)
    if content == fresh:
        return _compare(model, target, sequences)
    found, expected = read_artifact(target.path), _read(target.engine)(fresh)
    if found.skeleton != expected.skeleton:
        problem = f"{target.path.name} is not this model's export by this edgernn: its graph differs; export it anew"
        return target.failed("the model", problem)
    changes = list(_changes(model, found, expected))
    if not changes:
        return _compare(model, target, sequences, content=content)
    altered = f"{target.path.name} was altered: {changes[0]}"
    try:
        result = _compare(model, target, sequences, content=content)
    except (ValueError, RuntimeError) as error:
        return target.failed("the model", f"{altered} ({error})")
    if result.problem is None:
        return replace(result, problem=f"{altered} (without effect on what was compared)")
    return replace(result, problem=f"{altered}; {result.problem}")


def _compare_other(model: QuantizedModel, target: Target, sequences: Named, name: str) -> Result:
    try:
        return _compare(model, target, sequences, name)
    except (ValueError, RuntimeError) as error:
        return target.failed(name, error)


def _compare(
    model: QuantizedModel, target: Target, sequences: Named, name: str = "the model", content: bytes | None = None
) -> Result:
    """Run everything on both. `content` is an altered file, whose differences need no further explanation."""
    session, reference = target.open(model, content), REFERENCE.open(model)
    integers = differences = 0
    first: Difference | None = None
    problem = None
    for sequence, given in sequences:
        x = target.cut(given)
        expected, found = reference(x), session(x)
        if found.shape != expected.shape:
            raise ValueError(f"{target.engine.name} gives outputs of shape {found.shape}, the kernel {expected.shape}")
        integers += expected.size
        differences += int(np.count_nonzero(expected != found))
        if first is None and differences:
            entire = model.every_step or target.steps is not None
            first = _first_difference(reference, session, sequence, x, entire)
            cause = "" if content else _cause(model, target, x if target.steps else x[: first.step + 1])
            problem = f"{_place(first)}{cause}"
    file = target.path.name if target.path else None
    return Result(target.engine.name, file, name, len(sequences), integers, differences, first, problem)


def _merge(results: Sequence[Result]) -> Result:
    """The results over other models as one: the first that differs names the place."""
    worst = next((result for result in results if result.problem), results[0])
    return replace(
        worst,
        model=worst.model if worst.problem else "hidden states, adversarial models",
        sequences=sum(result.sequences for result in results),
        integers=sum(result.integers for result in results),
        differences=sum(result.differences for result in results),
    )


# ---- where a difference arises ---------------------------------------------------------------------------------------


def _first_difference(reference: Session, session: Session, name: str, x: IntArray, entire: bool) -> Difference:
    """In the first step that differs (or, `entire`, the last), or at the end of the shortest prefix that differs."""
    for length in [len(x)] if entire else range(1, len(x) + 1):
        expected, found = reference(x[:length]), session(x[:length])
        places = np.argwhere(expected != found)
        if len(places):
            place = tuple(int(number) for number in places[0])
            step = place[0] if len(place) > 1 else length - 1
            return Difference(name, step, place[-1], int(expected[place]), int(found[place]))
    raise ValueError(f"{name}: the engine answered the same input in two ways; it is not deterministic")


def _place(first: Difference) -> str:
    at = f"sequence {first.sequence!r}, step {first.step}, output {first.output}"
    return f"{at}: {first.found} in place of {first.expected}"


def _cause(model: QuantizedModel, target: Target, x: IntArray) -> str:
    """Which layer's hidden state differs first, in networks cut off after each layer."""
    for count in range(1, len(model.layers) + 1):
        part = model.without_head(count)
        session, reference = target.open(part), REFERENCE.open(part)
        if not np.array_equal(session(x), reference(x)):
            at = _first_difference(reference, session, "", x, entire=True)
            return f"; layer {count - 1}, step {at.step}, unit {at.output}: {at.found} in place of {at.expected}"
    return "; the hidden states of all layers are equal, the head differs"


def _read(engine: Engine) -> Callable[[bytes], Artifact]:
    return read_onnx if engine.suffix == ".onnx" else read_tflite


def _changes(model: QuantizedModel, found: Artifact, expected: Artifact) -> Iterator[str]:
    """The constants that differ between two files of the same graph, by name, place and meaning."""
    for name, old in expected.constants.items():
        new = found.constants[name]
        for place in np.argwhere(new != old):
            index = tuple(int(number) for number in place)
            yield f"{name}{list(index)} is {new[index]} in place of {old[index]}{_meaning(model, old, index)}"


def _meaning(model: QuantizedModel, constant: IntArray, index: tuple[int, ...]) -> str:
    """ " (layer 0, recurrent weight, gate n, unit 5, column 3)" for an element of a weight matrix; else empty."""
    ends = (constant.shape[0], constant.shape[-1]) if constant.ndim > 1 else (0, 0)
    if constant.dtype != np.int8 or constant.size != ends[0] * ends[1]:
        return ""
    matrix, row, column = constant.reshape(ends), index[0], index[-1]
    for find in (_block_row, _equal_row):  # whole matrices first: single rows can be alike
        for weight, r, c in ((matrix, row, column), (matrix.T, column, row)):
            for title, gates, known in _matrices(model):
                found = find(known, weight, r) if known.shape[1] == weight.shape[1] else None
                if found is not None:
                    gate, unit = divmod(found, len(known) // len(gates))
                    return f" ({title} weight{gates[gate]}, unit {unit}, column {c})"
    return ""


def _matrices(model: QuantizedModel) -> Iterator[tuple[str, tuple[str, ...], IntArray]]:
    """(name, the names of its gates, weight) of every affine map."""
    for number, layer in enumerate(model.layers):
        gates = tuple(f", gate {gate}" for gate in layer.gates)
        yield f"layer {number}, input", gates, layer.input.weight
        yield f"layer {number}, recurrent", gates, layer.recurrent.weight
    if model.head is not None:
        yield "head", ("",), model.head.dense.weight


def _block_row(known: IntArray, weight: IntArray, row: int) -> int | None:
    """The row of `known` that is weight[row], where all of `weight` is a block of its rows."""
    starts = range(len(known) - len(weight) + 1)
    return next((start + row for start in starts if np.array_equal(known[start : start + len(weight)], weight)), None)


def _equal_row(known: IntArray, weight: IntArray, row: int) -> int | None:
    """The only row of `known` that equals weight[row]."""
    rows = np.flatnonzero((known == weight[row]).all(axis=1))
    return int(rows[0]) if len(rows) == 1 else None
