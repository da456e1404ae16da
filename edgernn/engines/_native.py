"""The engine that compiles a model's C export for this computer, and calls it here."""

import hashlib
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from .._tflite_lstm import C_FLAVOUR
from ..qmodel import IntArray, QuantizedModel
from ._engine import Engine, Form
from ._graphs import BatchSession, Session, StateStepper, stepwise

if TYPE_CHECKING:
    from ..firmware_sim.native import Compiler, Library, Source


@dataclass(frozen=True)
class NativeEngine(Engine):
    """The C compiler's machine code. A file is a shared library, for all forms the same one; it is run only where it is
    what this computer's compiler gives of the model, since loading one lets it do anything."""

    def refusal(self, model: QuantizedModel) -> str | None:
        if model.profile == "portable" or self.flavour == C_FLAVOUR:
            return None
        return f"native computes the flavour {C_FLAVOUR} of this profile alone: for {self.flavour} pip install numba"

    def missing(self) -> str | None:
        from ..firmware_sim.native import missing

        return missing()

    def open(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> Session:
        if form in (None, "sequence"):
            return self._library(model, content).run
        session = stepwise(self.stream(model, form, content), model.every_step)
        return lambda x: session(model.check_input(x, ("time", "input_size")))

    def open_batch(self, model: QuantizedModel, content: bytes | None = None) -> BatchSession:
        library = self._library(model, content)

        def run(x: IntArray, lengths: npt.NDArray[np.integer]) -> IntArray:
            return library.run_batch(x, lengths)

        return run

    def stream(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> StateStepper:
        model.check_streaming()
        self._check_form(form or "step")
        if form == "sequence":
            raise ValueError("the form sequence takes no single steps; name step")
        return self._library(model, content).stream()

    def export(self, model: QuantizedModel, form: Form, steps: int | None = None, batch: int | None = None) -> bytes:
        """The library; the form, steps and batch make no difference to it."""
        return built_library(model).read_bytes()

    def path(self, model_file: Path) -> Path:
        """Where `edgernn build` puts a model's library: model.so beside model.ernn."""
        return model_file.with_suffix(self.suffix)

    def other_build(self, model: QuantizedModel, content: bytes, name: str) -> str | None:
        """Why a library of this model is not the one that this computer's compiler gives, or None if it is.

        Raises ValueError for a file that is no library of this model, or one that was altered.
        """
        from ..firmware_sim.native import library_key, read_record

        record, compiler = read_record(content, name), _compiler(model)
        if record.interface.fingerprint != model.fingerprint:
            raise ValueError(f"{name} is of another model; build it anew")
        if content == self.export(model, "sequence"):
            return None
        if record.key == library_key(_source(model, compiler), model.interface, compiler):
            raise ValueError(f"{name} was altered: it is not what the compiler gives; build it anew")
        how = f"for {record.machine} by {record.compiler} ({record.command}) and edgernn {record.edgernn}"
        return f"{name} was built {how}, not as here: it is not run; build it anew"

    def _library(self, model: QuantizedModel, content: bytes | None) -> "Library":
        self._check_model(model)
        if content is not None:
            other = self.other_build(model, content, "the library")
            if other is not None:
                raise ValueError(other)
        library = _libraries.get(model)
        if library is None:
            from ..firmware_sim.native import Library

            library = _libraries[model] = Library(built_library(model))
        return library


_libraries: WeakKeyDictionary[QuantizedModel, "Library"] = WeakKeyDictionary()


def built_library(model: QuantizedModel, cc: str | None = None) -> Path:
    """The file of the model's library in this user's folder, compiled when it is not there yet.

    cc: the compiler, as `edgernn build --cc` takes it. Raises ValueError where there is none, or where it fails.
    """
    from ..firmware_sim.native import built

    compiler = _compiler(model, cc)
    states = {name: (spec.size, np.dtype(spec.dtype).name) for name, spec in model.states.items()}
    return built(_source(model, compiler), model.interface, states, compiler)


def _compiler(model: QuantizedModel, cc: str | None = None) -> "Compiler":
    """The compiler, for the C of any processor where there are no kernels for this one of the model's profile."""
    from ..export.c import has_kernels
    from ..firmware_sim.native import find_compiler

    compiler = find_compiler(cc)
    return compiler if has_kernels(model, compiler.target) else compiler.plain()


def _source(model: QuantizedModel, compiler: "Compiler") -> "Source":
    from ..export import to_c
    from ..firmware_sim.native import Source

    identity = f"{model.fingerprint} {compiler.target} {_exporter()}"
    return Source(identity, partial(to_c, model, "model", compiler.target))


@cache
def _exporter() -> str:
    """A checksum of all that writes C."""
    digest = hashlib.sha256()
    for file in _all_files(files("edgernn.export.c")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _all_files(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found += [] if entry.name == "__pycache__" else _all_files(entry)
        elif entry.name.endswith((".py", ".h")):
            found.append(entry)
    return found
