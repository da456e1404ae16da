"""Is every engine equal to the kernel, integer for integer? And if not: where does the first difference arise?

Exported files are run as they are, and compared with a fresh export: a changed constant is named.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ._adversarial import STEPS, Named, adversarial_inputs, adversarial_models
from ._artifacts import Artifact, read_onnx, read_tflite
from ._changes import changes
from ._files import read_bytes
from ._places import Difference as Difference
from ._places import Opener, cause, difference, first_difference
from ._sources import other_sources as other_sources
from ._sources import source_problem, source_text
from ._targets import COMPILED_ADVERSARIAL as COMPILED_ADVERSARIAL
from ._targets import SLOW_SEQUENCES as SLOW_SEQUENCES
from ._targets import SLOW_STEPS as SLOW_STEPS
from ._targets import Result as Result
from ._targets import Target as Target
from ._targets import reference
from ._targets import targets as targets
from ._tflite_lstm import FLAVOURS, Flavour
from .engines import EmulatedEngine, Engine, NativeEngine, kernel
from .qmodel import IntArray, QuantizedModel


def verify(model: QuantizedModel, chosen: Sequence[Target], sequences: Named, seed: int = 0) -> Iterator[Result]:
    """Compare each target with the kernel, on these (name, x [T, input_size]) and on adversarial integers and models;
    and every engine on all of the sequences as one padded batch.

    A file that cannot be read, or that its engine refuses, is that target's problem; the others are still checked.
    """
    own = [*sequences, *adversarial_inputs(model, seed)]
    others = [("hidden states", model.without_head(), own)]  # all of them: an output of the last step tells little
    for name, other in adversarial_models(model, seed):
        parts = [other.without_head(), *([other] if name == COMPILED_ADVERSARIAL else [])]
        others += [(name, part, adversarial_inputs(part, seed, random=2)) for part in parts]
    few = [others[0], next(one for one in others if one[0] == COMPILED_ADVERSARIAL)]  # each has to be compiled
    whole = [("the model", model), *([] if model.head is None else [("hidden states", model.without_head())])]
    for engine in dict.fromkeys(target.engine for target in chosen):
        done = set()
        for target in chosen:
            if target.engine is not engine:
                continue
            result = _guarded(_compare_file if target.path else _compare, model, target, own, "the model")
            yield result
            if result.skipped and engine.compiled:
                break
            fresh = replace(target, path=None, steps=target.steps and min(target.steps, STEPS))
            if target.batch is None and target.form in engine.forms_of(model) and fresh not in done:
                done.add(fresh)
                given = few if engine.compiled else others
                found = [_guarded(_compare, other, fresh, inputs, name) for name, other, inputs in given]
                yield _merge(found, fresh.result("hidden states, adversarial models").model)
        else:
            if engine.takes_batches(model):
                together = Target(engine, "sequence", batch=SLOW_SEQUENCES if engine.slow else len(own))
                yield _merge([_guarded(_compare, part, together, own, name) for name, part in whole], "a padded batch")


@dataclass(frozen=True)
class FlavourDifference:
    """How far two flavours of the profile tflite-lstm are apart: of `integers` hidden states, `differences` differ, by
    `largest` at most."""

    flavours: tuple[Flavour, Flavour]
    integers: int
    differences: int
    largest: int


def flavour_differences(model: QuantizedModel, sequences: Named) -> list[FlavourDifference]:
    """The kernel's flavours against each other, over the last layer's hidden states at every step of these sequences;
    nothing for the portable profile, which has one arithmetic, and where Numba, which has all of them, is not here."""
    if model.profile == "portable" or kernel().name != "numba":
        return []
    hidden = model.without_head()
    sessions = {flavour: kernel(flavour).open(hidden) for flavour in FLAVOURS}
    found = {flavour: [run(x).astype(np.int64) for _, x in sequences] for flavour, run in sessions.items()}
    differences = []
    for pair in pairwise(FLAVOURS):
        apart = [np.abs(one - other) for one, other in zip(*(found[flavour] for flavour in pair), strict=True)]
        sizes, counts = sum(one.size for one in apart), sum(int(np.count_nonzero(one)) for one in apart)
        largest = max((int(one.max()) for one in apart), default=0)
        differences.append(FlavourDifference(pair, sizes, counts, largest))
    return differences


_Compare = Callable[[QuantizedModel, Target, Named, str], Result]
_Locate = Callable[[bool], tuple[Difference, str]]  # (explain?) -> the first difference, and what is behind it
_Answer = tuple[int, IntArray, IntArray, _Locate]  # how many sequences, the kernel's outputs, the engine's


def _guarded(compare: _Compare, model: QuantizedModel, target: Target, sequences: Named, name: str) -> Result:
    """The result, or what came up instead."""
    try:
        return compare(model, target, sequences, name)
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, MemoryError):  # a device that is too small for the model is no difference
            return replace(target.result(name), skipped=str(error))
        return target.failed(name, error)


def _compare_file(model: QuantizedModel, target: Target, sequences: Named, name: str) -> Result:
    """Check the file as it lies there. One whose graph is not this model's is not run: runtimes can crash on it."""
    assert target.path is not None
    if target.form not in target.engine.forms_of(model):
        kind = "a bidirectional one" if model.bidirectional else f"one of the profile {model.profile}"
        problem = f"{target.path.name} is of another model: {kind} has no form {target.form}; delete the file"
        return target.failed(name, problem)
    if isinstance(target.engine, EmulatedEngine):
        return _compare_source(model, target, target.engine, sequences, name)
    if isinstance(target.engine, NativeEngine):
        return _compare_library(model, target, target.engine, sequences, name)
    content, fresh = read_bytes(target.path), target.export(model)
    if content == fresh:
        return _compare(model, target, sequences, name, content)
    found, expected = (_read(target.engine)(one) for one in (content, fresh))
    if found.skeleton != expected.skeleton:
        other = found.metadata.get("fingerprint") != expected.metadata.get("fingerprint")
        why = "it is of another model" if other else "its graph differs"
        problem = f"{target.path.name} is not this model's export by this edgernn: {why}; export it anew"
        return target.failed(name, problem)
    altered = list(changes(model, found, expected, target.engine.suffix))
    if not altered:
        return _compare(model, target, sequences, name, content)
    problem = f"{target.path.name} was altered: {altered[0].text}"
    if not all(change.harmless for change in altered):
        return target.failed(name, f"{problem} (not run: a runtime can crash on that)")
    try:
        result = _compare(model, target, sequences, name, content, explain=False)
    except (ValueError, RuntimeError) as error:
        return target.failed(name, f"{problem} ({error})")
    effect = f"; {result.problem}" if result.problem else " (without effect on what was compared)"
    return replace(result, problem=problem + effect)


