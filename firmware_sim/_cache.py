"""The kernels' machine code on disk: found again by the next process, never stale, removed when nobody uses it."""

import hashlib
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numba
from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target

from .. import fixedpoint
from .._files import write_atomic
from ._folders import is_writable, remove_unused, user_cache

_CONFIG: Final[Any] = numba.config
_SERIALIZE: Final[Any] = serialize
_COMPILED: Final[Any] = CompileResult
_OPTIONS: Final = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK")  # Numba's, which change what it compiles


# ---- the folder ------------------------------------------------------------------------------------------------------


@cache
def cache_folder() -> Path | None:
    """The first writable folder for machine code, named by everything that goes into it; None if there is none.

    Numba's own cache notices an edit of the file that defines a kernel, but not of the files it calls into.
    """
    here = Path(__file__).parent
    try:
        name = f"kernels-{_hash(here.parent, [*_sources(here)])}"
    except OSError:
        return None
    configured = _CONFIG.CACHE_DIR
    for base in [Path(configured).absolute()] if configured else [here / "__pycache__", user_cache()]:
        if _use(base / name):
            return base / name
    return None


def _sources(here: Path) -> Iterator[Path]:
    """Every file that has kernels, or what they call."""
    arithmetic = Path(fixedpoint.__file__)
    yield from (arithmetic, arithmetic.with_name("_sigmoid_table.py"))
    for files in (here.glob("*.py"), here.glob("simd/**/*.py"), here.parent.glob("quantize/fused/**/*.py")):
        yield from sorted(files)


def _hash(root: Path, files: list[Path]) -> str:
    """Of Numba, the processor it compiles for, how it is told to, and the sources."""
    target = cpu_target.target_context.codegen().magic_tuple()
    options = [getattr(_CONFIG, name) for name in _OPTIONS]
    about = (numba.__version__, sys.version, target, options, os.environ.get("EDGERNN_SIMD", ""))
    digest = hashlib.sha256(repr(about).encode())
    for file in files:
        digest.update(f"\0{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _use(path: Path) -> bool:
    """Make the folder, or note that it is in use; False when it cannot be written."""
    try:
        new = not path.exists()
        if not is_writable(path):
            return False
        os.utime(path)
    except OSError:
        return False
    if new:  # a process that begins to use the code of former sources just now compiles it again
        remove_unused(path.parent, "kernels-" + 16 * "[0-9a-f]")
    return True


# ---- the files in it -------------------------------------------------------------------------------------------------


class KernelCache:
    """A kernel's machine code, as Numba's dispatcher asks for it: a file for each signature.

    Numba's own cache numbers its files in an index: of processes that compile at once, one could be given another's
    code. Like that, and like Python's byte code, it trusts what lies in the folder.
    """

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        source = Path(inspect.getfile(function)).read_bytes()
        self._identity = (function.__qualname__, source, _SERIALIZE.dumps(cells))
        self._name = f"{function.__module__}.{function.__name__}"
        self._folder = folder

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """What `save_overload` kept of this signature; None if there is nothing."""
        context.refresh()
        try:
            return _COMPILED._rebuild(context, *pickle.loads(self._file(signature).read_bytes()))
        except Exception:  # no such file, or one that a failing disk damaged
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what was compiled. Where that cannot be done, the next process compiles it again."""
        if not compiled.library.has_dynamic_globals:  # addresses of this process
            with suppress(ValueError):
                write_atomic(self._file(signature), _SERIALIZE.dumps(compiled._reduce()))

    def _file(self, signature: Any) -> Path:
        digest = hashlib.sha256(repr((self._identity, signature)).encode()).hexdigest()
        return self._folder / f"{self._name}-{digest[:16]}.bin"
