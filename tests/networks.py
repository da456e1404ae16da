"""Small float networks and data for the tests of quantisation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgernn.nn import GRU, LSTM, RNN, SequenceModel
from edgernn.qmodel import HeadKind
from edgernn.quantize import convert

from . import oracle
from .models import VARIANTS, Variant

INPUT, HIDDEN, OUTPUT, BATCH, STEPS = 5, 7, 3, 4, 9


def build(
    variant: Variant,
    head: HeadKind = "last",
    gain: float = 1.5,
    layers: int = 2,
    inputs: int = INPUT,
    size: int = HIDDEN,
    bidirectional: bool = False,
    bias: bool = True,
) -> SequenceModel:
    torch.manual_seed(VARIANTS.index(variant))
    kinds: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "gru_before": GRU, "rnn": RNN}
    options: dict[str, Any] = {
        "num_layers": layers,
        "bidirectional": bidirectional,
        "bias": bias,
        "batch_first": True,
    }
    if variant == "gru_before":
        options["reset_after"] = False
    rnn = kinds[variant](inputs, size, **options)
    model = SequenceModel(rnn, OUTPUT, head, input_mean=torch.randn(inputs), input_std=torch.rand(inputs) + 0.5)
    for parameter in model.parameters():
        parameter.data.mul_(gain)
    return model


def sample(seed: int = 0, inputs: int = INPUT) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(BATCH, STEPS, inputs) * 1.5, torch.tensor([STEPS, 3, 5, 1])


def assert_equals_integers(model: SequenceModel, x: Tensor, lengths: Tensor) -> None:
    """The model's outputs are exactly the oracle's integers times the output scale, a sequence at a time."""
    quantized = convert(model)
    y = model(x, lengths).detach().numpy()
    integers = quantized.quantize_input(x.numpy())
    for row, length in enumerate(lengths.tolist()):
        expected = quantized.dequantize_output(oracle.run(quantized, integers[row, :length]))
        assert np.array_equal(y[row] if model.head_kind == "last" else y[row, :length], expected)
        assert model.head_kind == "last" or not y[row, length:].any()
