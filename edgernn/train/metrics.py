"""The metrics of a model in training: in float, with fake quantisation, or in the device's integers."""

import torch

from .. import metrics
from ..data import Split
from ..metrics import Array, Metrics
from ..nn import SequenceModel
from ..qmodel import QuantizedModel

_CHUNK = 256  # sequences in flight


def evaluate(model: SequenceModel | QuantizedModel, split: Split) -> Metrics:
    """The metrics of `model` on `split`, those of `edgernn.metrics.evaluate` for every kind of model.

    A SequenceModel runs in torch (as the device computes when it is prepared), a QuantizedModel in firmware_sim. Raises
    ValueError when the split's channels, targets or labels do not fit the model, and for a model without a head.
    """
    if isinstance(model, QuantizedModel):
        return metrics.evaluate(model, split)
    metrics.check_targets(split, model.task, model.head_kind, model.output_size)
    return metrics.measure(_outputs(model, split), split, model.task, model.head_kind)


def _outputs(model: SequenceModel, split: Split) -> Array:
    parts = (torch.split(torch.from_numpy(array), _CHUNK) for array in (split.x, split.lengths))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(x, lengths) for x, lengths in zip(*parts, strict=True)]).numpy()
    finally:
        model.train(training)
