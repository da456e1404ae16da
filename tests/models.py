"""Random QuantizedModels for the tests: ordinary ones and adversarial ones, seeded."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from edgernn.fixedpoint import STATE_SCALE, STATE_VIEW_SCALE
from edgernn.qmodel import (
    GATES,
    PROFILE_SCALES,
    Affine,
    Cell,
    Head,
    HeadKind,
    IntArray,
    Layer,
    Profile,
    QuantizedModel,
    Scheme,
)

Variant = Literal["lstm", "gru", "gru_before", "rnn"]
VARIANTS: tuple[Variant, ...] = ("lstm", "gru", "gru_before", "rnn")
SCHEMES: tuple[Scheme, ...] = ("w8a8", "w8a16")
HEADS: tuple[HeadKind | None, ...] = ("last", "steps", None)


def random_affine(
    rng: np.random.Generator, rows: int, columns: int, input_scale: float, output_scale: float, gain: float
) -> Affine:
    """Weights of about `gain` in real units; a few rows all zero, a few all +-127 (or what int16 inputs allow)."""
    largest = min(127, (2**31 - 2**28 - 1) // (2**15 * columns))
    weight = rng.integers(-largest, largest + 1, (rows, columns)).astype(np.int8)
    kind = rng.random(rows)
    weight[kind < 0.05] = 0
    extreme = kind > 0.9
    weight[extreme] = np.where(rng.random((int(extreme.sum()), columns)) < 0.5, -largest, largest)
    scale = gain / 127 / np.sqrt(columns) * rng.uniform(0.3, 3.0, rows)
    scale = np.minimum(scale, 100 * output_scale / input_scale).astype(np.float32)  # multipliers stay below 2^7
    bias = rng.normal(0, gain, rows) / (float(np.float32(input_scale)) * scale.astype(np.float64))
    return Affine(weight, np.clip(np.rint(bias), -(2**28), 2**28).astype(np.int32), scale, input_scale, output_scale)


def with_one_scale(affine: Affine) -> Affine:
    """The largest of its rows' weight scales, for all rows."""
    return dataclasses.replace(affine, weight_scale=np.full_like(affine.weight_scale, affine.weight_scale.max()))


def random_model(
    seed: int,
    cell: Variant = "gru",
    scheme: Scheme = "w8a8",
    *,
    input_size: int | None = None,
    hidden_size: int | None = None,
    layers: int = 1,
    head: Literal["last", "steps"] | None = "last",
    output_size: int = 3,
    saturating: bool = False,
    bidirectional: bool = False,
    per_tensor: bool = False,
    input_zero_point: int | None = None,
    profile: Profile = "portable",
) -> QuantizedModel:
    """A model with random integers; `saturating` makes gates and states run into their limits all the time.

    per_tensor: one weight scale a matrix, the largest of its rows'. input_zero_point: of w8a8 (a random one if None).
    profile: tflite-lstm (of an LSTM) has one weight scale a gate.
    """
    rng = np.random.default_rng(seed)
    gain = 40.0 if saturating else float(10 ** rng.uniform(-0.5, 0.6))
    inputs = input_size or int(rng.integers(1, 24))
    hidden = hidden_size or int(rng.integers(1, 40))
    kind: Cell = "gru" if cell == "gru_before" else cell
    view_scale = STATE_VIEW_SCALE if scheme == "w8a8" else STATE_SCALE
    input_scale = float(np.float32(10 ** rng.uniform(-2.5, -1.2) * (1.0 if scheme == "w8a8" else 1 / 256)))

    def affine(rows: int, columns: int, scale: float, output_scale: float, gain: float) -> Affine:
        made = random_affine(rng, rows, columns, scale, output_scale, gain)
        return with_one_scale(made) if per_tensor else made

    def gates(columns: int, scale: float) -> Affine:
        return affine(len(GATES[kind]) * hidden, columns, scale, PROFILE_SCALES[profile], gain)

    def direction(columns: int, scale: float, backward: Layer | None = None) -> Layer:
        maps = gates(columns, scale), gates(hidden, view_scale)
        return Layer(
            kind,
            *(maps if profile == "portable" else as_operator(*maps)),
            reset_after=cell != "gru_before",
            cell_exponent=int(rng.integers(9, 16)) if kind == "lstm" else 0,
            backward=backward,
        )

    built: list[Layer] = []
    columns, scale = inputs, input_scale
    for _ in range(layers):
        built.append(direction(columns, scale, direction(columns, scale) if bidirectional else None))
        columns, scale = built[-1].output_size, view_scale
    dense = affine(output_size, columns, view_scale, float(np.float32(10 ** rng.uniform(-4.5, -3.5))), 2.0)
    drawn = int(rng.integers(-20, 21))
    zero_point = drawn if input_zero_point is None else input_zero_point
    return QuantizedModel(
        layers=tuple(built),
        head=None if head is None else Head(head, dense),
        input_scale=input_scale,
        input_zero_point=zero_point if scheme == "w8a8" else 0,
        scheme=scheme,
        labels=tuple(f"class {i}" for i in range(output_size)) if head else (),
    )


