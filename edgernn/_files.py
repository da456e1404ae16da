"""Files as they cross the border: atomic writes, and safetensors files with a JSON header. No pickle anywhere."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _pack

Tensors = dict[str, npt.NDArray[Any]]

_HEADER_KEY = "edgernn"
_CHECKSUM_KEY = "sha256"


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a whole file or nothing: a reader never sees a part of it, and a crash leaves the old file in place.

    Creates the folder. Raises ValueError when the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from None


def write_tensors(path: str | Path, tensors: Tensors, header: Mapping[str, Any]) -> None:
    """Write a safetensors file whose metadata holds `header` and a checksum as JSON. Equal content, equal bytes.

    Raises ValueError when the header is not JSON or the place cannot be written.
    """
    try:
        plain = json.loads(json.dumps(dict(header), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot write {path}: its header must hold JSON values only ({error})") from None
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    text = json.dumps(plain | {_CHECKSUM_KEY: _checksum(tensors, plain)}, sort_keys=True)
    write_atomic(path, _pack(tensors, {_HEADER_KEY: text}))


def read_tensors(path: str | Path, expected_format: str) -> tuple[Tensors, dict[str, Any]]:
    """(tensors, header) of a file written by `write_tensors` with header["format"] == expected_format.

    Raises ValueError when the file is missing, foreign, truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = json.loads(metadata[_HEADER_KEY])
        found, checksum = header["format"], header.pop(_CHECKSUM_KEY)
    except KeyError:
        raise ValueError(f"{path}: not an edgernn file (a safetensors file without edgernn's header)") from None
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not an edgernn file, or cut short or damaged ({error})") from None
    if found != expected_format:
        raise ValueError(f"{path}: holds {found!r}, but {expected_format!r} is needed here")
    if checksum != _checksum(tensors, header):
        raise ValueError(f"{path}: damaged: its checksum does not match its content; make the file anew")
    return tensors, header


def _checksum(tensors: Tensors, header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
