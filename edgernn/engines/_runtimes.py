"""The runtimes: each makes a `Graph` of the bytes of a file, and raises ValueError for a file that it refuses."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from .._artifacts import read_tflite
from ._graphs import Graph, silence
from ._install import litert_worker, tflite_runtime_worker
from ._worker import InterpreterGraph, Specs, Tensors

DEFAULT: Final = "AUTO"  # with the delegate for CPUs, XNNPACK
NO_DELEGATE: Final = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
REFERENCE: Final = "BUILTIN_REF"  # the kernels written for clarity
_COMPILED: Final = "compiled"

_NAMES: Final = {"tensor(float)": "float32", "tensor(double)": "float64"}  # where NumPy's are others

_ARENA: Final = 1 << 20  # bytes
_LARGEST_ARENA: Final = 1 << 28


def litert(content: bytes, resolver: str) -> Graph:
    from ai_edge_litert import interpreter  # type: ignore[import-untyped]

    try:
        with silence():
            return InterpreterGraph(interpreter, content, resolver)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT refuses the file: {error}") from None


def litert_compiled(content: bytes) -> Graph:
    return litert_worker().load(content, _COMPILED)


def tflite_runtime(content: bytes, resolver: str) -> Graph:
    read_tflite(content)  # raises ValueError for a damaged file, on which its process would crash
    return tflite_runtime_worker().load(content, resolver)


class Tflm:
    """TensorFlow Lite Micro's interpreter; it finds tensors by their place, so that their names are read here."""

    def __init__(self, content: bytes) -> None:
        from tflite_micro import runtime  # type: ignore[import-untyped]

        artifact = read_tflite(content)
        self.outputs = list(artifact.outputs)
        try:
            with silence():
                self._interpreter = _with_arena(runtime.Interpreter.from_bytes, content)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"TensorFlow Lite Micro refuses the file: {error}") from None
        details = [self._interpreter.get_input_details(index) for index in range(len(artifact.inputs))]
        self.inputs: Specs = {
            name: (tuple(int(size) for size in entry["shape"]), np.dtype(entry["dtype"]).name)
            for name, entry in zip(artifact.inputs, details, strict=True)
        }

    def __call__(self, feeds: Tensors) -> Tensors:
        for index, name in enumerate(self.inputs):
            self._interpreter.set_input(feeds[name], index)
        self._interpreter.invoke()
        return {name: np.array(self._interpreter.get_output(index)) for index, name in enumerate(self.outputs)}

    def reset(self) -> None:
        self._interpreter.reset()


def _with_arena(make: Callable[..., Any], content: bytes) -> Any:
    """An interpreter with memory for an ordinary file, or with twice as much, ... for long sequences, large batches."""
    arena = _ARENA
    while True:
        try:
            return make(content, arena_size=20 * len(content) + arena)
        except (RuntimeError, ValueError):
            if arena == _LARGEST_ARENA:
                raise
            arena *= 2


class _OnnxGraph:
    """A graph whose `_runner` takes names and arrays and gives its outputs in order; it keeps nothing to reset.

    properties: the file's metadata.
    """

    title: str
    inputs: Specs
    outputs: list[str]
    properties: dict[str, str]
    _runner: Any

    def __call__(self, feeds: Tensors) -> Tensors:
        try:
            return dict(zip(self.outputs, self._runner.run(None, feeds), strict=True))
        except Exception as error:  # of many kinds that share no other base
            raise RuntimeError(f"{self.title} stopped: {error}") from None

    def reset(self) -> None:
        pass


class OnnxRuntime(_OnnxGraph):
    """ONNX Runtime, on one thread of the CPU."""

    title = "ONNX Runtime"

    def __init__(self, content: bytes) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._runner = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ValueError(f"{self.title} refuses the file: {error}") from None
        self.inputs = {
            entry.name: (_sizes(entry.shape), _NAMES.get(entry.type, entry.type[len("tensor(") : -1]))
            for entry in self._runner.get_inputs()
        }
        self.outputs = [entry.name for entry in self._runner.get_outputs()]
        self.properties = self._runner.get_modelmeta().custom_metadata_map


class OnnxReference(_OnnxGraph):
    """The reference implementation that comes with the ONNX standard, in Python and NumPy."""

    title = "ONNX's reference evaluator"

    def __init__(self, content: bytes) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            model = onnx.load_model_from_string(content)
            self._runner = ReferenceEvaluator(model)
        except Exception as error:  # protobuf and onnx raise many kinds
            raise ValueError(f"{self.title} refuses the file: {error}") from None
        types = {value.name: value.type.tensor_type for value in model.graph.input}
        self.inputs = {
            name: (
                _sizes([dim.dim_value or dim.dim_param for dim in kind.shape.dim]),
                onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "",
            )
            for name, kind in types.items()
        }
        self.outputs = [value.name for value in model.graph.output]
        self.properties = {entry.key: entry.value for entry in model.metadata_props}


def _sizes(shape: Iterable[int | str | None]) -> tuple[int, ...]:
    """A shape, with -1 for an axis that only has a name."""
    return tuple(size if isinstance(size, int) else -1 for size in shape)
