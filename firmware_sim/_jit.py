"""Compilation of the kernels: at their first call, and the machine code is kept for the next process."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.extending import register_jitable

from .. import fixedpoint

_F = TypeVar("_F", bound=Callable[..., Any])

_CONFIG: Final[Any] = numba.config


def inlined(function: _F) -> _F:
    """Let kernels call `function`: it is compiled into the caller."""
    result: _F = register_jitable(forceinline=True)(function)
    return result


def kernel(function: _F) -> _F:
    """Compile `function` when it is first called. It runs without the GIL and must not index below zero."""
    folder = _cache_folder()
    configured = _CONFIG.CACHE_DIR
    try:
        if folder is not None:
            _CONFIG.CACHE_DIR = str(folder)  # read once, when the kernel's cache is set up
        compiled = numba.njit(nogil=True, error_model="numpy", cache=folder is not None)(function)
    finally:
        _CONFIG.CACHE_DIR = configured
    return cast(_F, compiled)


@cache
def _cache_folder() -> Path | None:
    """The first writable folder for machine code, named by everything that goes into it; None if there is none.

    Numba's own cache notices an edit of the file that defines a kernel, but not of the files it calls into.
    """
    here, arithmetic = Path(__file__).parent, Path(fixedpoint.__file__)
    sources = [arithmetic, arithmetic.with_name("_sigmoid_table.py"), *sorted(here.glob("*.py"))]
    try:
        name = f"kernels-{_hash(sources)}"
    except OSError:
        return None
    configured = _CONFIG.CACHE_DIR
    for base in [Path(configured)] if configured else [here / "__pycache__", _user_cache()]:
        if _writable(base / name):
            return base / name
    return None


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256(f"numba {numba.__version__}, python {sys.version}".encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "edgernn"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "edgernn"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
