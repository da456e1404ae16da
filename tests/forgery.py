"""The parts of a safetensors file, and what a forger does with them: header, tensors, layout, and the checksum anew."""

import hashlib
import json
import struct
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from safetensors.numpy import load as unpack

Rng = np.random.Generator
Json = Any

KEY: Final = "edgernn"
NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)

# What replaces a value of JSON. Texts in RAW stand for what json.dumps does not write.
RAW: Final = {
    "@deep": "[" * 3000 + "]" * 3000,
    "@deep object": '{"a":' * 3000 + "1" + "}" * 3000,
    "@near the limit": "[" * 985 + "]" * 985,
    "@digits": "9" * 5000,
    "@1e400": "1e400",
    "@minus zero": "-0",
    "@leading zero": "007",
    "@broken escape": '"\\ud8"',
    "@unquoted": "nothing",
}
ODD: Final[list[Json]] = [
    *(None, True, False, 0, 1, -1, 2, 127, 128, -128, 255, 256, 32768, 65536, 2**31 - 1, 2**31, -(2**31), 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e-45, 1e-320, 3.5e38, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "0", "1", "nan", "\0", "\ud800", "ä\U0001f600\u202e", "../../up", "\x1b[31m", "A" * 100_000),
    *("lstm", "gru", "rnn", "last", "steps", "w8a8", "w8a16", "classification", "regression", "I8", "F32", "U8"),
    *([], [[]], [None], [0, 0], [-1, 2**62], list(range(3000)), {}, {"": None}, {"a": {"b": []}}),
    *RAW,
]


def _odd(rng: Rng) -> Json:
    return deepcopy(ODD[int(rng.integers(len(ODD)))])


# ---- the parts of a safetensors file ---------------------------------------------------------------------------------


@dataclass
class Container:
    """A safetensors file in its parts: the arrays by name, and edgernn's header without its checksum."""

    tensors: dict[str, np.ndarray[Any, Any]]
    header: Json
    checksum: str

    @classmethod
    def parse(cls, content: bytes) -> "Container":
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])
        return cls(dict(unpack(content)), header, header.pop("sha256"))

    def pack(self, forge: bool) -> tuple[bytes, bool]:
        """The file, and whether its checksum fits: if asked for, where the content is such that there can be one."""
        if forge:
            try:
                found = _checksum(self.tensors, json.loads(self._text(None)))
                return _pack(self.tensors, self._text(found)), True
            except (ValueError, RecursionError):
                pass
        return _pack(self.tensors, self._text(self.checksum)), False

    def _text(self, found: str | None) -> str:
        header = self.header
        if found is not None and isinstance(header, dict):
            header = header | {"sha256": found}
        text = json.dumps(header, sort_keys=isinstance(header, dict) and all(type(key) is str for key in header))
        for name, raw in RAW.items():
            text = text.replace(f'"{name}"', raw)
        return text


