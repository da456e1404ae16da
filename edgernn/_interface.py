"""What a program needs to feed a network real numbers and to read its answers, whatever file the network is in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._layers import FloatArray, IntArray, check_array, check_scale, read_only

if TYPE_CHECKING:
    from .qmodel import QuantizedModel

State: TypeAlias = Mapping[str, IntArray]  # int16 [hidden_size] by the names of QuantizedModel.states

_TASKS = ("classification", "regression")


@dataclass(frozen=True, eq=False)
class Interface:
    """Inputs and outputs of a network of integers, in sizes, scales and names.

    input_mean, input_std: float32 [input_size]. bits: of an input integer, 8 or 16. every_step: there is an output for
    every step, else one a sequence. streams: it takes single steps, as a bidirectional network does not.
    Raises ValueError for what does not fit together.
    """

    input_size: int
    bits: int
    input_mean: FloatArray
    input_std: FloatArray
    input_scale: float
    input_zero_point: int
    output_size: int
    output_scale: float
    every_step: bool
    streams: bool
    task: str
    labels: tuple[str, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ValueError(f"inputs have 8 or 16 bits, not {self.bits}")
        if self.task not in _TASKS:
            raise ValueError(f"unknown task {self.task!r}; known are {', '.join(_TASKS)}")
        if min(self.input_size, self.output_size) < 1:
            raise ValueError(f"{self.input_size} inputs and {self.output_size} outputs: there is at least one")
        if not -(1 << self.bits - 1) <= self.input_zero_point < 1 << self.bits - 1:
            raise ValueError(f"input_zero_point {self.input_zero_point} is outside the range of int{self.bits}")
        check_scale("input_scale", self.input_scale)
        check_scale("output_scale", self.output_scale)
        for name in ("input_mean", "input_std"):
            array = getattr(self, name)
            check_array(name, array, np.float32, 1)
            if len(array) != self.input_size or not np.isfinite(array).all():
                raise ValueError(f"{name} must be {self.input_size} finite numbers")
            object.__setattr__(self, name, read_only(array))
        if not (self._step > 0).all():
            raise ValueError("input_std must be positive, and large enough for input_scale")
        if self.labels and len(self.labels) != self.output_size:
            raise ValueError(f"{len(self.labels)} labels for {self.output_size} outputs")

    @classmethod
    def of(cls, model: "QuantizedModel") -> "Interface":
        return cls(
            model.input_size,
            8 * np.dtype(model.input_dtype).itemsize,
            model.input_mean,
            model.input_std,
            model.input_scale,
            model.input_zero_point,
            model.output_size,
            model.output_scale,
            model.every_step,
            not model.bidirectional,
            model.task,
            model.labels,
            model.fingerprint,
        )

    @classmethod
    def from_json(cls, text: str) -> "Interface":
        """What `to_json` wrote. Raises ValueError for anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            for name, kind in cls.__annotations__.items():
                if kind in (int, bool, str) and type(fields[name]) is not kind:
                    raise ValueError(f"{name} is {fields[name]!r}")
            arrays: dict[str, Any] = {n: np.array(fields[n], np.float32) for n in ("input_mean", "input_std")}
            return cls(**{**fields, **arrays, "labels": tuple(map(str, fields["labels"]))})
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"its description is damaged ({error})") from None

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__annotations__}
        # str of a float32 is its shortest exact decimal
        arrays = {name: [float(str(value)) for value in fields[name]] for name in ("input_mean", "input_std")}
        scales = {name: float(np.float32(fields[name])) for name in ("input_scale", "output_scale")}
        return json.dumps(fields | arrays | scales, separators=(",", ":"))

    @property
    def input_dtype(self) -> type[np.int8] | type[np.int16]:
        return np.int8 if self.bits == 8 else np.int16

    @cached_property
    def _step(self) -> FloatArray:
        """Real units of an input's integer, float32 [input_size]; a tiny product is 0."""
        return self.input_std * np.float32(self.input_scale)

    def quantize_input(self, x: npt.ArrayLike) -> IntArray:
        """Real inputs [.., input_size] -> integers: clip(rint((x - mean) / (std * scale)) + zero_point) in float32.

        Raises ValueError for a wrong number of channels, or for NaN or infinite values.
        """
        values = real_input(x, self.input_size)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is clipped
            rounded = np.rint((values - self.input_mean) / self._step) + np.float32(self.input_zero_point)
        limit = np.float32(1 << self.bits - 1)
        return np.clip(rounded, -limit, limit - 1).astype(self.input_dtype)

    def check_input(self, x: IntArray, axes: tuple[str, ...]) -> IntArray:
        """x, if it is an array of input integers with these axes, the last one "input_size"; ValueError otherwise."""
        wanted = np.dtype(self.input_dtype)
        if not isinstance(x, np.ndarray) or x.dtype != wanted:
            found = f"dtype {x.dtype}" if isinstance(x, np.ndarray) else f"type {type(x).__name__}"
            raise ValueError(f"x has {found}, the model takes arrays of {wanted}: use quantize_input for real values")
        if x.ndim != len(axes) or x.shape[-1] != self.input_size:
            shape = ", ".join(axes)
            raise ValueError(f"x has the shape {x.shape}, it must be [{shape}] with input_size {self.input_size}")
        if 0 in x.shape:
            raise ValueError(f"x has the shape {x.shape}: give at least one sequence and one step")
        return x

    def check_streaming(self) -> None:
        """Raise ValueError for a bidirectional network."""
        if not self.streams:
            cure = "use the form sequence"
            raise ValueError(f"a bidirectional model reads whole sequences, takes no single steps and no state: {cure}")

    def dequantize_output(self, y: IntArray) -> FloatArray:
        """Integer outputs -> real values (logits, or the regression's units), float32."""
        return (np.asarray(y) * np.float32(self.output_scale)).astype(np.float32)


def real_input(x: npt.ArrayLike, input_size: int) -> npt.NDArray[np.float32]:
    """x [.., input_size] as float32. Raises ValueError for a wrong number of channels, or NaN or infinite values."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused
        values = np.asarray(x, np.float32)
    if values.ndim == 0 or values.shape[-1] != input_size:
        raise ValueError(f"the input's shape is {values.shape}; its last axis must have {input_size} channels")
    if not np.isfinite(values).all():
        raise ValueError("the input contains NaN or infinite values; clean it first")
    return values


def check_state(state: State, specs: Mapping[str, tuple[int, type[np.generic]]]) -> None:
    """Raise ValueError unless `state` holds arrays of these names, sizes and types."""
    if not isinstance(state, Mapping) or set(state) != set(specs):
        found = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"the state must hold {', '.join(specs)}, not {found}; see zero_state")
    for name, (size, dtype) in specs.items():
        check_array(f"the state's {name}", state[name], dtype, 1)
        if len(state[name]) != size:
            raise ValueError(f"the state's {name} has {len(state[name])} values, the model's {size}")
