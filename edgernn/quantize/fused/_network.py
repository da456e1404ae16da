"""A prepared model's forward pass by fused operations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ... import fixedpoint
from ...firmware_sim.simd._host import host_form
from ...firmware_sim.simd._pack import Array
from ...nn._base import State, valid_steps
from ...qmodel import REVERSE, Cell
from .._ops import Primitives
from ._dense import run_dense
from ._direction import Direction, run_direction
from ._input import quantize_input
from ._operator import OperatorDirection, run_operator

if TYPE_CHECKING:
    from ...nn import SequenceModel
    from .._quantizer import ModelQuantizer

_PRIMITIVES = Primitives()
_wanted = True


@contextmanager
def explicit() -> Iterator[None]:
    """Within it prepared models compute with torch's own operations, as they do on other devices."""
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


def available(quantizer: "ModelQuantizer", model: "SequenceModel") -> bool:
    """Whether the fused operations can run the model: in float32, without dropout, and in the profile portable on a
    processor with a SIMD form."""
    if not _wanted or quantizer.cells.ops != _PRIMITIVES:
        return False
    if quantizer.config.profile == "portable" and host_form() is None:
        return False
    dropout = model.training and model.rnn.num_layers > 1 and model.rnn.dropout
    weight = model.head.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and not dropout


def run(
    quantizer: "ModelQuantizer",
    model: "SequenceModel",
    x: Tensor,
    lengths: Tensor | None,
    state: State | None,
    wants_state: bool,
) -> tuple[Tensor, State | None]:
    """ModelQuantizer.run, and the same numbers. Raises OverflowError for weights whose sums the kernels cannot take."""
    steps = np.full(len(x), x.shape[1]) if lengths is None else lengths.numpy().copy()
    layers = _portable_layers if quantizer.config.profile == "portable" else _operator_layers
    sequence, last = layers(quantizer, model, x, steps, state)
    if model.head_kind == "last":
        sequence = _joined([h for h, _ in last[-len(model.rnn.layers()[-1]) :]])
    y = _head(quantizer, model, sequence)
    if model.head_kind == "steps" and lengths is not None:
        y = y * valid_steps(lengths, x.shape[1])[..., None]
    return y, _real_state(quantizer, model, last) if wants_state else None


def _portable_layers(
    quantizer: "ModelQuantizer", model: "SequenceModel", x: Tensor, steps: Array, state: State | None
) -> tuple[Tensor, list[Any]]:
    """What the last layer gives at every step, and the final (h, c) of every direction; steps: the lengths."""
    rnn, config, cell, ends = model.rnn, quantizer.config, cast(Cell, model.cell), model.head_kind == "last"
    layers, view_scale, reset_after = rnn.layers(), quantizer.view_scale, bool(getattr(rnn, "reset_after", True))
    given = {} if state is None else quantizer.initial(model, x, state)
    exponents = dict(zip(rnn.direction_names(), quantizer.cell_exponents.tolist(), strict=True))
    input_scale = quantizer.input_scale
    sequence, last = _input(quantizer, model, x, steps, input_scale), list[Any]()
    integers = sequence.detach().to(torch.int8 if config.activations == 8 else torch.int16)
    for index, names in enumerate(layers):
        wanted, outputs = not ends or index + 1 < len(layers), list[tuple[Tensor, Tensor]]()
        scale_in = view_scale if index else input_scale
        for name in names:
            direction = Direction(
                name=name,
                cell=cell,
                scheme=config.scheme,
                reset_after=reset_after,
                cell_exponent=exponents[name],
                view_scale=view_scale,
                zero_point=0 if index else int(quantizer.input_zero_point),
                per_channel=config.per_channel,
                backward=name.endswith(REVERSE),
                saving=torch.is_grad_enabled(),
                sequence=wanted,
            )
            first = [s.float() for s in given[name]] if given else [None, None]
            weights = rnn.direction_weights(name)
            scales = _learned_scales(quantizer, model, name, weights, scale_in)
            operands = steps, sequence, integers, *first
            *output, h, c = run_direction(direction, *operands, *weights, scale_in, *scales)
            outputs.append((output[0], output[1]))
            last.append((h, c))
        if wanted:
            sequence, integers = (_joined(part) for part in zip(*outputs, strict=True))
    return sequence, last


