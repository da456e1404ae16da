"""The metrics of a model in training: in float, with fake quantisation, or in the device's integers."""

from collections.abc import Iterator

import torch

from .. import metrics
from ..data import Split
from ..metrics import Array, Metrics, Progress, unwatched
from ..nn import SequenceModel
from ..qmodel import QuantizedModel

_CHUNK = 256  # sequences in flight


def evaluate(model: SequenceModel | QuantizedModel, split: Split, progress: Progress = unwatched) -> Metrics:
    """The metrics of `model` on `split`, those of `edgernn.metrics.evaluate` for every kind of model.

    A SequenceModel runs in torch (as the device computes when it is prepared), a QuantizedModel in firmware_sim.
    Progress counts sequences. Raises ValueError when the split's channels, targets or labels do not fit the model, and
    for a model without a head.
    """
    if isinstance(model, QuantizedModel):
        return metrics.evaluate(model, split, progress)
    metrics.check_targets(split, model.task, model.head_kind, model.output_size)
    training = model.training
    model.eval()
    try:
        return metrics.measure(_outputs(model, split), split, model.task, model.head_kind, progress)
    finally:
        model.train(training)


def _outputs(model: SequenceModel, split: Split) -> Iterator[Array]:
    parts = (torch.split(torch.from_numpy(array), _CHUNK) for array in (split.x, split.lengths))
    for x, lengths in zip(*parts, strict=True):
        with torch.no_grad():
            outputs = model(x, lengths)
        yield outputs.numpy()
