"""SequenceModel: recurrent layers and a dense head, the unit that is trained, quantised, saved and exported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._files import Tensors, checksum, pack_tensors, parsing, read_tensors, typed, write_atomic
from ..floatmodel import FILE_FORMAT, FloatModel
from ..qmodel import HeadKind, Task
from ._base import State, check_lengths, valid_steps
from ._rnn import GRU, LSTM, RNN, Recurrent

if TYPE_CHECKING:
    from ..quantize import ModelQuantizer

CELLS: Mapping[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class SequenceModel(nn.Module):
    """(x - input_mean) / input_std -> recurrent layers -> dense head of the last valid step or of every step.

    rnn: an edgernn LSTM, GRU or RNN made with batch_first=True. head: "last" (if bidirectional, both directions'
    hidden states when they have read everything) or "steps". input_mean, input_std: float [input_size], the
    normalisation learned on the training data (none by default). labels: the names of the classes. After
    `quantize.prepare` the forward pass computes the device's integers.
    """

    input_mean: Tensor
    input_std: Tensor
    quantizer: "ModelQuantizer | None"

    def __init__(
        self,
        rnn: Recurrent,
        output_size: int,
        head: HeadKind = "last",
        *,
        labels: Sequence[str] = (),
        task: Task = "classification",
        input_mean: Any = None,
        input_std: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(rnn, LSTM | GRU | RNN):
            raise ValueError(f"rnn must be an edgernn.nn LSTM, GRU or RNN, not {type(rnn).__name__}; see from_float")
        if not rnn.batch_first:
            raise ValueError("rnn must be made with batch_first=True")
        if head not in ("last", "steps"):
            raise ValueError(f"unknown head {head!r}; known are last, steps")
        if task not in ("classification", "regression"):
            raise ValueError(f"unknown task {task!r}; known are classification, regression")
        if output_size < 1:
            raise ValueError(f"output_size must be at least 1, not {output_size}")
        if labels and len(labels) != output_size:
            raise ValueError(f"{len(labels)} labels for {output_size} outputs")
        self.rnn = rnn
        self.head = nn.Linear(rnn.output_size, output_size)
        self.head_kind: HeadKind = head
        self.labels = tuple(labels)
        self.task: Task = task
        self.quantizer = None
        for name, value, default in (("input_mean", input_mean, 0.0), ("input_std", input_std, 1.0)):
            self.register_buffer(name, _per_channel(name, value, default, rnn.input_size))
        if not bool((self.input_std > 0).all()):
            raise ValueError("input_std must be positive")

    @property
    def cell(self) -> str:
        return next(name for name, kind in CELLS.items() if isinstance(self.rnn, kind))

    @property
    def output_size(self) -> int:
        return self.head.out_features

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits or values [batch, output_size] (last) or [batch, steps, output_size] (steps; padding gives 0).

        x [batch, steps, input_size] in raw units; lengths int [batch] or None. Raises ValueError for wrong shapes.
        """
        return self._run(x, lengths, None, wants_state=False)[0]

    def run(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """forward from an initial state (torch's hx, in real units) and with the final one, for chunks of a stream.

        Raises ValueError as forward does, for an initial state of a bidirectional model, and for one that does not fit.
        """
        return self._run(x, lengths, state, wants_state=True)

    def _check_state(self, state: State, batch: int) -> None:
        if self.rnn.bidirectional:
            raise ValueError("a bidirectional model reads whole sequences: it takes no initial state")
        parts = state if isinstance(state, tuple) else (state,)
        wanted, shape = 1 + (self.cell == "lstm"), (self.rnn.num_layers, batch, self.rnn.hidden_size)
        found = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if found != [shape] * wanted:
            raise ValueError(f"the state must be {wanted} tensors of the shape {shape}, not {found}")
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise ValueError("the state contains NaN or infinite values")

    def _run(
        self, x: Tensor, lengths: Tensor | None, state: State | None, *, wants_state: bool
    ) -> tuple[Tensor, State | None]:
        if not isinstance(x, Tensor) or x.dtype != self.head.weight.dtype:
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a tensor of {self.head.weight.dtype}, the model's type, not {found}")
        if x.dim() != 3 or x.shape[2] != self.rnn.input_size or 0 in x.shape:
            raise ValueError(f"x must be [batch, steps, {self.rnn.input_size}] and not empty, not {tuple(x.shape)}")
        if lengths is not None:
            lengths = check_lengths(lengths, x.shape[0], x.shape[1])
        if state is not None:
            self._check_state(state, len(x))
        if self.quantizer is not None:
            return self.quantizer.run(self, x, lengths, state, wants_state=wants_state)
        hidden, state = self.rnn((x - self.input_mean) / self.input_std, state, lengths)
        if self.head_kind == "last":
            h = state[0] if isinstance(state, tuple) else state
            last = h[-2:] if self.rnn.bidirectional else h[-1:]
            return self.head(torch.cat(tuple(last), dim=1)), state
        y = self.head(hidden)
        return (y if lengths is None else y * valid_steps(lengths.to(y.device), x.shape[1])[..., None]), state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.quantizer is not None:  # a float checkpoint knows no scales: the present ones stay
            for name, value in self.quantizer.state_dict(prefix=f"{prefix}quantizer.").items():
                state_dict.setdefault(name, value)
        elif any(name.startswith(f"{prefix}quantizer.") for name in state_dict):
            raise ValueError("the state_dict is of a prepared model; call prepare(model, config) before loading it")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @classmethod
    def from_float(cls, rnn: nn.Module, linear: nn.Linear, head: HeadKind = "last", **options: Any) -> "SequenceModel":
        """A SequenceModel with a copy of the weights of a plain torch.nn.LSTM/GRU/RNN and the Linear behind it.

        options as in the constructor. Raises ValueError for modules that have no counterpart.
        """
        kind = next((CELLS[c] for c, base in _TORCH.items() if type(rnn) is base or type(rnn) is CELLS[c]), None)
        if kind is None or not isinstance(rnn, nn.RNNBase):
            raise ValueError(f"from_float needs a torch.nn.LSTM, GRU or RNN, not {type(rnn).__name__}")
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"from_float needs the torch.nn.Linear behind the layers, not a {type(linear).__name__}")
        names = ["input_size", "hidden_size", "num_layers", "bias", "dropout", "bidirectional"]
        names += [name for name in kind.own_options if hasattr(rnn, name)]
        ours = kind(batch_first=True, **{name: getattr(rnn, name) for name in names})
        if linear.in_features != ours.output_size:
            raise ValueError(f"the Linear reads {linear.in_features} features, but {ours.output_size} arrive")
        ours.load_state_dict(rnn.state_dict())
        model = cls(ours, linear.out_features, head, **options)
        with torch.no_grad():
            model.head.weight.copy_(linear.weight)
            model.head.bias.copy_(linear.bias if linear.bias is not None else torch.zeros(linear.out_features))
        return model

    # ---- the file ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Write `model.safetensors`: the state_dict and what is needed to build the model again. Raises ValueError."""
        write_atomic(path, self.to_bytes(provenance))

    def to_bytes(self, provenance: Mapping[str, Any] | None = None) -> bytes:
        """What `save` writes. Raises ValueError."""
        if self.head.weight.dtype != torch.float32:
            raise ValueError(f"the model holds {self.head.weight.dtype}, files hold float32; call model.float() first")
        return pack_tensors(*self._content(provenance or {}))

    def _content(self, provenance: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
        """The tensors and the header of the model's file."""
        tensors = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        if not self.rnn.bias:
            rows = len(self.rnn.gates) * self.rnn.hidden_size
            names = [f"rnn.bias_{side}_{name}" for name in self.rnn.direction_names() for side in ("ih", "hh")]
            tensors |= {name: np.zeros(rows, np.float32) for name in names}
        return tensors, {
            "format": FILE_FORMAT,
            "cell": self.cell,
            "input_size": self.rnn.input_size,
            "hidden_size": self.rnn.hidden_size,
            "num_layers": self.rnn.num_layers,
            "bias": self.rnn.bias,
            "dropout": self.rnn.dropout,
            "bidirectional": self.rnn.bidirectional,
            "reset_after": getattr(self.rnn, "reset_after", True),
            "output_size": self.output_size,
            "head": self.head_kind,
            "task": self.task,
            "labels": list(self.labels),
            "quantization": None if self.quantizer is None else self.quantizer.config.as_dict(),
            "provenance": dict(provenance),
        }

    @classmethod
    def load(cls, path: str | Path) -> "SequenceModel":
        """Read what `save` wrote, prepared for quantisation if it was. Raises ValueError."""
        tensors, header = read_tensors(path, FILE_FORMAT)
        with parsing(path):
            FloatModel.parse(tensors, header)  # before memory is taken for sizes that the tensors do not have
            model = cls._build({name: torch.from_numpy(array) for name, array in tensors.items()}, header)
            if checksum(*model._content(typed(header["provenance"], dict))) != checksum(tensors, header):
                raise ValueError("the header and the tensors do not fit together")
        return model

    @classmethod
    def _build(cls, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> "SequenceModel":
        extra: dict[str, Any] = {"reset_after": header["reset_after"]} if header["cell"] == "gru" else {}
        names = ("num_layers", "bias", "dropout", "bidirectional")
        sizes = header["input_size"], header["hidden_size"]
        rnn = CELLS[header["cell"]](*sizes, batch_first=True, **{name: header[name] for name in names}, **extra)
        model = cls(rnn, header["output_size"], header["head"], labels=header["labels"], task=header["task"])
        if not rnn.bias:
            tensors = {name: value for name, value in tensors.items() if not name.startswith("rnn.bias_")}
        if header["quantization"] is not None:
            from ..quantize import QuantConfig, prepare

            prepare(model, QuantConfig(**header["quantization"]))
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} contains NaN or infinite values")
        model.load_state_dict(tensors)
        return model


_TORCH: Mapping[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def _per_channel(name: str, value: Any, default: float, size: int) -> Tensor:
    tensor = torch.full((size,), default) if value is None else torch.as_tensor(value, dtype=torch.float32).clone()
    if tensor.shape != (size,):
        raise ValueError(f"{name} must have {size} entries, one a channel, not the shape {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite")
    return tensor
