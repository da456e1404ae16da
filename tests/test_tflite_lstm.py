"""The kernel of the profile tflite-lstm, in its three flavours, against an oracle in plain Python."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgernn._adversarial import adversarial_inputs, adversarial_models
from edgernn._tflite_lstm import (
    FLAVOURS,
    Flavour,
    gemmlowp_sigmoid,
    gemmlowp_tanh,
    operator_multipliers,
    table_sigmoid,
    table_tanh,
)
from edgernn.engines import ENGINES
from edgernn.firmware_sim import Stream, count_saturation, run, run_batch
from edgernn.firmware_sim._network import Network
from edgernn.qmodel import IntArray, Layer, QuantizedModel
from tests import tflite_lstm_oracle as oracle
from tests.models import random_input, random_model
from tests.tflite_lstm_cases import CASES, case, expected, make, without_limits

INT16 = np.arange(-(2**15), 2**15)


# ---- primitives ------------------------------------------------------------------------------------------------------


def some(seed: int) -> npt.NDArray[np.int64]:
    """Of all int16: the ends, around zero and 2,500 others."""
    rng = np.random.default_rng(seed)
    return np.concatenate([INT16[:3], np.arange(-40, 41), INT16[-3:], rng.choice(INT16, 2500, replace=False)])


def test_sigmoid_of_every_flavour() -> None:
    values = some(0)
    assert np.array_equal(gemmlowp_sigmoid(values), [oracle.gemmlowp_sigmoid(v) for v in values.tolist()])
    assert np.array_equal(table_sigmoid(values), [oracle.table_sigmoid(v) for v in values.tolist()])


@pytest.mark.parametrize("fraction", range(9, 16))
def test_tanh_of_every_flavour_and_cell_scale(fraction: int) -> None:
    values = some(fraction)
    expected = [oracle.gemmlowp_tanh(v, 15 - fraction) for v in values.tolist()]
    assert np.array_equal(gemmlowp_tanh(values, fraction), expected)
    expected = [oracle.table_tanh(v, 15 - fraction) for v in values.tolist()]
    assert np.array_equal(table_tanh(values, fraction), expected)


def test_gates_are_near_the_real_functions() -> None:
    """Within the bounds that the docstrings name, in steps of 2^-15."""
    real = 1 / (1 + np.exp(-INT16 / 2.0**12)) * 2**15
    assert np.abs(gemmlowp_sigmoid(INT16) - real).max() < 6.5
    assert np.abs(table_sigmoid(INT16) - real).max() < 1.1
    for fraction in range(9, 16):
        real = np.tanh(INT16 / 2.0**fraction) * 2**15
        assert np.abs(gemmlowp_tanh(INT16, fraction) - real).max() < 12.1, fraction
        assert np.abs(table_tanh(INT16, fraction) - real).max() < 2.5, fraction


def test_multipliers_are_of_the_scales_product_as_the_flavour_rounds_it() -> None:
    """LiteRT's to 24 bits, the others' not."""
    rng = np.random.default_rng(0)
    scales = [float(np.float32(10 ** rng.uniform(-4, 0))) for _ in range(200)]
    for scale_in, scale in zip(scales, scales[1:], strict=False):
        for flavour in FLAVOURS:
            q31, exponent = operator_multipliers(scale_in, np.array([scale], np.float32), flavour)
            product = Fraction(int(q31[0]), 2**31) * Fraction(2) ** int(exponent[0]) / 2**12
            error = product / oracle.product_of_scales(scale_in, scale, flavour) - 1
            assert abs(error) <= Fraction(1, 2**31), (scale_in, scale, flavour)
            assert 2**30 <= q31[0] < 2**31
            assert flavour != "litert" or q31[0] % 2**7 == 0


# ---- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_300_random_models_equal_the_oracle(flavour: Flavour) -> None:
    for seed in CASES:
        model, x = case(seed)
        y = run(model, x, flavour=flavour)[0]
        assert y.dtype == model.output_dtype == np.int8
        assert np.array_equal(y, expected(seed, flavour)), f"seed {seed}"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_recurrent_terms_far_beyond_int16_equal_the_oracle(flavour: Flavour) -> None:
    for seed in range(20):
        model = without_limits(make(seed, layers=2))
        x = random_input(model, 5, seed)
        assert np.array_equal(run(model, x, flavour=flavour)[0], oracle.run(model, x, flavour)), f"seed {seed}"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_adversarial_models_equal_the_oracle(flavour: Flavour) -> None:
    model = make(1, hidden_size=9, layers=2, head="steps", bidirectional=True)
    for name, other in adversarial_models(model):
        assert other.profile == "tflite-lstm"
        for title, x in adversarial_inputs(other)[-3:]:
            expected = oracle.run(other, x[:6], flavour)
            assert np.array_equal(run(other, x[:6], flavour=flavour)[0], expected), (name, title)


def test_the_flavours_are_three() -> None:
    """litert and tflm part in a few hidden states of an ordinary model, tflm and cmsis in none: its recurrent terms
    stay within int16. Where they do not, these part too."""
    model = make(2, input_size=5, hidden_size=16, head=None)
    x = random_input(model, 300, 2)
    litert, tflm, cmsis = (run(model, x, flavour=flavour)[0].astype(int) for flavour in FLAVOURS)
    assert 0 < np.count_nonzero(litert != tflm) < 0.1 * litert.size
    assert np.abs(litert - tflm).max() == 1
    assert np.array_equal(tflm, cmsis)
    tflm, cmsis = (run(without_limits(model), x, flavour=flavour)[0] for flavour in ("tflm", "cmsis"))
    assert np.count_nonzero(tflm != cmsis) > 0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_batches_pieces_and_steps_give_the_same_integers(flavour: Flavour) -> None:
    for seed in range(6):
        model = make(seed, layers=2)
        x, lengths = random_input(model, 9, seed, (5,)), [9, 1, 4, 9, 6]
        y = run_batch(model, x, lengths, flavour)
        for row, length in enumerate(lengths):
            alone, state = run(model, x[row, :length], flavour=flavour)
            assert np.array_equal(y[row, :length] if model.every_step else y[row], alone), f"seed {seed}"
            assert not (model.every_step and y[row, length:].any())
            first, between = run(model, x[row, : length // 2 + 1], flavour=flavour)
            assert {name: value.dtype for name, value in between.items()} == {
                name: np.dtype(spec.dtype) for name, spec in model.states.items()
            }
            stream = Stream(model, flavour)
            stream.state = between
            steps = [stream.step(one) for one in x[row, length // 2 + 1 : length]]
            outputs = [*(first if model.every_step else [first]), *steps]
            assert np.array_equal(outputs if model.every_step else outputs[-1], alone), f"seed {seed}"
            assert all(np.array_equal(stream.state[name], state[name]) for name in state)
            stream.reset()
            assert not any(value.any() for value in stream.state.values())


def test_batches_of_both_directions_equal_the_oracle() -> None:
    for seed, flavour in enumerate((*FLAVOURS, *FLAVOURS)):
        model = make(seed, layers=1 + seed // 3, bidirectional=True)
        x, lengths = random_input(model, 5, seed, (3,)), [5, 2, 1]
        y = run_batch(model, x, lengths, flavour)
        for row, length in enumerate(lengths):
            wanted = oracle.run(model, x[row, :length], flavour)
            assert np.array_equal(y[row, :length] if model.every_step else y[row], wanted), f"seed {seed}"


def random_state(model: QuantizedModel, seed: int) -> dict[str, IntArray]:
    """Any bytes and half-words, with both of their ends among them."""
    rng = np.random.default_rng(seed)
    state: dict[str, IntArray] = {}
    for name, spec in model.states.items():
        ends = np.iinfo(spec.dtype)
        state[name] = rng.integers(ends.min, ends.max + 1, spec.size).astype(spec.dtype)
        state[name][:2] = ends.min, ends.max
    return state


def test_a_stream_goes_on_from_any_state() -> None:
    """Of the kernel, in every flavour, and of native in its own."""
    model = make(8, hidden_size=5, layers=2, head=None)
    x = random_input(model, 5, 8)
    types = {"h_0": np.int8, "c_0": np.int16, "h_1": np.int8, "c_1": np.int16}
    streams = [(flavour, Stream(model, flavour)) for flavour in FLAVOURS]
    for seed, (flavour, stream) in enumerate([*streams, ("cmsis", ENGINES["native"].stream(model))]):
        given = random_state(model, seed)
        for _ in range(2):
            stream.state = given
            for name, kind in types.items():
                assert stream.state[name].dtype == given[name].dtype == kind
                assert np.array_equal(stream.state[name], given[name]), (flavour, name)
            sequence, last = x.tolist(), {}
            for index, layer in enumerate(model.layers):
                h, c = given[f"h_{index}"].tolist(), given[f"c_{index}"].tolist()
                sequence, (last[f"h_{index}"], last[f"c_{index}"]) = oracle.scan(layer, flavour, sequence, h, c)
            assert np.array_equal([stream.step(row) for row in x], sequence), flavour
            assert {name: values.tolist() for name, values in stream.state.items()} == last, flavour
        wide = given | {"h_1": given["h_1"].astype(np.int16)}
        with pytest.raises(ValueError, match="the state's h_1 must be a 1-d array of int8, not int16"):
            stream.state = wide


def test_a_state_goes_through_a_file(tmp_path: Path) -> None:
    model = make(3, layers=2, head=None)
    x = random_input(model, 8, 3)
    whole = run(model, x)[0]
    model.save_state(tmp_path / "state", run(model, x[:5])[1])
    assert np.array_equal(run(model, x[5:], model.load_state(tmp_path / "state"))[0], whole[5:])
    wide = {name: value.astype(np.int16) for name, value in model.zero_state().items()}
    with pytest.raises(ValueError, match="the state's h_0 must be a 1-d array of int8"):
        run(model, x, wide)


def test_saturation_counts_equal_the_oracle() -> None:
    """Cell states reach 1 at once where that is their limit; where it is 64, their tanh takes hidden states to the ends
    in a sequence of the same row again and again."""
    met, hidden = np.zeros(6, np.int64), set()
    for seed, exponent, flavour in product((20, 21), (9, 15), FLAVOURS):
        model = make(seed, hidden_size=6, saturating=True, head="last")
        model = dataclasses.replace(model, layers=(dataclasses.replace(model.layers[0], cell_exponent=exponent),))
        x = random_input(model, 6, seed, (2,))
        x[0] = x[0, 0]
        (found,) = count_saturation(model, x, [6, 3], flavour).layers
        wanted = np.zeros(6, np.int64)
        for sequence in (x[0], x[1, :3]):
            wanted += saturated(model.layers[0], sequence, flavour)
            hidden |= set(oracle.run(model.without_head(), sequence, flavour).ravel().tolist())
        assert list(found.values()) == wanted.tolist(), f"seed {seed} {exponent} {flavour}"
        met += wanted
    assert list(found) == ["i", "f", "g", "o", "hidden", "cell"]
    assert (met > 0).all()
    assert {-128, 127} <= hidden


def saturated(layer: Layer, x: IntArray, flavour: Flavour) -> IntArray:
    size, counts = layer.hidden_size, np.zeros(6, np.int64)
    h = c = [0] * size
    for vector in x.tolist():
        p = np.array(oracle.pre_activations(layer, flavour, vector, h)).reshape(4, size)
        h, c = oracle.step(layer, flavour, vector, h, c)
        counts[:4] += ((p == -(2**15)) | (p == 2**15 - 1)).sum(axis=1)
        counts[4] += sum(v in (-128, 127) for v in h)
        counts[5] += sum(v in (-(2**15), 2**15 - 1) for v in c)
    return counts


def test_the_portable_profile_has_one_arithmetic() -> None:
    """The same kernels for every flavour."""
    model = random_model(4, "lstm", head=None)
    assert len({id(Network(model, 1, flavour=flavour)._plan.kernels) for flavour in FLAVOURS}) == 1
    model = make(4)
    assert len({id(Network(model, 1, flavour=flavour)._plan.kernels) for flavour in FLAVOURS}) == 3


def test_the_engine_numba_is_of_its_flavour() -> None:
    model = make(5, hidden_size=16, head=None)
    x = random_input(model, 200, 5)
    for flavour in FLAVOURS:
        engine = dataclasses.replace(ENGINES["numba"], flavour=flavour)
        expected = run(model, x, flavour=flavour)[0]
        assert np.array_equal(engine.open(model)(x), expected)
        assert np.array_equal(engine.open_batch(model)(x[None], np.array([len(x)]))[0], expected)
        assert np.array_equal([engine.stream(model).step(x[0])], expected[:1])


# ---- what is refused -------------------------------------------------------------------------------------------------


def bad_calls() -> list[Callable[[QuantizedModel, IntArray], Any]]:
    flavour: Any = "tfl"
    return [
        lambda m, x: run(m, x, flavour=flavour),
        lambda m, x: run_batch(m, x[None], flavour=flavour),
        lambda m, x: Stream(m, flavour),
        lambda m, x: count_saturation(m, x[None], flavour=flavour),
    ]


@pytest.mark.parametrize("call", bad_calls())
def test_an_unknown_flavour_is_refused(call: Callable[[QuantizedModel, IntArray], Any]) -> None:
    for model in (make(6), random_model(6, "lstm")):
        with pytest.raises(ValueError, match="unknown flavour 'tfl'; known are litert, tflm, cmsis"):
            call(model, random_input(model, 2, 6))


def test_what_could_overflow_the_operators_32_bits_is_refused() -> None:
    """A multiplier above 1 shifts the accumulator to the left first, and the input's term is added to int16."""
    layer = make(7, input_size=1, hidden_size=1).layers[0]
    room = 2**31 - 2**16 - 1
    for multiplier, shift in ((0.9, 0), (1.5, 1), (40.0, 6)):
        scale = np.full(4, multiplier / 4096 / layer.input.input_scale, np.float32)
        weight, limit = np.full((4, 1), -127, np.int8), (room >> shift) - 127 * 128
        for bias, fits in ((limit, True), (-limit, True), (limit + 1, False), (-limit - 1, False)):
            biases = np.array([0, 0, bias, 0], np.int32)
            affine = dataclasses.replace(layer.input, weight=weight, bias=biases, weight_scale=scale)
            if fits:
                dataclasses.replace(layer, input=affine)
            else:
                with pytest.raises(ValueError, match="input: row 2 can overflow the operator's 32 bits"):
                    dataclasses.replace(layer, input=affine)
