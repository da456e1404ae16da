"""QAT and PTQ: the forward pass gives the device's integers, and its gradients are those of the float model."""

import copy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn import fixedpoint
from edgernn.nn import SequenceModel
from edgernn.qmodel import HeadKind
from edgernn.quantize import QuantConfig, _ops, calibrate, convert, prepare
from edgernn.quantize._calibrate import _range
from edgernn.quantize._cells import Cells
from edgernn.quantize._ops import Primitives

from . import oracle
from .models import VARIANTS, Variant
from .networks import BATCH, HIDDEN, INPUT, OUTPUT, STEPS, assert_equals_integers, build, sample


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize(("per_channel", "learn_scales"), [(True, False), (False, False), (True, True), (False, True)])
def test_qat_forward_equals_the_integers(
    variant: Variant, scheme: str, head: HeadKind, per_channel: bool, learn_scales: bool
) -> None:
    model, (x, lengths) = build(variant, head), sample()
    calibrate(prepare(model, QuantConfig.parse(scheme, per_channel, learn_scales)), x, lengths)
    assert_equals_integers(model, x * 1.2, lengths)
    if not per_channel:
        assert len(np.unique(convert(model).layers[1].recurrent.weight_scale)) == 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("learn_scales", [False, True])
def test_forward_still_equals_the_integers_after_training(variant: Variant, learn_scales: bool) -> None:
    model, (x, lengths) = build(variant), sample()
    calibrate(prepare(model, QuantConfig.parse("w8a8", learn_scales=learn_scales)), x, lengths)
    assert model.quantizer is not None
    scales = copy.deepcopy(model.quantizer.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, lengths), torch.tensor([0, 1, 2, 0]))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    changed = {n for n, value in model.quantizer.state_dict().items() if not torch.equal(value, scales[n])}
    weights = {f"log_weight_scales.{name}" for name in [*model.rnn.weight_names(), "head"]}
    assert changed == (weights | {"log_input_scale", "log_output_scale"} if learn_scales else set())
    assert_equals_integers(model, x, lengths)


def test_saturating_weights_and_inputs_stay_exact() -> None:
    for variant in VARIANTS:
        model, (x, lengths) = build(variant, gain=20.0), sample()
        calibrate(prepare(model), x, lengths)
        assert_equals_integers(model, x * 5.0, lengths)


def test_a_row_of_zeros_with_a_bias_converts() -> None:
    model, (x, lengths) = build("gru"), sample()
    model.rnn.set_mask("weight_hh_l0", torch.zeros_like(model.rnn.weight_hh_l0))
    model.rnn.set_mask("weight_ih_l1", torch.zeros(3 * HIDDEN, HIDDEN))
    calibrate(prepare(model), x, lengths)
    assert_equals_integers(model, x, lengths)
    expected = model.state_dict()["rnn.bias_ih_l1"][2 * HIDDEN :].numpy()
    n = convert(model).layers[1].input
    bias = n.bias * n.weight_scale.astype(np.float64) * n.input_scale
    np.testing.assert_allclose(bias[2 * HIDDEN :], expected, atol=1e-6)


