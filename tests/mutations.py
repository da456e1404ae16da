"""Damaged and forged files, each from its seed: any file by its bytes, a safetensors file by its parts too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .forgery import EDITS, LAYOUT, NUMBERS, Container, Rng


@dataclass(frozen=True)
class Damaged:
    """A file's new content and the kind of its mutation. forged: with a checksum that was computed for it."""

    mutation: str
    content: bytes
    forged: bool = False


def mutate(content: bytes, other: bytes, rng: Rng, container: bool) -> Damaged:
    """One damaged file. other: a file of the same kind to take parts from. container: it is a safetensors file."""
    if container and rng.random() < 0.6:
        return _mutate_parts(content, rng)
    change = _pick(BYTES, rng)
    changed = change(content, other, rng)
    return Damaged(f"bytes: {change.__name__}", changed, changed == other)


def _mutate_parts(content: bytes, rng: Rng) -> Damaged:
    if rng.random() < 0.3:
        lie = _pick(LAYOUT, rng)
        return Damaged(f"layout: {lie.__name__}", lie(content, rng))
    edit = _pick(EDITS, rng)
    file = Container.parse(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        edit(file, rng)
    packed, forged = file.pack(forge=rng.random() < 0.75)
    return Damaged(f"{'forged' if forged else 'edited'}: {edit.__name__}", packed, forged)


def _pick(functions: Sequence[Any], rng: Rng) -> Any:
    return functions[int(rng.integers(len(functions)))]


# ---- bytes -----------------------------------------------------------------------------------------------------------


def _cut(content: bytes, rng: Rng, longest: int = 64) -> tuple[int, int]:
    """Start and end of a piece: mostly short, sometimes any."""
    start = int(rng.integers(len(content)))
    size = int(rng.integers(1, longest)) if rng.random() < 0.7 else int(rng.integers(1, len(content) + 1))
    return start, min(start + size, len(content))


def flip_bits(content: bytes, other: bytes, rng: Rng) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 8]))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def set_bytes(content: bytes, other: bytes, rng: Rng) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 4, 32]))):
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def fill(content: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _cut(content, rng)
    return content[:start] + bytes([int(rng.choice([0, 0x20, 0x7F, 0xFF]))]) * (end - start) + content[end:]


def write_number(content: bytes, other: bytes, rng: Rng) -> bytes:
    """An extreme integer in place of one that may be a length or an offset."""
    size = int(rng.choice([1, 2, 4, 8]))
    number: int = NUMBERS[int(rng.integers(len(NUMBERS)))] % 2 ** (8 * size)
    start = int(rng.integers(max(1, len(content) // size))) * size
    return content[:start] + number.to_bytes(size, "little") + content[start + size :]


def truncate(content: bytes, other: bytes, rng: Rng) -> bytes:
    header = 8 + int.from_bytes(content[:8], "little") % 2**31
    places = [0, 1, 7, 8, 9, header - 1, header, header + 1, len(content) - 1, len(content) - 4]
    place = int(rng.choice(places)) if rng.random() < 0.4 else int(rng.integers(len(content)))
    return content[:place]


def append(content: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _cut(other, rng)
    return content + (other[start:end] if rng.random() < 0.5 else bytes(end - start))


def insert(content: bytes, other: bytes, rng: Rng) -> bytes:
    place = int(rng.integers(len(content)))
    return content[:place] + bytes(rng.bytes(int(rng.choice([1, 2, 4, 8, 100])))) + content[place:]


def remove(content: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _cut(content, rng)
    return content[:start] + content[end:]


def duplicate(content: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _cut(content, rng)
    return content[:end] + content[start:end] * int(rng.choice([1, 1, 20])) + content[end:]


def swap_blocks(content: bytes, other: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(int(place) for place in rng.integers(len(content), size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def splice(content: bytes, other: bytes, rng: Rng) -> bytes:
    """The beginning of one file and the end of another."""
    place = int(rng.integers(1, min(len(content), len(other))))
    return content[:place] + other[place if rng.random() < 0.5 else int(rng.integers(1, len(other))) :]


def noise(content: bytes, other: bytes, rng: Rng) -> bytes:
    kept = int(rng.choice([0, 4, 8, 64]))
    return content[:kept] + rng.bytes(int(rng.integers(2000)))


BYTES: Final = (
    *(flip_bits, set_bytes, fill, write_number, truncate, append, insert, remove, duplicate, swap_blocks, splice),
    noise,
)