def _compare_source(
    model: QuantizedModel, target: Target, engine: EmulatedEngine, sequences: Named, name: str
) -> Result:
    """Check a C source as it lies there. One that is not the model's export is not run: a firmware can ask the emulator
    to do anything on this computer."""
    assert target.path is not None
    problem = source_problem(engine, model, target.path)
    if problem is not None:
        return target.failed(name, f"{(target.file or '').partition('/')[0]}: {problem} (not run)")
    return _compare(model, target, sequences, name, source_text(target.path).encode())


def _compare_library(
    model: QuantizedModel, target: Target, engine: NativeEngine, sequences: Named, name: str
) -> Result:
    """Check a shared library as it lies there. One that this computer's compiler does not give of the model is not run:
    to load it is to run it."""
    assert target.path is not None
    content = read_bytes(target.path)
    other = engine.other_build(model, content, target.path.name)
    if other is not None:
        return replace(target.result(name), skipped=other)
    return _compare(model, target, sequences, name, content)


def _compare(
    model: QuantizedModel,
    target: Target,
    sequences: Named,
    name: str,
    content: bytes | None = None,
    *,
    explain: bool = True,
) -> Result:
    """Run everything on both, one by one or in batches. explain: look for the layer behind a difference."""
    result = target.result(name)
    answers = _one_by_one if target.batch is None else _in_batches
    for count, expected, found, locate in answers(model, target, target.choose(sequences), content):
        _check_shape(target, expected, found)
        result = replace(
            result,
            sequences=result.sequences + count,
            integers=result.integers + expected.size,
            differences=result.differences + int(np.count_nonzero(expected != found)),
        )
        if result.first is None and result.differences:
            first, why = locate(explain)
            result = replace(result, first=first, problem=f"{first}{why}")
    return result