def test_padding_never_influences_a_result() -> None:
    heads: tuple[HeadKind, ...] = ("last", "steps")
    for head in heads:
        model, (x, lengths) = build("lstm", head), sample()
        calibrate(prepare(model), x, lengths)
        garbage = x.clone()
        for row, length in enumerate(lengths):
            garbage[row, length:] = torch.nan
        y, y_garbage = model(x, lengths), model(garbage, lengths)
        assert torch.equal(y, y_garbage)
        gradients = [torch.autograd.grad(v.square().sum(), model.rnn.weight_hh_l0)[0] for v in (y, y_garbage)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_with_carried_state_equal_the_whole(variant: Variant) -> None:
    model, (x, _) = build(variant, "steps"), sample()
    calibrate(prepare(model), x)
    whole, last = model.run(x)
    first, state = model.run(x[:, :4])
    second, state = model.run(x[:, 4:], None, state)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    pairs = zip(state, last, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# ---- primitives ------------------------------------------------------------------------------------------------------


def test_primitives_equal_the_oracle() -> None:
    p = torch.arange(-32768, 32768, dtype=torch.float64)
    assert _ops.sigmoid(p).tolist() == [oracle.sigmoid(v) for v in range(-32768, 32768)]
    assert _ops.tanh(p).tolist() == [oracle.tanh(v) for v in range(-32768, 32768)]
    rng = np.random.default_rng(0)
    products = [*rng.integers(-(2**30), 2**30, 500).tolist(), -(2**30), 2**30, -1, 0, 1, *range(-70000, 70000, 997)]
    for e in (8, 15, 16, 21):
        got = _ops.round_shift(torch.tensor(products, dtype=torch.float64), e).tolist()
        assert got == [oracle.round_shift(v, e) for v in products]
    for k in range(9, 16):
        got = _ops.rescale(p, *fixedpoint.cell_rescale(k)).tolist()
        m = Fraction(1, 2**k) / oracle.f32(1 / 3072)
        assert got[::7] == [oracle.rescale(v, m) for v in range(-32768, 32768, 7)]


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (_ops.round_half_even, lambda x: torch.ones_like(x)),
        (_ops.round_half_up, lambda x: torch.ones_like(x)),
        (lambda x: _ops.round_shift(x, 15), lambda x: torch.full_like(x, 2.0**-15)),
        (lambda x: _ops.rescale(x, 3 << 29, 1), lambda x: torch.full_like(x, 1.5)),
        (lambda x: _ops.saturate(x, 8), lambda x: ((x >= -128) & (x <= 127)).double()),
    ],
)
def test_straight_through_gradients(function: Any, slope: Any) -> None:
    x = torch.linspace(-200.0, 200.0, 801, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1.0, 2.0, 801, dtype=torch.float64)
    (function(x) * weights).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, slope(x.detach()) * weights)


# ---- gradients against autograd of the float model -------------------------------------------------------------------

SMOOTH = Primitives(
    limit_weight=lambda w: w,
    round_half_even=lambda x: x,
    round_half_up=lambda x: x,
    quantize_multiplier=lambda m: m,
    round_shift=lambda x, e: x * 2.0**-e,
    rescale=lambda x, q31, exponent: x * (q31 * 2.0 ** (exponent - 31)),
    saturate=lambda x, bits: x,
    sigmoid=lambda p: torch.sigmoid(p * fixedpoint.PRE_ACTIVATION_SCALE) * 32768.0,
    tanh=lambda p: torch.tanh(p * fixedpoint.PRE_ACTIVATION_SCALE) * 32768.0,
)


def gradients(model: SequenceModel, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1.0, 1.0, OUTPUT)
    model.zero_grad()
    (model(x, lengths) * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and "quantizer" not in n}


def check_without_rounding(model: SequenceModel, config: QuantConfig | str, smooth: Primitives) -> None:
    """Over `smooth` primitives a float model's outputs and gradients stay the same when it is prepared."""
    x, lengths = sample()
    inside = x * 0.9  # without rounding, a value at the end of the calibrated range may lie just outside
    y, expected = model(inside, lengths), gradients(model, inside, lengths)
    calibrate(prepare(model, config), x, lengths)
    assert model.quantizer is not None
    model.quantizer.cells = Cells(smooth)
    torch.testing.assert_close(model(inside, lengths), y, atol=2e-6, rtol=1e-5)
    for name, gradient in gradients(model, inside, lengths).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
@pytest.mark.parametrize("head", ["last", "steps"])
def test_without_rounding_the_cells_are_the_float_model(variant: Variant, scheme: str, head: HeadKind) -> None:
    check_without_rounding(build(variant, head, gain=1.0), scheme, SMOOTH)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_with_rounding_point_where_the_float_ones_do(variant: Variant) -> None:
    model, (x, lengths) = build(variant, "steps", gain=1.0, size=24), sample()
    expected = gradients(model, x, lengths)
    calibrate(prepare(model, "w8a8"), x, lengths)
    for name, gradient in gradients(model, x, lengths).items():
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.995, (name, float(cosine))


