"""Opening a network for the `Predictor`: finding out what a file is, and what can compute it here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ._exported import Description, RealInterface, describe_onnx, describe_tflite
from ._files import read_bytes
from ._interface import Interface

if TYPE_CHECKING:
    from .engines import Engine, Graph, Stepper
    from .firmware_sim.native import Library
    from .qmodel import QuantizedModel

Session = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

LIBRARIES: Final = (".so", ".dylib", ".dll")  # what `edgernn build` makes
_RUNTIMES: Final = {".tflite": ("litert", "tflite-runtime"), ".onnx": ("onnxruntime", "onnx-reference")}
_KINDS: Final = (".ernn", *_RUNTIMES, *LIBRARIES)


class Steps(Protocol):
    """A network whose state is carried from call to call."""

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The outputs [n, output_size] after each of n steps [n, input_size]."""

    def reset(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Opened:
    """A network in an engine. session, steps: what starts the two ways to compute it, where there are both.

    length: the only number of steps that a session takes, or None for any. notes: what to know of the engine's choice.
    """

    interface: Interface | RealInterface
    engine: str
    session: Callable[[], Session] | None = None
    steps: Callable[[], Steps] | None = None
    length: int | None = None
    notes: tuple[str, ...] = ()


def open_file(path: Path, engine: str | None) -> Opened:
    """As `Predictor.open` says."""
    suffix = path.suffix.lower()
    if suffix not in _KINDS:
        raise ValueError(f"{path}: not one of the files that predict: {', '.join(_KINDS)}")
    if suffix == ".ernn":
        return _open_model(path, engine)
    if suffix in LIBRARIES:
        return _open_library(path, engine)
    content = read_bytes(path)
    try:
        return _open_exported(content, suffix, engine)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class _OneByOne:
    """Steps of something that takes one at a time. many: its way to take more, if it has one."""

    def __init__(self, stepper: "Stepper", many: Session | None = None) -> None:
        self._stepper, self._many = stepper, many

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(x) == 1:
            return self._stepper.step(x[0])[None]
        return self._many(x) if self._many else np.array([self._stepper.step(row) for row in x])

    def reset(self) -> None:
        self._stepper.reset()


# ---- .ernn -----------------------------------------------------------------------------------------------------------


class _Kernel:
    """Steps of the Numba kernel: many rows in one call."""

    def __init__(self, model: "QuantizedModel") -> None:
        from .firmware_sim import Stream

        self._stream = Stream(model)
        self._every_step = model
        if not model.every_step and model.head is not None:  # the head after every step, as a stream has it
            self._every_step = replace(model, head=replace(model.head, kind="steps"))

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        from .firmware_sim import run

        if len(x) == 1:
            return self._stream.step(x[0])[None]
        y, self._stream.state = run(self._every_step, x, self._stream.state)
        return y

    def reset(self) -> None:
        self._stream.reset()


def _open_model(path: Path, name: str | None) -> Opened:
    from .qmodel import QuantizedModel

    model = QuantizedModel.load(path)
    notes: list[str] = []
    if name is None:
        library = _library_beside(path, model.interface, notes) if model.profile == "portable" else None
        if library is not None:
            return _native(library)
        name = _usual()
        if name == "native" and model.profile != "portable":
            notes.append("native computes as CMSIS-NN does, not as LiteRT (pip install numba, or name a .tflite)")
    if name == "numba" and find_spec("numba"):
        return _numba(model, tuple(notes))
    engine = _installed(name)
    stepwise = None if model.bidirectional else lambda: _OneByOne(engine.stream(model))
    return Opened(model.interface, name, session=lambda: engine.open(model), steps=stepwise, notes=tuple(notes))


def _numba(model: "QuantizedModel", notes: tuple[str, ...]) -> Opened:
    from .firmware_sim import run

    def window(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return run(model, x)[0]

    steps = None if model.bidirectional else partial(_Kernel, model)
    return Opened(model.interface, "numba", session=lambda: window, steps=steps, notes=notes)


def _usual() -> str:
    """numba, or native where that is not installed. Raises ValueError where neither is."""
    if find_spec("numba"):
        return "numba"
    from .engines import ENGINES

    cure = ENGINES["native"].missing()
    if cure is not None:
        raise ValueError(f"nothing is here that computes a .ernn: pip install numba, or have a C compiler ({cure})")
    return "native"


def _installed(name: str) -> "Engine":
    from .engines import select

    return select([name])[0]


def _library_beside(path: Path, interface: Interface, notes: list[str]) -> "Library | None":
    """The library of this model beside it, if it was built here: any other is run only where the user names it, since
    to open a library is to let it do anything. A note where there is one that is not used."""
    for beside in filter(Path.is_file, map(path.with_suffix, LIBRARIES)):
        from .firmware_sim.native import Library, built_here, read_record

        try:
            content = read_bytes(beside)
            of_model = read_record(content, beside.name).interface.to_json() == interface.to_json()
            if of_model and built_here(content):
                return Library(beside)
            why = "was not built here: name it to run it" if of_model else f"is not of {path.name}: build it anew"
        except ValueError as error:
            why = f"cannot be ({error})"
        notes.append(f"{beside} is not used: it {why}")
    return None


def _native(library: "Library") -> Opened:
    def steps() -> Steps:
        stream = library.stream()
        return _OneByOne(stream, stream.run if library.interface.every_step else None)

    return Opened(library.interface, "native", lambda: library.run, steps if library.interface.streams else None)


def _open_library(path: Path, name: str | None = None) -> Opened:
    if name not in (None, "native"):
        raise ValueError(f"{path}: is run by the engine native, not by {name}")
    from .firmware_sim.native import Library

    return _native(Library(path))


# ---- exported files --------------------------------------------------------------------------------------------------


def _open_exported(content: bytes, suffix: str, name: str | None) -> Opened:
    if suffix == ".tflite":
        description = describe_tflite(content)
        engine = _reader(suffix, name)
        if engine.fixed and description.form == "sequence" and description.length is None:
            raise ValueError(f"{engine.name} takes sequences of one length alone: export it with --steps N")
        graph = _load(engine, content)
    else:
        engine = _reader(suffix, name)
        graph = _load(engine, content)
        size = graph.inputs["x"][0][-1] if graph.inputs.get("x", ((), ""))[0] else 0
        description = describe_onnx(content, getattr(graph, "properties", {}), size)
    _check_graph(graph, description)
    form, interface, length = description
    if form != "sequence":
        return Opened(interface, engine.name, steps=lambda: _OneByOne(_stepper(graph, interface)))
    return Opened(interface, engine.name, session=lambda: _session(graph), length=length)


def _reader(suffix: str, name: str | None) -> "Engine":
    """The engine of this name, or the first one that is installed. Raises ValueError, ModuleNotFoundError."""
    from .engines import ENGINES, missing

    known = [engine for engine in ENGINES.values() if engine.suffix == suffix]
    if name is None:
        usual = [ENGINES[one] for one in _RUNTIMES[suffix]]
        found = next((engine for engine in usual if missing(engine.package) is None), None)
        if found is None:
            package = usual[0].package
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return found
    if name not in {engine.name for engine in known}:
        raise ValueError(f"{name} reads no {suffix}; these do: {', '.join(engine.name for engine in known)}")
    cure = missing(ENGINES[name].package)
    if cure is not None:
        raise ValueError(f"the engine {name} is not installed here: {cure}")
    return ENGINES[name]


def _load(engine: "Engine", content: bytes) -> "Graph":
    assert engine.load is not None
    return engine.load(content)


def _check_graph(graph: "Graph", description: Description) -> None:
    """Raise ValueError unless the inputs and outputs are those of one sequence, or of one step."""
    form, interface, _ = description
    shape, dtype = graph.inputs.get("x", ((), ""))
    if len(shape) == (3 if form == "sequence" else 2) and shape[0] > 1:
        raise ValueError(f"exported for {shape[0]} sequences at a time; export it without --batch")
    states = set(graph.inputs) - {"x", "lengths"}
    given = {f"{name}_out" for name in states} | {"y"}
    fits = len(shape) == (3 if form == "sequence" else 2) and dtype == np.dtype(interface.input_dtype).name
    if not fits or given != set(graph.outputs) or (form != "step" and states):
        inputs = ", ".join(f"{name} {kind} {list(sizes)}" for name, (sizes, kind) in graph.inputs.items())
        raise ValueError(f"not the form {form} that it says ({inputs}; {', '.join(graph.outputs)}); export it anew")


def _session(graph: "Graph") -> Session:
    from .engines import batched, whole

    run = whole(batched(graph))

    def window(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        graph.reset()
        return run(x)

    return window


def _stepper(graph: "Graph", interface: Interface | RealInterface) -> "Stepper":
    from .engines import GraphStepper
    from .qmodel import StateSpec

    states = {name: StateSpec(shape[-1], 0.0) for name, (shape, _) in graph.inputs.items() if name != "x"}
    return GraphStepper(graph, states, np.int16 if isinstance(interface, Interface) else np.float32)
