"""Engines that compile a model's C export for a microcontroller's core and run it in QEMU."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ..qmodel import QuantizedModel
from ._engine import Engine, Form
from ._graphs import Graph
from ._worker import Specs, Tensors

if TYPE_CHECKING:
    from ..firmware_sim.emulation import Firmware

_GENERIC: Final = "generic"  # the export for any core
_ALSO: Final = {"cortex-m0": ("cortex-m0plus",)}  # has the same instructions
_NAME: Final = "model"  # of the functions and files of a fresh export
_INCLUDE: Final = re.compile(rb'^#include "([A-Za-z_]\w*)\.h"', re.M)
_KEPT: Final = 16  # compiled models


@dataclass(frozen=True)
class EmulatedEngine(Engine):
    """One core. Its files are C: of both forms the same one, for this core or for any."""

    core: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets of the C export that this core runs."""
        return (self.core, *_ALSO.get(self.core, ()), _GENERIC)

    @property
    def packages(self) -> tuple[str, ...]:
        """What there are packages of the C export for."""
        from ..export.c.packages import PACKAGES

        return PACKAGES

    def folders(self, model_file: Path) -> list[Path]:
        """Where the exports that this core runs are put; a package's folder has its kind after that, as _cmake."""
        return [firmware_folder(model_file, target) for target in self.targets]

    def missing(self) -> str | None:
        from ..firmware_sim.emulation import missing

        return missing(self.core)

    def export(self, model: QuantizedModel, form: Form, steps: int | None = None, batch: int | None = None) -> bytes:
        """The C source; the form, steps and batch make no difference to it."""
        return self.sources(model)[f"{_NAME}.c"].encode()

    def sources(self, model: QuantizedModel, name: str = _NAME, target: str | None = None) -> dict[str, str]:
        """{file name: text} of the header and the source, for this core or for another target of the C export."""
        from ..export.c import to_c

        return to_c(model, name, target or self.core)

    def _graph(self, model: QuantizedModel, form: Form, content: bytes | None) -> Graph:
        self._check_form(form)
        if form == "step":
            model.check_streaming()
        sources = self.sources(model) if content is None else self._sources_of(model, content)
        name = next(file for file in sources if file.endswith(".h")).removesuffix(".h")
        return _FirmwareGraph(model, form, _firmware(self.core, name, tuple(sources.items())))

    def _sources_of(self, model: QuantizedModel, content: bytes) -> dict[str, str]:
        """The header and source of an exported source. It must be an export of this model, and unaltered: a firmware
        can ask the emulator to do anything on this computer. Raises ValueError."""
        found = _INCLUDE.search(content)
        if found is not None:
            name = found[1].decode()
            for target in self.targets:
                sources = self.sources(model, name, target)
                if sources[f"{name}.c"].encode() == content:
                    return sources
        raise ValueError(f"not an export of this model for {self.core} by this edgernn; export it anew")


def firmware_folder(model_file: Path, target: str) -> Path:
    """Where `edgernn export --format c` puts a model's C for a target: model_cortex-m4/ beside model.ernn, .."""
    return model_file.with_name(f"{model_file.stem}_{target}")


@lru_cache(maxsize=_KEPT)
def _firmware(core: str, name: str, sources: tuple[tuple[str, str], ...]) -> "Firmware":
    from ..firmware_sim.emulation import build

    return build(core, dict(sources), name)


class _FirmwareGraph:
    """A firmware as a graph: of sequences with their lengths, or of a step with its states."""

    def __init__(self, model: QuantizedModel, form: Form, firmware: "Firmware") -> None:
        from ..firmware_sim.emulation import Session

        self._session = Session(firmware)
        self._every_step, self._output_size = model.every_step, model.output_size
        dtype = np.dtype(model.input_dtype).name
        self._sizes = {name: spec.size for name, spec in model.states.items()}
        self.inputs: Specs
        if form == "step":
            states: Specs = {name: ((1, spec.size), np.dtype(spec.dtype).name) for name, spec in model.states.items()}
            self.inputs = {"x": ((1, model.input_size), dtype), **states}
            self.outputs = ["y", *(f"{name}_out" for name in states)]
        else:
            self.inputs = {"x": ((-1, -1, model.input_size), dtype), "lengths": ((-1,), "int32")}
            self.outputs = ["y"]

    def __call__(self, feeds: Tensors) -> Tensors:
        return self._sequences(feeds) if "lengths" in feeds else self._step(feeds)

    def reset(self) -> None:
        pass  # every call says where it starts

    def _sequences(self, feeds: Tensors) -> Tensors:
        x, lengths = feeds["x"], feeds["lengths"]
        found = [self._session.run(one[:length]) for one, length in zip(x, lengths, strict=True)]
        if self._every_step:
            found = [np.pad(y, ((0, x.shape[1] - len(y)), (0, 0))) for y in found]
        return {"y": np.stack(found)}

    def _step(self, feeds: Tensors) -> Tensors:
        self._session.state = {name: feeds[name][0] for name in self._sizes}
        y, state = self._session.step(feeds["x"]), self._session.state
        return {"y": y, **{f"{name}_out": state[name][None, :size] for name, size in self._sizes.items()}}
