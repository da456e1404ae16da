"""run: rows of numbers in, predictions out. What a Raspberry Pi runs."""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._options import add_model, positive_int
from ._output import json_line
from ._results import classes, text, values

if TYPE_CHECKING:
    from .._predictor import Predictor
    from ..data.rows import BadRow, Row
    from ._follow import Answers, Pace

QUIET = "print predictions and errors alone: no warnings, no summary"
JSON = "print one JSON object a prediction, and the summary as one on stderr"
HELP = "predict from the rows of a CSV, a .npy or stdin: after every row, or for every window of rows"
DETAILS = """
A row that cannot be fed to the model (missing values, NaN, words, too few or too many fields) is left out: the state
stays as it was, and a line with - (with --json: an "error") stands in its place, so that the lines out still match the
rows in. So it is for a window that holds such a row. The first of each kind is warned of on stderr, the summary counts
them. A first line of names and blank lines are no rows. Rows from stdin are answered one by one as they come; those of
a file in blocks, which is faster and gives the same.
"""

_AT_ONCE: Final = 1024  # rows of a file that are computed in one call
_HELD: Final = 1000  # bad rows at the beginning whose lines wait for the first good one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP}. {DETAILS}"
    add_model(parser, "a model (.ernn), an export of it (.tflite, .onnx), or what `edgernn build` made (.so, ..)")
    parser.add_argument("input", metavar="INPUT", help="a .csv or .npy file of rows, or - for CSV rows from stdin")
    parser.add_argument(
        "--engine",
        metavar="E",
        help="engine that computes (default for .ernn: the library built beside it, else numba, else native)",
    )
    parser.add_argument(
        "--window",
        type=positive_int,
        metavar="N",
        help="predict for windows of N rows, each from the state zero (default: after every row; models and files that "
        "take whole sequences read all rows as one)",
    )
    parser.add_argument(
        "--hop", type=positive_int, metavar="M", help="rows from one window's start to the next one's (default N)"
    )
    parser.add_argument("--strict", action="store_true", help="end at the first bad row, with exit code 2")
    parser.add_argument("--last", action="store_true", help="print the last prediction alone")


def run(args: argparse.Namespace) -> int:
    from .._predictor import Predictor
    from ._follow import Pace

    predictor = Predictor.open(args.model, args.engine)
    pace, say = Pace(), _Notes(args)
    printer = _Printer(args, predictor)
    for note in predictor.notes:
        say(note)
    try:
        for answers in _answers(args, predictor, pace, say):
            pace.predictions += 0 if answers.outputs is None else len(answers.rows)
            printer.take(answers)
            if pace.predictions:
                say.all()
    except KeyboardInterrupt:
        _finish(args, predictor, pace, say, printer)
        raise
    if not pace.predictions:
        raise ValueError(_nothing(args, pace, say))
    _finish(args, predictor, pace, say, printer)
    return 0


def _answers(args: argparse.Namespace, predictor: "Predictor", pace: "Pace", say: "_Notes") -> "Iterator[Answers]":
    from ._follow import after_rows, of_all, of_windows

    window = args.window or predictor.length
    if predictor.length not in (None, window):
        raise ValueError(f"{args.model}: was exported for windows of {predictor.length} rows, not {window}")
    if args.hop and not window:
        raise ValueError("--hop is the way from window to window: give --window too")
    rows = pace.count(_rows(args.input, predictor.input_size), _end_at if args.strict else say.bad_row)
    blank = [0.0] * predictor.input_size  # for a first call, which loads and compiles, before a row is there
    if predictor.streams and not window:
        at_once = 1 if args.input == "-" else _AT_ONCE
        predictor.steps([blank] * min(2, at_once))
        predictor.reset()
        return after_rows(rows, pace.timed(predictor.steps, True), at_once)
    predictor.window([blank] * (predictor.length or 1))
    predict = pace.timed(predictor.window, False)
    return of_windows(rows, predict, window, args.hop or window, say) if window else of_all(rows, predict)


