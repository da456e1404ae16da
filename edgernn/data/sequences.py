"""One sequence from a file or a stream: rows are time steps, columns are channels."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .dataset import FloatArray

SUFFIXES = (".csv", ".npy")

_MISSING = ("", "-", "--", "?", ".", "na", "n/a", "#n/a", "nan", "nil", "none", "null", "missing")
_TAB = "\t"
_SEPARATORS = {";": "';'", _TAB: "tabs", " ": "blanks"}
LARGEST = float(np.finfo(np.float32).max)


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

    Blank lines are skipped, and so is a first line of names: no field of it is a number, empty or a missing value. A
    byte order mark is taken off. Raises ValueError for other separators than commas, a row of another length than the
    first, a field that is not a number, and NaN or infinite values.
    """
    columns = 0
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("\ufeff") if number == 1 else line
        if not text.strip():
            continue
        fields, place = text.split(","), f"{source}, line {number}"
        if not columns:
            columns = len(fields)
            if not has_number(fields):
                check_names(text, fields, place)
                continue
        try:
            if len(fields) != columns:
                raise ValueError(f"{place}: {len(fields)} fields, the lines before have {columns}")
            row = parse_numbers(fields, place)
        except ValueError:
            check_separator(text, place)  # the likelier cause, and the plainer words
            raise
        yield row


def parse_numbers(fields: list[str], place: str) -> FloatArray:
    """float32 [len(fields)]; `place` names the fields in errors. Raises ValueError unless all are finite numbers."""
    values = np.empty(len(fields))
    for index, field in enumerate(fields):
        try:
            if "_" in field:
                raise ValueError  # float takes 1_000
            values[index] = float(field)
        except ValueError:
            raise ValueError(f"{place}: {field.strip()!r} is not a number") from None
        if not abs(values[index]) <= LARGEST:
            raise ValueError(f"{place}: {field.strip()!r} is not a finite float32 value; remove or fill such values")
    return values.astype(np.float32)


def check_names(line: str, fields: list[str], place: str) -> None:
    """Raise ValueError for a first line without numbers that does not hold the names of channels either."""
    check_separator(line, place)
    if "," not in line and (";" in line or "\t" in line):
        raise ValueError(f"{place}: fields are separated by {_SEPARATORS[';' if ';' in line else _TAB]}: use commas")
    for field in fields:
        if is_missing(field):
            raise ValueError(f"{place}: {field.strip()!r} is a missing value, neither a number nor a channel's name")


def check_separator(line: str, place: str) -> None:
    """Raise ValueError for numbers that are separated by something else than commas, with points or decimal commas."""
    for separator, name in _SEPARATORS.items():
        parts = [part for part in line.strip().split(separator) if part.strip()]
        if len(parts) > 1 and all(_is_number(part.replace(",", ".")) for part in parts):
            decimals = (
                " and decimals are marked by ',': use commas and decimal points" if "," in line else ": use commas"
            )
            raise ValueError(f"{place}: fields are separated by {name}{decimals}")


def _header(lines: list[str]) -> tuple[str, ...]:
    fields = next(line for line in lines if line.strip()).split(",")
    return () if has_number(fields) else tuple(field.strip().strip('"') for field in fields)


def has_number(fields: list[str]) -> bool:
    return any(map(_is_number, fields))


def is_missing(field: str) -> bool:
    """Whether it is what people write for a value that they have not."""
    return field.strip().strip('"').lower() in _MISSING


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_npy(path: Path) -> FloatArray:
    values = load_npy(path)
    if not np.isfinite(values).all():
        row = int(np.nonzero(~np.isfinite(values))[0][0])
        raise ValueError(f"{path}, row {row + 1}: NaN or infinite values; remove or fill them")
    return values


def load_npy(path: Path) -> FloatArray:
    """float32 [T, I] of a .npy file, NaN and infinite values included. Raises ValueError for any other content."""
    try:
        # Mapped, a header that promises more than the file holds is refused before memory is taken for it.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python text: damage raises whatever its tokenizer raises
        raise ValueError(f"{path}: not a .npy file of numbers, or cut short ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path}: must hold numbers of shape [steps, channels], not {found}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, np.float32)
