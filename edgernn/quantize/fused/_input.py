"""A batch's input as integers."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...firmware_sim._jit import kernel
from ...firmware_sim.simd._pack import Array

_SPAN: Final = 512  # values at a time, which is what makes vectors of them


@kernel
def _quantize(x: Array, lengths: Array, mean: Array, step: Array, zero_point: Any, limit: Any, out: Array) -> bool:
    """ModelQuantizer.quantize_input of the valid steps, all in float32; False if one is not finite.

    x and out [batch, time * channels]; lengths likewise.
    """
    channels, largest = mean.shape[0], np.int32(0)
    repeats = _SPAN // channels + 1
    means, steps = np.empty(repeats * channels, np.float32), np.empty(repeats * channels, np.float32)
    for n in range(repeats):
        for k in range(channels):
            means[n * channels + k], steps[n * channels + k] = mean[k], step[k]
    for row in range(x.shape[0]):
        for start in range(0, lengths[row], means.shape[0]):
            end = min(start + means.shape[0], lengths[row])
            values, to = x[row, start:end], out[row, start:end]
            bits = values.view(np.int32)
            for k in range(np.uint64(values.shape[0])):
                largest = max(largest, bits[k] & np.int32(0x7FFFFFFF))
                scaled = np.rint((values[k] - means[k]) / steps[k]) + zero_point
                to[k] = np.int32(min(max(scaled, -limit), limit - np.float32(1)))
    return bool(largest < 0x7F800000)


def quantize_input(x: Tensor, lengths: Array, mean: Tensor, step: Tensor, zero_point: float, bits: int) -> Tensor:
    """int8 or int16 [batch, time, channels]; 0 at padding. Raises ValueError for NaN and infinite values."""
    batch, channels = len(x), x.shape[2]
    out = np.zeros(x.shape, np.int8 if bits == 8 else np.int16)
    rows = x.detach().contiguous().numpy().reshape(batch, -1), lengths * channels
    limits = np.float32(zero_point), np.float32(2 ** (bits - 1))
    if not _quantize(*rows, mean.numpy(), step.numpy(), *limits, out.reshape(batch, -1)):
        raise ValueError("x contains NaN or infinite values; clean them first")
    return torch.from_numpy(out)
