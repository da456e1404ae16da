"""QuantizedModel: the integers of a trained network and what they mean. Every engine and exporter starts from it.

The objects are frozen and checked when they are made, so that whoever holds one may rely on it: shapes fit, weights lie
in [-127, 127], every accumulator provably fits int32, every multiplier is one that all runtimes compute alike.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .fixedpoint import ARITHMETIC_VERSION, PRE_ACTIVATION_SCALE, STATE_SCALE, STATE_VIEW_SCALE, quantize_multiplier

IntArray: TypeAlias = npt.NDArray[np.signedinteger[Any]]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
_Number = TypeVar("_Number", bound=np.generic)
Cell = Literal["lstm", "gru", "rnn"]
HeadKind = Literal["last", "steps"]
Scheme = Literal["w8a8", "w8a16"]
Task = Literal["classification", "regression"]

GATES: Final[dict[str, tuple[str, ...]]] = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "rnn": ("n",)}
STATES: Final[dict[str, tuple[str, ...]]] = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",)}
CELL_EXPONENTS: Final = range(9, 16)  # the LSTM cell state's scale is 2^-9 .. 2^-15


class State(NamedTuple):
    """An int16 state that a layer carries from step to step: how many values, of what scale."""

    size: int
    scale: float


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
        _check_array("weight", self.weight, np.int8, 2)
        _check_array("bias", self.bias, np.int32, 1)
        _check_array("weight_scale", self.weight_scale, np.float32, 1)
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
            _check_scale(name, getattr(self, name))
        for name in ("weight", "bias", "weight_scale"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
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
        return _read_only(np.stack(parts, axis=1))

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
    """

    cell: Cell
    input: Affine
    recurrent: Affine
    reset_after: bool = True
    cell_exponent: int = 0

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise ValueError(f"unknown cell {self.cell!r}; known are {', '.join(GATES)}")
        rows = len(self.gates) * self.hidden_size
        for name, affine in (("input", self.input), ("recurrent", self.recurrent)):
            if affine.rows != rows:
                size = f"{self.cell} of size {self.hidden_size}"
                raise ValueError(f"{name}.weight has {affine.rows} rows; {size} needs {rows}")
            if np.float32(affine.output_scale) != np.float32(PRE_ACTIVATION_SCALE):
                raise ValueError(f"{name}.output_scale must be 1/3072 (pre-activations), not {affine.output_scale}")
        if self.cell == "lstm" and self.cell_exponent not in CELL_EXPONENTS:
            raise ValueError(f"cell_exponent must be 9 .. 15 for an LSTM, not {self.cell_exponent}")
        if self.cell != "lstm" and self.cell_exponent != 0:
            raise ValueError(f"cell_exponent must be 0 for {self.cell}, not {self.cell_exponent}")
        if self.cell != "gru" and not self.reset_after:
            raise ValueError(f"reset_after=False is a GRU variant, the cell is {self.cell}")

    @property
    def gates(self) -> tuple[str, ...]:
        return GATES[self.cell]

    @property
    def hidden_size(self) -> int:
        return self.recurrent.columns

    @property
    def input_size(self) -> int:
        return self.input.columns


