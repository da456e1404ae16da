"""Float against integers on this machine: quality, file size, memory, and time, over every installed runtime.

Everything is timed in one process on one thread, in turn, round after round; a ratio is the median over the rounds of
the CPU time divided by the reference's in the same round, so that a busy machine disturbs both alike. A latency is the
time of one call, as a clock on the wall shows it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, pairwise
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._contenders import STEPS as STEPS
from ._contenders import Contender as Contender
from ._contenders import contenders as contenders
from ._memory import bare_memory as bare_memory
from ._memory import memory
from .data import Split
from .engines import Session
from .metrics import Progress, compare, counted, unwatched
from .qmodel import QuantizedModel

Array = npt.NDArray[Any]

ROUNDS: Final = 11
_KERNELS: Final = ("numba", "native")  # by which others are compared, the first that is here


@dataclass(frozen=True)
class Latency:
    """Seconds of a call: the median, the 95th percentile; and the CPU time as a ratio to the reference's."""

    median: float
    p95: float
    ratio: float


@dataclass(frozen=True)
class Row:
    """One line of the table, of the model with this fingerprint. `step` is None where there are no single steps;
    `memory` (peak resident bytes of a process of its own) where it could not be measured, for the reason in
    `memory_note`."""

    fingerprint: str
    name: str
    quality: float
    equals_kernel: bool | None
    bytes: int
    sequence: Latency
    step: Latency | None
    memory: int | None
    memory_note: str


@dataclass
class _Times:
    """Of one contender: CPU seconds of each round, and seconds of each call."""

    rounds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)

    def latency(self, reference: "_Times") -> Latency:
        ratio = median(own / other for own, other in zip(self.rounds, reference.rounds, strict=True))
        return Latency(median(self.calls), float(np.percentile(self.calls, 95)), ratio)


def benchmark(
    contenders: Sequence[Contender], split: Split, timed: int = 20, progress: Progress = unwatched
) -> list[Row]:
    """Quality on the whole split; times over its first `timed` sequences, whole and one step at a time.

    They may be of several models of the same task. Ratios are to the first contender that is a reference, or else to
    the kernel. Integers are compared with those of the kernel over the same model. Progress counts the runs of a
    contender over its sequences.
    """
    numbers, total = count(1), len(contenders) * (2 * (ROUNDS + 1) + 1)

    def ran() -> None:
        progress(next(numbers), total)

    sequences = [x[:length] for x, length in zip(split.x, split.lengths, strict=True)]
    chosen = sequences[:timed]
    wholes = _time([_whole_job(contender, chosen) for contender in contenders], ran)
    steps = _time([_step_job(contender, chosen) for contender in contenders], ran)
    reference, rows = contenders.index(reference_of(contenders)), []

    @cache
    def kernels(session: Session, prepare: Callable[[Array], Array]) -> list[Array]:
        return [session(prepare(x)) for x in sequences]

    for contender, each_whole, each_step in zip(contenders, wholes, steps, strict=True):
        raw = [contender.session(contender.prepare(x)) for x in sequences]
        rows.append(
            Row(
                contender.model.fingerprint,
                contender.name,
                quality(contender.model, [contender.output(y) for y in raw], split),
                all(map(np.array_equal, raw, kernels(*_reference(contender, contenders)))) if contender.exact else None,
                len(contender.content),
                each_whole.latency(wholes[reference]),
                each_step.latency(steps[reference]) if contender.stepper else None,
                *memory_of(contender, sequences[0]),
            )
        )
        ran()
    return rows


def _reference(contender: Contender, contenders: Sequence[Contender]) -> tuple[Session, Callable[[Array], Array]]:
    """What its integers are compared with, and how that takes real inputs."""
    kernel = kernel_of([one for one in contenders if one.model is contender.model])
    return contender.flavoured or kernel.session, kernel.prepare


def kernel_of(contenders: Sequence[Contender]) -> Contender:
    """The one that the integers of the others over its model are compared with, the first if there are several models.
    Raises ValueError when there is none."""
    exact = {contender.name: contender for contender in reversed(contenders) if contender.exact}
    if not exact:
        raise ValueError("no engine of integers is installed here: pip install edgernn, or see edgernn checks")
    return next((exact[name] for name in _KERNELS if name in exact), next(reversed(exact.values())))


def reference_of(contenders: Sequence[Contender]) -> Contender:
    """The one that ratios are to: the first float one, or else the kernel."""
    return next((contender for contender in contenders if contender.reference), kernel_of(contenders))


def memory_of(contender: Contender, x: Array) -> tuple[int | None, str]:
    """As `_memory.memory`, of a sequence of STEPS steps, of those of x [T, input_size] again and again."""
    prepared = contender.prepare(np.resize(x, (STEPS, x.shape[1])))
    return memory(contender.runtime, contender.content, contender.suffix, prepared)


def quality(model: QuantizedModel, outputs: Sequence[Array], split: Split) -> float:
    """Accuracy (classification) or mean absolute error (regression) over the sequences' real outputs."""
    truth = split.y[counted(split.lengths, split.x.shape[1], "steps" if model.every_step else "last")]
    measured = compare(np.concatenate([np.atleast_2d(y) for y in outputs]), truth, model.task)
    return float(measured["accuracy" if model.task == "classification" else "mae"])


# ---- time ------------------------------------------------------------------------------------------------------------

_Job = Callable[[], list[float]]  # runs over all sequences; the seconds of each call


def _whole_job(contender: Contender, sequences: Sequence[Array]) -> _Job:
    inputs = [contender.prepare(x) for x in sequences]

    def job() -> list[float]:
        stamps = [time.perf_counter()]
        for x in inputs:
            contender.session(x)
            stamps.append(time.perf_counter())
        return _differences(stamps)

    return job


def _step_job(contender: Contender, sequences: Sequence[Array]) -> _Job:
    inputs = [contender.prepare(x) for x in sequences]
    stepper = contender.stepper

    def job() -> list[float]:
        calls: list[float] = []
        if stepper is None:
            return calls
        for x in inputs:
            stepper.reset()
            stamps = [time.perf_counter()]
            for row in x:
                stepper.step(row)
                stamps.append(time.perf_counter())
            calls += _differences(stamps)
        return calls

    return job


def _differences(stamps: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(stamps)]


def _time(jobs: Sequence[_Job], ran: Callable[[], None]) -> list[_Times]:
    """The times of every job in every round, after one round that is not counted. Calls `ran` after each job."""
    times = [_Times() for _ in jobs]
    for number in range(ROUNDS + 1):
        for job, own in zip(jobs, times, strict=True):
            started = time.process_time()
            calls = job()
            if number:
                own.rounds.append(time.process_time() - started)
                own.calls += calls
            ran()
    return times
