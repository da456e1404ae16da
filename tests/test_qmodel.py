"""QuantizedModel and its parts: what they refuse, and how real values become integers."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgernn.fixedpoint import PRE_ACTIVATION_SCALE, STATE_VIEW_SCALE
from edgernn.qmodel import Affine, Head, Layer, QuantizedModel

from . import oracle
from .models import SCHEMES, random_input, random_model

# ---- what the objects refuse -----------------------------------------------------------------------------------------


def make_affine(
    rows: int = 3, columns: int = 2, input_scale: float = 0.02, output_scale: float = PRE_ACTIVATION_SCALE
) -> Affine:
    weight = np.arange(rows * columns, dtype=np.int8).reshape(rows, columns)
    return Affine(weight, np.zeros(rows, np.int32), np.full(rows, 0.01, np.float32), input_scale, output_scale)


def make_layer(**changes: Any) -> Layer:
    """A GRU layer with 2 inputs and 1 unit."""
    layer = Layer("gru", make_affine(3, 2), make_affine(3, 1, STATE_VIEW_SCALE))
    return replace(layer, **changes)


def make_model(**changes: Any) -> QuantizedModel:
    head = Head("last", make_affine(2, 1, STATE_VIEW_SCALE, 1e-4))
    return replace(QuantizedModel((make_layer(),), head, 0.02), **changes)


def test_the_smallest_models_are_accepted() -> None:
    assert make_model().input_mean.tolist() == [0, 0]
    assert make_model().input_std.tolist() == [1, 1]
    assert make_model(labels=("a", "b")).labels == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((3, 2), np.int16)}, "weight must be a 2-d array of int8, not int16"),
        ({"weight": np.zeros(3, np.int8)}, "weight must be a 2-d array of int8"),
        ({"weight": [[1]]}, "weight must be a 2-d array of int8, not list"),
        ({"weight": np.zeros((3, 0), np.int8)}, r"weight has the shape \(3, 0\): sizes must be at least 1"),
        ({"weight": np.full((3, 2), -128, np.int8)}, r"weights must lie in \[-127, 127\], found -128"),
        ({"bias": np.zeros(3, np.int64)}, "bias must be a 1-d array of int32"),
        ({"bias": np.zeros(2, np.int32)}, "bias has 2 entries for 3 rows"),
        ({"weight_scale": np.ones(3)}, "weight_scale must be a 1-d array of float32, not float64"),
        ({"weight_scale": np.ones(4, np.float32)}, "weight_scale has 4 entries for 3 rows"),
        ({"weight_scale": np.zeros(3, np.float32)}, "weight_scale must be positive and finite"),
        ({"weight_scale": np.full(3, np.nan, np.float32)}, "weight_scale must be positive and finite"),
        ({"weight_scale": np.full(3, np.inf, np.float32)}, "weight_scale must be positive and finite"),
        ({"input_scale": 0.0}, "input_scale must be positive and finite, not 0.0"),
        ({"input_scale": -1.0}, "input_scale must be positive"),
        ({"output_scale": float("inf")}, "output_scale must be positive and finite, not inf"),
        ({"output_scale": float("nan")}, "output_scale must be positive"),
        ({"output_scale": 1e-60}, "output_scale must be positive"),  # zero in float32
        ({"output_scale": 1e-7}, r"is outside \[2\^-32, 2\^7\): the scales do not fit together"),
        ({"output_scale": 1e7}, r"is outside \[2\^-32, 2\^7\)"),
    ],
)
def test_affine_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_affine(), **changes)


def test_affine_multipliers_are_the_scales_as_15_bit_fractions() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scale = (10 ** rng.uniform(-4, 0, 50)).astype(np.float32)
        affine = replace(make_affine(50, 1), weight_scale=scale, bias=np.zeros(50, np.int32))
        for multiplier, shift, s in zip(affine.multiplier.tolist(), affine.shift.tolist(), scale.tolist(), strict=True):
            real = Fraction(float(np.float32(0.02))) * Fraction(s) / Fraction(float(np.float32(1 / 3072)))
            assert 2**14 <= multiplier < 2**15
            assert abs(Fraction(multiplier, 2**shift) / real - 1) <= Fraction(1, 2**14), f"seed {seed}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "qrnn"}, "unknown cell 'qrnn'; known are lstm, gru, rnn"),
        ({"cell": "lstm", "cell_exponent": 12}, r"input.weight has 3 rows; lstm of size 1 needs 4"),
        ({"input": make_affine(6, 2)}, "input.weight has 6 rows; gru of size 1 needs 3"),
        ({"recurrent": make_affine(3, 2, STATE_VIEW_SCALE)}, "input.weight has 3 rows; gru of size 2 needs 6"),
        ({"recurrent": make_affine(6, 1, STATE_VIEW_SCALE)}, "recurrent.weight has 6 rows; gru of size 1 needs 3"),
        ({"input": make_affine(output_scale=1e-3)}, "input.output_scale must be 1/3072"),
        ({"recurrent": make_affine(3, 1, STATE_VIEW_SCALE, 1e-3)}, "recurrent.output_scale must be 1/3072"),
        ({"cell_exponent": 9}, "cell_exponent must be 0 for gru, not 9"),
    ],
)
def test_layer_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer(**changes)


def test_layer_refuses_other_cells_variants() -> None:
    lstm = Layer("lstm", make_affine(4, 2), make_affine(4, 1), cell_exponent=12)
    for exponent in (8, 16, 0, -1):
        with pytest.raises(ValueError, match=f"cell_exponent must be 9 .. 15 for an LSTM, not {exponent}"):
            replace(lstm, cell_exponent=exponent)
    with pytest.raises(ValueError, match="reset_after=False is a GRU variant, the cell is lstm"):
        replace(lstm, reset_after=False)
    with pytest.raises(ValueError, match="reset_after=False is a GRU variant, the cell is rnn"):
        Layer("rnn", make_affine(1, 2), make_affine(1, 1), reset_after=False)
    with pytest.raises(ValueError, match="unknown head 'mean'; known are last, steps"):
        Head("mean", make_affine())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arithmetic_version": 2}, "needs arithmetic version 2, this edgernn computes version 1"),
        ({"scheme": "w4a8"}, "unknown scheme 'w4a8'; known are w8a8, w8a16"),
        ({"task": "ranking"}, "unknown task 'ranking'; known are classification, regression"),
        ({"layers": ()}, "at least one layer"),
        ({"input_scale": 0.0}, "input_scale must be positive and finite"),
        ({"input_scale": 0.03}, "layer 0 input: input_scale is 0.02, the arriving values have 0.03"),
        ({"input_zero_point": 128}, "input_zero_point 128 is outside the range"),
        ({"input_zero_point": -129}, "input_zero_point -129 is outside the range"),
        ({"scheme": "w8a16", "input_zero_point": 1}, "input_zero_point must be 0 in w8a16"),
        ({"scheme": "w8a16"}, "layer 0 recurrent: input_scale is 0.0078125, the arriving values have"),
        ({"input_mean": np.zeros(3, np.float32)}, "input_mean has 3 entries for 2 channels"),
        ({"input_mean": np.zeros(2)}, "input_mean must be a 1-d array of float32"),
        ({"input_mean": np.array([0, np.nan], np.float32)}, "input_mean must be finite"),
        ({"input_std": np.array([1, np.inf], np.float32)}, "input_std must be finite"),
        ({"input_std": np.array([1, 0], np.float32)}, "input_std must be positive"),
        ({"labels": ("a",)}, "1 labels for 2 outputs"),
        ({"head": Head("last", make_affine(2, 3, STATE_VIEW_SCALE, 1e-4))}, "head: weights for 3 inputs, but 1 arrive"),
        ({"head": Head("last", make_affine(2, 1, 0.5, 1e-4))}, "head: input_scale is 0.5, the arriving values have"),
        ({"layers": (make_layer(), make_layer())}, "layer 1 input: weights for 2 inputs, but 1 arrive"),
    ],
)
def test_model_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**changes)


@pytest.mark.parametrize(
    ("scheme", "limit", "input_scale"), [("w8a8", 128, STATE_VIEW_SCALE), ("w8a16", 32768, 2.0**-15)]
)
def test_accumulators_must_fit_32_bits(scheme: Any, limit: int, input_scale: float) -> None:
    """The bound is exact: the largest bias that fits is accepted, one more is refused."""
    weight = np.array([[127, -127], [0, 0], [1, -2]], np.int8)
    reached = 254 * limit
    layer = make_layer(
        input=Affine(weight, np.zeros(3, np.int32), np.full(3, 1e-4, np.float32), input_scale, PRE_ACTIVATION_SCALE),
        recurrent=make_affine(3, 1, input_scale),
    )
    model = QuantizedModel((layer,), None, input_scale, scheme=scheme)
    assert layer.input.accumulator_bound(limit).tolist() == [reached, 0, 3 * limit]
    for sign in (1, -1):
        for excess in (0, 1):
            bias = np.array([sign * (2**31 - 1 - reached + excess), 0, 0], np.int32)
            changed = replace(layer, input=replace(layer.input, bias=bias))
            if excess:
                with pytest.raises(ValueError, match="layer 0 input: row 0 can overflow its 32-bit accumulator"):
                    replace(model, layers=(changed,))
            else:
                replace(model, layers=(changed,))


def test_requantized_values_must_fit_32_bits() -> None:
    """A multiplier above 1 may push a fitting accumulator out of int32; runtimes then disagree."""
    affine = Affine(np.ones((1, 1), np.int8), np.array([2**30], np.int32), np.ones(1, np.float32), 1.0, 0.25)
    with pytest.raises(ValueError, match="row 0 can overflow"):
        affine.check_range(128)
    replace(affine, bias=np.array([2**28], np.int32)).check_range(128)


# ---- real values in and out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantize_input_is_float32_arithmetic_rounded_half_to_even(scheme: Any) -> None:
    """Every value against exact rationals, rounded to float32 after each of the four operations."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = random_model(seed, "gru", scheme, input_size=3)
        mean, std = rng.normal(0, 5, 3).astype(np.float32), rng.uniform(0.01, 4, 3).astype(np.float32)
        model = replace(model, input_mean=mean, input_std=std)
        x = rng.normal(0, 8, (200, 3)).astype(np.float32)
        x[:50] = mean + std * np.float32(model.input_scale) * (rng.integers(-140, 140, (50, 3)) + np.float32(0.5))
        expected = []
        for row in x.tolist():
            for value, m, s in zip(row, mean.tolist(), std.tolist(), strict=True):
                step = nearest_float32(Fraction(s) * Fraction(float(np.float32(model.input_scale))))
                centred = nearest_float32(Fraction(value) - Fraction(m))
                integer = round(nearest_float32(centred / step)) + model.input_zero_point
                limit = 128 if scheme == "w8a8" else 32768
                expected.append(max(-limit, min(limit - 1, integer)))
        q = model.quantize_input(x)
        assert q.dtype == (np.int8 if scheme == "w8a8" else np.int16)
        assert q.ravel().tolist() == expected, f"seed {seed}"


