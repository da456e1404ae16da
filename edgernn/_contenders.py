"""What a benchmark compares: the float network, the one of int8 weights, and the integers, each in its runtimes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .engines import ENGINES, Engine, Graph, GraphStepper, Session, Stepper, batched, kernel, whole
from .floatmodel import FloatModel
from .qmodel import QuantizedModel

Array = npt.NDArray[Any]
_Form = Literal["sequence", "step"]

STEPS: Final = 100  # of a file whose steps are fixed


@dataclass(frozen=True)
class Contender:
    """One network in one runtime: of `model`, or the float network that belongs to it.

    `prepare` makes what the runtime takes of real inputs [T, input_size], `output` real outputs of what it gives.
    `content` is the file it needs, with the ending `suffix`; `runtime` is its name in `_probe`. `exact` tells that it
    computes the kernel's integers, `reference` that others may be measured by it: the float network. `stepper` is None
    for a bidirectional network, which takes no single steps. `flavoured` is the kernel in the runtime's flavour, which
    it is compared with in the profile tflite-lstm.
    """

    model: QuantizedModel
    name: str
    runtime: str
    content: bytes
    suffix: str
    session: Session
    stepper: Stepper | None
    prepare: Callable[[Array], Array]
    output: Callable[[Array], Array]
    exact: bool = False
    reference: bool = False
    flavoured: Session | None = None


def contenders(model: QuantizedModel, model_file: Path, float_file: Path | None) -> Iterator[Contender]:
    """The float network in every runtime that is here (where its file is), int8 weights, then the usual engines."""
    if float_file is not None:
        yield from _floats(model, float_file)
    if ENGINES["onnxruntime"].missing() is None:
        yield _weights_only(model)
    for engine in ENGINES.values():
        if engine.usual and engine.missing() is None and engine.refusal(model) is None:
            yield _exact(model, model_file, engine)


def _exact(model: QuantizedModel, model_file: Path, engine: Engine) -> Contender:
    name = f"{engine.name} exact" if engine.suffix == ".onnx" else engine.name
    session, stepper = engine.open(model), None if model.bidirectional else engine.stream(model)
    if engine.forms:
        form = engine.forms_of(model)[0]
        steps = STEPS if engine.fixed and form == "sequence" else None
        content, suffix = engine.export(model, form, steps), engine.suffix
    else:
        content, suffix = model_file.read_bytes(), model_file.suffix
    prepare, output = model.quantize_input, model.dequantize_output
    network = Contender(model, name, engine.name, content, suffix, session, stepper, prepare, output)
    if model.profile == "portable":
        return replace(network, exact=True)
    own = kernel(engine.flavour)  # without Numba the kernel has one flavour alone
    return replace(network, exact=True, flavoured=own.open(model)) if own.refusal(model) is None else network


def _floats(model: QuantizedModel, float_file: Path) -> Iterator[Contender]:
    from . import export

    if find_spec("torch") is not None:
        yield _torch(model, float_file)
    network = FloatModel.load(float_file)
    if ENGINES["onnxruntime"].missing() is None:
        yield _onnx("onnxruntime float", model, lambda form: export.float_to_onnx(network, form), reference=True)
    if ENGINES["litert"].missing() is None:
        yield _litert(model, network)


def _weights_only(model: QuantizedModel) -> Contender:
    from . import export

    return _onnx("onnxruntime int8 weights", model, lambda form: export.to_onnx(model, form, weights_only=True))


def _onnx(name: str, model: QuantizedModel, write: Callable[[_Form], bytes], reference: bool = False) -> Contender:
    load, content = _load("onnxruntime"), write("sequence")
    stepper = None if model.bidirectional else GraphStepper(load(write("step")), model.states, np.float32)
    session = whole(batched(load(content)))
    return Contender(model, name, "onnxruntime", content, ".onnx", session, stepper, _real, _real, reference=reference)


def _litert(model: QuantizedModel, network: FloatModel) -> Contender:
    from . import export

    load, content = _load("litert"), export.float_to_tflite(network)
    graph = load(content)
    run, stepper = whole(batched(graph)), None
    if not model.bidirectional:
        stepper = GraphStepper(load(export.float_to_tflite(network, "step")), model.states, np.float32)

    def session(x: Array) -> Array:
        graph.reset()  # an LSTM would go on from the sequence before
        return run(x)

    return Contender(
        model, "litert float", "litert", content, ".tflite", session, stepper, _real, _real, reference=True
    )


def _load(engine: str) -> Callable[[bytes], Graph]:
    load = ENGINES[engine].load
    assert load is not None
    return load


def _torch(model: QuantizedModel, float_file: Path) -> Contender:
    import torch

    from .nn import SequenceModel

    torch.set_num_threads(1)
    network = SequenceModel.load(float_file)
    network.quantizer = None
    network.eval()

    class Steps:
        def __init__(self) -> None:
            self.state: Any = None

        @torch.inference_mode()
        def step(self, x: Array) -> Array:
            y, self.state = network.run(torch.from_numpy(x[None, None]), None, self.state)
            return np.asarray(y[0, 0] if network.head_kind == "steps" else y[0])

        def reset(self) -> None:
            self.state = None

    @torch.inference_mode()
    def session(x: Array) -> Array:
        return np.asarray(network(torch.from_numpy(x[None]))[0])

    stepper = None if network.rnn.bidirectional else Steps()
    content, suffix = float_file.read_bytes(), float_file.suffix
    return Contender(model, "torch float", "torch", content, suffix, session, stepper, _real, _real, reference=True)


def _real(x: Array) -> Array:
    return x