def as_operator(inputs: Affine, recurrent: Affine) -> tuple[Affine, Affine]:
    """Both maps as the profile tflite-lstm wants them: one weight scale a gate, its rows' median, one bias, and no
    multiplier or recurrent term that the operator or its exporter refuses."""

    def per_gate(affine: Affine, largest: float) -> Affine:
        scales = np.minimum(np.median(affine.weight_scale.reshape(4, -1), axis=1), largest).astype(np.float32)
        return dataclasses.replace(affine, weight_scale=scales.repeat(affine.rows // 4))

    bound = int(inputs.accumulator_bound(128).max())
    inputs = per_gate(inputs, 2.0**30 / bound * inputs.output_scale / inputs.input_scale)
    recurrent = dataclasses.replace(recurrent, bias=np.zeros_like(recurrent.bias))
    largest = int(np.abs(recurrent.weight.astype(np.int64)).sum(axis=1).max())
    return inputs, per_gate(recurrent, 7.99 / max(largest, 1))


def with_directions(model: QuantizedModel, both: Sequence[bool]) -> QuantizedModel:
    """A bidirectional model without the backward directions of some layers, nor the weights that read them."""
    layers: list[Layer] = []
    columns = model.input_size
    for layer, flag in zip(model.layers, both, strict=True):
        forward, backward = (
            dataclasses.replace(one, input=_narrowed(one.input, columns), backward=None) for one in layer.directions
        )
        layers.append(dataclasses.replace(forward, backward=backward if flag else None))
        columns = layers[-1].output_size
    head = model.head and dataclasses.replace(model.head, dense=_narrowed(model.head.dense, columns))
    return dataclasses.replace(model, layers=tuple(layers), head=head)


def _narrowed(affine: Affine, columns: int) -> Affine:
    return dataclasses.replace(affine, weight=affine.weight[:, :columns])


def changed(model: QuantizedModel, change: Callable[[Affine, int], Affine]) -> QuantizedModel:
    """The model with `change` done to every map of its layers: of the map and the largest magnitude of an input."""

    def layer(one: Layer, limit: int) -> Layer:
        return dataclasses.replace(
            one,
            input=change(one.input, limit),
            recurrent=change(one.recurrent, model.view_limit),
            backward=one.backward and layer(one.backward, limit),
        )

    layers = tuple(layer(one, model.view_limit if i else model.input_limit) for i, one in enumerate(model.layers))
    return dataclasses.replace(model, layers=layers)


def random_input(model: QuantizedModel, steps: int, seed: int, batch: tuple[int, ...] = ()) -> IntArray:
    """Integer inputs [*batch, steps, input_size] over the whole range, with runs at both extremes."""
    rng = np.random.default_rng(seed)
    low, high = -model.input_limit, model.input_limit - 1
    x = rng.integers(low, high + 1, (*batch, steps, model.input_size))
    extreme = rng.random((*batch, steps, 1)) < 0.2
    return np.where(extreme, np.where(rng.random(x.shape) < 0.5, low, high), x).astype(model.input_dtype)
