"""What the verbs print: aligned tables of plain text, or one JSON object."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

PATIENCE: Final = 1.0  # seconds of work before a bar is shown


def emit(args: argparse.Namespace, text: str, data: Mapping[str, Any]) -> None:
    """Print `data` as JSON with --json, nothing with --quiet, else `text`."""
    if args.json:
        print(json_line(data))
    elif not args.quiet:
        print(text)


def json_line(data: Mapping[str, Any]) -> str:
    """One line of JSON; what is not finite is null, as JSON has no word for it."""
    return json.dumps(_plain(data), allow_nan=False)


@contextmanager
def progress(args: argparse.Namespace, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function that takes how much is done and how much there is: where that takes long, a terminal shows a bar."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from tqdm import tqdm

    with tqdm(unit=unit, leave=False, delay=PATIENCE) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned by spaces: numbers to the right, words to the left; None is shown as a dash."""
    cells = [[_show(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in cells) for column in range(len(headers))]
    lines = [list(headers), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("-", "+")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
