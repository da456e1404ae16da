"""The running average of the weights, which is what a run evaluates and keeps.

Averaging along the path of the optimiser cancels much of its noise (Polyak and Juditsky 1992), and makes the choice of
the best epoch on a small validation part matter less.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Average:
    """The exponential moving average of a model's parameters after `steps` updates; decay 0 is the parameters."""

    decay: float
    steps: int = 0
    values: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After an optimiser step. The first updates weigh more, so that the initial weights are soon forgotten."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, parameter in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter, 1.0 - decay)
            else:
                self.values[name] = parameter.detach().clone()

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights; afterwards it has its own again, and training goes on from them."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        _copy(self.values, model)
        try:
            yield
        finally:
            _copy(own, model)


@torch.no_grad()
def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])
