"""LSTM, GRU and RNN: torch's modules with pruning masks, lengths and the initialisations that small networks like."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..qmodel import REVERSE
from ._base import RecurrentBase, RecurrentInit, State, scan, valid_steps


class LSTM(RecurrentBase, nn.LSTM):
    """torch.nn.LSTM with the same constructor and state_dict; gates in the order i, f, g, o.

    recurrent_init: "uniform" (torch's) or "orthogonal". forget_bias: the forget gate's starting bias (1.0 helps to
    remember early in training: Jozefowicz et al. 2015); None keeps torch's.
    """

    gates = ("i", "f", "g", "o")
    own_options = ("proj_size",)
    forget_bias: float | None

    def __init__(
        self, *args: Any, recurrent_init: RecurrentInit = "uniform", forget_bias: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.forget_bias = forget_bias
        self._set_up(recurrent_init)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, "forget_bias", None) is not None and self.bias:
            size = self.hidden_size
            for name in self.direction_names():
                getattr(self, f"bias_ih_{name}").data[size : 2 * size] = self.forget_bias
                getattr(self, f"bias_hh_{name}").data[size : 2 * size] = 0.0


class RNN(RecurrentBase, nn.RNN):
    """torch.nn.RNN (Elman, tanh) with the same constructor and state_dict."""

    gates = ("n",)
    own_options = ("nonlinearity",)

    def __init__(self, *args: Any, recurrent_init: RecurrentInit = "uniform", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.nonlinearity != "tanh":
            raise ValueError(f"nonlinearity {self.nonlinearity!r} is not supported; use 'tanh'")
        self._set_up(recurrent_init)


class GRU(RecurrentBase, nn.GRU):
    """torch.nn.GRU with the same constructor and state_dict; gates in the order r, z, n.

    reset_after=True is torch's GRU (the reset gate scales the recurrent product, cuDNN's form). False is the one of Cho
    et al. 2014, arXiv 1406.1078: n = tanh(W x + b + U (r * h)); torch has no kernel for it, so it runs step by step.
    """

    gates = ("r", "z", "n")
    own_options = ("reset_after",)
    reset_after: bool

    def __init__(
        self, *args: Any, recurrent_init: RecurrentInit = "uniform", reset_after: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reset_after = reset_after
        self._set_up(recurrent_init)

    def _run(self, input: Any, hx: State | None) -> tuple[Any, State]:
        if self.reset_after:
            return super()._run(input, hx)
        if isinstance(input, PackedSequence):
            x, lengths = pad_packed_sequence(input, batch_first=True)
            output, state = self._reset_before(x, lengths, hx)
            return pack_padded_sequence(output, lengths, batch_first=True, enforce_sorted=False), state
        batched = input.dim() == 3
        x = input if batched else input[None]
        x = x if self.batch_first or not batched else x.transpose(0, 1)
        lengths = torch.full((len(x),), x.shape[1])
        output, state = self._reset_before(x, lengths, hx if batched or hx is None else hx[:, None])
        if not batched:
            return output[0], state[:, 0]
        return (output if self.batch_first else output.transpose(0, 1)), state

    def _reset_before(self, x: Tensor, lengths: Tensor, hx: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [batch, steps, channels] -> (output [batch, steps, output_size], state as torch gives it)."""
        valid = valid_steps(lengths.to(x.device), x.shape[1])[..., None]
        names = self.direction_names()
        shape = (len(names), len(x), self.hidden_size)
        hx = x.new_zeros(shape) if hx is None else hx
        if hx.shape != shape:
            raise ValueError(f"hx must have the shape {shape}, not {tuple(hx.shape)}")
        first, last = dict(zip(names, hx, strict=True)), []
        for index, directions in enumerate(self.layers()):
            if index and self.dropout and self.training:
                x = nn.functional.dropout(x, self.dropout)
            outputs = []
            for name in directions:
                hidden, h = self._direction(name, x, first[name], valid)
                outputs.append(hidden)
                last.append(h)
            x = torch.cat(outputs, dim=2)
        return x, torch.stack(last)

    def _direction(self, name: str, x: Tensor, h: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden states [batch, steps, hidden_size], last h) of one direction of one layer."""
        w_ih, w_hh, b_ih, b_hh = self.direction_weights(name)
        both = 2 * self.hidden_size
        u_rz, u_n = w_hh[:both], w_hh[both:]

        def step(px: Tensor, h: Tensor) -> tuple[Tensor]:
            r, z = torch.sigmoid(px[:, :both] + h @ u_rz.T).chunk(2, dim=1)
            n = torch.tanh(px[:, both:] + (r * h) @ u_n.T)
            return ((1 - z) * n + z * h,)

        inputs = nn.functional.linear(x, w_ih, b_ih + b_hh)
        hidden, states = scan(step, inputs, (h,), valid, name.endswith(REVERSE))
        return hidden, states[-1][0]


Recurrent = LSTM | GRU | RNN
