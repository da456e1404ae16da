"""A fault put into an engine on purpose is found: its layer, direction and unit, in a model as small as can be."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from edgernn.firmware_sim import run
from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel

from .models import SCHEMES, VARIANTS, Variant, changed, random_input, random_model
from .shrink import shrink

UNIT, HIDDEN = 3, 7


def kernel(model: QuantizedModel, x: IntArray) -> IntArray:
    return run(model, x)[0]


def without_127(affine: Affine, _: int) -> Affine:
    return dataclasses.replace(affine, weight=np.minimum(affine.weight, 126))


def faulty(model: QuantizedModel) -> Callable[[IntArray], IntArray]:
    """An engine that takes the weight 127 for -127."""
    wrong = changed(model, lambda a, _: dataclasses.replace(a, weight=np.where(a.weight == 127, -127, a.weight)))
    return lambda x: run(wrong, x)[0]


def with_127(layer: Layer) -> Layer:
    """A layer whose unit UNIT reads itself with 127 in its last gate, and whose gates are in their steep middle."""
    weight = layer.recurrent.weight.copy()
    weight[-HIDDEN + UNIT, UNIT] = 127
    return dataclasses.replace(layer, recurrent=dataclasses.replace(layer.recurrent, weight=weight))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fault_is_traced_to_its_layer_and_unit(variant: Variant, scheme: str, index: int, backward: bool) -> None:
    model = random_model(5, variant, scheme, hidden_size=HIDDEN, input_size=4, layers=2, bidirectional=True)  # type: ignore[arg-type]
    model = changed(model, without_127)
    layers = list(model.layers)
    one = layers[index]
    assert one.backward is not None
    layers[index] = dataclasses.replace(one, backward=with_127(one.backward)) if backward else with_127(one)
    model = dataclasses.replace(model, layers=tuple(layers))
    x = random_input(model, 25, 1)

    fault = shrink(faulty, kernel, model, x)
    assert fault is not None
    assert (fault.layer, fault.backward, fault.unit) == (index, backward, UNIT)
    assert f"layer {index}{' backward' if backward else ''}, step {fault.step}, unit {UNIT}" in str(fault)
    assert fault.model.layers[0].hidden_size <= HIDDEN // 2 + 1
    assert len(fault.model.layers) == 1
    assert not fault.model.bidirectional
    assert len(fault.x) <= len(x)
    assert not np.array_equal(run(fault.model, fault.x)[0], faulty(fault.model)(fault.x))


def test_a_fault_of_the_head_is_told_from_the_layers() -> None:
    model = random_model(6, "gru", head="steps")

    def engine(m: QuantizedModel) -> Callable[[IntArray], IntArray]:
        return lambda x: run(m, x)[0] + (m.head is not None)

    fault = shrink(engine, kernel, model, random_input(model, 5, 1))
    assert fault is not None
    assert fault.layer is None
    assert str(fault).startswith("head, step 0, unit 0")


def test_equal_engines_have_no_fault() -> None:
    model = random_model(7, "lstm", layers=2)
    assert shrink(lambda m: lambda x: run(m, x)[0], kernel, model, random_input(model, 5, 1)) is None
