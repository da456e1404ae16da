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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._interface import Interface, check_state
from ._interface import State as State
from ._layers import CELL_EXPONENTS as CELL_EXPONENTS
from ._layers import DIRECTION_NAMES as DIRECTION_NAMES
from ._layers import DIRECTION_SUFFIXES as DIRECTION_SUFFIXES
from ._layers import GATES as GATES
from ._layers import PROFILE_SCALES as PROFILE_SCALES
from ._layers import REVERSE as REVERSE
from ._layers import STATES as STATES
from ._layers import Affine as Affine
from ._layers import Cell as Cell
from ._layers import FloatArray as FloatArray
from ._layers import Head as Head
from ._layers import HeadKind as HeadKind
from ._layers import IntArray as IntArray
from ._layers import Layer as Layer
from ._layers import Profile as Profile
from ._layers import Scheme as Scheme
from ._layers import StateSpec as StateSpec
from ._layers import check_array, check_scale, read_only
from ._layers import hidden_spec as hidden_spec
from ._layers import view_scale as view_scale
from .fixedpoint import ARITHMETIC_VERSION

Task = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A network of integers: layers, head, input quantisation, labels and where it came from.

    input_mean and input_std (float32 [input_size]) normalise a real input before input_scale and input_zero_point
    quantise it. Without a head (None) the output is the last layer's hidden state at every step: int16, but in the
    profile tflite-lstm int8.
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
            check_array(name, array, np.float32, 1)
            object.__setattr__(self, name, read_only(array))
        self._check_input_scales()
        if len({layer.profile for layer in self.layers}) > 1:
            raise ValueError("the layers are of different profiles")
        if self.profile != "portable" and self.scheme != "w8a8":
            raise ValueError(f"the profile {self.profile} has the scheme w8a8, not {self.scheme}")
        for index, layer in enumerate(self.layers):
            self._check_layer(index, layer)
        if self.head is not None:
            self._check_affine("head", self.head.dense, self.layers[-1].output_size, self.view_scale, self.view_limit)
            if self.labels and len(self.labels) != self.head.output_size:
                raise ValueError(f"{len(self.labels)} labels for {self.head.output_size} outputs")

    def _check_input_scales(self) -> None:
        check_scale("input_scale", self.input_scale)
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
        if not (self.input_std * np.float32(self.input_scale) > 0).all():  # float32: a tiny product is 0
            raise ValueError("input_std must be positive, and large enough for input_scale")

    def _check_layer(self, index: int, layer: Layer) -> None:
        first = index == 0
        size = layer.input_size if first else self.layers[index - 1].output_size
        scale, limit = (self.input_scale, self.input_limit) if first else (self.view_scale, self.view_limit)
        for name, direction in zip(DIRECTION_NAMES, layer.directions, strict=False):
            place = f"layer {index}{name}"
            self._check_affine(f"{place} input", direction.input, size, scale, limit)
            self._check_affine(
                f"{place} recurrent", direction.recurrent, layer.hidden_size, self.view_scale, self.view_limit
            )

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

    @cached_property
    def profile(self) -> Profile:
        """By which arithmetic the layers are computed."""
        return self.layers[0].profile

    @cached_property
    def input_size(self) -> int:
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        return self.layers[-1].output_size if self.head is None else self.head.output_size

    @property
    def bidirectional(self) -> bool:
        """Whether a layer reads the sequence backwards too: such a model needs it whole and cannot take it in steps."""
        return any(layer.backward is not None for layer in self.layers)

    @cached_property
    def every_step(self) -> bool:
        """Whether there is an output for every step ([T, output_size]) or one a sequence ([output_size])."""
        return self.head is None or self.head.kind == "steps"

    @cached_property
    def input_dtype(self) -> type[np.int8] | type[np.int16]:
        return np.int8 if self.scheme == "w8a8" else np.int16

    @property
    def output_dtype(self) -> type[np.int8] | type[np.int16]:
        return self._hidden_spec.dtype if self.head is None else np.int8

    @property
    def output_scale(self) -> float:
        return self._hidden_spec.scale if self.head is None else self.head.output_scale

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
    def states(self) -> dict[str, StateSpec]:
        """The states between steps, by their names in exported files: h_0 (and c_0 for an LSTM), h_1, ..

        Those of a backward direction end in _reverse, as torch's weights do.
        """
        h = self._hidden_spec
        return {
            f"{name}_{index}{suffix}": h._replace(size=direction.hidden_size)
            if name == "h"
            else StateSpec(direction.hidden_size, 2.0**-direction.cell_exponent)
            for index, layer in enumerate(self.layers)
            for suffix, direction in zip(DIRECTION_SUFFIXES, layer.directions, strict=False)
            for name in STATES[layer.cell]
        }

    @property
    def _hidden_spec(self) -> StateSpec:
        return hidden_spec(self.profile, self.scheme)

    def zero_state(self) -> State:
        """The state before the first step: zeros. Raises ValueError for a bidirectional model."""
        self.check_streaming()
        return {name: np.zeros(spec.size, spec.dtype) for name, spec in self.states.items()}

    def check_state(self, state: State) -> None:
        """Raise ValueError unless `state` is one to go on from: arrays of the names, types and sizes of `states`."""
        self.check_streaming()
        check_state(state, {name: (spec.size, spec.dtype) for name, spec in self.states.items()})

    def check_streaming(self) -> None:
        """Raise ValueError for a bidirectional model."""
        self.interface.check_streaming()

    def save_state(self, path: str | Path, state: State) -> None:
        """Write a state of this model to a file, to go on from later. Raises ValueError."""
        from ._ernn import save_state

        save_state(self, path, state)

    def load_state(self, path: str | Path) -> State:
        """Read what `save_state` wrote. Raises ValueError when it is missing, damaged, or of another network."""
        from ._ernn import load_state

        return load_state(self, path)

    @cached_property
    def interface(self) -> Interface:
        """What a program needs to feed it and to read its answers."""
        return Interface.of(self)

    def quantize_input(self, x: npt.ArrayLike) -> IntArray:
        """Real inputs [.., input_size] -> integers: clip(rint((x - mean) / (std * scale)) + zero_point) in float32.

        Raises ValueError for a wrong number of channels, or for NaN or infinite values.
        """
        return self.interface.quantize_input(x)

    def check_input(self, x: IntArray, axes: tuple[str, ...]) -> IntArray:
        """x, if it is an array of input integers with these axes, the last one "input_size"; ValueError otherwise."""
        return self.interface.check_input(x, axes)

    def dequantize_output(self, y: IntArray) -> FloatArray:
        """Integer outputs -> real values (logits, or the regression's units), float32."""
        return self.interface.dequantize_output(y)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that decides which integers come out; exported files carry them too."""
        digest = hashlib.sha256(repr((self.arithmetic_version, self.scheme, self.input_zero_point)).encode())
        directions = [direction for layer in self.layers for direction in layer.directions]
        affines = [affine for direction in directions for affine in (direction.input, direction.recurrent)]
        for one in directions:
            digest.update(repr((one.cell, one.reset_after, one.cell_exponent, one.backward is not None)).encode())
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


def check_lengths(lengths: npt.ArrayLike | None, batch: int, time: int) -> npt.NDArray[np.int64]:
    """The lengths as int64 [batch], all `time` by default; ValueError when they do not fit."""
    if lengths is None:
        return np.full(batch, time, np.int64)
    array = np.asarray(lengths)
    if array.shape != (batch,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"lengths must be {batch} integers, one a sequence, not {array.dtype} {array.shape}")
    wrong = np.flatnonzero((array < 1) | (array > time))
    if len(wrong):
        raise ValueError(f"lengths[{wrong[0]}] is {array[wrong[0]]}, it must be 1 .. {time}, the steps in x")
    return array.astype(np.int64)
