"""The loss of a batch: cross-entropy or mean squared error over the steps that count."""

import torch
from torch import Tensor
from torch.nn import functional

from ..qmodel import HeadKind, Task


def counted(lengths: Tensor, steps: int, head: HeadKind) -> Tensor:
    """What enters losses and metrics: bool [batch], all of it (head last), or [batch, steps], the valid steps."""
    if head == "last":
        return torch.ones(len(lengths), dtype=torch.bool, device=lengths.device)
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def batch_loss(outputs: Tensor, y: Tensor, keep: Tensor, task: Task) -> Tensor:
    """The mean over what `keep` (see `counted`) selects of cross-entropy or, for regression, squared error: a scalar.

    outputs [batch, (steps,) output_size]; y: class numbers int64 [batch(, steps)], or real values like outputs.
    """
    if task == "classification":
        return functional.cross_entropy(outputs[keep], y[keep])
    return functional.mse_loss(outputs[keep], y[keep])
