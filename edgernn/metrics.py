"""How good outputs are: accuracy and F1 or absolute and squared errors, and the loss. NumPy only.

Sequences are measured a few at a time: beside them and their outputs memory does not grow with their number.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._tflite_lstm import FLAVOURS, Flavour
from .data import Split
from .qmodel import HeadKind, IntArray, QuantizedModel, Task

Array = npt.NDArray[Any]
Metrics = dict[str, Any]
Progress = Callable[[int, int], object]  # takes how much is done, and how much there is

BatchRun = Callable[[IntArray, npt.NDArray[np.int64]], IntArray]  # takes x and lengths, as firmware_sim.run_batch

_SEQUENCES: Final = 256  # that a `BatchRun` is given at once
_TERMS: Final = 1 << 16  # of a sum, that are added up at once


def unwatched(done: int, total: int) -> None:
    """The `Progress` that nobody looks at."""


def evaluate(
    model: QuantizedModel,
    split: Split,
    progress: Progress = unwatched,
    flavour: Flavour = "litert",
    run_batch: BatchRun | None = None,
) -> Metrics:
    """The metrics of the integers that `firmware_sim` (or `run_batch`) computes of `split` on all cores, without torch.

    They count all sequences (head last) or all valid steps (head steps). Classification: accuracy, macro_f1, and f1 by
    class (None for one that neither occurs nor is predicted; such classes do not enter macro_f1). Regression: mae and
    rmse in the target's units. Both: loss (cross-entropy in nats, or the mean squared error) and count. Progress counts
    sequences. flavour: of the profile tflite-lstm, as `run_batch` takes it. Raises ValueError when the split's
    channels, targets or labels do not fit the model, and for a model without a head.
    """
    if model.head is None:
        raise ValueError("a model without a head gives hidden states, which have no metrics; evaluate the whole model")
    check_targets(split, model.task, model.head.kind, model.output_size)
    outputs = _kernel_outputs(model, split, flavour) if run_batch is None else _outputs(model, split, run_batch)
    with closing(outputs):  # its threads end here, however it ends
        return measure(map(model.dequantize_output, outputs), split, model.task, model.head.kind, progress)


def _kernel_outputs(model: QuantizedModel, split: Split, flavour: Flavour) -> Generator[IntArray, None, None]:
    from .firmware_sim import batch_pieces, in_order, run_batch  # Numba and its kernels: only where integers are needed

    def run(piece: slice) -> IntArray:
        return run_batch(model, model.quantize_input(split.x[piece]), split.lengths[piece], flavour)

    return in_order(run, batch_pieces(*split.x.shape[:2]))


def _outputs(model: QuantizedModel, split: Split, run_batch: BatchRun) -> Generator[IntArray, None, None]:
    for start in range(0, len(split), _SEQUENCES):
        piece = slice(start, start + _SEQUENCES)
        yield run_batch(model.quantize_input(split.x[piece]), split.lengths[piece])


def evaluate_integers(
    model: QuantizedModel, split: Split, name: str, progress: Progress = unwatched
) -> dict[str, Metrics]:
    """`evaluate` under `name`; in the profile tflite-lstm once for each flavour, under name_litert, name_tflm, .."""
    if model.profile == "portable":
        return {name: evaluate(model, split, progress)}
    return {f"{name}_{flavour}": evaluate(model, split, progress, flavour) for flavour in FLAVOURS}


def measure(
    outputs: Iterable[Array], split: Split, task: Task, head: HeadKind, progress: Progress = unwatched
) -> Metrics:
    """The metrics, as `evaluate` gives them, of real outputs [sequences, (steps,) output_size] of all of `split`.

    The outputs may come in any number of pieces: it makes no difference, to the last bit.
    """
    tally, done = _tally(task), 0
    for some in outputs:
        piece = slice(done, done + len(some))
        keep = counted(split.lengths[piece], split.x.shape[1], head)
        tally.add(some[keep], split.y[piece][keep])
        done = piece.stop
        progress(done, len(split))
    return tally.metrics() | {"count": tally.count}


def compare(outputs: Array, truth: Array, task: Task) -> Metrics:
    """The metrics, all but count, of outputs [N, output_size] and class numbers [N] or real values [N, output_size]."""
    tally = _tally(task)
    tally.add(outputs, truth)
    return tally.metrics()


def counted(lengths: npt.NDArray[np.int64], steps: int, head: HeadKind) -> npt.NDArray[np.bool_]:
    """What enters metrics: bool [sequences], all of them (head last), or [sequences, steps], the valid steps."""
    if head == "last":
        return np.ones(len(lengths), bool)
    valid: npt.NDArray[np.bool_] = np.arange(steps) < lengths[:, np.newaxis]
    return valid


def check_targets(split: Split, task: Task, head: HeadKind, output_size: int) -> None:
    """Raise ValueError unless the targets of `split` are those of such a model."""
    shape = split.x.shape[:2] if head == "steps" else split.x.shape[:1]
    if task == "regression":
        shape = (*shape, output_size)
    dtype = np.int64 if task == "classification" else np.float32
    if split.y.shape != shape or split.y.dtype != dtype:
        raise ValueError(
            f"a {task} model with {output_size} outputs and head {head!r} needs targets {np.dtype(dtype)} {shape}, "
            f"not {split.y.dtype} {split.y.shape}"
        )
    if task == "classification":
        which: Any = {"initial": split.y.flat[0], "where": counted(split.lengths, split.x.shape[1], head)}
        lowest, highest = split.y.min(**which), split.y.max(**which)
        if lowest < 0 or highest >= output_size:
            found = f"{lowest} .. {highest}"
            raise ValueError(f"labels must lie in 0 .. {output_size - 1}, the model's classes; found {found}")


# ---- sums over sequences that come a few at a time -------------------------------------------------------------------


def _tally(task: Task) -> "_Classes | _Errors":
    return _Classes() if task == "classification" else _Errors()


class _Sum:
    """A sum of float64 numbers, which does not depend on how many are added at a time."""

    def __init__(self) -> None:
        self._total = 0.0
        self._last = np.empty(_TERMS)
        self._size = 0

    def add(self, terms: Array) -> None:
        terms = terms.ravel()
        while len(terms):
            now, terms = np.split(terms, [_TERMS - self._size])
            self._last[self._size : self._size + len(now)] = now
            self._size += len(now)
            if self._size == _TERMS:
                self._total, self._size = self.total(), 0

    def total(self) -> float:
        return self._total + float(self._last[: self._size].sum())


class _Classes:
    """Of outputs [N, classes] and class numbers [N]."""

    def __init__(self) -> None:
        self.count = 0
        self._right: Array | int = 0  # how often each class is predicted where it is true
        self._named: Array | int = 0  # how often it is predicted, and how often it is true
        self._loss = _Sum()

    def add(self, outputs: Array, truth: Array) -> None:
        logits, classes = outputs.astype(np.float64), outputs.shape[1]
        predicted = logits.argmax(axis=-1)  # the lowest index of equal logits, as everywhere
        self.count += len(truth)
        self._right += np.bincount(truth[predicted == truth], minlength=classes)
        self._named += np.bincount(predicted, minlength=classes) + np.bincount(truth, minlength=classes)
        self._loss.add(_cross_entropies(logits, truth))

    def metrics(self) -> Metrics:
        right = np.asarray(self._right).tolist()
        f1 = [2 * a / b if b else None for a, b in zip(right, np.asarray(self._named).tolist(), strict=True)]
        return {
            "accuracy": sum(right) / self.count,
            "macro_f1": float(np.mean([value for value in f1 if value is not None])),
            "f1": f1,
            "loss": self._loss.total() / self.count,
        }


class _Errors:
    """Of outputs and real values [N, output_size]."""

    def __init__(self) -> None:
        self.count = self._values = 0
        self._absolute, self._squared = _Sum(), _Sum()

    def add(self, outputs: Array, truth: Array) -> None:
        error = outputs.astype(np.float64) - truth
        self.count += len(truth)
        self._values += error.size
        self._absolute.add(np.abs(error))
        self._squared.add(np.square(error))

    def metrics(self) -> Metrics:
        loss = self._squared.total() / self._values
        return {"mae": self._absolute.total() / self._values, "rmse": float(np.sqrt(loss)), "loss": loss}


def _cross_entropies(logits: Array, truth: Array) -> Array:
    """-log softmax(logits)[truth]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # exp cannot overflow
    right = np.take_along_axis(shifted, truth[:, None], axis=-1)[:, 0]
    losses: Array = np.log(np.exp(shifted).sum(axis=-1)) - right
    return losses
