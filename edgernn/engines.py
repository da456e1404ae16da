"""The engines: every runtime that computes a QuantizedModel's integers, behind the same calls.

`engine.open(model)` gives a function from input integers [T, input_size] to the integers that `firmware_sim.run`
gives; `engine.run(model, x)` does it once. An exported file can be opened in place of a fresh export.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np

from ._artifacts import read_tflite
from .qmodel import IntArray, QuantizedModel, StateSpec

Form = Literal["sequence", "step", "stream"]
Session = Callable[[IntArray], IntArray]
Tensors = dict[str, Any]

_INSTALL: Final = {
    "numba": "pip install edgernn",
    "torch": "pip install 'edgernn[train]'",
    "onnx": "pip install 'edgernn[export]'",
    "flatbuffers": "pip install 'edgernn[export]'",
    "onnxruntime": "pip install 'edgernn[run]'",
    "ai_edge_litert": "pip install 'edgernn[run]'",
    "tflite_micro": "pip install tflite-micro",
}

_EXPORTERS: Final = {".tflite": ("flatbuffers",), ".onnx": ("onnx",)}  # what writing an engine's files takes


def install_command(package: str) -> str:
    """The command that installs an importable package."""
    return _INSTALL.get(package, f"pip install {package}")


class Graph(Protocol):
    """An exported file in its runtime: named tensors in, named tensors out. `reset` clears states it keeps itself."""

    @property
    def inputs(self) -> Sequence[str]: ...

    @property
    def outputs(self) -> Sequence[str]: ...

    def __call__(self, feeds: Tensors) -> Tensors: ...

    def reset(self) -> None: ...


class Stepper(Protocol):
    """A model that takes one row of input integers [input_size] at a time, as `firmware_sim.Stream` does."""

    def step(self, x: IntArray) -> IntArray: ...

    def reset(self) -> None: ...


@dataclass(frozen=True)
class Engine:
    """A runtime, or (without `load`) the Numba kernel. `forms` are the files it reads, its usual form first."""

    name: str
    package: str
    suffix: str = ""
    forms: tuple[Form, ...] = ()
    load: Callable[[bytes], Graph] | None = None

    def missing(self) -> str | None:
        """The command that installs this engine or the exporter of its files, or None when it can run here."""
        packages = [self.package, *_EXPORTERS.get(self.suffix, ())]
        return next((install_command(package) for package in packages if find_spec(package) is None), None)

    def open(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> Session:
        """A function from x [T, input_size] to [output_size], or to [T, output_size] for an output at every step.

        `content` is an exported file of that form; without it the model is exported anew.
        Raises ValueError when the runtime refuses the file, or when it has not this model's inputs and outputs.
        """
        if self.load is None:
            from .firmware_sim import run

            return lambda x: run(model, x)[0]
        form = form or self.forms[0]
        if form == "sequence":
            return whole(self._graph(model, form, content))
        return _stepwise(self.stream(model, form, content), model.every_step)

    def stream(self, model: QuantizedModel, form: Form = "step", content: bytes | None = None) -> Stepper:
        """The model one step at a time, with its states kept in between. Raises ValueError as `open` does."""
        if self.load is None:
            from .firmware_sim import Stream

            return Stream(model)
        return GraphStepper(self._graph(model, form, content), model.states if form == "step" else {})

    def _graph(self, model: QuantizedModel, form: Form, content: bytes | None) -> Graph:
        assert self.load is not None
        graph = self.load(self.export(model, form) if content is None else content)
        expected = {"x", *(model.states if form == "step" else ())}
        if not (expected <= set(graph.inputs) and "y" in graph.outputs):
            found = f"inputs {', '.join(graph.inputs)}; outputs {', '.join(graph.outputs)}"
            raise ValueError(f"not a {form} file of this model ({found}); export it anew")
        return graph

    def run(self, model: QuantizedModel, x: IntArray) -> IntArray:
        """The outputs of x [T, input_size], as `open` gives them."""
        return self.open(model)(x)

    def export(self, model: QuantizedModel, form: Form, steps: int | None = None) -> bytes:
        """The file of that form that this engine reads; a TFLite sequence takes `steps` steps, or (None) any number."""
        from . import export

        if self.suffix == ".tflite":
            return export.to_tflite(model, form, steps)
        return export.to_onnx(model, "step" if form == "step" else "sequence")


def export_path(model_file: Path, form: Form, suffix: str) -> Path:
    """Where `edgernn export` puts a form of a model: model.tflite, model_step.onnx, .. beside model.ernn."""
    return model_file.with_name(f"{model_file.stem}{'' if form == 'sequence' else f'_{form}'}{suffix}")


def fixed_path(model_file: Path, steps: int) -> Path:
    """Where `edgernn export --steps` puts the TFLite sequence form of a fixed length: model_T20.tflite."""
    return model_file.with_name(f"{model_file.stem}_T{steps}.tflite")


def whole(graph: Graph) -> Session:
    """The outputs of whole sequences x [T, ..] from a graph of the form sequence."""

    def run(x: IntArray) -> IntArray:
        lengths = {"lengths": np.array([len(x)], np.int32)} if "lengths" in graph.inputs else {}
        y: IntArray = graph({"x": x[None], **lengths})["y"][0]
        return y

    return run


def _stepwise(stepper: Stepper, every_step: bool) -> Session:
    def run(x: IntArray) -> IntArray:
        stepper.reset()
        outputs = [stepper.step(row) for row in x]
        return np.array(outputs) if every_step else outputs[-1]

    return run


class GraphStepper:
    """Carries the states from a graph's outputs to its next inputs; or none, where the graph keeps them itself."""

    def __init__(self, graph: Graph, states: dict[str, StateSpec], dtype: type[np.generic] = np.int16) -> None:
        self._graph, self._kinds, self._dtype = graph, states, dtype
        self._states: Tensors = {}
        self.reset()

    def step(self, x: IntArray) -> IntArray:
        result = self._graph({"x": x[None], **self._states})
        self._states = {name: result[f"{name}_out"] for name in self._kinds}
        y: IntArray = result["y"][0]
        return y

    def reset(self) -> None:
        self._states = {name: np.zeros((1, kind.size), self._dtype) for name, kind in self._kinds.items()}
        self._graph.reset()


