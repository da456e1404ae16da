"""ModelQuantizer: what `prepare` adds to a SequenceModel: its scales, and the forward pass in integers."""

import math
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .._tflite_lstm import OPERATOR_REACH
from ..nn import SequenceModel
from ..nn._base import State, scan, valid_steps
from ..qmodel import CELL_EXPONENTS, GATES, PROFILE_SCALES, REVERSE, Cell, StateSpec, hidden_spec, view_scale
from . import _ops, fused
from ._cells import Cells, IntegerAffine, IntegerLayer
from ._config import QuantConfig
from ._limits import BIAS_LIMIT, MULTIPLIER_FLOOR


class ModelQuantizer(nn.Module):
    """Scales of the input, of every weight matrix, of the LSTM's cell states and of the output.

    cell_exponents [directions of all layers, in the order of torch's hx]: a cell state has the scale 2^-exponent.
    Activation scales come from `calibrate`; as long as it has not run the forward pass raises ValueError.
    """

    log_input_scale: Tensor
    log_output_scale: Tensor
    input_zero_point: Tensor
    cell_exponents: Tensor
    calibrated: Tensor

    def __init__(self, model: SequenceModel, config: QuantConfig) -> None:
        super().__init__()
        self.config = config
        self.cells = Cells()
        device = model.head.weight.device
        learned = config.learn_scales
        for name in ("log_input_scale", "log_output_scale"):
            value = torch.zeros((), dtype=torch.float64, device=device)
            self.register_parameter(name, nn.Parameter(value)) if learned else self.register_buffer(name, value)
        directions = len(model.rnn.direction_names())
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("cell_exponents", torch.full((directions,), 15, dtype=torch.int64, device=device))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool, device=device))
        self.log_weight_scales = nn.ParameterDict()
        if learned:
            for name, weight in _matrices(model).items():
                value = torch.zeros(self.scales_of(name, len(weight)), dtype=torch.float64, device=device)
                self.log_weight_scales[name] = nn.Parameter(value)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        found = self.cell_exponents.tolist()
        if not all(exponent in CELL_EXPONENTS for exponent in found):
            raise ValueError(f"cell_exponents must be 9 .. 15, not {found}")

    # ---- scales ------------------------------------------------------------------------------------------------------

    @property
    def view_scale(self) -> float:
        return view_scale(self.config.scheme)

    @property
    def hidden(self) -> StateSpec:
        """Of the hidden state."""
        return hidden_spec(self.config.profile, self.config.scheme)

    @property
    def pre_activation_scale(self) -> float:
        return PROFILE_SCALES[self.config.profile]

    @property
    def input_scale(self) -> Tensor:
        return _float32(torch.exp2(self.log_input_scale))

    @property
    def output_scale(self) -> Tensor:
        """Of the int16 output of the dense head; the int8 output has 256 times this scale."""
        return _float32(torch.exp2(self.log_output_scale))

    def scales_of(self, name: str, rows: int) -> int:
        """How many scales a weight matrix has: one for each gate, one a row, or one."""
        if self.config.profile == "tflite-lstm" and name != "head":
            return len(GATES["lstm"])
        return rows if self.config.per_channel else 1

    def weight_scale(self, name: str, weight: Tensor, bias: Tensor, scale_in: Tensor, scale_out: Tensor) -> Tensor:
        """[rows] float32-valued: learned, or the largest weight's share of 127; never too small for its bias."""
        floor = torch.clamp(bias.abs() / (scale_in * BIAS_LIMIT), min=float(MULTIPLIER_FLOOR * scale_out / scale_in))
        count = self.scales_of(name, len(weight))
        if self.config.learn_scales:
            scale = _repeated(torch.exp2(self.log_weight_scales[name]), len(weight))
        else:
            scale = weight.abs().amax(dim=1) / 127.0
        scale = torch.maximum(scale, floor).reshape(count, -1).amax(dim=1)
        return _float32(_repeated(scale, len(weight)))

    @torch.no_grad()
    def start_learned_scales(self, model: SequenceModel) -> None:
        """Set learned weight scales to the largest weights (their starting point)."""
        for name, weight in _matrices(model).items():
            if name in self.log_weight_scales:
                largest = weight.double().abs().amax(dim=1).clamp(min=2.0**-20) / 127.0
                value = largest.reshape(self.scales_of(name, len(weight)), -1).amax(dim=1)
                self.log_weight_scales[name].copy_(torch.log2(value))

    # ---- integers ----------------------------------------------------------------------------------------------------

    def integers(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor,
        scale_in: Tensor,
        scale_out: Tensor,
        zero_point: int = 0,
        reach: float = math.inf,
    ) -> tuple[IntegerAffine, Tensor]:
        """The integers of one affine map, and its weight scales [rows]; rows beyond `reach` are shrunk."""
        weight, bias = weight.double(), bias.double()
        ops = self.cells.ops
        scale = self.weight_scale(name, weight.detach(), bias.detach(), scale_in.detach(), scale_out.detach())
        if reach < math.inf:
            weight = _ops.within_reach(weight, scale.detach()[:, None], reach)
        w = ops.limit_weight(ops.round_half_even(weight / scale[:, None]))
        b = ops.round_half_even(bias / (scale_in * scale)) - zero_point * w.sum(dim=1)
        portable = self.config.profile == "portable" or name == "head"
        try:
            m = scale_in * scale / scale_out
            multiplier = ops.quantize_multiplier(m) if portable else ops.operator_multiplier(m)
        except ValueError as error:
            advice = "its weights are too large or not finite; train with a lower learning rate"
            raise ValueError(f"{name}: {error}; {advice}") from None
        return IntegerAffine(w, b, multiplier), scale

    def layer(self, model: SequenceModel, name: str) -> tuple[IntegerLayer, Tensor, Tensor]:
        """The integers of one direction of a layer (l0, l0_reverse, ..), and the weight scales of its two maps."""
        rnn, cell = model.rnn, cast(Cell, model.cell)
        reset_after = bool(getattr(rnn, "reset_after", True))
        w_ih, w_hh, b_ih, b_hh = rnn.direction_weights(name)
        b_in, b_rec = self.biases(model, b_ih, b_hh)
        view, p = self._constant(self.view_scale, b_ih), self._constant(self.pre_activation_scale, b_ih)
        first = name in rnn.layers()[0]
        reach = math.inf if self.config.profile == "portable" else OPERATOR_REACH
        scale_in, zero_point = (self.input_scale, int(self.input_zero_point)) if first else (view, 0)
        inputs, input_scale = self.integers(f"weight_ih_{name}", w_ih, b_in, scale_in, p, zero_point)
        recurrent, recurrent_scale = self.integers(f"weight_hh_{name}", w_hh, b_rec, view, p, reach=reach)
        exponent = int(self.cell_exponents[rnn.direction_names().index(name)]) if cell == "lstm" else 0
        profile, scheme = self.config.profile, self.config.scheme
        layer = IntegerLayer(cell, profile, scheme, reset_after, exponent, inputs, recurrent)
        return layer, input_scale, recurrent_scale

    @staticmethod
    def biases(model: SequenceModel, b_ih: Tensor, b_hh: Tensor) -> tuple[Tensor, Tensor]:
        """The maps' biases: the recurrent one is added to the input's, but for n in torch's GRU, where r scales it."""
        inside = torch.zeros_like(b_hh)
        if model.cell == "gru" and getattr(model.rnn, "reset_after", True):
            inside[2 * model.rnn.hidden_size :] = 1.0
        return b_ih + b_hh * (1.0 - inside), b_hh * inside

    def head(self, model: SequenceModel) -> tuple[IntegerAffine, Tensor]:
        """The integers of the dense head, and its weight scales."""
        linear = model.head
        view = self._constant(self.view_scale, linear.bias)
        return self.integers("head", linear.weight, linear.bias, view, self.output_scale)

    def quantize_input(self, model: SequenceModel, x: Tensor) -> Tensor:
        """float64 integers, exactly those of QuantizedModel.quantize_input."""
        limit = 128.0 if self.config.scheme == "w8a8" else 32768.0
        step = model.input_std * self.input_scale.float()
        zero_point = self.input_zero_point.float()
        rounded: Tensor = self.cells.ops.round_half_even((x.float() - model.input_mean) / step) + zero_point
        return rounded.clamp(-limit, limit - 1.0).double()

    # ---- the forward pass --------------------------------------------------------------------------------------------

    def run(
        self, model: SequenceModel, x: Tensor, lengths: Tensor | None, state: State | None, *, wants_state: bool = True
    ) -> tuple[Tensor, State | None]:
        """SequenceModel.run in integers: float32 logits that are integers times the output scale, and the state.

        Dropout between layers, while training, scales what it keeps: only then are the operands no int8 or int16.
        """
        if not self.calibrated:
            raise ValueError("the model is prepared but not calibrated; call calibrate(model, x) first")
        if fused.available(self, model):
            try:
                return fused.run(self, model, x, lengths, state, wants_state)
            except OverflowError:  # sums that its kernels cannot requantize
                pass
        return self._run_explicit(model, x, lengths, state)

    def _run_explicit(
        self, model: SequenceModel, x: Tensor, lengths: Tensor | None, state: State | None
    ) -> tuple[Tensor, State]:
        """By torch's operations, on any device."""
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[1])
        valid = valid_steps(lengths.to(x.device), x.shape[1])[..., None]
        x = torch.where(valid, x, 0.0)
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x contains NaN or infinite values; clean them first")
        cells = self.cells
        sequence, first, last = self.quantize_input(model, x), self.initial(model, x, state), []
        for index, directions in enumerate(model.rnn.layers()):
            if index and model.rnn.dropout and self.training:
                sequence = nn.functional.dropout(sequence, model.rnn.dropout)
            outputs = []
            for name in directions:
                layer, _, _ = self.layer(model, name)
                inputs, step = cells.project(layer, sequence), partial(cells.step, layer)
                hidden, states = scan(step, inputs, first[name], valid, name.endswith(REVERSE))
                outputs.append(hidden)
                last.append(states[-1])
            sequence = self._operand(torch.cat(outputs, dim=2))
        if model.head_kind == "last":
            sequence = self._operand(torch.cat([h for h, _ in last[-len(directions) :]], dim=1))
        dense, _ = self.head(model)
        y = cells.narrow(cells.affine(dense, sequence)) * (self.output_scale * 256.0)
        return (y * valid if model.head_kind == "steps" else y).float(), self._real_state(model, last)

    def _operand(self, h: Tensor) -> Tensor:
        """The hidden state as the next layer and the head read it."""
        return h if self.hidden.scale == self.view_scale else self.cells.view(h, self.config.scheme)

    def initial(self, model: SequenceModel, x: Tensor, state: State | None) -> dict[str, tuple[Tensor, Tensor]]:
        """(h, c) of every direction as integers, from torch's hx in real units."""
        names = model.rnn.direction_names()
        h = c = torch.zeros(len(names), len(x), model.rnn.hidden_size, dtype=torch.float64, device=x.device)
        if isinstance(state, tuple):
            c = _ops.saturate(_ops.round_half_even(state[1].double() / self._cell_scales), 16)
            state = state[0]
        if state is not None:
            bits = np.iinfo(self.hidden.dtype).bits
            h = _ops.saturate(_ops.round_half_even(state.double() / self.hidden.scale), bits)
        return dict(zip(names, zip(h, c, strict=True), strict=True))

    def _real_state(self, model: SequenceModel, last: list[tuple[Tensor, ...]]) -> State:
        h, c = (torch.stack(states) for states in zip(*last, strict=True))
        h = h.float() * self.hidden.scale
        return (h, (c * self._cell_scales).float()) if model.cell == "lstm" else h

    @property
    def _cell_scales(self) -> Tensor:
        """[directions of all layers, 1, 1]"""
        return torch.exp2(-self.cell_exponents.double())[:, None, None]

    @staticmethod
    def _constant(value: float, like: Tensor) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=like.device)