def test_learned_scales_have_the_gradient_of_lsq() -> None:
    """d(w_int s)/ds is w_int - w/s within the limits and +-127 outside (Esser et al. 2020, equation 3)."""
    model, (x, lengths) = build("rnn", layers=1), sample()
    calibrate(prepare(model, QuantConfig.parse("w8a8", learn_scales=True)), x, lengths)
    quantizer = model.quantizer
    assert quantizer is not None
    with torch.no_grad():
        quantizer.log_weight_scales["head"] -= 0.4  # some weights now lie outside
    one = torch.tensor(1.0, dtype=torch.float64)
    weight, bias = model.head.weight.detach(), torch.zeros(OUTPUT)
    integers, scale = quantizer.integers("head", weight, bias, one, one)
    (integers.weight * integers.multiplier[:, None]).sum().backward()  # type: ignore[no-untyped-call]
    ratio = weight.double() / scale.detach()[:, None]
    slope = torch.where(ratio.abs() <= 127, integers.weight.detach() - ratio, integers.weight.detach()).sum(dim=1)
    got = quantizer.log_weight_scales["head"].grad / (scale.detach() * np.log(2.0))
    torch.testing.assert_close(got, slope, rtol=1e-3, atol=1e-3)  # the multiplier has 15 bits


# ---- calibration -----------------------------------------------------------------------------------------------------


def test_minmax_covers_every_calibration_value() -> None:
    model, (x, lengths) = build("gru"), sample()
    calibrate(prepare(model), x, lengths)
    quantized = convert(model)
    valid = np.concatenate([x[row, :length].numpy() for row, length in enumerate(lengths)])
    error = (valid - quantized.input_mean) / quantized.input_std
    error -= (quantized.quantize_input(valid).astype(np.float64) - quantized.input_zero_point) * quantized.input_scale
    assert np.abs(error).max() <= 0.5001 * quantized.input_scale


def test_methods_choose_their_ranges() -> None:
    values = np.random.default_rng(0).standard_normal(50_000)
    values[:3] = 40.0
    assert _range(values, "minmax", 256) == (values.min(), 40.0)
    low, high = _range(values, "percentile", 256)
    assert np.mean((values < low) | (values > high)) < 3e-4
    assert high < 5.0

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.mean((values - np.clip(np.rint((values - low) / step), 0, 255) * step - low) ** 2))

    assert error(*_range(values, "mse", 256)) <= min(error(values.min() * c, 40.0 * c) for c in (0.3, 0.5, 0.7, 1.0))


def test_cell_state_scale_covers_the_largest_cell_state() -> None:
    model, (x, lengths) = build("lstm", gain=4.0), sample()
    calibrate(prepare(model), x, lengths)
    largest = [0.0, 0.0]
    model.quantizer, quantizer = None, model.quantizer
    for row, length in enumerate(lengths.tolist()):
        for t in range(1, length + 1):
            c = model.run(x[row : row + 1, :t])[1][1]
            largest = [max(a, float(b.detach().abs().max())) for a, b in zip(largest, c, strict=True)]
    assert quantizer is not None
    for value, exponent in zip(largest, quantizer.cell_exponents.tolist(), strict=True):
        assert 2.0 ** (15 - exponent) / 2 < value <= 2.0 ** (15 - exponent)


def test_asymmetric_inputs_use_the_zero_point() -> None:
    model = SequenceModel(build("gru").rnn, OUTPUT)
    x = torch.rand(BATCH, STEPS, INPUT) * 3.0 + 1.0  # all positive: the range is 0 .. 4
    calibrate(prepare(model), x)
    quantized = convert(model)
    assert quantized.input_zero_point == -128
    assert quantized.input_scale == pytest.approx(float(x.max()) / 255, rel=1e-6)
    assert_equals_integers(model, x, torch.full((BATCH,), STEPS))
