"""FloatModel: the trained float weights without torch, as the float exports and the comparison with float need them.

The file is what `SequenceModel.save` writes: safetensors with torch's tensor names and a JSON header.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._files import Tensors, read_tensors
from .qmodel import GATES, Cell, HeadKind, Task

FILE_FORMAT: Final = "edgernn.sequence_model"

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
        try:
            return _parse(tensors, header)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: the header or a tensor is missing or has a wrong type ({error!r})") from None


def _parse(tensors: Tensors, header: dict[str, Any]) -> FloatModel:
    cell: Cell = header["cell"]
    hidden, inputs = int(header["hidden_size"]), int(header["input_size"])
    rows = len(GATES[cell]) * hidden

    def take(name: str, *shape: int) -> FloatArray:
        array = tensors[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(f"{name} must be float32 {shape}, not {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinite values")
        return array

    both = bool(header.get("bidirectional", False))
    output_size = hidden * (1 + both)

    def layer(name: str, columns: int, backward: FloatLayer | None = None) -> FloatLayer:
        return FloatLayer(
            cell,
            bool(header["reset_after"]),
            take(f"rnn.weight_ih_{name}", rows, columns),
            take(f"rnn.weight_hh_{name}", rows, hidden),
            take(f"rnn.bias_ih_{name}", rows),
            take(f"rnn.bias_hh_{name}", rows),
            backward,
        )

    columns = [output_size if index else inputs for index in range(int(header["num_layers"]))]
    layers = tuple(
        layer(f"l{index}", size, layer(f"l{index}_reverse", size) if both else None)
        for index, size in enumerate(columns)
    )
    if not layers:
        raise ValueError("num_layers must be at least 1")
    outputs, labels = int(header["output_size"]), tuple(str(label) for label in header["labels"])
    if header["head"] not in ("last", "steps"):
        raise ValueError(f"unknown head {header['head']!r}; known are last, steps")
    if header["task"] not in ("classification", "regression"):
        raise ValueError(f"unknown task {header['task']!r}; known are classification, regression")
    if labels and len(labels) != outputs:
        raise ValueError(f"{len(labels)} labels for {outputs} outputs")
    input_std = take("input_std", inputs)
    if not (input_std > 0).all():
        raise ValueError("input_std must be positive")
    return FloatModel(
        layers=layers,
        head=header["head"],
        head_weight=take("head.weight", outputs, output_size),
        head_bias=take("head.bias", outputs),
        input_mean=take("input_mean", inputs),
        input_std=input_std,
        labels=labels,
        task=header["task"],
    )
