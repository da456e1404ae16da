"""How often a model runs into the limits of its number formats."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._tflite_lstm import Flavour
from ..qmodel import IntArray, QuantizedModel, check_lengths
from ._inference import batch_pieces
from ._network import Network


@dataclass(frozen=True)
class Saturation:
    """Counts of values at an end of their range, over `steps` valid time steps.

    `input`: of the steps * input_size inputs, as the caller quantised them. `layers`: for every layer, of its
    steps * output_size values each (both directions together): the pre-activations of every gate under the gate's name,
    the hidden state under "hidden" and an LSTM's cell state under "cell".
    """

    steps: int
    input: int
    layers: tuple[Mapping[str, int], ...]


def count_saturation(
    model: QuantizedModel, x: IntArray, lengths: npt.ArrayLike | None = None, flavour: Flavour = "litert"
) -> Saturation:
    """Run x [batch, time, input_size] as `run_batch` does, and count the limits met. Raises ValueError as it does."""
    x = model.check_input(x, ("batch", "time", "input_size"))
    valid = check_lengths(lengths, len(x), x.shape[1])
    counters = [np.zeros(len(layer.gates) + 2, np.int64) for layer in model.layers]
    for piece in batch_pieces(*x.shape[:2]):
        Network(model, len(x[piece]), readable=True, flavour=flavour).run(x[piece], valid[piece], counters)
    limits = np.iinfo(model.input_dtype)
    at_limit = ((x == limits.min) | (x == limits.max)).sum(axis=2)
    is_valid = np.arange(x.shape[1]) < valid[:, np.newaxis]
    layers = []
    for layer, counts in zip(model.layers, counters, strict=True):
        names = (*layer.gates, "hidden", "cell") if layer.cell == "lstm" else (*layer.gates, "hidden")
        layers.append(dict(zip(names, counts.tolist(), strict=False)))
    return Saturation(int(valid.sum()), int(at_limit[is_valid].sum()), tuple(layers))
