"""Bidirectional layers from the float modules to the integers: two directions, each over the valid steps alone."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgernn.floatmodel import FloatModel
from edgernn.nn import GRU, LSTM, RNN, Recurrent, SequenceModel
from edgernn.qmodel import HeadKind
from edgernn.quantize import QuantConfig, calibrate, convert, prepare

from .models import VARIANTS, Variant
from .networks import HIDDEN, INPUT, OUTPUT, assert_equals_integers, build, sample
from .training import ALL_PHASES, CtrlC, same, some_data, some_model, train

KINDS: list[tuple[type[Recurrent], dict[str, Any]]] = [(LSTM, {}), (GRU, {}), (GRU, {"reset_after": False}), (RNN, {})]
HEADS: tuple[HeadKind, ...] = ("last", "steps")


def one_direction(module: Recurrent, layer: int, suffix: str, options: dict[str, Any]) -> Recurrent:
    """A module of one layer and one direction with the weights of `layer`, `suffix` of a larger one."""
    names = [name for name, _ in module.named_parameters() if name.endswith(f"_l{layer}{suffix}")]
    size = getattr(module, names[0]).shape[1]
    alone = type(module)(size, module.hidden_size, batch_first=True, **options)
    alone.load_state_dict({name.replace(f"_l{layer}{suffix}", "_l0"): getattr(module, name) for name in names})
    return alone


def reversed_in_time(x: Tensor, lengths: Tensor) -> Tensor:
    """x [batch, steps, ..] with the valid part of every sequence turned round."""
    turned = x.clone()
    for row, length in enumerate(lengths.tolist()):
        turned[row, :length] = x[row, :length].flip(0)
    return turned


# ---- float -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_every_direction_is_a_layer_of_its_own(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = kind(INPUT, HIDDEN, num_layers=2, bidirectional=True, batch_first=True, **options)
    x, lengths = sample()
    hx = torch.randn(4, len(x), HIDDEN)
    y, state = module(x, (hx, -hx) if kind is LSTM else hx, lengths=lengths)
    sequence, last = x, []
    for layer in (0, 1):
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")):
            alone = one_direction(module, layer, suffix, options)
            h = hx[2 * layer + direction][None]
            read = reversed_in_time(sequence, lengths) if direction else sequence
            hidden, final = alone(read, (h, -h) if kind is LSTM else h, lengths=lengths)
            outputs.append(reversed_in_time(hidden, lengths) if direction else hidden)
            last.append(final[0] if kind is LSTM else final)
        sequence = torch.cat(outputs, dim=2)
    torch.testing.assert_close(y, sequence)
    torch.testing.assert_close(state[0] if kind is LSTM else state, torch.cat(last))


@pytest.mark.parametrize("theirs", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layers", [1, 2])
def test_from_float_computes_what_torch_computes(theirs: Any, head: HeadKind, layers: int) -> None:
    torch.manual_seed(1)
    rnn = theirs(INPUT, HIDDEN, num_layers=layers, bidirectional=True, batch_first=True)
    linear = nn.Linear(2 * HIDDEN, OUTPUT)
    model, (x, lengths) = SequenceModel.from_float(rnn, linear, head), sample()
    hidden, state = rnn(x)
    h_n = state[0] if theirs is nn.LSTM else state
    assert torch.equal(model(x), linear(torch.cat([h_n[-2], h_n[-1]], dim=1) if head == "last" else hidden))
    y = model(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(x[row : row + 1, :length])[0]
        torch.testing.assert_close(y[row] if head == "last" else y[row, :length], alone)


def test_a_bidirectional_model_takes_no_initial_state() -> None:
    for prepared in (False, True):
        model, (x, lengths) = build("lstm", bidirectional=True), sample()
        if prepared:
            calibrate(prepare(model), x, lengths)
        y, state = model.run(x, lengths)
        assert torch.equal(y, model(x, lengths))
        with pytest.raises(ValueError, match="bidirectional model reads whole sequences: it takes no initial state"):
            model.run(x, lengths, state)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_saved_model_comes_back_the_same(tmp_path: Path, variant: Variant, bias: bool) -> None:
    model, (x, lengths) = build(variant, bidirectional=True, bias=bias), sample()
    model.rnn.set_mask("weight_hh_l1_reverse", torch.rand(len(model.rnn.gates) * HIDDEN, HIDDEN) < 0.5)
    calibrate(prepare(model), x, lengths)
    model.save(tmp_path / "model.safetensors")
    loaded = SequenceModel.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded(x, lengths), model(x, lengths))
    assert loaded.rnn.bidirectional
    backward = FloatModel.load(tmp_path / "model.safetensors").layers[1].backward
    assert backward is not None
    assert np.array_equal(backward.weight_hh, model.state_dict()["rnn.weight_hh_l1_reverse"].numpy())
    assert bool(backward.bias_ih.any()) == bias


# ---- quantisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("layers", "per_channel", "learn_scales"),
    [(1, True, True), (2, False, False), (2, False, True)],  # tests/test_masks.py has (2, True, False)
)
def test_qat_forward_equals_the_integers(
    variant: Variant, scheme: str, head: HeadKind, layers: int, per_channel: bool, learn_scales: bool
) -> None:
    model, (x, lengths) = build(variant, head, layers=layers, bidirectional=True), sample()
    calibrate(prepare(model, QuantConfig.parse(scheme, per_channel, learn_scales)), x, lengths)
    assert_equals_integers(model, x * 1.2, lengths)
    backward = convert(model).layers[-1].backward
    assert backward is not None
    assert (len(np.unique(backward.recurrent.weight_scale)) == 1) == (not per_channel)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("learn_scales", [False, True])
def test_forward_still_equals_the_integers_after_training(variant: Variant, learn_scales: bool) -> None:
    model, (x, lengths) = build(variant, layers=1, bidirectional=True), sample()
    calibrate(prepare(model, QuantConfig.parse("w8a8", learn_scales=learn_scales)), x, lengths)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(4):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x, lengths), torch.tensor([0, 1, 2, 0])))
        optimizer.step()
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert not {name for name in still if "_reverse" in name}, "every weight (and learned scale) of both directions"
    assert_equals_integers(model, x, lengths)


@pytest.mark.parametrize("variant", VARIANTS)
def test_saturating_weights_and_inputs_stay_exact(variant: Variant) -> None:
    model, (x, lengths) = build(variant, gain=20.0, bidirectional=True), sample()
    calibrate(prepare(model), x, lengths)
    assert_equals_integers(model, x * 5.0, lengths)


def test_cell_state_scales_cover_the_largest_cell_state_of_every_direction() -> None:
    model, (x, lengths) = build("lstm", gain=4.0, bidirectional=True), sample()
    for name in ("weight_ih_l0_reverse", "weight_ih_l1"):  # so that the directions differ
        model.rnn.get_parameter(name).data.mul_(0.1)
    calibrate(prepare(model), x, lengths)
    assert model.quantizer is not None
    exponents = model.quantizer.cell_exponents.tolist()
    sequence = (x - model.input_mean) / model.input_std
    largest = []
    for layer in (0, 1):
        outputs = []
        for suffix in ("", "_reverse"):
            alone = one_direction(model.rnn, layer, suffix, {})
            read = reversed_in_time(sequence, lengths) if suffix else sequence
            cells = [
                alone(read, lengths=lengths.clamp(max=t))[1][1].abs().max().item() for t in range(1, len(x[0]) + 1)
            ]
            largest.append(max(cells))
            hidden = alone(read, lengths=lengths)[0]
            outputs.append(reversed_in_time(hidden, lengths) if suffix else hidden)
        sequence = torch.cat(outputs, dim=2)
    assert len(set(exponents)) > 1
    for value, exponent in zip(largest, exponents, strict=True):
        assert 2.0 ** (15 - exponent) / 2 < value <= 2.0 ** (15 - exponent)
    directions = [direction for layer in convert(model).layers for direction in layer.directions]
    assert [direction.cell_exponent for direction in directions] == exponents


# ---- training --------------------------------------------------------------------------------------------------------


def test_training_prunes_quantises_and_resumes(tmp_path: Path) -> None:
    data = some_data()
    options: dict[str, Any] = {"num_layers": 2, "dropout": 0.25, "bidirectional": True}
    unbroken = train(data, ALL_PHASES, some_model(data, "lstm", **options))
    model = some_model(data, "lstm", **options)
    CtrlC(model, 11)
    with pytest.raises(KeyboardInterrupt):
        train(data, ALL_PHASES, model, out=tmp_path)
    resumed = train(data, ALL_PHASES, some_model(data, "lstm", **options), out=tmp_path, resume=True)
    assert same(resumed, unbroken)
    for layer in convert(resumed).layers:
        assert layer.backward is not None
        assert abs(float((layer.backward.recurrent.weight == 0).mean()) - 0.5) < 0.1