def _rows(source: str, columns: int) -> "Iterator[Row]":
    from ..data.rows import parse_rows, read_rows

    if source != "-":
        return read_rows(Path(source), columns)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # noise on a line is a bad row, not the end
    return parse_rows(sys.stdin, columns, "stdin")


def _end_at(row: "BadRow") -> None:
    raise ValueError(row.message)


def _nothing(args: argparse.Namespace, pace: "Pace", say: "_Notes") -> str:
    """Why there is no prediction."""
    bad = pace.bad.total()
    if bad and bad == pace.rows:
        return say.first_bad
    name = "stdin" if args.input == "-" else args.input
    if not pace.rows:
        return f"{name}: holds no rows of numbers"
    return f"{name}: holds {_many(pace.rows, 'row')}, {bad:,} of them bad: no whole window"


def _finish(args: argparse.Namespace, predictor: "Predictor", pace: "Pace", say: "_Notes", printer: "_Printer") -> None:
    printer.end()
    sys.stdout.flush()
    say.all()
    if args.quiet:
        return
    facts = {"engine": predictor.engine, **pace.summary()}
    print(json_line({"summary": facts}) if args.json else f"edgernn run: {_in_words(facts)}", file=sys.stderr)


def _in_words(facts: dict[str, Any]) -> str:
    words = [f"{_many(facts['rows'], 'row')}, {_many(facts['predictions'], 'prediction')} by {facts['engine']}"]
    words += [f"{_many(count, 'bad row')}: {kind}" for kind, count in facts["bad_rows"].items()]
    rate = facts["rows_per_second"]
    words.append(f"{facts['seconds']:.2f} s" + (f", {rate:,.0f} rows/s" if rate else ""))
    if facts["median_us"] is not None:
        words.append(f"a prediction takes {facts['median_us']:,.1f} us, 95 % at most {facts['p95_us']:,.1f} us")
    return "; ".join(words)


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


class _Notes:
    """Lines for stderr. They wait for the first prediction: where there is none, the error alone is told."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._quiet, self._waiting, self._kinds = args.quiet, list[str](), set[str]()
        self.first_bad = ""

    def __call__(self, text: str) -> None:
        self._waiting.append(text)

    def bad_row(self, row: "BadRow") -> None:
        self.first_bad = self.first_bad or row.message
        if row.kind not in self._kinds:
            self._kinds.add(row.kind)
            self(f"{row.message}; such rows are left out ({row.kind})")

    def all(self) -> None:
        for note in self._waiting:
            if not self._quiet:
                print(f"edgernn run: {' '.join(note.split())}", file=sys.stderr, flush=True)
        self._waiting.clear()


class _Printer:
    """A line a prediction; from stdin each at once."""

    def __init__(self, args: argparse.Namespace, predictor: "Predictor") -> None:
        self._json, self._only_last, self._live = args.json, args.last, args.input == "-"
        self._results = classes(predictor.labels) if predictor.classifies else values
        self._waiting: list[str] = []
        self._begun = False
        self._last: Answers | None = None

    def take(self, answers: "Answers") -> None:
        if self._only_last:
            self._last = self._last if answers.outputs is None else answers
        else:
            self._write(answers)

    def end(self) -> None:
        if self._last is not None:
            self._write(self._last._replace(rows=self._last.rows[-1:], outputs=self._last.outputs[-1:]))

    def _write(self, answers: "Answers") -> None:
        self._waiting += self._lines(answers)
        if answers.outputs is None and not self._begun and len(self._waiting) < _HELD:
            return
        self._begun = True
        sys.stdout.write("\n".join(self._waiting) + "\n")
        self._waiting.clear()
        if self._live:
            sys.stdout.flush()

    def _lines(self, answers: "Answers") -> list[str]:
        bad = answers.outputs is None
        if not self._json:
            return ["-"] if bad else [text(result) for result in self._results(answers.outputs)]
        results = [{"error": answers.error}] if bad else self._results(answers.outputs)
        start = {} if answers.start is None else {"start": answers.start}
        return [json_line({"row": n, **start, **one}) for n, one in zip(answers.rows, results, strict=True)]