def prepare(model: SequenceModel, config: QuantConfig | str = "w8a8") -> SequenceModel:
    """Make the model compute in integers from now on, in place; returns the same model.

    The weights stay the same parameters (with learn_scales there are new ones: make the optimiser afterwards). Call
    `calibrate` next. Raises ValueError for an unknown scheme, a model that is prepared already, or a cell that the
    config's profile does not have.
    """
    check_model("prepare", model)
    if is_prepared(model):
        raise ValueError("the model is prepared already; make a new one to change the scheme")
    config = config if isinstance(config, QuantConfig) else QuantConfig.parse(config)
    config.check_cell(model.cell)
    model.quantizer = ModelQuantizer(model, config)
    model.quantizer.train(model.training)
    return model


def check_model(verb: str, model: object) -> None:
    """Raise ValueError unless this is a SequenceModel."""
    if not isinstance(model, SequenceModel):
        found = type(model).__name__
        raise ValueError(f"{verb} needs a SequenceModel, not a {found}; see SequenceModel.from_float")


def is_prepared(model: SequenceModel) -> bool:
    """Whether the model's forward pass computes in integers."""
    return model.quantizer is not None


def _matrices(model: SequenceModel) -> dict[str, Tensor]:
    """The weights as the forward pass uses them: an optimiser may have moved masked ones since the last one."""
    return {name: model.rnn.effective(name) for name in model.rnn.weight_names()} | {"head": model.head.weight}


def _repeated(scales: Tensor, rows: int) -> Tensor:
    """[rows]: each scale for the same number of rows."""
    return scales[:, None].expand(len(scales), rows // len(scales)).reshape(rows)


def _float32(x: Tensor) -> Tensor:
    """Round to float32 (files hold scales as float32) and go on in float64; the gradient passes."""
    return x.float().double()
