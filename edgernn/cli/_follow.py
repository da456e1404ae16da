"""Rows become predictions: after every row, for every window, or once for all; and what that took."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeAlias

from ..data.rows import BadRow, Row

Predict: TypeAlias = Callable[[Any], Any]  # rows [n, input_size] -> outputs

_TIMES_KEPT: Final = 10_000  # of the last predictions


class Answers(NamedTuple):
    """Outputs [len(rows), output_size] with the numbers of the rows that they follow, from 1; None for a bad row.

    start: the first row of the window that they are of.
    """

    rows: Sequence[int]
    outputs: Any
    start: int | None = None
    error: str = ""


def after_rows(rows: Iterator[Row], predict: Predict, at_once: int) -> Iterator[Answers]:
    """An output after every row, computed for up to `at_once` of them in one call."""
    held: list[Any] = []
    number = 0
    for number, row in enumerate(rows, 1):
        if not isinstance(row, BadRow):
            held.append(row)
            if len(held) < at_once:
                continue
        if held:
            first = number - len(held) + (not isinstance(row, BadRow))
            yield Answers(range(first, first + len(held)), predict(held))
            held = []
        if isinstance(row, BadRow):
            yield Answers([number], None, error=row.message)
    if held:
        yield Answers(range(number - len(held) + 1, number + 1), predict(held))


def of_windows(
    rows: Iterator[Row], predict: Predict, size: int, hop: int, note: Callable[[str], None]
) -> Iterator[Answers]:
    """The outputs of rows 1 .. size, 1 + hop .. size + hop, ..; a window with a bad row has none."""
    kept: deque[Row] = deque(maxlen=size)
    number = 0
    for number, row in enumerate(rows, 1):
        kept.append(row)
        start = number - size + 1
        if start < 1 or (start - 1) % hop:
            continue
        bad = next((one for one in kept if isinstance(one, BadRow)), None)
        if bad is not None:
            yield Answers([number], None, start, bad.message)
            continue
        outputs = predict(list(kept))
        every_row = outputs.ndim == 2
        yield Answers(
            range(start, number + 1) if every_row else [number], outputs if every_row else outputs[None], start
        )
    complete = max(0, (number - size) // hop + 1)  # windows
    left = number - max(complete * hop, (complete - 1) * hop + size if complete else 0)
    if left > 0:
        note(f"the last {left:,} rows are no whole window of {size:,} and were dropped")


def of_all(rows: Iterator[Row], predict: Predict) -> Iterator[Answers]:
    """The outputs of all good rows together: one, or one a row."""
    good: dict[int, Any] = {}
    bad: dict[int, BadRow] = {}
    for number, row in enumerate(rows, 1):
        if isinstance(row, BadRow):
            bad[number] = row
        else:
            good[number] = row
    if not good:
        return
    outputs = predict(list(good.values()))
    if outputs.ndim == 1:
        yield Answers([max(good)], outputs[None])
        return
    places = {number: place for place, number in enumerate(good)}
    for number in sorted([*good, *bad]):
        if number in bad:
            yield Answers([number], None, error=bad[number].message)
        else:
            yield Answers([number], outputs[places[number]][None])


class Pace:
    """How many rows came, which were bad, and what the predictions took."""

    def __init__(self) -> None:
        self.rows = self.predictions = 0
        self.bad: Counter[str] = Counter()
        self._times: deque[float] = deque(maxlen=_TIMES_KEPT)
        self._start = 0.0

    def count(self, rows: Iterator[Row], on_bad: Callable[[BadRow], None]) -> Iterator[Row]:
        """The rows, as they come; `on_bad` is called with the bad ones."""
        for row in rows:
            if not self.rows:
                self._start = perf_counter()
            self.rows += 1
            if isinstance(row, BadRow):
                self.bad[row.kind] += 1
                on_bad(row)
            yield row

    def timed(self, predict: Predict, each_row: bool) -> Predict:
        """`predict`, timed: a call is one prediction, or (`each_row`) one for each of its rows."""

        def call(x: Any) -> Any:
            start = perf_counter()
            y = predict(x)
            end = perf_counter()
            number = len(x) if each_row else 1
            self._times.extend(repeat((end - start) / number, number))
            return y

        return call

    def summary(self) -> dict[str, Any]:
        """Numbers by name; the median and the 95th percentile are of the last 10,000 predictions, in microseconds."""
        seconds = perf_counter() - self._start if self.rows else 0.0
        times = sorted(self._times)
        return {
            "rows": self.rows,
            "predictions": self.predictions,
            "bad_rows": dict(self.bad),
            "seconds": seconds,
            "rows_per_second": self.rows / seconds if seconds else None,
            "median_us": 1e6 * times[len(times) // 2] if times else None,
            "p95_us": 1e6 * times[min(len(times) - 1, 95 * len(times) // 100)] if times else None,
        }
