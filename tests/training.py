"""Toy data and models for the tests of training, and how their results are compared."""

import signal
from typing import Any

import numpy as np
import torch

from edgernn.data import Dataset, Split, normalisation
from edgernn.nn import GRU, LSTM, RNN, Recurrent, SequenceModel
from edgernn.train import History, TrainConfig, fit

SEED = 7
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
ALL_PHASES = TrainConfig(
    epochs=5, batch_size=8, sparsity=0.5, qat="w8a8", seed=3, input_noise=0.1
)  # float, prune, prune, qat, qat


def some_data(task: str = "classification", head: str = "last", n: int = 24, steps: int = 6) -> Dataset:
    """Sequences whose label is the channel with the largest mean; the regression target is the running mean."""
    rng = np.random.default_rng(SEED)

    def split(count: int) -> Split:
        lengths = rng.integers(2, steps + 1, count)
        valid = (np.arange(steps) < lengths[:, None])[..., None]
        x = (rng.normal(size=(count, steps, 3)) * valid).astype(np.float32)
        running = np.cumsum(x, axis=1) / np.arange(1, steps + 1)[:, None]
        final = running[np.arange(count), lengths - 1]
        y: Any = running if head == "steps" else final
        if task == "regression":
            return Split(x, lengths, (y[..., :2] * (valid if head == "steps" else 1)).astype(np.float32))
        labels = y.argmax(axis=-1)
        return Split(x, lengths, np.where(valid[..., 0], labels, -1) if head == "steps" else labels)

    labels = ("a", "b", "c") if task == "classification" else ()
    return Dataset("toy", task, head, split(n), split(12), labels, ("u", "v", "w"), "made here")  # type: ignore[arg-type]


def some_model(data: Dataset, cell: str = "gru", hidden_size: int = 8, **options: Any) -> SequenceModel:
    torch.manual_seed(SEED)
    mean, std = normalisation(data.train)
    rnn = CELLS[cell](data.input_size, hidden_size, batch_first=True, **options)
    return SequenceModel(
        rnn, data.output_size, data.head, labels=data.labels, task=data.task, input_mean=mean, input_std=std
    )


def train(data: Dataset, config: TrainConfig, model: SequenceModel | None = None, **options: Any) -> SequenceModel:
    model = model or some_model(data)
    fit(model, data, config, progress=False, **options)
    return model


def same(a: SequenceModel, b: SequenceModel) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(np.array_equal(left[k].numpy(), right[k].numpy()) for k in left)


def without_times(history: History) -> tuple[Any, Any]:
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]
    return records, {k: v for k, v in history.metrics.items() if k != "seconds"}


class CtrlC:
    """Sends this process the real signal at the model's n-th forward pass in training, also where SIGINT is ignored, as
    in a shell's background jobs."""

    def __init__(self, model: SequenceModel, after: int) -> None:
        self.left = after
        self.hook = model.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: Any) -> None:
        self.left -= module.training
        if self.left == 0 and module.training:
            self.hook.remove()
            former = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.signal(signal.SIGINT, former)
