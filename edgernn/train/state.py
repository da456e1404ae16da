"""What a training run is made of between two epochs: everything a checkpoint must hold."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..nn import SequenceModel
from ..quantize import ModelQuantizer, prepare
from .averaging import Average
from .config import TrainConfig

Record = dict[str, Any]


@dataclass(frozen=True)
class History:
    """What `fit` returns. epochs: a record an epoch (as in metrics.json); metrics: the final measurements."""

    epochs: list[Record]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Best:
    """The best epoch (from 0) of some phase, its validation loss and its weights."""

    epoch: int
    loss: float
    weights: dict[str, Tensor]


@dataclass
class TrainingState:
    """A run after `epoch` epochs. `best` is of the final phase, `best_float` of the float phase before pruning."""

    model: SequenceModel
    config: TrainConfig
    shuffle: torch.Generator
    optimizer: torch.optim.AdamW
    average: Average
    epoch: int = 0
    records: list[Record] = field(default_factory=list)
    best: Best | None = None
    best_float: Best | None = None

    @classmethod
    def start(cls, model: SequenceModel, config: TrainConfig) -> "TrainingState":
        generator = torch.Generator()
        generator.manual_seed(config.seed)
        return cls(model, config, generator, make_optimizer(model, config), Average(config.ema_decay))

    def prepare(self) -> None:
        """Go over to integers: learned scales are new parameters, so the optimiser is made anew."""
        assert self.config.quantization is not None
        prepare(self.model, self.config.quantization)
        self.optimizer = make_optimizer(self.model, self.config)

    def consider(self, loss: float) -> None:
        """Keep the model's weights (the averaged ones) where this validation loss is the lowest of its phase.

        The loss and not the accuracy: on a few dozen sequences most epochs have the same accuracy, or a lucky one.
        """
        phase, phases = self.config.phase(self.epoch), self.config.phases_used
        if phase == phases[-1] and (self.best is None or loss < self.best.loss):
            self.best = Best(self.epoch, loss, weights_of(self.model))
        if phase == "float" and (self.best_float is None or loss < self.best_float.loss):
            self.best_float = Best(self.epoch, loss, weights_of(self.model))


def make_optimizer(model: SequenceModel, config: TrainConfig) -> torch.optim.AdamW:
    """Adam, with decoupled weight decay on the weight matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, foreach=False)


def weights_of(model: SequenceModel) -> dict[str, Tensor]:
    """A copy of the model's state_dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def strip(model: SequenceModel) -> None:
    """Take quantisation and pruning masks off the model, so that a checkpoint of any phase can be loaded into it."""
    model.quantizer = None
    model.rnn.clear_masks()


def load_best(model: SequenceModel, best: Best, quantizer: ModelQuantizer | None) -> None:
    """Bring the model to the weights and masks of `best`, computing in integers if its phase did (with `quantizer`)."""
    strip(model)
    model.quantizer = quantizer
    model.load_state_dict(best.weights)
    model.eval()
