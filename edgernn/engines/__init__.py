"""The engines: every runtime that computes a QuantizedModel's integers, behind the same calls.

`engine.open(model)` gives a function from input integers [T, input_size] to the integers that `firmware_sim.run`
gives, `engine.open_batch(model)` one for padded batches, `engine.stream(model)` one step at a time. An exported file
can be opened in place of a fresh export.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from ._engine import Engine as Engine
from ._engine import Form as Form
from ._graphs import BatchSession as BatchSession
from ._graphs import Graph as Graph
from ._graphs import GraphStepper as GraphStepper
from ._graphs import Session as Session
from ._graphs import StateStepper as StateStepper
from ._graphs import Stepper as Stepper
from ._graphs import stepwise as stepwise
from ._graphs import whole as whole
from ._install import TFLITE_RUNTIME
from ._install import install_command as install_command
from ._runtimes import (
    DEFAULT,
    NO_DELEGATE,
    REFERENCE,
    OnnxReference,
    OnnxRuntime,
    Tflm,
    litert,
    litert_compiled,
    tflite_runtime,
)
from ._worker import Tensors as Tensors


def _litert(name: str, about: str, resolver: str, *, usual: bool = False) -> Engine:
    load = partial(litert, resolver=resolver)
    return Engine(name, about, "ai_edge_litert", ".tflite", ("sequence", "step", "stream"), load, usual=usual)


def _tflite_runtime(name: str, about: str, resolver: str) -> Engine:
    load = partial(tflite_runtime, resolver=resolver)
    return Engine(name, about, TFLITE_RUNTIME, ".tflite", ("sequence", "step", "stream"), load)


_STEPS_FIRST: Final[tuple[Form, ...]] = ("step", "stream", "sequence")

ENGINES: Final[dict[str, Engine]] = {
    engine.name: engine
    for engine in (
        Engine("numba", "the int8 kernel, the reference", "numba", usual=True),
        _litert("litert", "LiteRT, delegate XNNPACK", DEFAULT, usual=True),
        _litert("litert-no-delegate", "LiteRT, its own kernels", NO_DELEGATE),
        _litert("litert-reference", "LiteRT, reference kernels", REFERENCE),
        Engine(
            "litert-compiled",
            "LiteRT, CompiledModel",
            "ai_edge_litert",
            ".tflite",
            _STEPS_FIRST,
            litert_compiled,
            fixed=True,
        ),
        _tflite_runtime("tflite-runtime", "tflite-runtime 2.14, delegate XNNPACK", DEFAULT),
        _tflite_runtime("tflite-runtime-no-delegate", "tflite-runtime 2.14, its own kernels", NO_DELEGATE),
        _tflite_runtime("tflite-runtime-reference", "tflite-runtime 2.14, reference kernels", REFERENCE),
        Engine(
            "tflm",
            "TensorFlow Lite Micro",
            "tflite_micro",
            ".tflite",
            _STEPS_FIRST,
            Tflm,
            fixed=True,
            usual=True,
        ),
        Engine("onnxruntime", "ONNX Runtime", "onnxruntime", ".onnx", ("sequence", "step"), OnnxRuntime, usual=True),
        Engine(
            "onnx-reference",
            "ONNX's reference evaluator",
            "onnx",
            ".onnx",
            ("sequence", "step"),
            OnnxReference,
            slow=True,
        ),
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


def export_path(model_file: Path, form: Form, suffix: str) -> Path:
    """Where `edgernn export` puts a form of a model: model.tflite, model_step.onnx, .. beside model.ernn."""
    return model_file.with_name(f"{model_file.stem}{'' if form == 'sequence' else f'_{form}'}{suffix}")


def fixed_path(model_file: Path, steps: int | None = None, batch: int | None = None) -> Path:
    """Where `edgernn export --steps --batch` puts a TFLite sequence form: model_T20.tflite, model_T20_B8.tflite, .."""
    fixed = (f"_{letter}{number}" for letter, number in (("T", steps), ("B", batch)) if number is not None)
    return model_file.with_name(f"{model_file.stem}{''.join(fixed)}.tflite")
