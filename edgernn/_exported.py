"""What an exported file says about the network in it: how to feed it real numbers, and how to read its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ._artifacts import plain_properties, read_tflite
from ._files import check_seal
from ._interface import Interface, real_input
from .fixedpoint import ARITHMETIC_VERSION

FloatArray = npt.NDArray[np.float32]

_FLOATS: Final = ("float", "weights_only")  # kinds of files that compute in floats
_WORDS: Final = ("form", "task", "every_step", "input_size", "output_size", "checksum")
_SCALES: Final = ("scheme", "arithmetic_version", "fingerprint", "input_scale", "input_zero_point", "output_scale")
_TYPES: Final[dict[str, type]] = {"form": str, "task": str, "every_step": bool, "input_size": int, "output_size": int}
_BITS: Final = {"w8a8": 8, "w8a16": 16}


@dataclass(frozen=True, eq=False)
class RealInterface:
    """As `Interface`, of a file of floats: it takes real numbers as they are, float32, and gives real answers."""

    input_size: int
    output_size: int
    every_step: bool
    task: str
    labels: tuple[str, ...]

    @property
    def input_dtype(self) -> type[np.float32]:
        return np.float32

    def quantize_input(self, x: npt.ArrayLike) -> FloatArray:
        """x [.., input_size] as float32, which must be finite."""
        return real_input(x, self.input_size)

    def dequantize_output(self, y: npt.NDArray[Any]) -> FloatArray:
        return np.asarray(y, np.float32)


class Description(NamedTuple):
    """The form of an exported file ("sequence", "step" or "stream"), and what its numbers mean. length: the only number
    of steps that its sequences have, or None for any."""

    form: str
    interface: Interface | RealInterface
    length: int | None = None


def describe_tflite(content: bytes) -> Description:
    """Raises ValueError for a file that is damaged, of another program, or of a newer arithmetic."""
    artifact = read_tflite(content)
    facts, length = dict(artifact.metadata), None
    if "x" in artifact.inputs and "y" in artifact.outputs:
        x, y = artifact.inputs["x"], artifact.outputs["y"]
        facts |= {"input_size": x.shape[-1], "input_scale": x.scale, "input_zero_point": x.zero_point}
        facts |= {"output_size": y.shape[-1], "output_scale": y.scale}
        steps = x.shape[1] if len(x.shape) == 3 else None
        length = steps if isinstance(steps, int) and steps > 0 else None
    return _describe(content, facts)._replace(length=length)


def describe_onnx(content: bytes, properties: Mapping[str, str], input_size: int) -> Description:
    """Of an .onnx file with these properties, its x's last axis. Raises ValueError as `describe_tflite` does."""
    return _describe(content, {**plain_properties(properties), "input_size": input_size})


def _describe(content: bytes, facts: Mapping[str, Any]) -> Description:
    version = facts.get("arithmetic_version", ARITHMETIC_VERSION)
    if version != ARITHMETIC_VERSION:
        raise ValueError(
            f"it needs arithmetic version {version}, this edgernn knows version {ARITHMETIC_VERSION}; "
            "use the edgernn release that wrote it"
        )
    in_floats = facts.get("kind") in _FLOATS
    absent = [name for name in (*_WORDS, *(() if in_floats else _SCALES)) if facts.get(name) is None]
    if absent:
        raise ValueError(f"not a file of this edgernn: it does not say its {', '.join(absent)}; export the model anew")
    check_seal(content, str(facts["checksum"]))
    try:
        for name, kind in _TYPES.items():
            if type(facts[name]) is not kind:
                raise ValueError(f"{name} is {facts[name]!r}")
        return Description(facts["form"], _real_interface(facts) if in_floats else _interface(facts))
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise ValueError(f"its description is damaged ({error}); export the model anew") from None


def _interface(facts: Mapping[str, Any]) -> Interface:
    size = facts["input_size"]
    return Interface(
        input_size=size,
        bits=_BITS[facts["scheme"]],
        input_mean=np.array(facts.get("input_mean", [0] * size), np.float32),
        input_std=np.array(facts.get("input_std", [1] * size), np.float32),
        input_scale=float(facts["input_scale"]),
        input_zero_point=int(facts["input_zero_point"]),
        output_size=facts["output_size"],
        output_scale=float(facts["output_scale"]),
        every_step=facts["every_step"],
        streams=facts["form"] != "sequence",
        task=facts["task"],
        labels=_labels(facts),
        fingerprint=str(facts["fingerprint"]),
    )


def _real_interface(facts: Mapping[str, Any]) -> RealInterface:
    labels = _labels(facts)
    if labels and len(labels) != facts["output_size"]:
        raise ValueError(f"{len(labels)} labels for {facts['output_size']} outputs")
    return RealInterface(facts["input_size"], facts["output_size"], facts["every_step"], facts["task"], labels)


def _labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, facts.get("labels", ())))
