"""What verify compares: an engine with each of the files beside a model, or with a fresh export; and what it finds."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Final

import numpy as np

from ._adversarial import Named
from ._places import Difference
from ._sources import exported_sources, place
from .engines import ENGINES, EmulatedEngine, Engine, Form, NativeEngine, Session, export_path, kernel
from .qmodel import IntArray, QuantizedModel

_FIXED: Final = re.compile(r"(?:_T([1-9]\d{0,8}))?(?:_B([1-9]\d{0,8}))?")  # of a file's name, as fixed_path has it

SLOW_SEQUENCES: Final = 4  # what an engine that is slow is given: the first and last of the sequences, ..
SLOW_STEPS: Final = 6  # .. and so many steps of each
COMPILED_ADVERSARIAL: Final = "mixed"  # the one of the adversarial models that an engine is given that compiles each


@dataclass(frozen=True)
class Target:
    """What is checked: an engine with a file, or (path None) with a fresh export.

    steps: how many it takes, where that is fixed. batch: how many sequences at once, for a file of batches.
    """

    engine: Engine
    form: Form
    path: Path | None = None
    steps: int | None = None
    batch: int | None = None

    @property
    def file(self) -> str | None:
        """The file's name; of a C source, which all have the same, with its folder."""
        if self.path is None:
            return None
        return place(self.path) if self.path.suffix == ".c" else self.path.name

    def open(self, model: QuantizedModel, content: bytes | None = None) -> Session:
        """A function from x to the engine's integers. Raises ValueError when the engine refuses the file."""
        if content is None and self.steps is not None:
            content = self.export(model)
        return self.engine.open(model, self.form, content)

    def export(self, model: QuantizedModel) -> bytes:
        return self.engine.export(model, self.form, self.steps, self.batch)

    def cut(self, x: IntArray) -> IntArray:
        """x [T, input_size], with its steps cut off or repeated to the fixed length, or cut off for a slow engine."""
        if self.steps is not None and self.batch is None:
            return np.resize(x, (self.steps, x.shape[1]))
        return x[: SLOW_STEPS if self.engine.slow else self.steps]

    def choose(self, sequences: Named) -> Named:
        """The sequences to run: all of them, or for a slow engine a few; cut."""
        if self.engine.slow and len(sequences) > SLOW_SEQUENCES:
            sequences = [*sequences[: SLOW_SEQUENCES // 2], *sequences[-SLOW_SEQUENCES // 2 :]]
        return [(name, self.cut(x)) for name, x in sequences]

    def result(self, model: str) -> "Result":
        """A result of nothing yet."""
        model += ", step by step" if self.engine.one_file and self.form == "step" else ""
        return Result(self.engine.name, self.file, model, 0, 0, 0)

    def failed(self, model: str, problem: object) -> "Result":
        return replace(self.result(model), problem=str(problem))


@dataclass(frozen=True)
class Result:
    """One line of the table: a target over the model itself, or over its hidden states and the adversarial models, or
    an engine over a padded batch of the model's sequences.

    problem: what is wrong and where, in words; None when all is equal. Integers: how many outputs were compared.
    skipped: why there was nothing to compare although nothing is wrong, or None.
    """

    engine: str
    file: str | None
    model: str
    sequences: int
    integers: int
    differences: int
    first: Difference | None = None
    problem: str | None = None
    skipped: str | None = None


def reference(engine: Engine) -> Engine:
    """The kernel as an engine is compared with it: in its flavour of the profile tflite-lstm."""
    return kernel(engine.flavour)


def targets(model: QuantizedModel, engines: Sequence[Engine], model_file: Path | None = None) -> list[Target]:
    """Every export beside the model's file that an engine reads; a fresh export for an engine without such a file.

    Raises ValueError when there is nothing to compare with the kernel.
    """
    reference = kernel()
    if all(engine is reference or engine.refusal(model) for engine in engines):
        others = (engine for engine in ENGINES.values() if engine is not reference and engine.refusal(model) is None)
        here = [engine.name for engine in others if engine.missing() is None]
        cure = f"name another engine: {', '.join(here)}" if here else f"install one: {ENGINES['litert'].missing()}"
        refusals = [f"{one.refusal(model)}; " for one in engines if one.refusal(model)]
        why = "".join(refusals) or f"{reference.name} is the reference itself; "
        raise ValueError(f"nothing to compare with: {why}{cure}")
    found: list[Target] = []
    for engine in engines:
        if engine is not reference:
            files = [] if model_file is None else list(_files(engine, model, model_file))
            whole = any(target.batch is None for target in files)
            forms = engine.forms_of(model)[: None if engine.one_file else 1]
            found += files if whole else [*(Target(engine, form) for form in forms), *files]
    return found


def _files(engine: Engine, model: QuantizedModel, model_file: Path) -> Iterator[Target]:
    """The files beside the model that this engine reads."""
    if engine.refusal(model) is not None:
        return
    if isinstance(engine, EmulatedEngine):  # a source holds all forms that there are
        for source in exported_sources(engine, model_file):
            yield from (Target(engine, form, source) for form in engine.forms_of(model))
        return
    if isinstance(engine, NativeEngine):
        library = engine.path(model_file)
        yield from (Target(engine, form, library) for form in engine.forms_of(model) if library.exists())
        return
    for form in engine.forms:
        path = export_path(model_file, form, engine.suffix)
        fixed = form == "sequence" and engine.fixed
        if path.exists() and not (fixed or _is_of_another(path, model_file)):
            yield Target(engine, form, path)
    if engine.suffix != ".tflite":
        return
    for path in sorted(model_file.parent.glob(f"{escape(model_file.stem)}_[TB]*.tflite")):
        match = _FIXED.fullmatch(path.stem.removeprefix(model_file.stem))
        if match is not None and not _is_of_another(path, model_file):
            steps, batch = (None if number is None else int(number) for number in match.groups())
            if steps is not None or not engine.fixed:
                yield Target(engine, "sequence", path, steps, batch)


def _is_of_another(path: Path, model_file: Path) -> bool:
    """Whether another model has the file's very name: m_step.tflite is of m_step.ernn then, and not of m.ernn."""
    own = path.with_suffix(".ernn")
    return own != model_file.with_suffix(".ernn") and own.is_file()
