"""Compiling a model's C sources into a library, which is kept for the next process."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ... import __version__
from ..._files import read_bytes, write_atomic
from ..._interface import Interface
from .._folders import is_writable, user_cache
from ._compiler import Compiler
from ._record import ABI, Record, read_record, write_record

_KEPT: Final = 256  # libraries in a user's folder
_GLUE: Final = Path(__file__).with_name("glue.c")
_FLAGS: Final = ("-std=c99", "-O3", "-ffreestanding", "-shared", "-fvisibility=hidden")


@dataclass(frozen=True)
class Source:
    """The C of a model: `texts` gives model.h and model.c as `export.to_c` does, `identity` says which they are, so
    that they need not be made to find out whether they were compiled before."""

    identity: str
    texts: Callable[[], Mapping[str, str]]


States = Mapping[str, tuple[int, str]]


def build(source: Source, interface: Interface, states: States, compiler: Compiler) -> bytes:
    """A library's file. states: how many values each state has and their dtype, by the names that it has in model.h.

    Raises ValueError for sources that do not compile.
    """
    places = ", ".join(f"STATE({name})" for name in states)
    with tempfile.TemporaryDirectory(prefix="edgernn-") as folder:
        for file, text in {**source.texts(), _GLUE.name: _GLUE.read_text(encoding="utf-8")}.items():
            Path(folder, file).write_text(text, encoding="utf-8")
        library = Path(folder, f"library{compiler.suffix}")
        compiler.run([*_flags(compiler), f"-DMODEL_STATES={places}", _GLUE.name, "-o", library.name], folder)
        content = read_bytes(library)
    about = (__version__, compiler.name, " ".join(compiler.command), compiler.machine, compiler.system)
    key = library_key(source, interface, compiler)
    record = Record(ABI, key, *about, compiler.instructions, compiler.features, dict(states), interface)
    return write_record(content, record)


def built(source: Source, interface: Interface, states: States, compiler: Compiler) -> Path:
    """The file of such a library, which an earlier call has left, or which is built now.

    Like Python's byte code, what lies in this user's folder for it is trusted. Raises ValueError as `build` does.
    """
    key = library_key(source, interface, compiler)
    path = _folder() / f"{key}{compiler.suffix}"
    with suppress(ValueError, OSError):
        if read_record(read_bytes(path), path.name).key == key:
            os.utime(path)  # it is in use
            return path
    write_atomic(path, build(source, interface, states, compiler))
    _remove_oldest(path.parent)
    return path


def _remove_oldest(folder: Path) -> None:
    """All but those that were used last."""
    with suppress(OSError):  # another process does the same
        used = sorted(folder.glob(16 * "[0-9a-f]" + ".*"), key=lambda path: path.stat().st_mtime)
        for path in used[:-_KEPT]:
            path.unlink()


def built_here(content: bytes) -> bool:
    """Whether a library's file is one that this user's edgernn has compiled on this computer, to the last byte.

    Then it does no more than the model's C does. False for any other, and for one of long ago. Raises ValueError for a
    file that `build` has not written.
    """
    key = read_record(content, "the library").key
    with suppress(OSError):
        return any(path.read_bytes() == content for path in _folder().glob(f"{key}.*"))
    return False


def library_key(source: Source, interface: Interface, compiler: Compiler) -> str:
    """16 hexadecimal digits of all that goes into a library."""
    about = (ABI, __version__, source.identity, compiler, _flags(compiler), interface.to_json(), _GLUE.read_bytes())
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def _flags(compiler: Compiler) -> tuple[str, ...]:
    """On Linux without a library for C, which a cross compiler may have to do without: the model needs none, and what
    a compiler calls by itself, as memcpy, every program has."""
    return *_FLAGS, *{"linux": ("-fPIC", "-nostdlib"), "win32": ()}.get(compiler.system, ("-fPIC",))


def _folder() -> Path:
    folder = user_cache() / "native"
    return folder if is_writable(folder) else Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """For this process, where nothing can be kept."""
    return tempfile.TemporaryDirectory(prefix="edgernn-")
