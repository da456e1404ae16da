"""FloatModel: the trained float weights without torch, as the float exports and the comparison with float need them.

The file is what `SequenceModel.save` writes: safetensors with torch's tensor names and a JSON header.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._files import Tensors, parsing, read_tensors, typed
from .qmodel import GATES, REVERSE, Cell, HeadKind, Task

FILE_FORMAT: Final = "edgernn.sequence_model"
_FIELDS: Final = {
    *("format", "cell", "input_size", "hidden_size", "num_layers", "bias", "dropout", "bidirectional", "reset_after"),
    *("output_size", "head", "task", "labels", "quantization", "provenance"),
}

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """One recurrent layer with torch's weights: [gates * hidden_size, ..], gates in PyTorch's order.

    `backward`: the second direction of a bidirectional layer, of the same cell and sizes.
    """

    cell: Cell
    reset_after: bool
    weight_ih: FloatArray
    weight_hh: FloatArray
    bias_ih: FloatArray
    bias_hh: FloatArray
    backward: "FloatLayer | None" = None

    @property
    def hidden_size(self) -> int:
        return int(self.weight_hh.shape[1])

    @property
    def input_size(self) -> int:
        return int(self.weight_ih.shape[1])


@dataclass(frozen=True, eq=False)
class FloatModel:
    """The float network: (x - input_mean) / input_std, the layers, then a dense head (`last` or `steps`)."""

    layers: tuple[FloatLayer, ...]
    head: HeadKind
    head_weight: FloatArray
    head_bias: FloatArray
    input_mean: FloatArray
    input_std: FloatArray
    labels: tuple[str, ...]
    task: Task

    @property
    def input_size(self) -> int:
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        return len(self.head_bias)

    @classmethod
    def load(cls, path: str | Path) -> "FloatModel":
        """Read a `model.safetensors`. Raises ValueError when it is missing, foreign, damaged or inconsistent."""
        tensors, header = read_tensors(path, FILE_FORMAT)
        with parsing(path):
            return cls.parse(tensors, header)

    @classmethod
    def parse(cls, tensors: Tensors, header: Mapping[str, Any]) -> "FloatModel":
        """The model of a file's tensors and header. Raises ValueError, LookupError or TypeError for wrong ones."""
        return _parse(tensors, header)


def _parse(tensors: Tensors, header: Mapping[str, Any]) -> FloatModel:
    cell: Cell = header["cell"]
    names = ("input_size", "hidden_size", "output_size", "num_layers")
    inputs, hidden, outputs, count = (_size(header, name) for name in names)
    rows, left = len(GATES[cell]) * hidden, dict(tensors)

    def take(name: str, *shape: int) -> FloatArray:
        array = left.pop(name)
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"{name} must be float32 {shape}, not {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinite values")
        return array

    both = typed(header["bidirectional"], bool)
    width = hidden * (1 + both)

    def layer(name: str, columns: int, backward: FloatLayer | None = None) -> FloatLayer:
        return FloatLayer(
            cell,
            typed(header["reset_after"], bool),
            take(f"rnn.weight_ih_{name}", rows, columns),
            take(f"rnn.weight_hh_{name}", rows, hidden),
            take(f"rnn.bias_ih_{name}", rows),
            take(f"rnn.bias_hh_{name}", rows),
            backward,
        )

    def layer_at(index: int) -> FloatLayer:
        columns = width if index else inputs
        return layer(f"l{index}", columns, layer(f"l{index}{REVERSE}", columns) if both else None)

    model = FloatModel(
        layers=tuple(layer_at(index) for index in range(count)),
        head=header["head"],
        head_weight=take("head.weight", outputs, width),
        head_bias=take("head.bias", outputs),
        input_mean=take("input_mean", inputs),
        input_std=take("input_std", inputs),
        labels=tuple(typed(label, str) for label in typed(header["labels"], list)),
        task=header["task"],
    )
    _check(model, left, header)
    return model


def _size(header: Mapping[str, Any], name: str) -> int:
    size = typed(header[name], int)
    if size < 1:
        raise ValueError(f"{name} must be at least 1, not {size}")
    return size


def _check(model: FloatModel, left: Tensors, header: Mapping[str, Any]) -> None:
    """Raise ValueError for values that no model has, and for what this reader does not know."""
    if model.head not in ("last", "steps"):
        raise ValueError(f"unknown head {model.head!r}; known are last, steps")
    if model.task not in ("classification", "regression"):
        raise ValueError(f"unknown task {model.task!r}; known are classification, regression")
    if model.labels and len(model.labels) != model.output_size:
        raise ValueError(f"{len(model.labels)} labels for {model.output_size} outputs")
    if not (model.input_std > 0).all():
        raise ValueError("input_std must be positive")
    if model.layers[0].cell != "gru" and not model.layers[0].reset_after:
        raise ValueError(f"reset_after=False is a GRU variant, the cell is {model.layers[0].cell}")
    unknown = [name for name in left if not (name.startswith("quantizer.") or name.endswith("_mask"))]
    if unknown or not set(header) <= _FIELDS:
        names = ", ".join(sorted({*unknown, *(set(header) - _FIELDS)}))
        raise ValueError(f"unknown tensors or fields: {names}; use the edgernn release that wrote it")
