"""calibrate: the scales of input, cell state and output from what the float model does on sample data."""

import math
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from ..nn import LSTM, SequenceModel
from ..nn._base import check_lengths, scan, valid_steps
from ..qmodel import CELL_EXPONENTS, REVERSE
from ._quantizer import check_model

Method = Literal["minmax", "percentile", "mse"]
Values = npt.NDArray[np.float64]

_TAIL = 1e-4  # the share of values that "percentile" leaves outside on each side
_CLIPS = np.linspace(0.2, 1.0, 81)  # the shares of the full range that "mse" tries
_BATCH = 256


@torch.no_grad()
def calibrate(
    model: SequenceModel, x: Tensor, lengths: Tensor | None = None, method: Method = "minmax"
) -> SequenceModel:
    """Set the activation scales of a prepared model; returns it.

    x [sequences, steps, input_size] in raw units (tensor or array), lengths [sequences] or None. method: the full range
    of the values ("minmax"), all but 1e-4 of them on each side ("percentile"), or the range of the least quantisation
    error ("mse"). Raises ValueError when the model is not prepared or the data do not fit.
    """
    check_model("calibrate", model)
    quantizer = model.quantizer
    if quantizer is None:
        raise ValueError("the model is not prepared; call prepare(model, config) first")
    if method not in ("minmax", "percentile", "mse"):
        raise ValueError(f"unknown calibration method {method!r}; known are minmax, percentile, mse")
    x = torch.as_tensor(x, dtype=model.head.weight.dtype, device=model.head.weight.device)
    if x.dim() != 3 or x.shape[2] != model.rnn.input_size or 0 in x.shape:
        expected = f"[sequences, steps, {model.rnn.input_size}]"
        raise ValueError(f"calibration data must be {expected} and not empty, not {tuple(x.shape)}")
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else check_lengths(lengths, len(x), x.shape[1])
    if not bool(torch.isfinite(x[valid_steps(lengths.to(x.device), x.shape[1])]).all()):
        raise ValueError("calibration data contain NaN or infinite values; clean them first")
    inputs, outputs, cells = _trace(model, x, lengths)

    low, high = _range(inputs, method, 2**quantizer.config.activations)
    if quantizer.config.scheme == "w8a8":
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-6) / 255.0
        quantizer.input_zero_point.fill_(round(-128.0 - low / scale))
    else:
        scale = max(abs(low), abs(high), 1e-6) / 32767.0
    quantizer.log_input_scale.fill_(math.log2(scale))
    low, high = _range(outputs, method, 256)
    quantizer.log_output_scale.fill_(math.log2(max(abs(low), abs(high), 1e-6) / (127.0 * 256.0)))
    for index, largest in enumerate(cells):
        exponent = 15 - math.ceil(math.log2(max(largest, 1e-9)))
        quantizer.cell_exponents[index] = min(max(exponent, CELL_EXPONENTS[0]), CELL_EXPONENTS[-1])
    quantizer.start_learned_scales(model)
    quantizer.calibrated.fill_(True)
    return model


def _trace(model: SequenceModel, x: Tensor, lengths: Tensor) -> tuple[Values, Values, list[float]]:
    """(normalised inputs, outputs, the largest |cell state| a direction) of the float model over the valid steps."""
    quantizer, model.quantizer = model.quantizer, None
    training = model.training
    model.eval()
    try:
        valid = valid_steps(lengths.to(x.device), x.shape[1])
        normalised = (x - model.input_mean) / model.input_std
        outputs, cells = [], [0.0] * len(model.rnn.direction_names())
        for start in range(0, len(x), _BATCH):
            part = slice(start, start + _BATCH)
            y = model(x[part], lengths[part])
            outputs.append(y[valid[part]] if model.head_kind == "steps" else y)
            if isinstance(model.rnn, LSTM):
                found = _largest_cells(model.rnn, normalised[part], valid[part, :, None])
                cells = [max(pair) for pair in zip(cells, found, strict=True)]
    finally:
        model.quantizer = quantizer
        model.train(training)
    return normalised[valid].double().cpu().numpy(), torch.cat(outputs).double().cpu().numpy(), cells


def _largest_cells(rnn: LSTM, x: Tensor, valid: Tensor) -> list[float]:
    """The largest |c| of every direction over the valid steps: torch's LSTM shows c only when it has read everything.

    x [batch, steps, input_size], valid [batch, steps, 1].
    """
    zeros, largest = x.new_zeros(len(x), rnn.hidden_size), []
    for directions in rnn.layers():
        outputs = []
        for name in directions:
            w_ih, w_hh, b_ih, b_hh = rnn.direction_weights(name)
            inputs, step = linear(x, w_ih, b_ih + b_hh), partial(_lstm_step, w_hh)
            hidden, states = scan(step, inputs, (zeros, zeros), valid, name.endswith(REVERSE))
            outputs.append(hidden)
            largest.append(max(float(c.abs().max()) for _, c in states))
        x = torch.cat(outputs, dim=2)
    return largest


def _lstm_step(w_hh: Tensor, px: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (px + h @ w_hh.T).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _range(values: Values, method: Method, levels: int) -> tuple[float, float]:
    """The range (low, high) that the method gives to quantise into `levels` values."""
    low, high = float(values.min()), float(values.max())
    if method == "percentile":
        return float(np.quantile(values, _TAIL)), float(np.quantile(values, 1.0 - _TAIL))
    if method == "mse" and high > low:
        flat = values.ravel()[:: max(1, values.size // 100_000)]
        errors = [_error(flat, low * clip, high * clip, levels) for clip in _CLIPS]
        clip = float(_CLIPS[int(np.argmin(errors))])
        return low * clip, high * clip
    return low, high


def _error(values: Values, low: float, high: float, levels: int) -> float:
    step = (high - low) / (levels - 1)
    quantised = np.clip(np.rint((values - low) / step), 0, levels - 1) * step + low
    return float(np.mean((values - quantised) ** 2))