# ---- the runtimes ----------------------------------------------------------------------------------------------------


class _LiteRt:
    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

        try:
            with _silence():
                self._interpreter = Interpreter(model_content=content, num_threads=1)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT refuses the file: {error}") from None
        self._inputs = {entry["name"]: entry for entry in self._interpreter.get_input_details()}
        self._outputs = {entry["name"]: entry["index"] for entry in self._interpreter.get_output_details()}
        self._shapes = {name: tuple(entry["shape"]) for name, entry in self._inputs.items()}
        self.inputs, self.outputs = list(self._inputs), list(self._outputs)

    def __call__(self, feeds: Tensors) -> Tensors:
        shapes = {name: value.shape for name, value in feeds.items()}
        if shapes != self._shapes:
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, value in feeds.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def reset(self) -> None:
        if "reset" in self._interpreter.get_signature_list():
            self._interpreter.get_signature_runner("reset")()


class _TfliteMicro:
    def __init__(self, content: bytes) -> None:
        from tflite_micro import runtime  # type: ignore[import-untyped]

        artifact = read_tflite(content)
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        try:
            with _silence():
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=20 * len(content) + (1 << 20))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"TensorFlow Lite Micro refuses the file: {error}") from None

    def __call__(self, feeds: Tensors) -> Tensors:
        for index, name in enumerate(self.inputs):
            self._interpreter.set_input(feeds[name], index)
        self._interpreter.invoke()
        return {name: np.array(self._interpreter.get_output(index)) for index, name in enumerate(self.outputs)}

    def reset(self) -> None:
        self._interpreter.reset()


class _OnnxRuntime:
    def __init__(self, content: bytes) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ValueError(f"ONNX Runtime refuses the file: {error}") from None
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def __call__(self, feeds: Tensors) -> Tensors:
        try:
            return dict(zip(self.outputs, self._session.run(None, feeds), strict=True))
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime stopped: {error}") from None

    def reset(self) -> None:
        pass


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what a runtime's C++ writes to stderr (a banner; errors that it also raises) from the user's terminal."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


ENGINES: Final[dict[str, Engine]] = {
    engine.name: engine
    for engine in (
        Engine("numba", "numba"),
        Engine("litert", "ai_edge_litert", ".tflite", ("sequence", "step", "stream"), _LiteRt),
        Engine("tflm", "tflite_micro", ".tflite", ("step", "stream"), _TfliteMicro),
        Engine("onnxruntime", "onnxruntime", ".onnx", ("sequence", "step"), _OnnxRuntime),
    )
}


def select(names: Sequence[str] | None) -> list[Engine]:
    """The named engines, or all that are installed. Raises ValueError for an unknown or missing one."""
    if names is None:
        return [engine for engine in ENGINES.values() if engine.missing() is None]
    for name in names:
        if name not in ENGINES:
            raise ValueError(f"unknown engine {name!r}; known are {', '.join(ENGINES)}")
        command = ENGINES[name].missing()
        if command is not None:
            raise ValueError(f"the engine {name} is not installed here: {command}")
    return [ENGINES[name] for name in names]