def _operator_layers(
    quantizer: "ModelQuantizer", model: "SequenceModel", x: Tensor, steps: Array, state: State | None
) -> tuple[Tensor, list[Any]]:
    """`_portable_layers` in the profile tflite-lstm."""
    ends, layers, saving = model.head_kind == "last", model.rnn.layers(), torch.is_grad_enabled()
    sequence, last = _input(quantizer, model, x, steps, quantizer.input_scale).double(), list[Any]()
    first = quantizer.initial(model, x, state)
    for index, names in enumerate(layers):
        wanted, outputs = not ends or index + 1 < len(layers), list[Tensor]()
        for name in names:
            layer, _, _ = quantizer.layer(model, name)
            direction = OperatorDirection(steps, name.endswith(REVERSE), layer.cell_exponent, wanted, saving)
            hidden, h, c = run_operator(direction, sequence, *first[name], layer.input, layer.recurrent)
            outputs.append(hidden)
            last.append((h, c))
        if wanted:
            sequence = _joined(outputs)
    return sequence, last


def _input(quantizer: "ModelQuantizer", model: "SequenceModel", x: Tensor, steps: Array, scale: Tensor) -> Tensor:
    """Integers, as floats where they have gradients."""
    if x.requires_grad or scale.requires_grad:
        x = torch.where(valid_steps(torch.from_numpy(steps), x.shape[1])[..., None], x, 0.0)
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x contains NaN or infinite values; clean them first")
        return quantizer.quantize_input(model, x).float()
    zero_point, bits = quantizer.input_zero_point.item(), quantizer.config.activations
    return quantize_input(x, steps, model.input_mean, model.input_std * scale.float(), zero_point, bits)


def _learned_scales(
    quantizer: "ModelQuantizer", model: "SequenceModel", name: str, weights: Any, scale_in: Tensor | float
) -> tuple[Tensor | None, Tensor | None]:
    """Of the weights of a direction's two maps, if they are learned."""
    if not quantizer.config.learn_scales:
        return None, None
    view, to = _constant(quantizer.view_scale), _constant(fixedpoint.PRE_ACTIVATION_SCALE)
    operand = scale_in.detach() if isinstance(scale_in, Tensor) else view
    w_ih, w_hh, b_in, b_rec = (t.detach().double() for t in (*weights[:2], *quantizer.biases(model, *weights[2:])))
    return (
        quantizer.weight_scale(f"weight_ih_{name}", w_ih, b_in, operand, to),
        quantizer.weight_scale(f"weight_hh_{name}", w_hh, b_rec, view, to),
    )


def _head(quantizer: "ModelQuantizer", model: "SequenceModel", values: Tensor) -> Tensor:
    weight, bias, view_scale = model.head.weight, model.head.bias, quantizer.view_scale
    scale, output_scale = None, quantizer.output_scale
    if quantizer.config.profile == "tflite-lstm":  # in float64, as all that has gradients there
        cells, (dense, _) = quantizer.cells, quantizer.head(model)
        return (cells.narrow(cells.affine(dense, values)) * (output_scale * 256.0)).float()
    if quantizer.config.learn_scales:
        parts = weight.detach().double(), bias.detach().double(), _constant(view_scale), output_scale.detach()
        scale = quantizer.weight_scale("head", *parts)
    narrow = model.head_kind == "last" and quantizer.config.scheme == "w8a8"
    return run_dense(values, narrow, view_scale, quantizer.config.per_channel, weight, bias, output_scale, scale)


def _real_state(quantizer: "ModelQuantizer", model: "SequenceModel", last: list[Any]) -> State:
    """torch's hx in real units."""
    h = torch.stack([h for h, _ in last]).float() * quantizer.hidden.scale
    if model.cell != "lstm":
        return h
    exponents = quantizer.cell_exponents.tolist()
    return h, torch.stack([c.float() * 2.0**-e for (_, c), e in zip(last, exponents, strict=True)])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


def _constant(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
