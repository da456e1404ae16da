"""Magnitude pruning of the recurrent layers' weight matrices, and how sparse they are."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..nn import GRU, LSTM, RNN, Recurrent
from .blocks import block_numbers, magnitude_mask, parse_block

_Model = TypeVar("_Model", bound=nn.Module)


def prune_(model: _Model, sparsity: float, block: str = "unit", gates: Mapping[str, float] | None = None) -> _Model:
    """Mask the weakest blocks of every weight_ih_l* and weight_hh_l*, in place; returns the model.

    Each matrix reaches the share `sparsity` of masked weights, in [0, 1), as nearly as whole blocks allow; biases and
    the head stay dense. `block` is "unit" (all gate rows of one hidden unit x 4 columns: the shape sparse kernels on
    small cores can skip), "element", or "ROWSxCOLUMNS" tiles of the matrix. `gates` gives single gates (LSTM i f g o,
    GRU r z n, RNN n) a share of their own, as in RNNoise's block-sparse GRU; the others keep `sparsity`. It needs
    blocks that stay inside a gate: "element", or tiles whose rows divide hidden_size.

    `model` is an edgernn SequenceModel, LSTM, GRU or RNN. Raises ValueError for a share outside [0, 1), an unknown
    block or gate, blocks that span gates while `gates` is given, weights that are not finite, or a foreign model.
    """
    rnn = recurrent(model)
    check_targets(sparsity, block, gates)
    targets = gate_targets(rnn, sparsity, block, gates)
    for name in rnn.weight_names():
        weight = rnn.effective(name).detach()
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{name} contains NaN or infinite values: the model diverged; train it anew")
        rnn.set_mask(name, _mask(weight, rnn.hidden_size, block, targets))
    return model


def sparsity(model: nn.Module) -> dict[str, float]:
    """The share of zeros in every recurrent weight matrix, masked ones included, and under "overall" in all of them.

    Raises ValueError unless `model` is an edgernn SequenceModel, LSTM, GRU or RNN.
    """
    rnn = recurrent(model)
    weights = {name: rnn.effective(name) for name in rnn.weight_names()}
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    shares = {name: zeros[name] / weight.numel() for name, weight in weights.items()}
    return shares | {"overall": sum(zeros.values()) / sum(weight.numel() for weight in weights.values())}


def check_targets(sparsity: float, block: str, gates: Mapping[str, float] | None) -> None:
    """Raise ValueError for what is wrong whatever the model: a share outside [0, 1), an unknown block."""
    shares = {"sparsity": sparsity} | {f"gates[{name!r}]": share for name, share in (gates or {}).items()}
    for place, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"{place} must be a share in [0, 1), not {share!r}; 0.75 masks three quarters")
    if parse_block(block) is None and gates:
        raise ValueError(
            'a "unit" block holds the rows of all gates of a unit, so gates cannot have shares of their own; '
            'use block="element" or "4x1" with gates, or leave gates out'
        )


def recurrent(model: nn.Module) -> Recurrent:
    """The layers of a model. Raises ValueError unless it is an edgernn SequenceModel, LSTM, GRU or RNN."""
    rnn = getattr(model, "rnn", model)
    if not isinstance(rnn, LSTM | GRU | RNN):
        raise ValueError(
            f"cannot prune a {type(model).__name__}: it must be an edgernn SequenceModel, LSTM, GRU or RNN; "
            "build the model with edgernn's classes, which take torch's arguments"
        )
    return rnn


def gate_targets(rnn: Recurrent, sparsity: float, block: str, gates: Mapping[str, float] | None) -> tuple[float, ...]:
    """One share for the whole matrix, or one for every gate. Raises ValueError where gates do not fit the layers."""
    if not gates:
        return (sparsity,)
    unknown = sorted(set(gates) - set(rnn.gates))
    if unknown:
        raise ValueError(
            f"{type(rnn).__name__} has no gate {', '.join(map(repr, unknown))}; it has {', '.join(rnn.gates)}"
        )
    height = (parse_block(block) or (1, 1))[0]
    if rnn.hidden_size % height:
        raise ValueError(
            f"block {block} would straddle two gates: its {height} rows do not divide hidden_size {rnn.hidden_size}; "
            "choose rows that do, or leave gates out"
        )
    return tuple(gates.get(name, sparsity) for name in rnn.gates)


def _mask(weight: Tensor, hidden_size: int, block: str, targets: tuple[float, ...]) -> Tensor:
    parts = weight.chunk(len(targets))
    numbers = block_numbers(parts[0].shape[0], weight.shape[1], hidden_size, block)
    return torch.cat([magnitude_mask(part, numbers, share) for part, share in zip(parts, targets, strict=True)])
