"""The loss that training descends: cross-entropy or mean squared error over the steps that count."""

import torch
from torch import Tensor
from torch.nn import functional

from ..nn._base import valid_steps
from ..qmodel import HeadKind, Task


def counted(lengths: Tensor, steps: int, head: HeadKind) -> Tensor:
    """What enters the loss: bool [batch], all of it (head last), or [batch, steps], the valid steps."""
    return valid_steps(lengths, steps) if head == "steps" else torch.ones_like(lengths, dtype=torch.bool)


def batch_loss(outputs: Tensor, y: Tensor, keep: Tensor, task: Task) -> Tensor:
    """The mean over what `keep` (see `counted`) selects of cross-entropy or, for regression, squared error: a scalar.

    outputs [batch, (steps,) output_size]; y: class numbers int64 [batch(, steps)], or real values like outputs.
    """
    if task == "classification":
        return functional.cross_entropy(outputs[keep], y[keep])
    return functional.mse_loss(outputs[keep], y[keep])
