"""What a library says of itself, at the end of its file: it is read, and the whole file checked, before it is loaded.

A shared library may have anything after what its own format knows of. Here that is a JSON text, how many bytes it has
(4, the lowest first), SHA-256 of all before it, and a mark.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from ..._interface import Interface

ABI: Final = 2  # of the functions that a library exports
_TYPES: Final = ("int8", "int16")  # of states
_MARK: Final = b"edgernn."
_DIGEST: Final = 32
_END: Final = 4 + _DIGEST + len(_MARK)


@dataclass(frozen=True)
class Record:
    """How a library was made.

    key: of all that went into it. machine, system, features: what it runs on. states: how many values each state has,
    and of which dtype.
    """

    abi: int
    key: str
    edgernn: str
    compiler: str
    command: str
    machine: str
    system: str
    instructions: str
    features: tuple[str, ...]
    states: dict[str, tuple[int, str]]
    interface: Interface


def write_record(library: bytes, record: Record) -> bytes:
    """The library's file with this record."""
    fields = {name: value for name, value in asdict(record).items() if name != "interface"}
    text = json.dumps(fields | {"interface": record.interface.to_json()}, separators=(",", ":")).encode()
    content = library + text + len(text).to_bytes(4, "little")
    return content + hashlib.sha256(content).digest() + _MARK


def read_record(content: bytes, name: str) -> Record:
    """The record of a library's file. Raises ValueError for a file that `build` has not written so, named `name`."""
    if len(content) < _END or not content.endswith(_MARK):
        raise ValueError(f"{name} is not a library that edgernn built, or only a part of one; build it anew")
    body, digest = content[: -_DIGEST - len(_MARK)], content[-_DIGEST - len(_MARK) : -len(_MARK)]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError(f"{name} is damaged: its checksum is wrong; build it anew")
    size = int.from_bytes(body[-4:], "little")
    try:
        fields: dict[str, Any] = json.loads(body[-4 - size : -4])
        if fields["abi"] != ABI:
            raise _OtherCalls
        interface = Interface.from_json(fields.pop("interface"))
        features = tuple(map(str, fields.pop("features")))
        states = {name: _state(*size_and_type) for name, size_and_type in fields.pop("states").items()}
        record = Record(**fields, features=features, states=states, interface=interface)
    except _OtherCalls:
        other = fields.get("edgernn")
        raise ValueError(f"{name} was built by edgernn {other}, for calls of another kind; build it anew") from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} is damaged ({error}); build it anew") from None
    if not re.fullmatch("[0-9a-f]{16}", str(record.key)):
        raise ValueError(f"{name} is damaged (key {record.key}); build it anew")
    return record


class _OtherCalls(Exception):
    """Of the C functions."""


def _state(size: int, dtype: str) -> tuple[int, str]:
    if type(size) is not int or size < 1 or dtype not in _TYPES:
        raise ValueError(f"a state of {size!r} values of {dtype!r}")
    return size, dtype
