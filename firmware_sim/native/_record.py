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

ABI: Final = 1  # of the functions that a library exports
_MARK: Final = b"edgernn."
_DIGEST: Final = 32
_END: Final = 4 + _DIGEST + len(_MARK)


@dataclass(frozen=True)
class Record:
    """How a library was made.

    key: of all that went into it. machine, system, features: what it runs on. states: how many values each state has.
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
    states: dict[str, int]
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
        interface = Interface.from_json(fields.pop("interface"))
        features, states = tuple(map(str, fields.pop("features"))), fields.pop("states")
        record = Record(**fields, features=features, states=states, interface=interface)
        sizes = [record.abi, *states.values()]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} is damaged ({error}); build it anew") from None
    if not (all(type(size) is int and size > 0 for size in sizes) and re.fullmatch("[0-9a-f]{16}", str(record.key))):
        raise ValueError(f"{name} is damaged (sizes {sizes}, key {record.key}); build it anew")
    if record.abi != ABI:
        raise ValueError(f"{name} was built by edgernn {record.edgernn}, for calls of another kind; build it anew")
    return record
