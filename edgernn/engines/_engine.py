"""An engine: one runtime, the files it reads, and the three ways to feed it: a sequence, a batch, step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from .._tflite_lstm import Flavour
from ..qmodel import IntArray, QuantizedModel, State, check_lengths
from ._graphs import BatchSession, Graph, GraphStepper, Session, StateStepper, batched, stepwise, whole
from ._install import missing

Form = Literal["sequence", "step", "stream"]

_EXPORTERS: Final = {".tflite": ("flatbuffers",), ".onnx": ("onnx",)}  # what writing an engine's files takes
_NO_OPERATOR: Final = {  # why an engine that reads such files does not run the profile tflite-lstm
    ".tflite": "it refuses variable tensors, in which TensorFlow Lite's LSTM operator keeps its states",
    ".onnx": "ONNX has no operator that computes the integers of TensorFlow Lite's LSTM",
}
_KEPT: Final = 128  # files of fixed shapes that an open engine keeps ready


@dataclass(frozen=True)
class Engine:
    """A runtime, or (without a suffix) the Numba kernel.

    package: what is imported for it. forms: the files it reads, its usual form first. fixed: it reads a TFLite sequence
    only where its number of steps is fixed. usual: one of the few that stand for their kind, for instance in a table.
    slow: too slow to be given much. compiled: each model takes a compiler's run, too long to be given many of them.
    one_file: the same file has all of its forms.
    flavour: in which it computes the profile tflite-lstm; None when it cannot.
    """

    name: str
    about: str
    package: str
    suffix: str = ""
    forms: tuple[Form, ...] = ()
    load: Callable[[bytes], Graph] | None = None
    fixed: bool = False
    usual: bool = False
    slow: bool = False
    compiled: bool = False
    one_file: bool = False
    flavour: Flavour | None = None

    def missing(self) -> str | None:
        """What to do to have this engine and the exporter of its files here, most often a command that installs one;
        or None when it can run here."""
        packages = [self.package, *_EXPORTERS.get(self.suffix, ())]
        return next((cure for cure in map(missing, packages) if cure is not None), None)

    def refusal(self, model: QuantizedModel) -> str | None:
        """Why it cannot compute this model, in words; None when it can."""
        if model.profile == "portable" or self.flavour is not None:
            return None
        why = _NO_OPERATOR.get(self.suffix, "it does not compute it")
        return f"{self.name} has no profile {model.profile}: {why}; use the profile portable"

    def forms_of(self, model: QuantizedModel) -> tuple[Form, ...]:
        """Those of `forms` that there are of this model, the usual one first."""
        if self.refusal(model) is not None:
            return ()
        forms = tuple(form for form in self.forms if form != "step" or not self._runs_operator(model))
        return tuple(form for form in forms if form == "sequence" or not model.bidirectional)

    def takes_batches(self, model: QuantizedModel) -> bool:
        """Whether it takes sequences of several lengths at once, as `open_batch` gives them to it."""
        return self.refusal(model) is None and not self._runs_operator(model)

    def open(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> Session:
        """A function from x [T, input_size] to [output_size], or to [T, output_size] for an output at every step.

        `content` is an exported file of that form; without it the model is exported anew. Raises ValueError when the
        runtime refuses the file, when it has not this model's inputs and outputs, and for a form that the engine or a
        bidirectional model has not (the kernel takes neither form nor file); the function raises it for a wrong type
        or shape of x, and RuntimeError when the runtime stops.
        """
        if not self.suffix:
            self._check_no_file(form, content)
            from ..firmware_sim import run as kernel

            return lambda x: kernel(model, x, flavour=self._kernels_flavour)[0]
        self._check_model(model)
        form = form or self.forms_of(model)[0]
        if form == "sequence":
            session = whole(self._sequences(model, content))
        else:
            session = stepwise(self.stream(model, form, content), model.every_step)
        return lambda x: session(model.check_input(x, ("time", "input_size")))

    def open_batch(self, model: QuantizedModel, content: bytes | None = None) -> BatchSession:
        """A function from x [N, T, input_size] and lengths [N] to what `firmware_sim.run_batch` gives of them.

        `content` is a sequence file that takes batches of N, or where no sequence ends before T one that takes N.
        Raises ValueError as `open` does, here and there.
        """
        if not self.suffix:
            self._check_no_file(None, content)
            from ..firmware_sim import run_batch

            return lambda x, lengths: run_batch(model, x, lengths, self._kernels_flavour)
        self._check_model(model)
        if not self.takes_batches(model):
            raise ValueError("the profile tflite-lstm takes one sequence at a time: its operator knows no lengths")
        batch = self._sequences(model, content, batches=True)

        def run(x: IntArray, lengths: npt.NDArray[np.integer]) -> IntArray:
            x = model.check_input(x, ("batch", "time", "input_size"))
            return batch(x, check_lengths(lengths, *x.shape[:2]))

        return run

    def stream(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> StateStepper:
        """The model one step at a time, with its states kept in between; in the form step, or stream where `form` says
        so. Raises ValueError as `open` does."""
        model.check_streaming()
        if not self.suffix:
            self._check_no_file(form, content)
            from ..firmware_sim import Stream

            return Stream(model, self._kernels_flavour)
        self._check_model(model)
        form = form or ("stream" if self._runs_operator(model) else "step")
        if form == "sequence":
            raise ValueError("the form sequence takes no single steps; name step, or stream (TFLite)")
        return _ModelStepper(model, form, self._graph(model, form, content))

    def run(self, model: QuantizedModel, x: IntArray) -> IntArray:
        """The outputs of x [T, input_size], as `open` gives them."""
        return self.open(model)(x)

    def export(self, model: QuantizedModel, form: Form, steps: int | None = None, batch: int | None = None) -> bytes:
        """The file of that form that this engine reads. A TFLite sequence takes `steps` steps, or (None) any number,
        and one sequence or a batch of `batch`; an ONNX file takes any number of both."""
        from .. import export

        if self.suffix == ".onnx":
            return export.to_onnx(model, "step" if form == "step" else "sequence")
        return export.to_tflite(model, form, steps, batch)

    def _sequences(self, model: QuantizedModel, content: bytes | None, *, batches: bool = False) -> BatchSession:
        """The form sequence, from a file (or from an export for each shape of x that needs a file of its own)."""
        one_for_all = content is not None or self.suffix != ".tflite"
        fixed_batch, fixed_steps = batches and not one_for_all, self.fixed and not one_for_all

        @lru_cache(maxsize=_KEPT)
        def session(batch: int | None, steps: int | None) -> BatchSession:
            own = batch is not None or steps is not None
            file = self.export(model, "sequence", steps, batch) if own else content
            return batched(self._graph(model, "sequence", file), keeps_states=self._runs_operator(model))

        def run(x: IntArray, lengths: npt.NDArray[np.integer]) -> IntArray:
            return session(len(x) if fixed_batch else None, x.shape[1] if fixed_steps else None)(x, lengths)

        return run if fixed_batch or fixed_steps else session(None, None)

    def _runs_operator(self, model: QuantizedModel) -> bool:
        """Whether it runs TensorFlow Lite's own operator, which keeps its states and knows no lengths."""
        return model.profile == "tflite-lstm" and self.suffix == ".tflite"

    @property
    def _kernels_flavour(self) -> Flavour:
        return self.flavour or "litert"

    def _check_model(self, model: QuantizedModel) -> None:
        refusal = self.refusal(model)
        if refusal is not None:
            raise ValueError(refusal)

    def _check_no_file(self, form: Form | None, content: bytes | None) -> None:
        if form is not None or content is not None:
            raise ValueError(f"{self.name} runs the model itself: it has no form, and reads no exported file")

    def _check_form(self, form: Form) -> None:
        if form not in self.forms:
            raise ValueError(f"{self.name} has no form {form!r}; it has {', '.join(self.forms)}")

    def _graph(self, model: QuantizedModel, form: Form, content: bytes | None) -> Graph:
        assert self.load is not None
        self._check_form(form)
        graph = self.load(self.export(model, form) if content is None else content)
        _check_graph(graph, model, form)
        return graph