def nearest_float32(value: Fraction) -> Fraction:
    """The float32 nearest to a rational, ties to even (no subnormal and no overflow arises here)."""
    if value == 0:
        return value
    exponent = 23
    while abs(value) * Fraction(2) ** exponent >= 2**24:
        exponent -= 1
    while abs(value) * Fraction(2) ** exponent < 2**23:
        exponent += 1
    return round(value * Fraction(2) ** exponent) / Fraction(2) ** exponent


def test_quantize_input_saturates_and_keeps_shapes() -> None:
    model = make_model(input_zero_point=-5)
    assert model.quantize_input([[1e30, -1e30], [0, 0.02]]).tolist() == [[127, -128], [-5, -4]]
    assert model.quantize_input(np.zeros((4, 3, 2))).shape == (4, 3, 2)
    assert model.quantize_input(np.zeros(2, np.int64)).tolist() == [-5, -5]
    assert model.quantize_input(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((5, 3)), r"the input's shape is \(5, 3\); its last axis must have 2 channels"),
        (np.zeros(3), r"the input's shape is \(3,\)"),
        (1.0, r"the input's shape is \(\)"),
        ([[0, np.nan]], "NaN or infinite values; clean it first"),
        ([[np.inf, 0]], "NaN or infinite"),
        ([["a", "b"]], "could not convert"),
        ([[1, 2], [3]], "inhomogeneous"),
    ],
)
def test_quantize_input_refuses(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model().quantize_input(x)


def test_dequantize_output() -> None:
    model = make_model()
    scale = np.float32(256 * float(np.float32(1e-4)))
    y = model.dequantize_output(np.array([-128, 127], np.int8))
    assert y.dtype == np.float32
    assert y.tolist() == [-128 * scale, 127 * scale]
    hidden = model.without_head().dequantize_output(np.array([[-32768], [16384]], np.int16))
    assert hidden.tolist() == [[-1.0], [0.5]]


def test_without_head_cuts_the_network() -> None:
    model = random_model(3, "gru", layers=3, hidden_size=4)
    x = random_input(model, 5, 3)
    for layers in (1, 2, 3, None):
        cut = model.without_head(layers)
        assert (len(cut.layers), cut.output_size, cut.output_dtype) == (layers or 3, 4, np.int16)
        assert cut.every_step
        assert oracle.run(cut, x).shape == (5, 4)
    assert np.array_equal(
        oracle.run(model.without_head(1), x), oracle.run(replace(model, layers=model.layers[:1]).without_head(), x)
    )


def test_arrays_are_copies_that_nobody_can_change() -> None:
    weight, bias, scale = np.ones((3, 2), np.int8), np.zeros(3, np.int32), np.full(3, 0.01, np.float32)
    affine = Affine(weight, bias, scale, 0.02, 1.0)
    weight[:] = -128
    assert affine.weight.min() == 1
    model = random_model(0)
    for array in (
        affine.weight,
        affine.bias,
        affine.weight_scale,
        affine.multipliers,
        model.input_mean,
        model.input_std,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_fingerprint_follows_what_decides_the_integers() -> None:
    model = random_model(3, "lstm", layers=2)
    layer, head = model.layers[1], model.head
    assert head is not None
    bias = layer.recurrent.bias.copy()
    bias[0] += 1
    recurrent = replace(layer.recurrent, bias=bias)
    others = [
        replace(model, input_zero_point=model.input_zero_point + 1),
        replace(model, head=replace(head, kind="steps")),
        replace(model, head=None, labels=()),
        model.without_head(1),
        replace(model, layers=(model.layers[0], replace(layer, recurrent=recurrent))),
        replace(model, layers=(model.layers[0], replace(layer, cell_exponent=9 + (layer.cell_exponent - 8) % 7))),
    ]
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    same = replace(model, labels=(), provenance={"note": 1}, input_mean=model.input_mean + 1)
    assert same.fingerprint == random_model(3, "lstm", layers=2).fingerprint == model.fingerprint


def test_the_fingerprint_tells_two_directions_from_two_layers() -> None:
    """Where all the integers are the same: one layer reads both ways, or the second reads the first."""
    both = random_model(4, "gru", input_size=5, hidden_size=5, head=None, bidirectional=True)
    first, second = (
        replace(one, input=replace(one.input, input_scale=STATE_VIEW_SCALE), backward=None)
        for one in both.layers[0].directions
    )
    beside = QuantizedModel((replace(first, backward=second),), None, STATE_VIEW_SCALE)
    above = QuantizedModel((first, second), None, STATE_VIEW_SCALE)
    assert beside.fingerprint != above.fingerprint


@pytest.mark.parametrize("layers", [0, 3, -1])
def test_cutting_at_a_layer_that_is_not_there_is_refused(layers: int) -> None:
    with pytest.raises(ValueError, match=r"layers must be 1 \.\. 2"):
        random_model(1, layers=2).without_head(layers)
