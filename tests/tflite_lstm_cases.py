"""Random models of the profile tflite-lstm: 300 of them with a sequence each, and what the oracle makes of it."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np

from edgernn._tflite_lstm import Flavour
from edgernn.qmodel import IntArray, Layer, QuantizedModel

from . import tflite_lstm_oracle as oracle
from .models import HEADS, random_input, random_model

CASES = range(300)


def make(seed: int, **kind: Any) -> QuantizedModel:
    """A small model of the profile; its sizes and head are random unless named."""
    rng = np.random.default_rng(seed)
    sizes = {"input_size": int(rng.integers(1, 7)), "hidden_size": int(rng.integers(1, 9)), "head": HEADS[seed % 3]}
    return random_model(seed, "lstm", profile="tflite-lstm", **(sizes | kind))


@cache
def case(seed: int) -> tuple[QuantizedModel, IntArray]:
    """Among the 300 are all sizes, heads, directions and cell scales; one of four runs into all limits but
    that of the recurrent term, and one of five is bidirectional."""
    rng = np.random.default_rng([seed, 1])
    saturating, bidirectional = (rng.random(2) < (1 / 4, 1 / 5)).tolist()
    model = make(seed, layers=int(rng.integers(1, 3)), saturating=saturating, bidirectional=bidirectional)
    return model, random_input(model, int(rng.integers(1, 6)), seed)


@cache
def streamed(seed: int) -> bool:
    """Whether the case is also run one step at a time: every third that can be."""
    return not case(seed)[0].bidirectional and float(np.random.default_rng([seed, 2]).random()) < 1 / 3


@cache
def expected(seed: int, flavour: Flavour) -> IntArray:
    model, x = case(seed)
    return oracle.run(model, x, flavour)


def with_inexact_products(model: QuantizedModel) -> QuantizedModel:
    """A model of one layer with scales whose product float32 rounds as far as it can: each is 1 + 2^-12 times a power
    of two, so that 2^-24 of the product gets lost."""
    odd = 1 + 2.0**-12
    (layer,) = model.layers
    scale = np.exp2(np.floor(np.log2(layer.input.weight_scale)))
    inputs = dataclasses.replace(layer.input, input_scale=2.0**-6 * odd, weight_scale=(scale * odd).astype(np.float32))
    return dataclasses.replace(model, layers=(dataclasses.replace(layer, input=inputs),), input_scale=2.0**-6 * odd)


def without_limits(model: QuantizedModel) -> QuantizedModel:
    """The model with recurrent weights so large that the recurrent term leaves int16 most of the time."""

    def direction(layer: Layer) -> Layer:
        recurrent = dataclasses.replace(layer.recurrent, weight_scale=np.full_like(layer.recurrent.weight_scale, 0.3))
        return dataclasses.replace(layer, recurrent=recurrent, backward=layer.backward and direction(layer.backward))

    return dataclasses.replace(model, layers=tuple(map(direction, model.layers)))