def _check_graph(graph: Graph, model: QuantizedModel, form: Form) -> None:
    """Raise ValueError unless it has the inputs and outputs of the model in this form."""
    needed = {"x", *(model.states if form == "step" else ())}
    shape, dtype = graph.inputs.get("x", ((), ""))
    axes = 3 if form == "sequence" else 2
    fits = len(shape) == axes and shape[-1] == model.input_size and dtype == np.dtype(model.input_dtype).name
    if not (fits and set(graph.inputs) - {"lengths"} == needed and "y" in graph.outputs):
        inputs = (f"{name} {dtype} {list(shape)}" for name, (shape, dtype) in graph.inputs.items())
        found = f"inputs {', '.join(inputs)}; outputs {', '.join(graph.outputs)}"
        raise ValueError(f"not a {form} file of this model ({found}); export it anew")


class _ModelStepper:
    """A QuantizedModel's form step or stream, with its input and state checked."""

    def __init__(self, model: QuantizedModel, form: Form, graph: Graph) -> None:
        self._model, self._form = model, form
        self._stepper = GraphStepper(graph, model.states if form == "step" else {})

    def step(self, x: IntArray) -> IntArray:
        return self._stepper.step(self._model.check_input(x, ("input_size",)))

    def reset(self) -> None:
        self._stepper.reset()

    @property
    def state(self) -> State:
        """A copy of the state, by the names of model.states. Raises ValueError for the form stream."""
        self._check_form()
        return self._stepper.state

    @state.setter
    def state(self, state: State) -> None:
        self._check_form()
        self._model.check_state(state)
        self._stepper.state = state

    def _check_form(self) -> None:
        if self._form == "stream":
            cure = "reset it or go on; the portable profile's form step gives it"
            raise ValueError(f"the form stream keeps its state inside the file: {cure}")
