"""QAT and PTQ in the profile tflite-lstm: the forward pass gives the integers of TensorFlow Lite Micro's LSTM operator,
its gradients are those of the float model, and what does not fit the operator is refused."""

import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn.export import to_tflite
from edgernn.firmware_sim import run
from edgernn.nn import SequenceModel
from edgernn.qmodel import QuantizedModel
from edgernn.quantize import QuantConfig, _ops, calibrate, convert, prepare
from edgernn.train import fit

from . import oracle, tflite_lstm_oracle
from .networks import HIDDEN, OUTPUT, build, sample
from .test_quantize import SMOOTH as PORTABLE_SMOOTH
from .test_quantize import check_without_rounding, gradients
from .training import ALL_PHASES, CtrlC, same, some_data, some_model, without_times

OPERATOR = QuantConfig(profile="tflite-lstm")
LEARNED = replace(OPERATOR, learn_scales=True)


def ready(config: QuantConfig = OPERATOR, seed: int = 0, **options: Any) -> tuple[SequenceModel, Tensor, Tensor]:
    """A calibrated LSTM, and an input that leaves the calibrated range here and there."""
    model = build("lstm", **options)
    x, lengths = sample(seed, model.rnn.input_size)
    return calibrate(prepare(model, config), x, lengths), x * 1.2, lengths


def assert_equals_integers(model: SequenceModel, x: Tensor, lengths: Tensor) -> None:
    """The model's outputs are exactly the integers of the flavour tflm times the output scale."""
    quantized = convert(model)
    assert quantized.profile == "tflite-lstm"
    y = model(x, lengths).detach().numpy()
    integers = quantized.quantize_input(x.numpy())
    for row, length in enumerate(lengths.tolist()):
        expected = quantized.dequantize_output(tflite_lstm_oracle.run(quantized, integers[row, :length], "tflm"))
        assert np.array_equal(y[row] if model.head_kind == "last" else y[row, :length], expected), row
        assert model.head_kind == "last" or not y[row, length:].any()


# ---- the forward pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_forward_equals_the_integers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = replace(OPERATOR, per_channel=seed % 4 > 0, learn_scales=seed % 5 == 0)
    model, x, lengths = ready(
        config,
        seed,
        head=("last", "steps")[seed % 2],
        gain=(0.3, 1.5, 20.0)[seed % 3],
        layers=int(rng.integers(1, 4)),
        inputs=int(rng.integers(1, 12)),
        size=int(rng.integers(1, 20)),
        bidirectional=bool(rng.integers(2)),
        bias=seed % 7 > 0,
    )
    assert_equals_integers(model, x, lengths)


@pytest.mark.parametrize("config", [OPERATOR, LEARNED], ids=["", "learned scales"])
def test_forward_still_equals_the_integers_after_training(config: QuantConfig) -> None:
    model, x, lengths = ready(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, lengths), torch.tensor([0, 1, 2, 0]))
        torch.autograd.backward(loss)
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert_equals_integers(model, x, lengths)


@pytest.mark.parametrize("exponent", range(9, 16))
def test_every_cell_scale(exponent: int) -> None:
    model, x, lengths = ready(head="steps", layers=1)
    assert model.quantizer is not None
    model.quantizer.cell_exponents.fill_(exponent)
    assert_equals_integers(model, x, lengths)
    assert convert(model).layers[0].cell_exponent == exponent


@pytest.mark.parametrize("seed", range(4))
def test_the_states_are_those_of_tflm_after_many_steps(seed: int) -> None:
    """A product of scales that is rounded as another flavour does shows in one cell state of some hundred."""
    model = build("lstm", "last", layers=1, inputs=12, size=32, gain=0.8)
    x = torch.randn(48, 100, 12, generator=torch.Generator().manual_seed(seed))
    calibrate(prepare(model, OPERATOR), x)
    quantized = convert(model)
    assert product_of_scales(quantized, "litert") != product_of_scales(quantized, "tflm")
    with torch.inference_mode():
        _, (h, c) = model.run(x)
    integers = quantized.quantize_input(x.numpy())
    states = [run(quantized, one, flavour="tflm")[1] for one in integers]
    assert np.array_equal(h[0].numpy() / quantized.states["h_0"].scale, [state["h_0"] for state in states])
    assert np.array_equal(c[0].numpy() / quantized.states["c_0"].scale, [state["c_0"] for state in states])


def product_of_scales(model: QuantizedModel, flavour: str) -> list[Fraction]:
    """Of the first layer's inputs and weights."""
    affine = model.layers[0].input
    scales = affine.weight_scale.tolist()
    return [tflite_lstm_oracle.product_of_scales(affine.input_scale, scale, flavour) for scale in scales]


