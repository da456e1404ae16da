"""Exporters: a QuantizedModel (or FloatModel) becomes a `.tflite` or `.onnx` file, as bytes, or C."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .c import to_c as to_c
    from .onnx import float_to_onnx as float_to_onnx
    from .onnx import to_onnx as to_onnx
    from .tflite import float_to_tflite as float_to_tflite
    from .tflite import to_tflite as to_tflite

_HOMES = {"to_c": "c", "float_to_onnx": "onnx", "float_to_tflite": "tflite", "to_onnx": "onnx", "to_tflite": "tflite"}

__all__ = ["float_to_onnx", "float_to_tflite", "to_c", "to_onnx", "to_tflite"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
