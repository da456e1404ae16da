"""Float against integers on this machine: quality, file size, and time in ratios, over every installed runtime.

Everything runs in one process on one thread and is timed in turn, round after round; a ratio is the median over the
rounds of the time divided by the reference's time in the same round, so that a busy machine disturbs both alike.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .data import Split
from .engines import ENGINES, GraphStepper, Session, Stepper, batched, whole
from .metrics import Progress, compare, counted, unwatched
from .qmodel import QuantizedModel

Array = npt.NDArray[Any]
_Form = Literal["sequence", "step"]

ROUNDS: Final = 11


@dataclass(frozen=True)
class Contender:
    """One network in one runtime. `prepare` makes what the runtime takes of real inputs [T, input_size], `output` real
    outputs of what it gives; `bytes` is the size of the file it needs; `kernel` tells that it computes the integers;
    `stepper` is None for a bidirectional network, which takes no single steps."""

    name: str
    bytes: int
    session: Session
    stepper: Stepper | None
    prepare: Callable[[Array], Array]
    output: Callable[[Array], Array]
    kernel: bool


@dataclass(frozen=True)
class Row:
    """One line of the table. Times are CPU seconds a sequence and a single step (None where there is no such thing);
    ratios are to the first line's."""

    name: str
    quality: float
    equals_kernel: bool | None
    bytes: int
    sequence_seconds: float
    sequence_ratio: float
    step_seconds: float | None
    step_ratio: float | None


def benchmark(
    model: QuantizedModel,
    contenders: Sequence[Contender],
    split: Split,
    timed: int = 20,
    progress: Progress = unwatched,
) -> list[Row]:
    """Quality on the whole split; times over its first `timed` sequences, whole and one step at a time.

    Progress counts the runs of a contender over its sequences.
    """
    numbers, total = count(1), len(contenders) * (2 * (ROUNDS + 1) + 1)

    def ran() -> None:
        progress(next(numbers), total)

    sequences = [x[:length] for x, length in zip(split.x, split.lengths, strict=True)]
    chosen = sequences[:timed]
    steps = sum(map(len, chosen))
    whole_times = _time([_whole_job(contender, chosen) for contender in contenders], ran)
    step_times = _time([_step_job(contender, chosen) for contender in contenders], ran)
    kernel = ENGINES["numba"].open(model)
    expected = [kernel(model.quantize_input(x)) for x in sequences]
    rows = []
    for contender, each_whole, each_step in zip(contenders, whole_times, step_times, strict=True):
        raw = [contender.session(contender.prepare(x)) for x in sequences]
        equal = all(map(np.array_equal, raw, expected)) if contender.kernel else None
        rows.append(
            Row(
                contender.name,
                quality(model, [contender.output(y) for y in raw], split),
                equal,
                contender.bytes,
                median(each_whole) / len(chosen),
                _ratio(each_whole, whole_times[0]),
                median(each_step) / steps if contender.stepper else None,
                _ratio(each_step, step_times[0]) if contender.stepper else None,
            )
        )
        ran()
    return rows


def quality(model: QuantizedModel, outputs: Sequence[Array], split: Split) -> float:
    """Accuracy (classification) or mean absolute error (regression) over the sequences' real outputs."""
    truth = split.y[counted(split.lengths, split.x.shape[1], "steps" if model.every_step else "last")]
    measured = compare(np.concatenate([np.atleast_2d(y) for y in outputs]), truth, model.task)
    return float(measured["accuracy" if model.task == "classification" else "mae"])


def _whole_job(contender: Contender, sequences: Sequence[Array]) -> Callable[[], None]:
    inputs = [contender.prepare(x) for x in sequences]

    def job() -> None:
        for x in inputs:
            contender.session(x)

    return job


def _step_job(contender: Contender, sequences: Sequence[Array]) -> Callable[[], None]:
    inputs = [contender.prepare(x) for x in sequences]
    stepper = contender.stepper

    def job() -> None:
        if stepper is None:
            return
        for x in inputs:
            stepper.reset()
            for row in x:
                stepper.step(row)

    return job


def _time(jobs: Sequence[Callable[[], None]], ran: Callable[[], None]) -> list[list[float]]:
    """CPU seconds of every job in every round, after one round that is not counted. Calls `ran` after each job."""
    times: list[list[float]] = [[] for _ in jobs]
    for number in range(ROUNDS + 1):
        for job, own in zip(jobs, times, strict=True):
            started = time.process_time()
            job()
            if number:
                own.append(time.process_time() - started)
            ran()
    return times


def _ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    return median(own / other for own, other in zip(times, reference, strict=True))


# ---- the contenders --------------------------------------------------------------------------------------------------


def contenders(model: QuantizedModel, model_file: Path, float_file: Path | None) -> Iterator[Contender]:
    """Float in torch first (where torch and the float model are at hand), the kernel, then the usual engines."""
    if float_file is not None and find_spec("torch") is not None:
        yield _torch(float_file)
    for engine in ENGINES.values():
        if engine.usual and engine.missing() is None:
            size = len(engine.export(model, engine.forms_of(model)[0])) if engine.forms else model_file.stat().st_size
            name = f"{engine.name} exact" if engine.suffix == ".onnx" else engine.name
            session, stepper = engine.open(model), None if model.bidirectional else engine.stream(model)
            yield Contender(name, size, session, stepper, model.quantize_input, model.dequantize_output, True)
    if ENGINES["onnxruntime"].missing() is None:
        yield from _float_onnx(model, float_file)


def _float_onnx(model: QuantizedModel, float_file: Path | None) -> Iterator[Contender]:
    from . import export
    from .floatmodel import FloatModel

    writers: dict[str, Callable[[_Form], bytes]] = {
        "onnxruntime int8 weights": lambda form: export.to_onnx(model, form, weights_only=True)
    }
    if float_file is not None:
        network = FloatModel.load(float_file)
        writers["onnxruntime float"] = lambda form: export.float_to_onnx(network, form)
    load = ENGINES["onnxruntime"].load
    assert load is not None
    for name, write in writers.items():
        sequence = write("sequence")
        stepper = None if model.bidirectional else GraphStepper(load(write("step")), model.states, np.float32)
        yield Contender(name, len(sequence), whole(batched(load(sequence))), stepper, _real, _real, False)


def _torch(float_file: Path) -> Contender:
    import torch

    from .nn import SequenceModel

    torch.set_num_threads(1)
    model = SequenceModel.load(float_file)
    model.quantizer = None
    model.eval()

    class Steps:
        def __init__(self) -> None:
            self.state: Any = None

        @torch.inference_mode()
        def step(self, x: Array) -> Array:
            y, self.state = model.run(torch.from_numpy(x[None, None]), None, self.state)
            return np.asarray(y[0, 0] if model.head_kind == "steps" else y[0])

        def reset(self) -> None:
            self.state = None

    @torch.inference_mode()
    def session(x: Array) -> Array:
        return np.asarray(model(torch.from_numpy(x[None]))[0])

    stepper = None if model.rnn.bidirectional else Steps()
    return Contender("torch float", float_file.stat().st_size, session, stepper, _real, _real, False)


def _real(x: Array) -> Array:
    return x
