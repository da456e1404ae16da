"""The engines: every runtime that computes a QuantizedModel's integers, behind the same calls.

`engine.open(model)` gives a function from input integers [T, input_size] to the integers that `firmware_sim.run`
gives, `engine.open_batch(model)` one for padded batches, `engine.stream(model)` one step at a time. An exported file
can be opened in place of a fresh export.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from .._tflite_lstm import C_FLAVOUR, Flavour
from ..firmware_sim.native import host_suffix
from ._emulated import EmulatedEngine as EmulatedEngine
from ._emulated import firmware_folder as firmware_folder
from ._engine import Engine as Engine
from ._engine import Form as Form
from ._graphs import BatchSession as BatchSession
from ._graphs import Graph as Graph
from ._graphs import GraphStepper as GraphStepper
from ._graphs import Session as Session
from ._graphs import StateStepper as StateStepper
from ._graphs import Stepper as Stepper
from ._graphs import batched as batched
from ._graphs import stepwise as stepwise
from ._graphs import whole as whole
from ._install import TFLITE_RUNTIME
from ._install import install_command as install_command
from ._install import missing as missing
from ._install import tflite_runtime_version as tflite_runtime_version
from ._native import NativeEngine as NativeEngine
from ._native import built_library as built_library
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

_LITERT: Final = "ai_edge_litert"
_CORES: Final = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "rv32imc")
_C_FORMS: Final[tuple[Form, ...]] = ("sequence", "step")
_ONNX_FORMS: Final[tuple[Form, ...]] = ("sequence", "step")


def _tflite(
    name: str,
    about: str,
    package: str,
    load: Callable[[bytes], Graph],
    *,
    fixed: bool = False,
    usual: bool = False,
    flavour: Flavour | None = "litert",
) -> Engine:
    forms: tuple[Form, ...] = ("step", "stream", "sequence") if fixed else ("sequence", "step", "stream")
    return Engine(name, about, package, ".tflite", forms, load, fixed=fixed, usual=usual, flavour=flavour)


def _tflite_runtime(name: str, about: str, resolver: str) -> Engine:
    return _tflite(name, f"tflite-runtime, {about}", TFLITE_RUNTIME, partial(tflite_runtime, resolver=resolver))


def _emulated(core: str) -> EmulatedEngine:
    about = f"C for {core}, emulated by QEMU"
    return EmulatedEngine(
        f"qemu-{core}", about, "", ".c", _C_FORMS, compiled=True, one_file=True, flavour=C_FLAVOUR, core=core
    )


ENGINES: Final[dict[str, Engine]] = {
    engine.name: engine
    for engine in (
        Engine("numba", "the int8 kernel, the reference", "numba", usual=True, flavour="litert"),
        NativeEngine(
            "native",
            "C, compiled for this computer",
            "",
            host_suffix(),
            _C_FORMS,
            usual=True,
            one_file=True,
            flavour=C_FLAVOUR,
        ),
        _tflite("litert", "LiteRT, delegate XNNPACK", _LITERT, partial(litert, resolver=DEFAULT), usual=True),
        _tflite("litert-no-delegate", "LiteRT, its own kernels", _LITERT, partial(litert, resolver=NO_DELEGATE)),
        _tflite("litert-reference", "LiteRT, reference kernels", _LITERT, partial(litert, resolver=REFERENCE)),
        _tflite("litert-compiled", "LiteRT, CompiledModel", _LITERT, litert_compiled, fixed=True, flavour=None),
        _tflite_runtime("tflite-runtime", "delegate XNNPACK", DEFAULT),
        _tflite_runtime("tflite-runtime-no-delegate", "its own kernels", NO_DELEGATE),
        _tflite_runtime("tflite-runtime-reference", "reference kernels", REFERENCE),
        _tflite("tflm", "TensorFlow Lite Micro", "tflite_micro", Tflm, fixed=True, usual=True, flavour="tflm"),
        Engine("onnxruntime", "ONNX Runtime", "onnxruntime", ".onnx", _ONNX_FORMS, OnnxRuntime, usual=True),
        Engine("onnx-reference", "ONNX's reference evaluator", "onnx", ".onnx", _ONNX_FORMS, OnnxReference, slow=True),
        *map(_emulated, _CORES),
    )
}


def kernel(flavour: Flavour | None = None) -> Engine:
    """The reference: numba, or native where Numba is not installed. flavour: in which it computes the profile
    tflite-lstm."""
    engine = ENGINES["numba" if ENGINES["numba"].missing() is None else "native"]
    return engine if flavour is None else replace(engine, flavour=flavour)


def select(names: Sequence[str] | None) -> list[Engine]:
    """The named engines, or all that are installed. Raises ValueError for an unknown or missing one."""
    if names is None:
        return [engine for engine in ENGINES.values() if engine.missing() is None]
    for name in names:
        if name not in ENGINES:
            raise ValueError(f"unknown engine {name!r}; known are {', '.join(ENGINES)}")
        cure = ENGINES[name].missing()
        if cure is not None:
            raise ValueError(f"the engine {name} is not installed here: {cure}")
    return [ENGINES[name] for name in names]


def export_path(model_file: Path, form: Form, suffix: str) -> Path:
    """Where `edgernn export` puts a form of a model: model.tflite, model_step.onnx, .. beside model.ernn."""
    return model_file.with_name(f"{model_file.stem}{'' if form == 'sequence' else f'_{form}'}{suffix}")


def fixed_path(model_file: Path, steps: int | None = None, batch: int | None = None) -> Path:
    """Where `edgernn export --steps --batch` puts a TFLite sequence form: model_T20.tflite, model_T20_B8.tflite, .."""
    fixed = (f"_{letter}{number}" for letter, number in (("T", steps), ("B", batch)) if number is not None)
    return model_file.with_name(f"{model_file.stem}{''.join(fixed)}.tflite")