@dataclass(frozen=True, eq=False)
class Head:
    """The dense output: of the last valid hidden state (`last`) or of every step (`steps`).

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


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A network of integers: layers, head, input quantisation, labels and where it came from.

    input_mean and input_std (float32 [input_size]) normalise a real input before input_scale and input_zero_point
    quantise it. Without a head (None) the output is the last layer's int16 hidden state at every step.
    Raises ValueError for anything that does not fit together or could overflow.
    """

    layers: tuple[Layer, ...]
    head: Head | None
    input_scale: float
    input_zero_point: int = 0
    scheme: Scheme = "w8a8"
    input_mean: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    input_std: FloatArray = field(default_factory=lambda: np.ones(0, np.float32))
    labels: tuple[str, ...] = ()
    task: Task = "classification"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    arithmetic_version: int = ARITHMETIC_VERSION

    def __post_init__(self) -> None:
        if self.arithmetic_version != ARITHMETIC_VERSION:
            raise ValueError(
                f"the model needs arithmetic version {self.arithmetic_version}, this edgernn computes version "
                f"{ARITHMETIC_VERSION}; use the edgernn release that wrote it"
            )
        if self.scheme not in ("w8a8", "w8a16"):
            raise ValueError(f"unknown scheme {self.scheme!r}; known are w8a8, w8a16")
        if self.task not in ("classification", "regression"):
            raise ValueError(f"unknown task {self.task!r}; known are classification, regression")
        if not self.layers or not all(isinstance(layer, Layer) for layer in self.layers):
            raise ValueError("a model needs at least one layer, and layers that are Layer objects")
        if not (self.head is None or isinstance(self.head, Head)):
            raise ValueError(f"head must be a Head or None, not {self.head!r}")
        for name, default in (("input_mean", 0.0), ("input_std", 1.0)):
            array = getattr(self, name)
            if isinstance(array, np.ndarray) and len(array) == 0:
                array = np.full(self.input_size, default, np.float32)
            _check_array(name, array, np.float32, 1)
            object.__setattr__(self, name, _read_only(array))
        self._check_input()
        for index, layer in enumerate(self.layers):
            self._check_layer(index, layer)
        if self.head is not None:
            self._check_affine("head", self.head.dense, self.layers[-1].hidden_size, self.view_scale, self.view_limit)
            if self.labels and len(self.labels) != self.head.output_size:
                raise ValueError(f"{len(self.labels)} labels for {self.head.output_size} outputs")

    def _check_input(self) -> None:
        _check_scale("input_scale", self.input_scale)
        if not isinstance(self.input_zero_point, int):
            raise ValueError(f"input_zero_point must be an int, not {self.input_zero_point!r}")
        if not -self.input_limit <= self.input_zero_point < self.input_limit:
            raise ValueError(f"input_zero_point {self.input_zero_point} is outside the range of {self.input_dtype}")
        if self.scheme == "w8a16" and self.input_zero_point != 0:
            raise ValueError("input_zero_point must be 0 in w8a16")
        for name in ("input_mean", "input_std"):
            array = getattr(self, name)
            if len(array) != self.input_size:
                raise ValueError(f"{name} has {len(array)} entries for {self.input_size} channels")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")
        if not (self.input_std > 0).all():
            raise ValueError("input_std must be positive")

    def _check_layer(self, index: int, layer: Layer) -> None:
        first = index == 0
        size = layer.input_size if first else self.layers[index - 1].hidden_size
        scale, limit = (self.input_scale, self.input_limit) if first else (self.view_scale, self.view_limit)
        self._check_affine(f"layer {index} input", layer.input, size, scale, limit)
        place = f"layer {index} recurrent"
        self._check_affine(place, layer.recurrent, layer.hidden_size, self.view_scale, self.view_limit)

    @staticmethod
    def _check_affine(place: str, affine: Affine, columns: int, input_scale: float, largest_input: int) -> None:
        if affine.columns != columns:
            raise ValueError(f"{place}: weights for {affine.columns} inputs, but {columns} arrive")
        if np.float32(affine.input_scale) != np.float32(input_scale):
            raise ValueError(f"{place}: input_scale is {affine.input_scale}, the arriving values have {input_scale}")
        try:
            affine.check_range(largest_input)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None

    @property
    def input_size(self) -> int:
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        return self.layers[-1].hidden_size if self.head is None else self.head.output_size

    @property
    def every_step(self) -> bool:
        """Whether there is an output for every step ([T, output_size]) or one a sequence ([output_size])."""
        return self.head is None or self.head.kind == "steps"

    @property
    def input_dtype(self) -> type[np.int8] | type[np.int16]:
        return np.int8 if self.scheme == "w8a8" else np.int16

    @property
    def output_dtype(self) -> type[np.int8] | type[np.int16]:
        return np.int16 if self.head is None else np.int8

    @property
    def output_scale(self) -> float:
        return STATE_SCALE if self.head is None else self.head.output_scale

    @property
    def input_limit(self) -> int:
        """The largest magnitude of an input integer."""
        return 128 if self.scheme == "w8a8" else 32768

    @property
    def view_scale(self) -> float:
        return view_scale(self.scheme)

    @property
    def view_limit(self) -> int:
        return 128 if self.scheme == "w8a8" else 32768

    @property
    def states(self) -> dict[str, State]:
        """The states between steps, by their names in exported files: h_0 (and c_0 for an LSTM), h_1, .."""
        return {
            f"{name}_{index}": State(layer.hidden_size, STATE_SCALE if name == "h" else 2.0**-layer.cell_exponent)
            for index, layer in enumerate(self.layers)
            for name in STATES[layer.cell]
        }

    def quantize_input(self, x: npt.ArrayLike) -> IntArray:
        """Real inputs [.., input_size] -> integers: clip(rint((x - mean) / (std * scale)) + zero_point) in float32.

        Raises ValueError for a wrong number of channels, or for NaN or infinite values.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused or clipped below
            values = np.asarray(x, np.float32)
        if values.ndim == 0 or values.shape[-1] != self.input_size:
            raise ValueError(f"the input's shape is {values.shape}; its last axis must have {self.input_size} channels")
        if not np.isfinite(values).all():
            raise ValueError("the input contains NaN or infinite values; clean it first")
        step = self.input_std * np.float32(self.input_scale)
        with np.errstate(over="ignore"):
            rounded = np.rint((values - self.input_mean) / step) + np.float32(self.input_zero_point)
        return np.clip(rounded, -self.input_limit, self.input_limit - 1).astype(self.input_dtype)

    def dequantize_output(self, y: IntArray) -> FloatArray:
        """Integer outputs -> real values (logits, or the regression's units), float32."""
        return (np.asarray(y) * np.float32(self.output_scale)).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that decides which integers come out; exported files carry them too."""
        digest = hashlib.sha256(repr((self.arithmetic_version, self.scheme, self.input_zero_point)).encode())
        affines = [affine for layer in self.layers for affine in (layer.input, layer.recurrent)]
        for layer in self.layers:
            digest.update(repr((layer.cell, layer.reset_after, layer.cell_exponent)).encode())
        if self.head is not None:
            digest.update(self.head.kind.encode())
            affines.append(self.head.dense)
        for affine in affines:
            digest.update(repr(affine.weight.shape).encode())
            digest.update(np.array([affine.input_scale, affine.output_scale], np.float32).tobytes())
            for array in (affine.weight, affine.bias, affine.weight_scale):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write a `.ernn` file: safetensors with a JSON header and a checksum. Raises ValueError."""
        from ._ernn import save_model

        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "QuantizedModel":
        """Read a `.ernn` file. Raises ValueError when it is missing, foreign, damaged or inconsistent."""
        from ._ernn import load_model

        return load_model(path)

    def without_head(self, layers: int | None = None) -> "QuantizedModel":
        """The same network cut after its first `layers` layers (all of them by default), giving hidden states.

        Raises ValueError unless 1 <= layers <= the number of layers.
        """
        if layers is not None and not 1 <= layers <= len(self.layers):
            raise ValueError(f"layers must be 1 .. {len(self.layers)}, not {layers}")
        return dataclasses.replace(self, layers=self.layers[:layers], head=None, labels=())


def view_scale(scheme: Scheme) -> float:
    """The scale of the hidden state as matrix products read it: int8 2^-7 (w8a8) or int16 2^-15 (w8a16)."""
    return STATE_VIEW_SCALE if scheme == "w8a8" else STATE_SCALE


def _check_array(name: str, array: Any, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} must be a {ndim}-d array of {np.dtype(dtype)}, not {found}")


def _check_scale(name: str, value: float) -> None:
    if not (isinstance(value, float | int) and np.isfinite(np.float32(value)) and np.float32(value) > 0):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _read_only(array: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """A copy that nobody can change: what was checked once stays so, and engines may keep what they made of it."""
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy
