"""One sequence from a file or a stream: rows are time steps, columns are channels."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .dataset import FloatArray

SUFFIXES = (".csv", ".npy")

_LARGEST = float(np.finfo(np.float32).max)


def read_sequence(path: str | Path) -> FloatArray:
    """Read a .csv (commas, optional header row) or .npy file of shape [T, I]: float32 [T, I], finite.

    Raises ValueError when the file is missing, empty, ragged, not numeric, or holds NaN or infinite values.
    """
    return read_named_sequence(path)[0]


def read_named_sequence(path: str | Path) -> tuple[FloatArray, tuple[str, ...]]:
    """Like `read_sequence`, with the channel names of a .csv file's header row (none without a header)."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a sequence is a {' or '.join(SUFFIXES)} file")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix.lower() == ".npy":
        return _read_npy(path), ()
    lines = read_lines(path)
    rows = list(iter_rows(lines, str(path)))
    if not rows:
        raise ValueError(f"{path}: holds no rows of numbers")
    return np.stack(rows), _header(lines)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file. Raises ValueError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text ({error})") from None


def iter_rows(lines: Iterable[str], source: str) -> Iterator[FloatArray]:
    """float32 [I] for every line of comma-separated numbers, as the lines come; `source` names them in errors.

    Blank lines are skipped, and so is the first line when no field of it is a number. Raises ValueError for a row of
    another length than the first, a field that is not a number, and NaN or infinite values.
    """
    columns, header = 0, True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split(",")
        if header:
            header, columns = False, len(fields)
            if not any(_is_number(field) for field in fields):
                continue
        if len(fields) != columns:
            raise ValueError(f"{source}, line {number}: {len(fields)} fields, the lines before have {columns}")
        yield parse_numbers(fields, f"{source}, line {number}")


def parse_numbers(fields: list[str], place: str) -> FloatArray:
    """float32 [len(fields)]; `place` names the fields in errors. Raises ValueError unless all are finite numbers."""
    values = np.empty(len(fields))
    for index, field in enumerate(fields):
        try:
            values[index] = float(field)
        except ValueError:
            raise ValueError(f"{place}: {field.strip()!r} is not a number") from None
        if not abs(values[index]) <= _LARGEST:
            raise ValueError(f"{place}: {field.strip()!r} is not a finite float32 value; remove or fill such values")
    return values.astype(np.float32)


def _header(lines: list[str]) -> tuple[str, ...]:
    fields = next(line for line in lines if line.strip()).split(",")
    return () if any(_is_number(field) for field in fields) else tuple(field.strip().strip('"') for field in fields)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_npy(path: Path) -> FloatArray:
    try:
        # Mapped, a header that promises more than the file holds is refused before memory is taken for it.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python text: damage raises whatever its tokenizer raises
        raise ValueError(f"{path}: not a .npy file of numbers, or cut short ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path}: must hold numbers of shape [steps, channels], not {found}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(array, np.float32)
    if not np.isfinite(values).all():
        row = int(np.nonzero(~np.isfinite(values))[0][0])
        raise ValueError(f"{path}, row {row + 1}: NaN or infinite values; remove or fill them")
    return values
