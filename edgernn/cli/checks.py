"""checks: what is installed here, and what each missing piece would give."""

import argparse

from ._output import emit, table

HELP = "show what is installed here, and how to get what is missing"

_PIECES = (
    # (import name, distribution, what it gives)
    ("numpy", "numpy", "everything"),
    ("numba", "numba", "the int8 kernel"),
    ("safetensors", "safetensors", "model files"),
    ("tqdm", "tqdm", "progress bars"),
    ("torch", "torch", "train, quantize, and float accuracy in eval and benchmark"),
    ("flatbuffers", "flatbuffers", "export to TFLite"),
    ("onnx", "onnx", "export to ONNX"),
    ("ai_edge_litert", "ai-edge-litert", "the engine litert"),
    ("onnxruntime", "onnxruntime", "the engine onnxruntime"),
    ("tflite_micro", "tflite-micro", "the engine tflm"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # the common options are all there is


def run(args: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from ..engines import install_command

    pieces = []
    for package, distribution, gives in _PIECES:
        installed = find_spec(package) is not None
        try:
            release = version(distribution) if installed else None
        except PackageNotFoundError:
            release = "unknown"
        command = None if installed else install_command(package)
        pieces.append({"name": distribution, "version": release, "gives": gives, "install": command})
    rows = [(piece["name"], piece["version"] or "missing", piece["gives"], piece["install"] or "") for piece in pieces]
    emit(args, table(("package", "version", "gives", "install with"), rows), {"packages": pieces})
    return 0
