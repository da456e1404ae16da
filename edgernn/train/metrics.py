"""How good a model is: in float, with fake quantisation, or in the device's integers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data import Split
from ..nn import SequenceModel
from ..qmodel import HeadKind, QuantizedModel
from .losses import batch_loss, counted

_CHUNK = 256  # sequences in flight


def evaluate(model: SequenceModel | QuantizedModel, split: Split) -> dict[str, Any]:
    """The metrics of `model` on `split`, over all sequences (head last) or all valid steps (head steps).

    Classification: accuracy, macro_f1, and f1 by class (None for one that neither occurs nor is predicted; such classes
    do not enter macro_f1). Regression: mae and rmse in the target's units. Both: loss and count. A SequenceModel runs
    in torch (as the device computes when it is prepared), a QuantizedModel in firmware_sim. Raises ValueError when the
    split's channels, targets or labels do not fit the model.
    """
    head = head_of(model)
    _check_targets(model, split, head)
    outputs = _integer_outputs(model, split) if isinstance(model, QuantizedModel) else _torch_outputs(model, split)
    y, keep = torch.from_numpy(split.y), counted(torch.from_numpy(split.lengths), split.x.shape[1], head)
    loss = float(batch_loss(outputs, y, keep, model.task))
    chosen, truth = outputs[keep].numpy(), y[keep].numpy()
    measured = _classification(chosen, truth) if model.task == "classification" else _regression(chosen, truth)
    return measured | {"loss": loss, "count": int(keep.sum())}


def score(metrics: dict[str, Any], head: HeadKind) -> tuple[float, float]:
    """What the best epoch has most of: accuracy (macro F1 for labels at every step), then a low loss; or only that."""
    first = metrics.get("macro_f1" if head == "steps" else "accuracy", 0.0)
    return float(first), -float(metrics["loss"])


def head_of(model: SequenceModel | QuantizedModel) -> HeadKind:
    """Raises ValueError for a QuantizedModel without a head, which has no metrics."""
    if isinstance(model, SequenceModel):
        return model.head_kind
    if model.head is None:
        raise ValueError("a model without a head gives hidden states, which have no metrics; evaluate the whole model")
    return model.head.kind


def _check_targets(model: SequenceModel | QuantizedModel, split: Split, head: HeadKind) -> None:
    outputs = model.output_size
    shape = split.x.shape[:2] if head == "steps" else split.x.shape[:1]
    if model.task == "regression":
        shape = (*shape, outputs)
    dtype = np.int64 if model.task == "classification" else np.float32
    if split.y.shape != shape or split.y.dtype != dtype:
        raise ValueError(
            f"a {model.task} model with {outputs} outputs and head {head!r} needs targets {np.dtype(dtype)} {shape}, "
            f"not {split.y.dtype} {split.y.shape}"
        )
    if model.task == "classification" and split.y.max() >= outputs:
        raise ValueError(f"labels must lie in 0 .. {outputs - 1}, the model's classes; found {split.y.max()}")


def _torch_outputs(model: SequenceModel, split: Split) -> Tensor:
    parts = (torch.split(torch.from_numpy(array), _CHUNK) for array in (split.x, split.lengths))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(x, lengths) for x, lengths in zip(*parts, strict=True)])
    finally:
        model.train(training)


def _integer_outputs(model: QuantizedModel, split: Split) -> Tensor:
    from ..firmware_sim import run_batch  # Numba and its kernels: only where integers are asked for

    integers = run_batch(model, model.quantize_input(split.x), split.lengths)
    return torch.from_numpy(model.dequantize_output(integers))


def _classification(outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, Any]:
    predicted = outputs.argmax(axis=-1)  # the lowest index of equal logits, as everywhere
    f1 = [_f1(predicted == label, truth == label) for label in range(outputs.shape[-1])]
    macro_f1 = float(np.mean([value for value in f1 if value is not None]))
    return {"accuracy": float((predicted == truth).mean()), "macro_f1": macro_f1, "f1": f1}


def _f1(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float | None:
    both = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / both if both else None


def _regression(outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, Any]:
    error = outputs.astype(np.float64) - truth
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
