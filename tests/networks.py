"""Small float networks and data for the tests of quantisation."""

from typing import Any

import torch
from torch import Tensor

from edgernn.nn import GRU, LSTM, RNN, SequenceModel
from edgernn.qmodel import HeadKind

from .models import VARIANTS, Variant

INPUT, HIDDEN, OUTPUT, BATCH, STEPS = 5, 7, 3, 4, 9


def build(
    variant: Variant,
    head: HeadKind = "last",
    gain: float = 1.5,
    layers: int = 2,
    inputs: int = INPUT,
    size: int = HIDDEN,
) -> SequenceModel:
    torch.manual_seed(VARIANTS.index(variant))
    kinds: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "gru_before": GRU, "rnn": RNN}
    options = {"reset_after": False} if variant == "gru_before" else {}
    rnn = kinds[variant](inputs, size, num_layers=layers, batch_first=True, **options)
    model = SequenceModel(rnn, OUTPUT, head, input_mean=torch.randn(inputs), input_std=torch.rand(inputs) + 0.5)
    for parameter in model.parameters():
        parameter.data.mul_(gain)
    return model


def sample(seed: int = 0, inputs: int = INPUT) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(BATCH, STEPS, inputs) * 1.5, torch.tensor([STEPS, 3, 5, 1])