def _checksum(tensors: dict[str, np.ndarray[Any, Any]], header: Json) -> str:
    """edgernn's, of anything."""
    parts = [json.dumps(header, sort_keys=True).encode()]
    for name, array in sorted(tensors.items()):
        parts += [f"\n{name} {array.dtype.str} {array.shape}\n".encode(), array.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _pack(tensors: dict[str, np.ndarray[Any, Any]], text: str) -> bytes:
    """As safetensors writes it; its own writer refuses some of what a forger would write."""
    entries: dict[str, Json] = {"__metadata__": {KEY: text}}
    data = b""
    for name, array in tensors.items():
        raw = array.tobytes()
        entries[name] = {"dtype": _DTYPES[array.dtype.str], "shape": list(array.shape)}
        entries[name]["data_offsets"] = [len(data), len(data) + len(raw)]
        data += raw
    return _joined(json.dumps(entries), data)


def _joined(text: str | bytes, data: bytes) -> bytes:
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


_DTYPES: Final = dict(
    [("|i1", "I8"), ("|u1", "U8"), ("|b1", "BOOL"), ("<i2", "I16"), ("<u2", "U16"), ("<i4", "I32"), ("<u4", "U32")]
    + [("<i8", "I64"), ("<u8", "U64"), ("<f2", "F16"), ("<f4", "F32"), ("<f8", "F64")]
)


# ---- forging: header and tensors -------------------------------------------------------------------------------------


def _places(tree: Json) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything in a JSON tree."""
    found: list[tuple[Any, Any]] = []
    keys: Sequence[Any] = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        found += [(tree, key), *_places(tree[key])]
    return found


def _neighbour(value: Json, rng: Rng) -> Json:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + int(rng.choice([-1, 1])) if rng.random() < 0.7 else -value * 2
    if isinstance(value, float):
        return float(value * rng.choice([0.5, 1 + 2**-40, 1.001, 2.0, 1e6, 1e-6, -1.0]))
    if isinstance(value, str):
        return value[:-1] if rng.random() < 0.5 else value + "x"
    if isinstance(value, list):
        return value[::-1] if rng.random() < 0.3 else value[:-1] if rng.random() < 0.5 else value + value[-1:]
    return value


def edit_header(file: Container, rng: Rng) -> None:
    """Some value of the header becomes an odd one, a near one, is removed, renamed or joined by another."""
    places = _places(file.header)
    if not places:
        return
    tree, key = places[int(rng.integers(len(places)))]
    action = rng.random()
    if action < 0.5:
        tree[key] = _odd(rng)
    elif action < 0.75:
        tree[key] = _neighbour(tree[key], rng)
    elif action < 0.85:
        del tree[key]
    elif isinstance(tree, dict):
        tree[f"{key}s" if rng.random() < 0.5 else "new"] = tree.pop(key) if rng.random() < 0.5 else 1
    else:
        tree.insert(key, deepcopy(tree[key]))


def edit_values(file: Container, rng: Rng) -> None:
    """Extreme values in a tensor: one, a row, or all."""
    name = _name(file, rng)
    array = file.tensors[name].copy()
    if array.size == 0 or array.dtype == np.bool_:
        return
    if array.dtype.kind == "f":
        limits = np.finfo(array.dtype)
        extremes: list[Any] = [0, -0.0, np.nan, np.inf, -np.inf, limits.max, limits.tiny, 1e-45, -1, 1e-30, 1e30]
    else:
        integers = np.iinfo(array.dtype)
        extremes = [0, integers.min, integers.max, integers.min + 1, integers.max // 2, 1]
    value = extremes[int(rng.integers(len(extremes)))]
    flat = array.reshape(-1)
    start = int(rng.integers(array.size))
    with np.errstate(all="ignore"):
        flat[start : start + int(rng.choice([1, 1, 4, array.size]))] = value
        if rng.random() < 0.2:
            array[...] = value
    file.tensors[name] = array


def edit_shape(file: Container, rng: Rng) -> None:
    """A tensor of another shape: flat, transposed, with an axis more, rows fewer or twice, or empty."""
    name = _name(file, rng)
    array = file.tensors[name]
    flat = array.reshape(-1)
    shapes = [flat, flat[:0], array.T, flat[None], flat[:, None], flat.reshape((1,) * 60 + flat.shape)]
    shapes += [array[:-1], np.concatenate([array, array])] if array.ndim else [array]
    file.tensors[name] = np.ascontiguousarray(shapes[int(rng.integers(len(shapes)))])


def edit_type(file: Container, rng: Rng) -> None:
    """A tensor of another type, with the same numbers or the same bytes."""
    name = _name(file, rng)
    array = file.tensors[name]
    dtype = np.dtype(list(_DTYPES)[int(rng.integers(len(_DTYPES)))])
    if rng.random() < 0.5 and array.nbytes % dtype.itemsize == 0 and dtype != np.bool_:
        file.tensors[name] = np.frombuffer(array.tobytes(), dtype)
        return
    with np.errstate(all="ignore"):
        file.tensors[name] = np.nan_to_num(array).astype(dtype) if array.dtype.kind == "f" else array.astype(dtype)


def edit_names(file: Container, rng: Rng) -> None:
    """A tensor is missing, renamed, one more, or two have changed places."""
    name, second = _name(file, rng), _name(file, rng)
    action = rng.random()
    if action < 0.25:
        del file.tensors[name]
    elif action < 0.5:
        new = ["", "extra", name + ".", name.replace("0", "1"), name.upper(), "ä", "\0"][int(rng.integers(7))]
        file.tensors[new] = file.tensors.pop(name) if rng.random() < 0.5 else file.tensors[name]
    else:
        tensors = file.tensors
        tensors[name], tensors[second] = tensors[second], tensors[name]


def _name(file: Container, rng: Rng) -> str:
    names = list(file.tensors)
    if not names:
        file.tensors["only"] = np.zeros(2, np.float32)
        return "only"
    return names[int(rng.integers(len(names)))]


EDITS: Final = (edit_header, edit_header, edit_values, edit_shape, edit_type, edit_names)


# ---- the layout: what safetensors itself has to say about its bytes --------------------------------------------------


def _split(content: bytes) -> tuple[Json, bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def header_length(content: bytes, rng: Rng) -> bytes:
    size = int.from_bytes(content[:8], "little")
    lies = [*NUMBERS, size - 1, size + 1, size - 8, size + 8, len(content), len(content) - 8, 100_000_001]
    return struct.pack("<Q", int(lies[int(rng.integers(len(lies)))]) % 2**64) + content[8:]


def entry(content: bytes, rng: Rng) -> bytes:
    """A tensor's dtype, shape or offsets are odd."""
    entries, data = _split(content)
    names = [name for name in entries if name != "__metadata__"]
    found = entries[names[int(rng.integers(len(names)))]]
    key = ["dtype", "shape", "data_offsets"][int(rng.integers(3))]
    if key == "dtype":
        kinds = [*_DTYPES.values(), "BF16", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "C64", "i8", "", "X" * 1000]
        found[key] = kinds[int(rng.integers(len(kinds)))]
    elif rng.random() < 0.5 and found[key]:
        place = int(rng.integers(len(found[key])))
        found[key][place] = _odd(rng) if rng.random() < 0.5 else _neighbour(found[key][place], rng)
    elif key == "shape":
        shapes: list[Json] = [[], [0], [0, 2**62], [2**32, 2**32], [2**63, 2], [1] * 100, [-1], [2**61, 8], None, "4"]
        found[key] = shapes[int(rng.integers(len(shapes)))]
    else:
        offsets: list[Json] = [[], [0], [0, 0], [0, len(data)], [len(data), 0], [2**64 - 4, 2**64 - 1], [-4, 0], None]
        found[key] = offsets[int(rng.integers(len(offsets)))]
    return _joined(_raw(entries), data)


def swapped_entries(content: bytes, rng: Rng) -> bytes:
    """Two tensors have changed places, or lie in the same place, or one is missing."""
    entries, data = _split(content)
    names = [name for name in entries if name != "__metadata__"]
    a, b = (names[int(index)] for index in rng.integers(len(names), size=2))
    action = rng.random()
    if action < 0.4:
        entries[a], entries[b] = entries[b], entries[a]
    elif action < 0.7:
        entries[a]["data_offsets"] = entries[b]["data_offsets"]
    else:
        del entries[a]
    return _joined(_raw(entries), data)


def metadata(content: bytes, rng: Rng) -> bytes:
    entries, data = _split(content)
    odd = _odd(rng)
    if rng.random() < 0.5:
        entries["__metadata__"] = odd
    elif rng.random() < 0.5:
        entries["__metadata__"][KEY] = odd
    else:
        entries["__metadata__"]["more"] = odd
    return _joined(_raw(entries), data)


def doubled_key(content: bytes, rng: Rng) -> bytes:
    """A key that is there twice, in the safetensors header or in edgernn's: readers take one or the other."""
    entries, data = _split(content)
    inner = entries["__metadata__"][KEY]
    keys = list(json.loads(inner)) if rng.random() < 0.5 else list(entries)
    key, odd = keys[int(rng.integers(len(keys)))], json.dumps(ODD[int(rng.integers(40))])
    if key in entries:
        value = entries[list(entries)[int(rng.integers(len(entries)))]]
        return _joined("{" + f"{json.dumps(key)}: {json.dumps(value)}, " + _raw(entries)[1:], data)
    entries["__metadata__"][KEY] = "{" + f"{json.dumps(key)}: {odd}, " + inner[1:]
    return _joined(_raw(entries), data)


def rewritten(content: bytes, rng: Rng) -> bytes:
    """The same JSON written in another way, or almost JSON."""
    entries, data = _split(content)
    action = int(rng.integers(5))
    if action == 0:
        entries["__metadata__"][KEY] = json.dumps(json.loads(entries["__metadata__"][KEY]), indent=1)
    written = _raw(entries)
    padding = [written, written + " " * 70_000, "\ufeff" + written, written[:-1] + ",}", written + written][action]
    return _joined(padding, data)


def _raw(entries: Json) -> str:
    written = json.dumps(entries)
    for name, raw in RAW.items():
        written = written.replace(f'"{name}"', raw)
    return written


LAYOUT: Final = (header_length, entry, swapped_entries, metadata, doubled_key, rewritten)
