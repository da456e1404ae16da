"""The `.ernn` file: a QuantizedModel as safetensors with a JSON header; and the file of a state between two steps.

`QuantizedModel.save`, `load`, `save_state` and `load_state` are its doors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ._files import Tensors, checksum, parsing, read_tensors, typed, write_tensors
from .fixedpoint import ARITHMETIC_VERSION
from .qmodel import PROFILE_SCALES, Affine, Head, Layer, QuantizedModel, State, view_scale

FILE_FORMAT: Final = "edgernn.quantized_model"
STATE_FORMAT: Final = "edgernn.state"


def save_model(model: QuantizedModel, path: str | Path) -> None:
    """Write the model as one file, atomically. Raises ValueError when the place cannot be written."""
    write_tensors(path, _tensors(model), _header(model))


def load_model(path: str | Path) -> QuantizedModel:
    """Read and check a model. Raises ValueError when it is missing, foreign, damaged, newer or inconsistent."""
    tensors, header = read_tensors(path, FILE_FORMAT)
    with parsing(path):
        version = header["arithmetic_version"]
        if version != ARITHMETIC_VERSION:
            raise ValueError(
                f"it needs arithmetic version {version}, this edgernn computes version {ARITHMETIC_VERSION}; "
                "use the edgernn release that wrote it"
            )
        model = _parse(dict(tensors), header)
        if checksum(_tensors(model), _header(model)) != checksum(tensors, header):
            raise ValueError(
                "it holds a field or a value that is not the model's; use the edgernn release that wrote it"
            )
    return model


def save_state(model: QuantizedModel, path: str | Path, state: State) -> None:
    """Write a state with the fingerprint of its model, atomically. Raises ValueError."""
    model.check_state(state)
    write_tensors(path, dict(state), _state_header(model))


def load_state(model: QuantizedModel, path: str | Path) -> State:
    """Read and check a state. Raises ValueError when it is missing, damaged, or of another network."""
    tensors, header = read_tensors(path, STATE_FORMAT)
    with parsing(path):
        if header != _state_header(model):
            raise ValueError("a state of another network; start from zero_state()")
        model.check_state(tensors)
    return {name: tensors[name] for name in model.states}


def _state_header(model: QuantizedModel) -> dict[str, Any]:
    return {"format": STATE_FORMAT, "fingerprint": model.fingerprint}


def _tensors(model: QuantizedModel) -> Tensors:
    tensors: Tensors = {"input_mean": model.input_mean, "input_std": model.input_std}
    for index, layer in enumerate(model.layers):
        for name, direction in zip(_direction_names(index), layer.directions, strict=False):
            tensors |= _affine_tensors(f"{name}.input", direction.input)
            tensors |= _affine_tensors(f"{name}.recurrent", direction.recurrent)
    if model.head is not None:
        tensors |= _affine_tensors("head", model.head.dense)
    return tensors


def _header(model: QuantizedModel) -> dict[str, Any]:
    return {
        "format": FILE_FORMAT,
        "arithmetic_version": model.arithmetic_version,
        "scheme": model.scheme,
        **({} if model.profile == "portable" else {"profile": model.profile}),
        "task": model.task,
        "input_scale": float(np.float32(model.input_scale)),
        "input_zero_point": model.input_zero_point,
        "layers": [
            {
                "cell": layer.cell,
                "reset_after": layer.reset_after,
                "cell_exponents": [direction.cell_exponent for direction in layer.directions],
            }
            for layer in model.layers
        ],
        "head": None if model.head is None else model.head.kind,
        "output_scale": None if model.head is None else float(np.float32(model.head.dense.output_scale)),
        "labels": list(model.labels),
        "provenance": dict(model.provenance),
    }


def _direction_names(index: int) -> tuple[str, str]:
    """What the tensors of a layer's directions begin with."""
    return f"layers.{index}", f"layers.{index}.backward"


def _affine_tensors(name: str, affine: Affine) -> Tensors:
    return {f"{name}.{part}": getattr(affine, part) for part in ("weight", "bias", "weight_scale")}


def _parse(tensors: Tensors, header: Mapping[str, Any]) -> QuantizedModel:
    scheme, input_scale = header["scheme"], typed(header["input_scale"], float)
    scale_of_view, profile = view_scale(scheme), header.get("profile", "portable")
    if profile not in PROFILE_SCALES:
        raise ValueError(f"unknown profile {profile!r}; known are {', '.join(PROFILE_SCALES)}")
    pre_activation_scale = PROFILE_SCALES[profile]

    def affine(name: str, scale: float, output_scale: float) -> Affine:
        weight, bias, weight_scale = (tensors.pop(f"{name}.{part}") for part in ("weight", "bias", "weight_scale"))
        try:
            return Affine(weight, bias, weight_scale, scale, output_scale)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def direction(name: str, index: int, entry: Mapping[str, Any], exponent: int, backward: Layer | None) -> Layer:
        return Layer(
            entry["cell"],
            affine(f"{name}.input", scale_of_view if index else input_scale, pre_activation_scale),
            affine(f"{name}.recurrent", scale_of_view, pre_activation_scale),
            typed(entry["reset_after"], bool),
            typed(exponent, int),
            backward,
        )

    def layer(index: int, entry: Mapping[str, Any]) -> Layer:
        exponents, (forward, backward) = typed(entry["cell_exponents"], list), _direction_names(index)
        if len(exponents) not in (1, 2):
            raise ValueError(f"layer {index} has {len(exponents)} directions; there are one or two")
        second = direction(backward, index, entry, exponents[1], None) if len(exponents) == 2 else None
        return direction(forward, index, entry, exponents[0], second)

    layers = tuple(layer(index, entry) for index, entry in enumerate(typed(header["layers"], list)))
    kind = header["head"]
    head = None if kind is None else Head(kind, affine("head", scale_of_view, typed(header["output_scale"], float)))
    mean, std = tensors.pop("input_mean"), tensors.pop("input_std")
    if tensors:
        raise ValueError(f"unknown tensors: {', '.join(sorted(tensors))}")
    return QuantizedModel(
        layers=layers,
        head=head,
        input_scale=input_scale,
        input_zero_point=typed(header["input_zero_point"], int),
        scheme=scheme,
        input_mean=mean,
        input_std=std,
        labels=tuple(typed(label, str) for label in typed(header["labels"], list)),
        task=header["task"],
        provenance=typed(header["provenance"], dict),
    )