def test_pruned_models_stay_exact() -> None:
    """Also where a gate has lost all its weights and keeps its bias."""
    model = build("lstm")
    (x, lengths), mask = sample(), (torch.rand(4 * HIDDEN, HIDDEN) < 0.4).float()
    mask[:HIDDEN] = 0
    model.rnn.set_mask("weight_hh_l0", mask)
    model.rnn.set_mask("weight_ih_l1", mask)
    calibrate(prepare(model, OPERATOR), x, lengths)
    assert_equals_integers(model, x, lengths)
    layers = convert(model).layers
    assert not layers[0].recurrent.weight[mask.numpy() == 0].any()
    bias = layers[1].input.bias * layers[1].input.weight_scale.astype(np.float64) * layers[1].input.input_scale
    expected = sum(model.state_dict()[f"rnn.bias_{side}_l1"] for side in ("ih", "hh"))
    np.testing.assert_allclose(bias[:HIDDEN], expected[:HIDDEN], atol=1e-6)
    torch.autograd.backward(model(x, lengths).square().sum())
    gradient = model.rnn.weight_hh_l0.grad
    assert gradient is not None
    assert not gradient[mask == 0].any()
    assert gradient[mask == 1].any()


def test_padding_never_influences_a_result() -> None:
    for bidirectional in (False, True):
        model, x, lengths = ready(head="steps", bidirectional=bidirectional)
        garbage = x.clone()
        for row, length in enumerate(lengths):
            garbage[row, length:] = torch.nan
        y, y_garbage = model(x, lengths), model(garbage, lengths)
        assert torch.equal(y, y_garbage)
        pair = [torch.autograd.grad(v.square().sum(), model.rnn.weight_hh_l0)[0] for v in (y, y_garbage)]
        assert torch.equal(*pair)


def test_chunks_with_carried_state_equal_the_whole() -> None:
    model, x, _ = ready(head="steps")
    whole, last = model.run(x)
    first, state = model.run(x[:, :4])
    second, state = model.run(x[:, 4:], None, state)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))
    assert torch.equal(state[0] * 128, (state[0] * 128).round().clamp(-128, 127))  # int8 times 2^-7


def test_a_hidden_state_of_one_is_the_largest_byte() -> None:
    model, x, _ = ready(head="steps")
    shape = len(model.rnn.direction_names()), len(x), model.rnn.hidden_size
    c = torch.zeros(shape)
    wanted, last = model.run(x[:, :2], None, (torch.full(shape, 127 / 128), c))
    for h in (1.0, 100.0):
        y, state = model.run(x[:, :2], None, (torch.full(shape, h), c))
        assert torch.equal(y, wanted)
        assert all(torch.equal(*pair) for pair in zip(state, last, strict=True))


# ---- the integers ----------------------------------------------------------------------------------------------------


def test_a_matrix_has_one_scale_for_each_gate() -> None:
    for config, of_head in ((OPERATOR, OUTPUT), (LEARNED, OUTPUT), (replace(OPERATOR, per_channel=False), 1)):
        model = convert(ready(config, bidirectional=True)[0])
        for layer in model.layers:
            for affine in (a for one in layer.directions for a in (one.input, one.recurrent)):
                scales = affine.weight_scale.reshape(4, HIDDEN)
                assert (scales == scales[:, :1]).all()
                assert len(np.unique(scales)) == 4
                assert np.abs(affine.weight.reshape(4, -1)).max(axis=1).tolist() == [127] * 4
        assert model.head is not None
        assert len(np.unique(model.head.dense.weight_scale)) == of_head


def test_no_row_of_recurrent_weights_leaves_int16() -> None:
    """Whatever the float weights are: the exporter refuses what does."""
    for config in (OPERATOR, LEARNED):
        model, x, lengths = ready(config, size=60, gain=2.0, bidirectional=True)
        sums = model.rnn.weight_hh_l0.detach().abs().sum(dim=1)
        assert sums.min() < 8 < sums.max()
        assert_equals_integers(model, x, lengths)
        quantized = convert(model)
        to_tflite(quantized)
        for layer in (one for both in quantized.layers for one in both.directions):
            for row, scale in zip(layer.recurrent.weight.tolist(), layer.recurrent.weight_scale.tolist(), strict=True):
                assert sum(map(abs, row)) * Fraction(scale) * 2**12 <= 32767


