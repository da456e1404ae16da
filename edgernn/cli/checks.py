"""checks: what is installed here, and what each missing piece would give."""

import argparse
from collections.abc import Iterator
from typing import Any

from ._output import emit, table

HELP = "show what is installed here, which engines that gives, and how to get what is missing"

_PIECES = (
    # (import name, distribution, what it gives)
    ("numpy", "numpy", "everything"),
    ("numba", "numba", "the engine numba, train, simulate"),
    ("safetensors", "safetensors", "model files"),
    ("tqdm", "tqdm", "progress bars"),
    ("torch", "torch", "train, quantize, and float accuracy in eval and benchmark"),
    ("flatbuffers", "flatbuffers", "export to TFLite"),
    ("onnx", "onnx", "export to ONNX, the engine onnx-reference"),
    ("ai_edge_litert", "ai-edge-litert", "the engines litert, litert-.."),
    ("onnxruntime", "onnxruntime", "the engine onnxruntime"),
    ("tflite_micro", "tflite-micro", "the engine tflm"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # the common options are all there is


def run(args: argparse.Namespace) -> int:
    from ..engines import ENGINES, missing, tflite_runtime_version

    pieces = [_piece(*piece) for piece in _PIECES]
    gives = "the engines tflite-runtime, tflite-runtime-.."
    version, cure = tflite_runtime_version(), missing("tflite_runtime")
    pieces.append({"name": "tflite-runtime", "version": version, "gives": gives, "install": cure})
    programs = list(_programs())
    engines: list[dict[str, Any]] = [
        {"name": engine.name, "is": engine.about, "reads": engine.suffix or ".ernn", "install": engine.missing()}
        for engine in ENGINES.values()
    ]
    packages, tools = (
        [(p["name"], p["version"] or "missing", p["gives"], p["install"] or "") for p in found]
        for found in (pieces, programs)
    )
    rows = [(e["name"], "no" if e["install"] else "yes", e["is"], e["reads"], e["install"] or "") for e in engines]
    text = [
        table(("package", "version", "gives", "install with"), packages),
        "",
        table(("program", "version", "gives", "install with"), tools),
        "",
        table(("engine", "installed", "is", "reads", "install with"), rows),
    ]
    emit(args, "\n".join(text), {"packages": pieces, "programs": programs, "engines": engines})
    return 0


def _programs() -> Iterator[dict[str, Any]]:
    """The compilers and emulators, as `_piece` has the packages."""
    from ..firmware_sim.emulation import PROGRAMS, install_command, version

    yield _c_compiler()
    for name, (gives, _) in PROGRAMS.items():
        yield {"name": name, "version": version(name), "gives": gives, "install": install_command((name,))}


def _c_compiler() -> dict[str, Any]:
    from ..firmware_sim.native import find_compiler, missing

    cure = missing()
    compiler = find_compiler() if cure is None else None
    version = compiler and f"{compiler.name} ({' '.join(compiler.command)}), {compiler.instructions}"
    return {"name": "cc", "version": version, "gives": "the engine native, build", "install": cure}


def _piece(package: str, distribution: str, gives: str) -> dict[str, Any]:
    """A package: its version, None where it is missing, and then the command that installs it."""
    from importlib.metadata import PackageNotFoundError, version

    from ..engines import missing

    cure = missing(package)
    try:
        release = version(distribution) if cure is None else None
    except PackageNotFoundError:
        release = "unknown"
    return {
        "name": distribution,
        "version": release,
        "gives": gives,
        "install": cure,
    }
