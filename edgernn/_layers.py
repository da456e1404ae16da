"""The parts of a QuantizedModel: dense maps of integers, recurrent layers made of them, and heads.

`edgernn.qmodel` is their door.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ._tflite_lstm import OPERATOR_SCALE, check_operator_range, operator_multipliers
from .fixedpoint import PRE_ACTIVATION_SCALE, STATE_SCALE, STATE_VIEW_SCALE, quantize_multiplier

IntArray: TypeAlias = npt.NDArray[np.signedinteger[Any]]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
_Number = TypeVar("_Number", bound=np.generic)
Cell = Literal["lstm", "gru", "rnn"]
HeadKind = Literal["last", "steps"]
Scheme = Literal["w8a8", "w8a16"]
Profile = Literal["portable", "tflite-lstm"]

GATES: Final[dict[str, tuple[str, ...]]] = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "rnn": ("n",)}
STATES: Final[dict[str, tuple[str, ...]]] = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",)}
PROFILE_SCALES: Final[dict[Profile, float]] = {  # of pre-activations: the arithmetic of a layer shows in it
    "portable": PRE_ACTIVATION_SCALE,
    "tflite-lstm": OPERATOR_SCALE,
}
CELL_EXPONENTS: Final = range(9, 16)  # the LSTM cell state's scale is 2^-9 .. 2^-15

_OPERATOR_INPUT_LIMIT: Final = 128  # the largest magnitude of its int8 inputs and hidden states

_PRE_ACTIVATION_SCALES: Final = {np.float32(scale): profile for profile, scale in PROFILE_SCALES.items()}

REVERSE: Final = "_reverse"
DIRECTION_SUFFIXES: Final = ("", REVERSE)  # of the names of states and weights, as torch has them
DIRECTION_NAMES: Final = ("", " backward")  # after "layer 0", for people


@dataclass(frozen=True, eq=False)
class Affine:
    """y = requantize(bias + weight @ x): one dense map of integers, with its scales.

    weight int8 [rows, columns] in [-127, 127]; bias int32 [rows]; weight_scale float32 [rows]. A real value is integer
    times scale; the bias has the scale input_scale * weight_scale. An input's zero point is folded into the bias.
    """

    weight: IntArray
    bias: IntArray
    weight_scale: FloatArray
    input_scale: float
    output_scale: float

    def __post_init__(self) -> None:
        check_array("weight", self.weight, np.int8, 2)
        check_array("bias", self.bias, np.int32, 1)
        check_array("weight_scale", self.weight_scale, np.float32, 1)
        if 0 in self.weight.shape:
            raise ValueError(f"weight has the shape {self.weight.shape}: sizes must be at least 1")
        for name, array in (("bias", self.bias), ("weight_scale", self.weight_scale)):
            if len(array) != self.rows:
                raise ValueError(f"{name} has {len(array)} entries for {self.rows} rows of weights")
        if self.weight.min() < -127:
            raise ValueError("weights must lie in [-127, 127], found -128")
        if not (np.isfinite(self.weight_scale).all() and (self.weight_scale > 0).all()):
            raise ValueError("weight_scale must be positive and finite")
        for name in ("input_scale", "output_scale"):
            check_scale(name, getattr(self, name))
        for name in ("weight", "bias", "weight_scale"):
            object.__setattr__(self, name, read_only(getattr(self, name)))
        self.multipliers  # noqa: B018 (raises when the scales do not fit together)

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def columns(self) -> int:
        return int(self.weight.shape[1])

    @cached_property
    def multipliers(self) -> npt.NDArray[np.int64]:
        """[rows, 2]: multiplier and shift of `fixedpoint.requantize` for every row."""
        scale_in, scale_out = float(np.float32(self.input_scale)), float(np.float32(self.output_scale))
        parts = quantize_multiplier(scale_in * self.weight_scale.astype(np.float64) / scale_out)
        return read_only(np.stack(parts, axis=1))

    @property
    def multiplier(self) -> npt.NDArray[np.int64]:
        """[rows]: the 15-bit multipliers."""
        return self.multipliers[:, 0]

    @property
    def shift(self) -> npt.NDArray[np.int64]:
        """[rows]: the right shifts that go with them."""
        return self.multipliers[:, 1]

    def accumulator_bound(self, largest_input: int) -> npt.NDArray[np.int64]:
        """[rows]: the largest |accumulator| that inputs of magnitude <= largest_input can reach."""
        magnitude = np.abs(self.weight.astype(np.int64)).sum(axis=1) * largest_input
        bound: npt.NDArray[np.int64] = np.abs(self.bias.astype(np.int64)) + magnitude
        return bound

    def check_range(self, largest_input: int) -> None:
        """Raise ValueError unless accumulator and requantized value fit int32 for every such input."""
        bound = self.accumulator_bound(largest_input)
        scaled = (bound * self.multiplier + (1 << (self.shift - 1))) >> self.shift
        row = int(np.argmax(np.maximum(bound, scaled)))
        if max(bound[row], scaled[row]) >= 2**31:
            raise ValueError(
                f"row {row} can overflow its 32-bit accumulator (bound {bound[row]}, scaled {scaled[row]}): "
                "use smaller weights, fewer inputs, or w8a8"
            )


@dataclass(frozen=True, eq=False)
class Layer:
    """One recurrent layer. Rows of both maps are gates * hidden_size in PyTorch's gate order (GATES).

    `input` maps the layer's input, `recurrent` the previous hidden state, both to pre-activations. `reset_after` is the
    GRU variant (PyTorch's: the reset gate scales the product; otherwise it scales the state). An LSTM's cell state has
    the scale 2^-cell_exponent; other cells have cell_exponent 0.

    profile: by which arithmetic it is computed, as the scale of the pre-activations says. `tflite-lstm` is TensorFlow
    Lite's own operator UNIDIRECTIONAL_SEQUENCE_LSTM in int8: an LSTM whose eight matrices have one weight scale each.

    A bidirectional layer has a second one, `backward`, of the same cell and sizes, which reads the valid steps from the
    last to the first; the layer's output at a step is both hidden states, this one's first.
    """

    cell: Cell
    input: Affine
    recurrent: Affine
    reset_after: bool = True
    cell_exponent: int = 0
    backward: "Layer | None" = None

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise ValueError(f"unknown cell {self.cell!r}; known are {', '.join(GATES)}")
        rows = len(self.gates) * self.hidden_size
        for name, affine in (("input", self.input), ("recurrent", self.recurrent)):
            if affine.rows != rows:
                size = f"{self.cell} of size {self.hidden_size}"
                raise ValueError(f"{name}.weight has {affine.rows} rows; {size} needs {rows}")
            if np.float32(affine.output_scale) not in _PRE_ACTIVATION_SCALES:
                raise ValueError(
                    f"{name}.output_scale must be 1/3072 (or 2^-12 for TFLite's LSTM), not {affine.output_scale}"
                )
        if self.input.output_scale != self.recurrent.output_scale:
            raise ValueError("input and recurrent have different output_scales: pre-activations have one")
        if self.profile == "tflite-lstm":
            self._check_operator()
        if self.cell == "lstm" and self.cell_exponent not in CELL_EXPONENTS:
            raise ValueError(f"cell_exponent must be 9 .. 15 for an LSTM, not {self.cell_exponent}")
        if self.cell != "lstm" and self.cell_exponent != 0:
            raise ValueError(f"cell_exponent must be 0 for {self.cell}, not {self.cell_exponent}")
        if self.cell != "gru" and not self.reset_after:
            raise ValueError(f"reset_after=False is a GRU variant, the cell is {self.cell}")
        if self.backward is not None:
            self._check_backward(self.backward)

    def _check_operator(self) -> None:
        """Raise ValueError unless TensorFlow Lite's LSTM operator can hold the layer."""
        if self.cell != "lstm":
            raise ValueError(f"the profile tflite-lstm is one of LSTMs, the cell is {self.cell}")
        for name, affine in (("input", self.input), ("recurrent", self.recurrent)):
            scales = affine.weight_scale.reshape(len(self.gates), -1)
            if (scales != scales[:, :1]).any():
                raise ValueError(f"{name}.weight_scale must be one for each gate in the profile tflite-lstm")
            try:
                # those of litert, whose rounding of a product can only raise its exponent
                _, exponent = operator_multipliers(affine.input_scale, affine.weight_scale, "litert")
                check_operator_range(affine.accumulator_bound(_OPERATOR_INPUT_LIMIT), exponent)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if self.recurrent.bias.any():
            raise ValueError("the profile tflite-lstm has one bias: add the recurrent one to the input's")

    def _check_backward(self, backward: "Layer") -> None:
        if not isinstance(backward, Layer) or backward.backward is not None:
            raise ValueError("backward must be a Layer of one direction, or None")
        for name in ("cell", "reset_after", "input_size", "hidden_size", "profile"):
            own, other = getattr(self, name), getattr(backward, name)
            if own != other:
                raise ValueError(f"the backward direction has {name} {other!r}, the forward one {own!r}")

    @property
    def gates(self) -> tuple[str, ...]:
        return GATES[self.cell]

    @property
    def profile(self) -> Profile:
        return _PRE_ACTIVATION_SCALES[np.float32(self.input.output_scale)]

    @property
    def hidden_size(self) -> int:
        return self.recurrent.columns

    @property
    def input_size(self) -> int:
        return self.input.columns

    @property
    def output_size(self) -> int:
        """Values a step that the next layer, or the head, reads."""
        return self.hidden_size * len(self.directions)

    @property
    def directions(self) -> "tuple[Layer, ...]":
        """(this layer,), or (this layer, its backward direction)."""
        return (self,) if self.backward is None else (self, self.backward)


@dataclass(frozen=True, eq=False)
class Head:
    """The dense output: of the last valid hidden state (`last`) or of every step (`steps`).

    In a bidirectional layer the last hidden state of the backward direction is the one at the first step, when it has
    read everything (torch's h_n).

    `dense` maps the hidden state to int16 with dense.output_scale; the int8 output has 256 times that scale.
    """

    kind: HeadKind
    dense: Affine

    def __post_init__(self) -> None:
        if self.kind not in ("last", "steps"):
            raise ValueError(f"unknown head {self.kind!r}; known are last, steps")

    @property
    def output_size(self) -> int:
        return self.dense.rows

    @property
    def output_scale(self) -> float:
        return float(np.float32(self.dense.output_scale)) * 256.0


class StateSpec(NamedTuple):
    """A state that a layer carries from step to step: how many integers, of what scale and type."""

    size: int
    scale: float
    dtype: type[np.int8] | type[np.int16] = np.int16


def hidden_spec(profile: Profile, scheme: Scheme) -> StateSpec:
    """Of the hidden state, with the size 0: int16, in the profile tflite-lstm the bytes that products read."""
    return StateSpec(0, STATE_SCALE) if profile == "portable" else StateSpec(0, view_scale(scheme), np.int8)


def view_scale(scheme: Scheme) -> float:
    """The scale of the hidden state as matrix products read it: int8 2^-7 (w8a8) or int16 2^-15 (w8a16)."""
    return STATE_VIEW_SCALE if scheme == "w8a8" else STATE_SCALE


def check_array(name: str, array: Any, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} must be a {ndim}-d array of {np.dtype(dtype)}, not {found}")


def check_scale(name: str, value: float) -> None:
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        fits = isinstance(value, float | int) and 0 < np.float32(value) < np.inf
    if not fits:
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def read_only(array: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """A copy that nobody can change: what was checked once stays so, and engines may keep what they made of it."""
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy
