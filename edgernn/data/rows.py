"""Rows of numbers one by one, from a file or a stream, for a program that goes on whatever comes.

A row that no network can be fed is given as a `BadRow` in its place, not raised.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from .dataset import FloatArray
from .sequences import LARGEST, check_names, check_separator, has_number, is_missing, load_npy, parse_numbers
from .sequences import SUFFIXES as SUFFIXES

_AT_ONCE = 1024  # rows


class BadRow(NamedTuple):
    """What is wrong with a row: in a word that many rows share, and with its place."""

    kind: Literal["missing values", "wrong number of fields", "not numbers"]
    message: str


Row: TypeAlias = Sequence[float] | FloatArray | BadRow  # good rows are finite, of the right length


def read_rows(path: Path, columns: int) -> Iterator[Row]:
    """The rows of a .csv or .npy file. Raises ValueError for a file that is none, and a .npy of other columns."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: rows come from a {' or '.join(SUFFIXES)} file, or from stdin (-)")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix.lower() == ".npy":
        yield from _npy_rows(path, columns)
        return
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from parse_rows(lines, columns, str(path))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def parse_rows(lines: Iterable[str], columns: int, source: str) -> Iterator[Row]:
    """A row for every line of comma-separated numbers, as the lines come; `source` names them in messages.

    Blank lines are skipped, and so is a first line of names, as `iter_rows` does. What is not UTF-8 must have been
    replaced by U+FFFD.
    """
    first = True
    for number, line in enumerate(lines, 1):
        fields = line.removeprefix("\ufeff").split(",") if number == 1 else line.split(",")
        try:
            row = list(map(float, fields))
        except ValueError:
            row = []
        # The sum is at most LARGEST only if all values are, and none is NaN. float() takes 1_000.
        if len(row) == columns and sum(map(abs, row)) <= LARGEST and "_" not in line:
            yield row
        elif line.strip() and not (first and _holds_names(fields, line, source)):
            yield _examined(fields, line, columns, f"{source}, line {number}")
        first = first and not line.strip()


def _npy_rows(path: Path, columns: int) -> Iterator[Row]:
    values = load_npy(path)
    if values.shape[1] != columns:
        raise ValueError(f"{path}: rows of {values.shape[1]} numbers, the model has {columns} channels")
    for start in range(0, len(values), _AT_ONCE):
        block = values[start : start + _AT_ONCE]
        finite = np.isfinite(block)
        for number, (row, good) in enumerate(zip(block, finite, strict=True), start + 1):
            yield row if good.all() else BadRow("missing values", f"{path}, row {number}: NaN or infinite values")


def _holds_names(fields: list[str], line: str, source: str) -> bool:
    """Whether a first line holds the names of channels: text, of which no field is a number or a missing one."""
    if has_number(fields) or _is_noise(line):
        return False
    try:
        check_names(line, fields, source)
    except ValueError:
        return False
    return True


def _examined(fields: list[str], line: str, columns: int, place: str) -> Row:
    """The row after all, or what is wrong with it."""
    if _is_noise(line):
        return BadRow("not numbers", f"{place}: cannot be read as text")
    try:
        check_separator(line, place)
    except ValueError as error:
        return BadRow("wrong number of fields", str(error))
    if len(fields) != columns:
        return BadRow("wrong number of fields", f"{place}: {len(fields)} fields, the model has {columns} channels")
    try:
        return parse_numbers(fields, place)
    except ValueError as error:
        missing = any(map(is_missing, fields)) or "finite" in str(error)
        return BadRow("missing values" if missing else "not numbers", str(error))


def _is_noise(line: str) -> bool:
    return "\ufffd" in line or "\0" in line
