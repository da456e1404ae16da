"""The recurrent state between two calls."""

from dataclasses import dataclass

import numpy as np

from ..qmodel import IntArray, Layer, QuantizedModel


@dataclass(frozen=True, eq=False)
class State:
    """The state of every layer: h int16 [hidden_size] in Q0.15; c int16 [hidden_size] for an LSTM, else [0].

    Holds read-only copies of what it is given. Raises ValueError for arrays that are not one-dimensional int16.
    """

    h: tuple[IntArray, ...]
    c: tuple[IntArray, ...]

    def __post_init__(self) -> None:
        for name in ("h", "c"):
            copies = tuple(_frozen(f"{name}[{index}]", array) for index, array in enumerate(getattr(self, name)))
            object.__setattr__(self, name, copies)

    @classmethod
    def zeros(cls, model: QuantizedModel) -> "State":
        """The state before the first step."""
        return cls(
            tuple(np.zeros(layer.hidden_size, np.int16) for layer in model.layers),
            tuple(np.zeros(cell_state_size(layer), np.int16) for layer in model.layers),
        )

    def check(self, model: QuantizedModel) -> None:
        """Raise ValueError unless this is a state of such a model."""
        for name, sizes in (
            ("h", [layer.hidden_size for layer in model.layers]),
            ("c", [cell_state_size(layer) for layer in model.layers]),
        ):
            found = [len(array) for array in getattr(self, name)]
            if found != sizes:
                raise ValueError(f"the state's {name} has the sizes {found}, the model's layers need {sizes}")


def cell_state_size(layer: Layer) -> int:
    """How many integers of cell state the layer has: an LSTM hidden_size, others none."""
    return layer.hidden_size if layer.cell == "lstm" else 0


def _frozen(name: str, array: IntArray) -> IntArray:
    if not isinstance(array, np.ndarray) or array.dtype != np.int16 or array.ndim != 1:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"the state's {name} must be a 1-d array of int16, not {found}")
    copy = array.copy()
    copy.flags.writeable = False
    return copy
