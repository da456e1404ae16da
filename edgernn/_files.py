"""Files as they cross the border: atomic writes, and safetensors files with a JSON header. No pickle anywhere."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as _unpack
from safetensors.numpy import save as _pack

Tensors = dict[str, npt.NDArray[Any]]

_T = TypeVar("_T")
_HEADER_KEY: Final = "edgernn"
_CHECKSUM_KEY: Final = "sha256"
_LARGEST: Final = 2**30  # bytes of a file: a network for a microcontroller has thousands
_KINDS: Final = {
    "edgernn.quantized_model": "a quantised model (.ernn)",
    "edgernn.sequence_model": "a float model (.safetensors)",
    "edgernn.training_checkpoint": "a training's checkpoint",
    "edgernn.state": "a saved state",
}
_STALE: Final = 3600.0  # seconds after which nobody can still be writing a temporary file


def read_bytes(path: str | Path) -> bytes:
    """The content of a file. Raises ValueError when it is missing, no regular file, unreadable or beyond 1 GiB."""
    path = Path(path)
    try:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path}: has {path.stat().st_size:,} bytes, more than any model's file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a whole file or nothing: a reader never sees a part of it, and a crash leaves the old file in place.

    Creates the folder. What a killed writer leaves behind, .NAME.xxxxxxxx.tmp, is removed by the next write of the same
    file after an hour. Raises ValueError when the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from None


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.glob(f".{escape(path.name)}.{'[a-z0-9_]' * 8}.tmp"):  # as tempfile names them
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


# ---- a checksum inside a file of another format ----------------------------------------------------------------------

UNSEALED: Final = "checksum-to-come"  # stands where the checksum will: as long as that


def seal(content: bytes) -> bytes:
    """The file with a checksum of it all in place of UNSEALED. Raises ValueError unless that stands there once."""
    found = content.count(UNSEALED.encode())
    if found != 1:
        raise ValueError(f"{UNSEALED!r} has a meaning of its own in exported files: do not use it as a label")
    return content.replace(UNSEALED.encode(), _seal_of(content).encode())


def check_seal(content: bytes, checksum: str) -> None:
    """Raise ValueError unless this is the checksum that `seal` gave the file."""
    if len(checksum) != len(UNSEALED) or checksum != _seal_of(content.replace(checksum.encode(), UNSEALED.encode())):
        raise ValueError("damaged or altered: its checksum does not match its content; export it anew")


def _seal_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[: len(UNSEALED)]


# ---- safetensors with a header ---------------------------------------------------------------------------------------


def write_tensors(path: str | Path, tensors: Tensors, header: Mapping[str, Any]) -> None:
    """Write what `pack_tensors` gives. Raises ValueError, also when the place cannot be written."""
    write_atomic(path, pack_tensors(tensors, header))


def pack_tensors(tensors: Tensors, header: Mapping[str, Any]) -> bytes:
    """A safetensors file whose metadata holds `header` and a checksum as JSON. Equal content, equal bytes.

    Raises ValueError when the header is not JSON.
    """
    try:
        text = _json(json.loads(_json(header)) | {_CHECKSUM_KEY: checksum(tensors, header)})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the header of a file must hold JSON values only ({error})") from None
    packed: bytes = _pack({name: np.asarray(array, order="C") for name, array in tensors.items()}, {_HEADER_KEY: text})
    return packed


def read_tensors(path: str | Path, expected_format: str) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, header) of a file written by `write_tensors` with header["format"] == expected_format.

    Raises ValueError when the file is missing, foreign, truncated or damaged.
    """
    content = read_bytes(path)  # and not mapped into memory: whoever shortens a mapped file kills its readers
    if Path(path).suffix in (".tflite", ".onnx"):
        raise ValueError(f"{path}: is an exported file; name the file that it was made of")
    try:
        tensors = {name: array.copy() for name, array in _unpack(content).items()}
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        header = json.loads(metadata[_HEADER_KEY])
        written_by_edgernn = metadata[_HEADER_KEY] == _json(header)
        found, claimed = header["format"], header.pop(_CHECKSUM_KEY)
        whole = written_by_edgernn and claimed == checksum(tensors, header)
    except KeyError:
        raise ValueError(f"{path}: not an edgernn file (a safetensors file without edgernn's header)") from None
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not an edgernn file, or cut short or damaged ({_brief(error)})") from None
    if found != expected_format:
        known = _KINDS.get(found) if isinstance(found, str) else None
        kind = known or f"of an unknown kind, {_brief(repr(found))}"
        raise ValueError(f"{path}: is {kind}, but {_KINDS[expected_format]} is needed here")
    if not whole:
        raise ValueError(f"{path}: damaged: its checksum does not match its content; make the file anew")
    return tensors, header


def checksum(tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> str:
    """SHA-256 of tensors and header (without its checksum). Raises ValueError or TypeError for what is not JSON."""
    digest = hashlib.sha256(_json(header).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _json(header: Mapping[str, Any]) -> str:
    return json.dumps(dict(header), sort_keys=True, allow_nan=False)


# ---- taking a header and its tensors apart ---------------------------------------------------------------------------


@contextmanager
def parsing(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong with wrong content into ValueErrors that name the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {_brief(error)}") from None
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        found = _brief(repr(error))
        raise ValueError(f"{path}: the header or a tensor is missing or has a wrong type ({found})") from None


def typed(value: Any, kind: type[_T]) -> _T:
    """A header's value, if JSON gave it exactly this type. Raises TypeError."""
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _brief(error: object) -> str:
    """Its message: a damaged header can be a long one."""
    text = str(error)
    return text if len(text) <= 500 else f"{text[:500]} .."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
