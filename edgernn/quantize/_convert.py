"""convert: the integers of a prepared SequenceModel as a QuantizedModel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..nn import SequenceModel
from ..qmodel import Affine, Head, Layer, QuantizedModel
from ._cells import IntegerAffine
from ._quantizer import ModelQuantizer, check_model


@torch.no_grad()
def convert(model: SequenceModel, provenance: Mapping[str, Any] | None = None) -> QuantizedModel:
    """The QuantizedModel that computes exactly what the prepared and calibrated model computes.

    provenance: what to remember about the training (JSON values). Raises ValueError when the model is not prepared and
    calibrated, holds NaN or infinite weights, or could overflow its 32-bit accumulators.
    """
    check_model("convert", model)
    quantizer = model.quantizer
    if quantizer is None or not quantizer.calibrated:
        raise ValueError("convert needs a prepared and calibrated model; call prepare, then calibrate")
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name} contains NaN or infinite values; train again with a smaller learning rate")
    dense, head_scale = quantizer.head(model)
    return QuantizedModel(
        layers=tuple(_layer(model, quantizer, names) for names in model.rnn.layers()),
        head=Head(model.head_kind, _affine(dense, head_scale, quantizer.view_scale, float(quantizer.output_scale))),
        input_scale=float(quantizer.input_scale),
        input_zero_point=int(quantizer.input_zero_point),
        scheme=quantizer.config.scheme,
        input_mean=model.input_mean.cpu().numpy().copy(),
        input_std=model.input_std.cpu().numpy().copy(),
        labels=model.labels,
        task=model.task,
        provenance=dict(provenance or {}),
    )


def _layer(model: SequenceModel, quantizer: ModelQuantizer, names: tuple[str, ...]) -> Layer:
    """The layer whose first direction is names[0], and whose backward one is names[1] if there is one."""
    integers, input_scale, recurrent_scale = quantizer.layer(model, names[0])
    scale_out = quantizer.pre_activation_scale
    scale_in = float(quantizer.input_scale) if names[0] in model.rnn.layers()[0] else quantizer.view_scale
    return Layer(
        integers.cell,
        _affine(integers.input, input_scale, scale_in, scale_out),
        _affine(integers.recurrent, recurrent_scale, quantizer.view_scale, scale_out),
        integers.reset_after,
        integers.cell_exponent,
        _layer(model, quantizer, names[1:]) if len(names) > 1 else None,
    )


def _affine(integers: IntegerAffine, scale: Tensor, scale_in: float, scale_out: float) -> Affine:
    bias = integers.bias.cpu().numpy()
    row = int(np.abs(bias).argmax())
    if abs(bias[row]) >= 2**31:
        raise ValueError(f"the bias of row {row} is too large for its weights ({bias[row]:.3g} does not fit int32)")
    weight = integers.weight.cpu().numpy().astype(np.int8)
    return Affine(weight, bias.astype(np.int32), scale.cpu().numpy().astype(np.float32), scale_in, scale_out)