def _one_by_one(model: QuantizedModel, target: Target, sequences: Named, content: bytes | None) -> Iterator[_Answer]:
    session, own = target.open(model, content), reference(target.engine)
    expected = own.open(model)
    entire = model.every_step or target.steps is not None

    def locate(name: str, x: IntArray, explain: bool) -> tuple[Difference, str]:
        first = first_difference(expected, session, name, x, entire=entire)
        prefix = x if entire else x[: first.step + 1]
        return first, cause(model, own.open, target.open, prefix) if explain else ""

    for name, x in sequences:
        yield 1, expected(x), session(x), partial(locate, name, x)


def _in_batches(model: QuantizedModel, target: Target, sequences: Named, content: bytes | None) -> Iterator[_Answer]:
    """`target.batch` sequences at once, padded with what must not matter."""
    session, own = target.engine.open_batch(model, content), reference(target.engine)
    answers = own.open_batch(model)

    def locate(
        names: list[str], x: IntArray, lengths: IntArray, expected: IntArray, found: IntArray, explain: bool
    ) -> tuple[Difference, str]:
        row = int(np.argwhere(expected != found)[0][0])
        first = difference(names[row], expected[row], found[row], int(lengths[row]) - 1)

        def row_of(engine: Engine) -> Opener:
            return lambda model: lambda _: engine.open_batch(model)(x, lengths)[row]

        return first, cause(model, row_of(own), row_of(target.engine), x[row]) if explain else ""

    for names, x, lengths in _batches(target, sequences):
        expected, found = answers(x, lengths), session(x, lengths)
        yield len(names), expected, found, partial(locate, names, x, lengths, expected, found)


def _batches(target: Target, sequences: Named) -> Iterator[tuple[list[str], IntArray, npt.NDArray[np.int64]]]:
    """(names, x [N, T, input_size], lengths [N]): every sequence is followed by its own beginning; the last batch is
    filled up with the first sequences."""
    assert target.batch is not None
    size = target.batch
    for start in range(0, len(sequences), size):
        group = [sequences[(start + index) % len(sequences)] for index in range(size)]
        lengths = np.array([len(x) for _, x in group])
        steps = target.steps or int(lengths.max())
        x = np.stack([np.resize(x, (steps, x.shape[1])) for _, x in group])
        yield [name for name, _ in group], x, lengths


def _check_shape(target: Target, expected: IntArray, found: IntArray) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        shapes = f"{found.dtype} {found.shape}, the kernel {expected.dtype} {expected.shape}"
        raise ValueError(f"{target.engine.name} gives outputs {shapes}")


def _merge(results: Sequence[Result], name: str) -> Result:
    """The results over several models as one of that name: the first that differs names the place, and its model."""
    worst = next((result for result in results if result.problem), results[0])
    return replace(
        worst,
        model=name,
        problem=worst.problem and f"{worst.model}, {worst.problem}",
        sequences=sum(result.sequences for result in results),
        integers=sum(result.integers for result in results),
        differences=sum(result.differences for result in results),
        skipped=next((result.skipped for result in results if result.skipped), None),
    )


def _read(engine: Engine) -> Callable[[bytes], Artifact]:
    return read_onnx if engine.suffix == ".onnx" else read_tflite
