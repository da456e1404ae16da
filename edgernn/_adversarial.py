"""Integers and models chosen to break an engine: limits, alternation, saturation, extreme multipliers."""

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .fixedpoint import MULTIPLIER_EXPONENT_MAX, MULTIPLIER_EXPONENT_MIN
from .qmodel import CELL_EXPONENTS, GATES, Affine, FloatArray, IntArray, Layer, QuantizedModel

Named = list[tuple[str, IntArray]]
_Floats = npt.NDArray[np.float64]

STEPS: Final = 24


def adversarial_inputs(model: QuantizedModel, seed: int = 0, random: int = 4) -> Named:
    """(name, x [T, input_size]) over the whole range of the model's input integers."""
    rng = np.random.default_rng(seed)
    low, high = -model.input_limit, model.input_limit - 1
    shape = (STEPS, model.input_size)
    even = (np.add.outer(np.arange(STEPS), np.arange(model.input_size)) % 2).astype(bool)
    inputs = [
        ("all minimum", np.full(shape, low)),
        ("all maximum", np.full(shape, high)),
        ("alternating", np.where(even, low, high)),
        ("alternating steps", np.where(np.arange(STEPS)[:, None] % 2, low, high) * np.ones(shape, np.int64)),
        ("one step, minimum", np.full(shape, low)[:1]),
        ("one step, maximum", np.full(shape, high)[:1]),
        *((f"random {index}", rng.integers(low, high + 1, shape)) for index in range(random)),
        ("one step, random", rng.integers(low, high + 1, shape)[:1]),
    ]
    return [(name, x.astype(model.input_dtype)) for name, x in inputs]


def adversarial_models(model: QuantizedModel, seed: int = 0) -> list[tuple[str, QuantizedModel]]:
    """(name, model) of the same shape, with weights and multipliers at the limits of what a QuantizedModel allows."""
    kinds: list[tuple[str, _Kind]] = [
        ("saturating", _saturating),
        ("largest multipliers", _largest_multipliers),
        ("smallest multipliers", _smallest_multipliers),
        ("mixed", _mixed),
    ]
    return [
        (name, _rebuild(model, kind, np.random.default_rng([seed, index]))) for index, (name, kind) in enumerate(kinds)
    ]


# Each kind gives (weight, bias, multiplier) for an affine map of this shape, as float64; `limit` is the largest input.
_Map = tuple[_Floats, _Floats, _Floats]
_Kind = Callable[[np.random.Generator, int, int, int], _Map]


def _saturating(rng: np.random.Generator, rows: int, columns: int, limit: int) -> _Map:
    weight = rng.choice([-1.0, 1.0], (rows, columns)) * _largest_weight(columns, limit)
    total = np.abs(weight).sum(axis=1) * limit
    return weight, rng.uniform(-1, 1, rows) * total / 4, 8 * 2**15 / total


def _largest_multipliers(rng: np.random.Generator, rows: int, columns: int, limit: int) -> _Map:
    weight = rng.integers(-1, 2, (rows, columns)).astype(float)
    bias = rng.integers(-100, 101, rows).astype(float)
    bound = np.abs(weight).sum(axis=1) * limit + np.abs(bias) + 1
    return weight, bias, np.minimum(2.0**MULTIPLIER_EXPONENT_MAX, 2.0**31 / bound) * 0.99


def _smallest_multipliers(rng: np.random.Generator, rows: int, columns: int, limit: int) -> _Map:
    weight, _, _ = _saturating(rng, rows, columns, limit)
    room = 2.0**31 - 1 - np.abs(weight).sum(axis=1) * limit
    smallest = 2.0 ** (MULTIPLIER_EXPONENT_MIN - 1) * 1.01
    return weight, rng.choice([-0.99, 0.99], rows) * room, np.full(rows, smallest)


def _mixed(rng: np.random.Generator, rows: int, columns: int, limit: int) -> _Map:
    choices = [kind(rng, rows, columns, limit) for kind in (_saturating, _largest_multipliers, _smallest_multipliers)]
    pick, row = rng.integers(0, 3, rows), np.arange(rows)
    weight, bias, multiplier = (np.stack(parts)[pick, row] for parts in zip(*choices, strict=True))
    return weight, bias, multiplier


def _largest_weight(columns: int, limit: int) -> int:
    """127, or less where so many columns could overflow the accumulator."""
    return max(1, min(127, 2**30 // (columns * limit)))


def _for_operator(weight: _Floats, bias: _Floats, multiplier: _Floats, limit: int, recurrent: bool) -> _Map:
    """The map as the profile tflite-lstm has it: one multiplier a gate, that fits the operator's 32 bits; no recurrent
    bias, and no recurrent term that leaves int16."""
    largest = 0.99 * 2.0**30 / (np.abs(weight).sum(axis=1) * limit + np.abs(bias) + 1)
    if recurrent:
        bias = np.zeros_like(bias)
        largest = np.minimum(largest, 0.99 * 2.0**15 / (np.abs(weight).sum(axis=1) * limit + 1))
    gates = np.minimum(multiplier, largest).reshape(len(GATES["lstm"]), -1)
    return weight, bias, gates.min(axis=1).repeat(gates.shape[1])


def _rebuild(model: QuantizedModel, kind: _Kind, rng: np.random.Generator) -> QuantizedModel:
    def drawn(affine: Affine, limit: int) -> _Map:
        return kind(rng, affine.rows, affine.columns, limit)

    def gates(affine: Affine, limit: int, recurrent: bool) -> Affine:
        maps = drawn(affine, limit)
        return _rebuilt(affine, *maps if model.profile == "portable" else _for_operator(*maps, limit, recurrent))

    def rebuilt_layer(layer: Layer, limit: int) -> Layer:
        return dataclasses.replace(
            layer,
            input=gates(layer.input, limit, False),
            recurrent=gates(layer.recurrent, model.view_limit, True),
            cell_exponent=int(rng.choice(CELL_EXPONENTS)) if layer.cell == "lstm" else 0,
            backward=layer.backward and rebuilt_layer(layer.backward, limit),
        )

    layers = tuple(
        rebuilt_layer(layer, model.view_limit if index else model.input_limit)
        for index, layer in enumerate(model.layers)
    )
    head = model.head
    if head is not None:
        head = dataclasses.replace(head, dense=_rebuilt(head.dense, *drawn(head.dense, model.view_limit)))
    return dataclasses.replace(model, layers=layers, head=head)


def _rebuilt(affine: Affine, weight: _Floats, bias: _Floats, multiplier: _Floats) -> Affine:
    scale: FloatArray = (multiplier * affine.output_scale / affine.input_scale).astype(np.float32)
    return dataclasses.replace(affine, weight=weight.astype(np.int8), bias=bias.astype(np.int32), weight_scale=scale)
