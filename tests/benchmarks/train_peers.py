"""What trains beside edgernn: float modules of torch, and quantisation-aware ones of others, each at its fastest.

All read x [steps, batch, inputs], since that spares them a copy, and none has a quantised input or head, which is in
their favour. Observers have seen a few batches and are off, where they can be.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from .timing import Call

OUTPUTS: Final = 5
FLOAT: Final[dict[str, Callable[..., nn.RNNBase]]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Classifier(nn.Module):
    """A recurrent module and a Linear on its last hidden state, which `last` finds in what the module returns."""

    def __init__(self, rnn: nn.Module, hidden_size: int, last: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.rnn, self.last, self.head = rnn, last, nn.Linear(hidden_size, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.last(self.rnn(x)))
        return y


def training_step(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    """Forward, loss and backward; the gradients are made anew, as optimisers that zero them do."""
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]

    return step


def float_classifier(cell: str, inputs: int, hidden_size: int, layers: int = 1) -> nn.Module:
    """torch's own module. Its last state is the fastest to read: the outputs' gradient would be mostly zeros."""
    return Classifier(
        FLOAT[cell](inputs, hidden_size, layers),
        hidden_size,
        lambda result: result[1][0][-1] if cell == "lstm" else result[1][-1],
    )


# ---- the naive loop: a fake quantisation of everything in every step -------------------------------------------------


def fake(x: Tensor, bits: int, scale: float) -> Tensor:
    limit = 1 << bits - 1
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, -limit, limit - 1)


def gate(p: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return fake(function(p), 16, 2.0**-15)


def pre_activation(p: Tensor) -> Tensor:
    return fake(p, 16, 1 / 3072)


class Naive(nn.Module):
    """A Python loop over torch's weights, with 16-bit gates and cell states and 8-bit hidden states and weights."""

    def __init__(self, cell: str, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = FLOAT[cell](inputs, hidden_size)
        self.hidden_size = hidden_size
        self.step = {"lstm": self.lstm, "gru": self.gru}[cell]

    def forward(self, x: Tensor) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = (getattr(self.rnn, f"{kind}_l0") for kind in self.kinds)
        w_ih, w_hh = (fake(w, 8, float(w.detach().abs().max()) / 127) for w in (w_ih, w_hh))
        inputs = pre_activation(linear(fake(x, 8, 2.0**-5), w_ih, b_ih))
        h = c = x.new_zeros(x.shape[1], self.hidden_size)
        for px in inputs:
            h, c = self.step(px, pre_activation(linear(h, w_hh, b_hh)), h, c)
        return h

    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    @staticmethod
    def lstm(px: Tensor, ph: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = pre_activation(px + ph).chunk(4, dim=1)
        new = gate(i, torch.sigmoid) * gate(g, torch.tanh)
        c = fake(gate(f, torch.sigmoid) * c + new, 16, 2.0**-12)
        return fake(gate(o, torch.sigmoid) * gate(c, torch.tanh), 8, 2.0**-7), c

    @staticmethod
    def gru(px: Tensor, ph: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        size = h.shape[1]
        p = pre_activation(px[:, : 2 * size] + ph[:, : 2 * size])
        r, z = gate(p, torch.sigmoid).chunk(2, dim=1)
        n = gate(pre_activation(px[:, 2 * size :] + r * ph[:, 2 * size :]), torch.tanh)
        return fake(n + z * (h - n), 8, 2.0**-7), c


# ---- other tools -----------------------------------------------------------------------------------------------------


def torch_ao(inputs: int, hidden_size: int, x: Tensor) -> nn.Module:
    """torch.ao.nn.quantizable.LSTM with its 13 fake quantisations; qnnpack's are per tensor, faster than x86's."""
    quantization, quantizable = (import_module(f"torch.ao.{name}") for name in ("quantization", "nn.quantizable"))
    rnn: Any = nn.LSTM(inputs, hidden_size)
    rnn.qconfig = quantization.get_default_qat_qconfig("qnnpack")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which has no recurrent modules
        observed = quantizable.LSTM.from_float(rnn.train())
    model = Classifier(observed, hidden_size, lambda result: result[1][0][-1])
    warm(model, x)
    model.apply(quantization.disable_observer)
    return model


def brevitas(inputs: int, hidden_size: int, x: Tensor) -> nn.Module:
    """Brevitas' QuantLSTM, compiled by TorchScript; its scales come from statistics of the first 300 steps."""
    os.environ.setdefault("BREVITAS_JIT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rnn = import_module("brevitas.nn").QuantLSTM(inputs, hidden_size)
    model = Classifier(rnn, hidden_size, lambda result: result[0][-1])
    warm(model, x)
    return model


def gru_qat(inputs: int, hidden_size: int, x: Tensor) -> nn.Module:
    """gru-qat's layer with fused gates and frozen scales; one product of all inputs at once makes it slower here."""
    package = import_module("gru_qat")
    rnn = package.GRULayer(inputs, hidden_size, package.PRESETS["int8_per_channel"], gate_layout="fused")
    model = Classifier(rnn, hidden_size, lambda result: result[1])
    warm(model, x)
    rnn.freeze()
    return model


def warm(model: nn.Module, x: Tensor) -> None:
    step = training_step(model, x, torch.zeros(x.shape[1], dtype=torch.long))
    for _ in range(4):
        step()


def naive(cell: str, inputs: int, hidden_size: int) -> nn.Module:
    return Classifier(Naive(cell, inputs, hidden_size), hidden_size, lambda h: h)


def peers(inputs: int, hidden_size: int, x: Tensor) -> Iterator[tuple[str, str, nn.Module | None]]:
    """(name, cell, classifier) of every other way to train with quantisation; None where it is not installed."""
    yield "naive loop LSTM", "lstm", naive("lstm", inputs, hidden_size)
    yield "naive loop GRU", "gru", naive("gru", inputs, hidden_size)
    yield "torch.ao quantizable.LSTM", "lstm", torch_ao(inputs, hidden_size, x)
    installed = find_spec("brevitas") is not None
    yield "Brevitas QuantLSTM", "lstm", brevitas(inputs, hidden_size, x) if installed else None
    installed = find_spec("gru_qat") is not None
    yield "gru-qat GRULayer", "gru", gru_qat(inputs, hidden_size, x) if installed else None
