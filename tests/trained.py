"""Models for the comparison of engines that come from PyTorch, with what the forward pass of training computes."""

import numpy as np
import numpy.typing as npt
import torch

from edgernn.qmodel import IntArray, Profile, QuantizedModel
from edgernn.quantize import QuantConfig, calibrate, convert, prepare

from .models import SCHEMES, VARIANTS
from .networks import build

Lengths = npt.NDArray[np.int64]


def draw_trained(seed: int, profile: Profile) -> tuple[QuantizedModel, IntArray, Lengths, IntArray]:
    """(model, x [N, T, input_size] integers, lengths [N], the integers of QAT's forward pass for them).

    profile: tflite-lstm takes a seed whose cell is the LSTM."""
    rng = np.random.default_rng([seed, 21])
    network = build(
        VARIANTS[seed % len(VARIANTS)],
        ("last", "steps")[int(rng.integers(2))],
        layers=int(rng.integers(1, 4)),
        inputs=int(rng.integers(1, 20)),
        size=int(rng.integers(1, 40)),
        bidirectional=bool(rng.random() < 0.5),
    )
    torch.manual_seed(seed)
    gain = float(rng.uniform(0.1, 1.5))
    for parameter in network.parameters():
        parameter.data.normal_(0.0, gain)
    steps, batch = int(rng.integers(1, 15)), int(rng.integers(1, 5))
    lengths = rng.integers(1, steps + 1, batch)
    lengths[0] = steps
    x = torch.randn(batch, steps, network.rnn.input_size) * float(rng.uniform(0.5, 3.0))
    drawn, per_channel = SCHEMES[int(rng.integers(2))], bool(rng.random() < 0.7)
    scheme = drawn if profile == "portable" else "w8a8"
    config = QuantConfig.parse(scheme, per_channel=per_channel, profile=profile)
    calibrate(prepare(network.eval(), config), x * float(rng.uniform(0.3, 1.5)), torch.from_numpy(lengths))
    model = convert(network)
    with torch.inference_mode():
        y = network(x, torch.from_numpy(lengths)).double().numpy()
    outputs = np.rint(y / float(np.float32(model.output_scale)))
    return model, model.quantize_input(x.numpy()), lengths, outputs.astype(np.int8)
