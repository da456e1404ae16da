"""Which packages and runtimes are here, and what to do to have a missing one."""

import os
import shlex
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ._remote import SCRIPT, Worker

TFLITE_RUNTIME: Final = "tflite_runtime"
TFLITE_RUNTIME_PYTHON: Final = "EDGERNN_TFLITE_RUNTIME"  # environment variable: the Python that has it

_TFLITE_RUNTIME_NEEDS: Final = "tflite-runtime==2.14.0 'numpy<2'"

_INSTALL: Final = {
    "numba": "pip install edgernn",
    "torch": "pip install 'edgernn[train]'",
    "onnx": "pip install 'edgernn[export]'",
    "flatbuffers": "pip install 'edgernn[export]'",
    "onnxruntime": "pip install 'edgernn[run]'",
    "ai_edge_litert": "pip install 'edgernn[run]'",
    "tflite_micro": "pip install tflite-micro",
}


def install_command(package: str) -> str:
    """The command that installs an importable package."""
    return _INSTALL.get(package, f"pip install {package}")


def missing(package: str) -> str | None:
    """What to do to have a package that is not here: most often the command that installs it. Else None."""
    if package == TFLITE_RUNTIME:
        return _tflite_runtime_missing()
    return install_command(package) if find_spec(package) is None else None


def tflite_runtime_version() -> str | None:
    """The version of tflite-runtime, or None where it is missing."""
    return None if _tflite_runtime_missing() else tflite_runtime_worker().version


def tflite_runtime_worker() -> Worker:
    """tflite-runtime in a Python of its own: it needs NumPy 1, and Python 3.10 or 3.11."""
    return _worker("tflite-runtime", (str(_tflite_runtime_python()), "-I"), TFLITE_RUNTIME)


def litert_worker() -> Worker:
    """LiteRT in a process of its own: its CompiledModel writes to the terminal, at exit as well."""
    return _worker("LiteRT's CompiledModel", (sys.executable, "-P"), "ai_edge_litert")


@cache
def _worker(title: str, python: tuple[str, ...], package: str) -> Worker:
    return Worker(title, [*python, str(SCRIPT), package])


def _tflite_runtime_python() -> Path:
    """The Python named by EDGERNN_TFLITE_RUNTIME, or that of the environment tflite-runtime within our own."""
    named = os.environ.get(TFLITE_RUNTIME_PYTHON)
    return Path(named) if named else _in_environment("python")


def _in_environment(program: str) -> Path:
    folder = Path(sys.prefix) / "tflite-runtime"
    return folder / "Scripts" / f"{program}.exe" if sys.platform == "win32" else folder / "bin" / program


def _tflite_runtime_missing() -> str | None:
    python = _tflite_runtime_python()
    if not python.is_file():
        if os.environ.get(TFLITE_RUNTIME_PYTHON):
            return f"{TFLITE_RUNTIME_PYTHON} names {python}, which is not there"
        folder, pip = (shlex.quote(str(path)) for path in (python.parents[1], _in_environment("pip")))
        return f"python3.11 -m venv {folder} && {pip} install {_TFLITE_RUNTIME_NEEDS}"
    return _cannot_start(python)


@cache
def _cannot_start(python: Path) -> str | None:
    """What to do for a Python that does not start tflite-runtime, else None. Tried once."""
    try:
        tflite_runtime_worker().version  # noqa: B018 (raises when it cannot be started)
    except RuntimeError as error:
        if os.environ.get(TFLITE_RUNTIME_PYTHON):
            return f"{TFLITE_RUNTIME_PYTHON} names {python}, which is no Python with {_TFLITE_RUNTIME_NEEDS} ({error})"
        return f"{shlex.quote(str(python))} -m pip install {_TFLITE_RUNTIME_NEEDS} ({error})"
    return None