def test_files_bring_the_model_back(tmp_path: Path) -> None:
    for config in (OPERATOR, LEARNED):
        model, x, lengths = ready(config)
        model.save(tmp_path / "model.safetensors")
        loaded = SequenceModel.load(tmp_path / "model.safetensors")
        assert loaded.quantizer is not None
        assert loaded.quantizer.config == config
        anew = prepare(build("lstm"), config)
        anew.load_state_dict(model.state_dict())
        for one in (loaded, anew, copy.deepcopy(model)):
            assert torch.equal(one(x, lengths), model(x, lengths))
            assert convert(one).fingerprint == convert(model).fingerprint
    convert(model).save(tmp_path / "model.ernn")
    assert QuantizedModel.load(tmp_path / "model.ernn").profile == "tflite-lstm"


# ---- primitives ------------------------------------------------------------------------------------------------------


def test_primitives_equal_the_oracle() -> None:
    every = range(-32768, 32768)
    p = torch.tensor(every, dtype=torch.float64)
    assert _ops.operator_sigmoid(p).tolist() == [tflite_lstm_oracle.table_sigmoid(v) for v in every]
    some = slice(None, None, 7)
    for k in range(9, 16):
        expected = [tflite_lstm_oracle.table_tanh(v, 15 - k) for v in every[some]]
        assert _ops.operator_tanh(p, k)[some].tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_rows_within_reach_are_left_and_others_shrunk_no_further_than_need_be(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 300, (), generator=generator))
    weight = torch.randn(50, size, generator=generator, dtype=torch.float64)
    weight *= 16 * torch.rand(50, 1, generator=generator, dtype=torch.float64) / weight.abs().sum(dim=1, keepdim=True)
    weight[0] = 0.0
    scale = (weight.abs().amax() / 127).float().double().expand(50, 1)
    integers = (weight / scale).round()
    inside = (integers.abs().sum(dim=1, keepdim=True) * scale <= 8).flatten()
    shrunk = _ops.within_reach(weight, scale, 8.0)
    assert 0 < inside.sum() < 50
    assert torch.equal(shrunk[inside], weight[inside])
    sums = (shrunk / scale).round().abs().sum(dim=1) * scale[:, 0]
    assert (sums <= 8).all()
    assert (sums[~inside] > 7.9 - 2 * scale[0, 0]).all()
    ratio = shrunk[~inside] / weight[~inside]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-12, atol=0)


def test_the_gradient_of_a_shrunk_row_is_that_of_a_fixed_sum() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[:3] *= 0.1
    scale = torch.full((6, 1), 2.0**-7, dtype=torch.float64)
    found, wanted = (weight.clone().requires_grad_(True) for _ in range(2))
    fixed = _ops.within_reach(weight, scale, 8.0).abs().sum(dim=1, keepdim=True)
    normalised = wanted * fixed / wanted.abs().sum(dim=1, keepdim=True)
    for one in (_ops.within_reach(found, scale, 8.0), torch.cat([wanted[:3], normalised[3:]])):
        torch.autograd.backward((one - 0.3).square().sum())
    torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30, 1e5])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_absurd_weights_end(name: str, value: float) -> None:
    """In an error, also where a multiplier could be found: not in a search without end."""
    model, x, lengths = ready()
    with torch.no_grad():
        getattr(model.rnn, name)[3, 2] = value
    with pytest.raises(ValueError, match=rf"(?s)^{name}: .*; its weights are too large or not finite; train"):
        model(x, lengths)


@pytest.mark.parametrize("seed", range(4))
def test_rescaling_equals_the_oracle(seed: int) -> None:
    """Also of accumulators whose product with the multiplier needs more than 53 bits."""
    rng = np.random.default_rng(seed)
    scales = np.exp2(rng.uniform(-15.9, 3.4, (2, 2000))).astype(np.float32).astype(np.float64)
    m = torch.from_numpy(scales[0] * scales[1])  # of up to 48 bits
    limit = 2.0**31 / torch.exp2(torch.ceil(torch.log2(m)).clamp(min=0))
    values = (torch.from_numpy(rng.uniform(-1, 1, 2000)) * limit).floor()
    values[:500] = (values[:500] * 2.0**-14).floor()
    found = _ops.operator_rescale(values, _ops.operator_multiplier(m))
    pairs = zip(values.tolist(), m.tolist(), strict=True)
    assert found.tolist() == [oracle.rescale(int(v), Fraction(real)) for v, real in pairs]


