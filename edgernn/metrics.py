"""How good outputs are: accuracy and F1 or absolute and squared errors, and the loss. NumPy only."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .data import Split
from .qmodel import HeadKind, QuantizedModel, Task

Array = npt.NDArray[Any]
Metrics = dict[str, Any]


def evaluate(model: QuantizedModel, split: Split) -> Metrics:
    """The metrics of the integers that `firmware_sim` computes on `split`, without torch.

    They count all sequences (head last) or all valid steps (head steps). Classification: accuracy, macro_f1, and f1 by
    class (None for one that neither occurs nor is predicted; such classes do not enter macro_f1). Regression: mae and
    rmse in the target's units. Both: loss (cross-entropy in nats, or the mean squared error) and count. Raises
    ValueError when the split's channels, targets or labels do not fit the model, and for a model without a head.
    """
    from .firmware_sim import run_batch  # Numba and its kernels: only where integers are asked for

    if model.head is None:
        raise ValueError("a model without a head gives hidden states, which have no metrics; evaluate the whole model")
    check_targets(split, model.task, model.head.kind, model.output_size)
    y = run_batch(model, model.quantize_input(split.x), split.lengths)
    return measure(model.dequantize_output(y), split, model.task, model.head.kind)


def measure(outputs: Array, split: Split, task: Task, head: HeadKind) -> Metrics:
    """The metrics of real outputs [sequences, (steps,) output_size] on `split`, as `evaluate` gives them."""
    keep = counted(split, head)
    return compare(outputs[keep], split.y[keep], task) | {"count": int(keep.sum())}


def compare(outputs: Array, truth: Array, task: Task) -> Metrics:
    """The metrics, all but count, of outputs [N, output_size] and class numbers [N] or real values [N, output_size]."""
    if task == "classification":
        return _classification(outputs.astype(np.float64), truth)
    error = outputs.astype(np.float64) - truth
    loss = float(np.square(error).mean())
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(loss)), "loss": loss}


def counted(split: Split, head: HeadKind) -> npt.NDArray[np.bool_]:
    """What enters metrics: bool [sequences], all of them (head last), or [sequences, steps], the valid steps."""
    return split.valid if head == "steps" else np.ones(len(split), bool)


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
        labels = split.y[counted(split, head)]
        if labels.min() < 0 or labels.max() >= output_size:
            found = f"{labels.min()} .. {labels.max()}"
            raise ValueError(f"labels must lie in 0 .. {output_size - 1}, the model's classes; found {found}")


def _classification(logits: Array, truth: Array) -> Metrics:
    predicted = logits.argmax(axis=-1)  # the lowest index of equal logits, as everywhere
    f1 = [_f1(predicted == label, truth == label) for label in range(logits.shape[-1])]
    return {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(np.mean([value for value in f1 if value is not None])),
        "f1": f1,
        "loss": _cross_entropy(logits, truth),
    }


def _f1(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float | None:
    both = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / both if both else None


def _cross_entropy(logits: Array, truth: Array) -> float:
    """The mean of -log softmax(logits)[truth]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)  # exp cannot overflow
    right = np.take_along_axis(shifted, truth[:, None], axis=-1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=-1)) - right).mean())
