"""What a model, a config or a training of the profile tflite-lstm may not be: each refusal names it."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.qmodel import GATES, Affine, Cell, IntArray, Layer, QuantizedModel
from edgernn.quantize import QuantConfig, prepare
from edgernn.train import TrainConfig, fit

from .models import random_model
from .networks import build
from .tflite_lstm_cases import make
from .training import ALL_PHASES, some_data, some_model

SIZES: dict[str, Any] = {"input_size": 3, "hidden_size": 4}
PORTABLE = random_model(0, "lstm", layers=2, **SIZES).layers


# ---- layers and models -----------------------------------------------------------------------------------------------


def own_scale(affine: Affine) -> Affine:
    """With another weight scale for one of a gate's rows."""
    scale = affine.weight_scale.copy()
    scale[5] *= 0.75
    return replace(affine, weight_scale=scale)


def recurrent(layer: Layer, **changes: Any) -> Layer:
    return replace(layer, recurrent=replace(layer.recurrent, **changes))


def of_cell(layer: Layer, cell: Cell) -> Layer:
    """With as many of its gates as that cell has."""

    def cut(affine: Affine) -> Affine:
        rows = len(GATES[cell]) * layer.hidden_size
        return replace(affine, **{name: getattr(affine, name)[:rows] for name in ("weight", "bias", "weight_scale")})

    return Layer(cell, cut(layer.input), cut(layer.recurrent))


LAYERS: list[tuple[str, Callable[[Layer], Layer]]] = [
    ("one bias: add the recurrent one to the input's", lambda one: recurrent(one, bias=one.recurrent.bias + 1)),
    ("recurrent.weight_scale must be one for each gate", lambda one: replace(one, recurrent=own_scale(one.recurrent))),
    ("input.weight_scale must be one for each gate", lambda one: replace(one, input=own_scale(one.input))),
    ("have different output_scales", lambda one: recurrent(one, output_scale=1 / 3072)),
    ("have different output_scales", lambda one: replace(one, input=replace(one.input, output_scale=1 / 3072))),
    (r"output_scale must be 1/3072 \(or 2\^-12", lambda one: recurrent(one, output_scale=2.0**-11)),
    ("is one of LSTMs, the cell is gru", lambda one: of_cell(one, "gru")),
    ("is one of LSTMs, the cell is rnn", lambda one: of_cell(one, "rnn")),
    ("backward direction has profile 'portable', the forward one 'tfl", lambda one: replace(one, backward=PORTABLE[0])),
    ("has profile 'tflite-lstm', the forward one 'portable'", lambda one: replace(PORTABLE[0], backward=one)),
    ("cell_exponent must be 9 .. 15 for an LSTM, not 8", lambda one: replace(one, cell_exponent=8)),
]


@pytest.mark.parametrize(("message", "change"), LAYERS)
def test_layers_that_the_operator_cannot_hold_are_refused(message: str, change: Callable[[Layer], Layer]) -> None:
    (layer,) = make(0, **SIZES).layers
    with pytest.raises(ValueError, match=message):
        change(layer)


MODELS: list[tuple[str, Callable[[QuantizedModel], object]]] = [
    ("layers are of different profiles", lambda m: replace(m, layers=(m.layers[0], PORTABLE[1]))),
    ("layers are of different profiles", lambda m: replace(m, layers=(PORTABLE[0], m.layers[1]))),
    ("profile tflite-lstm has the scheme w8a8, not w8a16", lambda m: replace(m, scheme="w8a16", input_zero_point=0)),
]


@pytest.mark.parametrize(("message", "change"), MODELS)
def test_models_that_mix_arithmetics_are_refused(message: str, change: Callable[[QuantizedModel], object]) -> None:
    with pytest.raises(ValueError, match=message):
        change(make(0, layers=2, **SIZES))


def with_bias(layer: Layer, bias: int, scale: float) -> Layer:
    biases: IntArray = np.array([0, 0, bias, 0], np.int32)
    scales = np.full(4, scale, np.float32)
    weight = np.ones((4, 1), np.int8)
    affine = replace(layer.input, weight=weight, bias=biases, weight_scale=scales, input_scale=2.0**-6 * (1 - 2.0**-13))
    return replace(layer, input=affine)


def test_what_could_overflow_in_litert_alone_is_refused() -> None:
    """The product of both scales is just below 2^-12: a multiplier below 1, which shifts nothing to the left. In
    float32, as LiteRT multiplies, it is 2^-12: a multiplier of 1, and the accumulator is shifted by one."""
    layer = make(7, input_size=1, hidden_size=1).layers[0]
    scale, limit = 2.0**-6 * (1 + 2.0**-13), 2**30 - 2**15 - 1 - 128
    exact = Fraction(2.0**-6 * (1 - 2.0**-13)) * Fraction(scale)
    assert exact < Fraction(1, 2**12) == Fraction(float(np.float32(exact)))
    for bias in (limit, -limit):
        with_bias(layer, bias, scale)
    for bias in (limit + 1, -limit - 1):
        with_bias(layer, bias, float(np.nextafter(np.float32(scale), np.float32(0))))
        with pytest.raises(ValueError, match="input: row 2 can overflow the operator's 32 bits"):
            with_bias(layer, bias, scale)


# ---- training --------------------------------------------------------------------------------------------------------


def test_configs_are_silent_about_the_profile_portable() -> None:
    assert "profile" not in QuantConfig().as_dict()
    config = QuantConfig(profile="tflite-lstm")
    assert QuantConfig(**config.as_dict()) == config


def test_other_cells_are_refused(tmp_path: Path) -> None:
    data, config = some_data(), replace(ALL_PHASES, profile="tflite-lstm")
    for cell in ("gru", "rnn"):
        with pytest.raises(ValueError, match=f"the profile tflite-lstm is one of LSTMs, the cell is {cell}; use"):
            prepare(build(cell), QuantConfig(profile="tflite-lstm"))
        with pytest.raises(ValueError, match=f"the cell is {cell}; use the profile portable"):
            fit(some_model(data, cell), data, config, tmp_path / "never", progress=False)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QuantConfig(activations=16, profile="tflite-lstm"), "has the scheme w8a8, not w8a16"),
        (lambda: QuantConfig.parse("w8a16", profile="tflite-lstm"), "has the scheme w8a8, not w8a16"),
        (lambda: QuantConfig(profile="tflm"), "unknown profile 'tflm'; known are portable, tflite-lstm"),  # type: ignore[arg-type]
        (lambda: TrainConfig(qat="w8a16", profile="tflite-lstm"), "has the scheme w8a8, not w8a16"),
        (lambda: TrainConfig(profile="tflite-lstm"), "profile='tflite-lstm' goes with qat; give qat='w8a8' too"),
        (lambda: TrainConfig(qat="w8a8", profile=None), "unknown profile None; known are portable"),  # type: ignore[arg-type]
    ],
)
def test_wrong_configs_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