def test_slopes_are_those_of_the_real_functions() -> None:
    """At the value that came out, in integers a step of the input."""
    every = (-32768, -20000, -4097, -300, -1, 0, 1, 777, 4096, 9001, 32767)

    def slopes(function: Any, *options: int) -> list[float]:
        v = torch.tensor(every, dtype=torch.float64, requires_grad=True)
        found: list[float] = torch.autograd.grad(function(v, *options).sum(), v)[0].tolist()
        return found

    y = [Fraction(tflite_lstm_oracle.table_sigmoid(v), 2**15) for v in every]
    assert slopes(_ops.operator_sigmoid) == [float(one * (1 - one) * 2**3) for one in y]
    for k in range(9, 16):
        y = [Fraction(tflite_lstm_oracle.table_tanh(v, 15 - k), 2**15) for v in every]
        assert slopes(_ops.operator_tanh, k) == [float((1 - one**2) * 2 ** (15 - k)) for one in y], k


def test_straight_through_gradients() -> None:
    x = torch.linspace(-40000.0, 40000.0, 801, dtype=torch.float64).round().requires_grad_(True)
    m = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(_ops.operator_rescale(x, _ops.operator_multiplier(m)).square().sum() / 2)
    assert x.grad is not None
    assert m.grad is not None
    y = np.array([oracle.rescale(int(v), Fraction(0.3)) for v in x.tolist()], np.float64)
    np.testing.assert_allclose(x.grad.numpy(), y * 0.3, rtol=1e-9)  # the multiplier has 31 bits
    np.testing.assert_allclose(m.grad.item(), (y * x.detach().numpy()).sum(), rtol=1e-12)


# ---- gradients against autograd of the float model -------------------------------------------------------------------

SMOOTH = replace(
    PORTABLE_SMOOTH,
    operator_multiplier=lambda m: m,
    operator_rescale=lambda x, multiplier: x * multiplier,
    operator_sigmoid=lambda p: torch.sigmoid(p * 2.0**-12) * 32768.0,
    operator_tanh=lambda x, exponent: torch.tanh(x * 2.0**-exponent) * 32768.0,
)


@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_rounding_the_cell_is_the_float_model(head: Any, bidirectional: bool) -> None:
    check_without_rounding(build("lstm", head, gain=1.0, bidirectional=bidirectional), OPERATOR, SMOOTH)


def test_gradients_with_rounding_point_where_the_float_ones_do() -> None:
    model, (x, lengths) = build("lstm", "steps", gain=1.0, size=24), sample()
    expected = gradients(model, x, lengths)
    calibrate(prepare(model, OPERATOR), x, lengths)
    for name, gradient in gradients(model, x, lengths).items():
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.98, (name, float(cosine))


def test_learned_scales_have_the_gradient_of_lsq() -> None:
    """As in the profile portable, summed over a gate's rows."""
    model, *_ = ready(LEARNED, layers=1)
    quantizer = model.quantizer
    assert quantizer is not None
    with torch.no_grad():
        quantizer.log_weight_scales["weight_hh_l0"] -= 0.4  # some weights now lie outside
    one, zeros = torch.tensor(1.0, dtype=torch.float64), torch.zeros(4 * HIDDEN)
    weight = model.rnn.weight_hh_l0.detach()
    integers, scale = quantizer.integers("weight_hh_l0", weight, zeros, one, one)
    torch.autograd.backward((integers.weight * integers.multiplier[:, None]).sum())
    ratio, rounded = weight.double() / scale.detach()[:, None], integers.weight.detach()
    slope = torch.where(ratio.abs() < 127.5, rounded - ratio, rounded).reshape(4, -1).sum(dim=1)
    learned = quantizer.log_weight_scales["weight_hh_l0"]
    assert learned.grad is not None
    torch.testing.assert_close(learned.grad / (torch.exp2(learned.detach()) * np.log(2.0)), slope, rtol=1e-4, atol=1e-3)


# ---- training --------------------------------------------------------------------------------------------------------

CONFIG = replace(ALL_PHASES, profile="tflite-lstm")


def test_fit_resumes_to_the_bit(tmp_path: Path) -> None:
    data = some_data()
    unbroken = some_model(data, "lstm")
    expected = fit(unbroken, data, CONFIG, progress=False)
    assert expected.metrics["test"]["fake_quant"] == expected.metrics["test"]["integer_tflm"]
    model = some_model(data, "lstm")
    CtrlC(model, 14)
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, CONFIG, tmp_path, progress=False)
    with pytest.raises(
        ValueError, match="another config: profile was 'tflite-lstm', now it is 'portable'; resume with"
    ):
        fit(some_model(data, "lstm"), data, ALL_PHASES, tmp_path, resume=True, progress=False)
    model = some_model(data, "lstm")
    history = fit(model, data, CONFIG, tmp_path, resume=True, progress=False)
    assert same(model, unbroken)
    assert without_times(history) == without_times(expected)
    assert convert(model).profile == "tflite-lstm"
