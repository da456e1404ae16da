"""Preparing, copying and saving quantised models; what is refused, and what the refusal says to do instead."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from edgernn._files import read_tensors
from edgernn.export import float_to_onnx, to_onnx, to_tflite
from edgernn.floatmodel import FILE_FORMAT
from edgernn.nn import SequenceModel
from edgernn.quantize import QuantConfig, calibrate, convert, is_prepared, prepare

from .networks import BATCH, STEPS, build, sample


def test_prepare_keeps_the_parameters_and_works_once() -> None:
    model = build("gru")
    before = list(model.parameters())
    assert prepare(model, "w8a16") is model
    assert is_prepared(model)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="prepared already"):
        prepare(model)


def test_learned_scales_start_at_the_unmasked_weights() -> None:
    """A masked weight that an optimiser has moved since the last forward pass has no say."""
    models = [build("gru"), build("gru")]
    for model, drift in zip(models, (0.0, 100.0), strict=True):
        mask = torch.ones_like(model.rnn.weight_hh_l0)
        mask[0] = 0
        model.rnn.set_mask("weight_hh_l0", mask)
        model.rnn.weight_hh_l0.data[0] = drift
        calibrate(prepare(model, QuantConfig(learn_scales=True)), *sample())
    scales = [model.state_dict()["quantizer.log_weight_scales.weight_hh_l0"] for model in models]
    assert torch.equal(*scales)


@pytest.mark.parametrize("learn_scales", [False, True])
def test_every_buffer_comes_back_from_the_file_with_its_shape(tmp_path: Path, learn_scales: bool) -> None:
    model = build("lstm")
    calibrate(prepare(model, QuantConfig(learn_scales=learn_scales)), *sample())
    model.save(tmp_path / "model.safetensors")
    tensors, _ = read_tensors(tmp_path / "model.safetensors", FILE_FORMAT)
    loaded = SequenceModel.load(tmp_path / "model.safetensors").state_dict()
    assert tensors["quantizer.log_input_scale"].shape == ()
    for name, value in model.state_dict().items():
        assert tensors[name].shape == tuple(value.shape), name
        assert loaded[name].shape == value.shape, name
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize("scheme", ["w4a8", "w8a4", "int8", "", "w8a8x"])
def test_unknown_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="known are w8a8, w8a16"):
        QuantConfig.parse(scheme)


def test_the_order_of_the_verbs_is_checked() -> None:
    x, lengths = sample()
    with pytest.raises(ValueError, match="call prepare"):
        calibrate(build("gru"), x)
    with pytest.raises(ValueError, match="call prepare"):
        convert(build("gru"))
    model = prepare(build("gru"))
    with pytest.raises(ValueError, match="not calibrated"):
        model(x, lengths)
    with pytest.raises(ValueError, match="call prepare, then calibrate"):
        convert(model)


def test_bad_calibration_data_are_refused() -> None:
    model, (x, lengths) = prepare(build("gru")), sample()
    with pytest.raises(ValueError, match="unknown calibration method"):
        calibrate(model, x, lengths, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not empty"):
        calibrate(model, x[:0])
    with pytest.raises(ValueError, match="lengths"):
        calibrate(model, x, lengths + 9)
    x[0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        calibrate(model, x, lengths)
    assert model.quantizer is not None
    assert not model.quantizer.calibrated


def test_nan_weights_are_refused() -> None:
    model, (x, lengths) = build("gru"), sample()
    calibrate(prepare(model), x, lengths)
    model.rnn.weight_hh_l0.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"rnn\.weight_hh_l0 contains NaN"):
        convert(model)


def test_a_model_that_could_overflow_is_refused() -> None:
    model = build("rnn", layers=1, inputs=600)
    model.rnn.weight_ih_l0.data.fill_(1.0)
    calibrate(prepare(model, "w8a16"), torch.randn(BATCH, STEPS, 600))
    with pytest.raises(ValueError, match=r"layer 0 input: row \d+ can overflow its 32-bit accumulator"):
        convert(model)


def test_nan_input_is_refused_as_in_the_quantized_model() -> None:
    model, (x, lengths) = build("gru"), sample()
    calibrate(prepare(model), x, lengths)
    x[1, 2, 0] = torch.nan
    for call in (lambda: model(x, lengths), lambda: convert(model).quantize_input(x.numpy())):
        with pytest.raises(ValueError, match="contains NaN or infinite values; clean"):
            call()


def test_weights_beyond_every_scale_are_refused_by_name() -> None:
    model, (x, lengths) = build("gru"), sample()
    calibrate(prepare(model), x, lengths)
    model.rnn.weight_ih_l0.data.mul_(1e6)
    with pytest.raises(ValueError, match=r"weight_ih_l0: requantization multiplier .* lower learning rate"):
        model(x, lengths)


def test_a_prepared_model_can_be_pickled_and_copied() -> None:
    model, (x, lengths) = build("lstm"), sample()
    calibrate(prepare(model), x, lengths)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x, lengths), model(x, lengths))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: calibrate(m, x[..., :3]), r"must be \[sequences, steps, 5\]"),
        (lambda m, x: m(x.double()), "x must be a tensor of torch.float32, the model's type, not torch.float64"),
        (lambda m, x: m(x.numpy()), "not ndarray"),
        (lambda m, x: prepare(torch.nn.LSTM(2, 3)), "prepare needs a SequenceModel, not a LSTM"),  # type: ignore[arg-type]
        (lambda m, x: calibrate(torch.nn.LSTM(2, 3), x), "calibrate needs a SequenceModel"),  # type: ignore[arg-type]
        (lambda m, x: convert(torch.nn.LSTM(2, 3)), "convert needs a SequenceModel"),  # type: ignore[arg-type]
        (lambda m, x: prepare(build("gru"), None), "unknown scheme None"),  # type: ignore[arg-type]
        (lambda m, x: build("gru").load_state_dict(m.state_dict()), "call prepare"),
        (lambda m, x: m.double().save("never.safetensors"), r"call model\.float\(\) first"),
        (lambda m, x: to_tflite(m), r"call convert\(model\) first"),
        (lambda m, x: to_onnx(m), r"call convert\(model\) first"),
        (lambda m, x: float_to_onnx(m), "needs a FloatModel"),
        (lambda m, x: to_tflite(convert(m), steps=2.5), "whole number"),  # type: ignore[arg-type]
    ],
)
def test_likely_mistakes_get_a_clear_answer(call: Any, message: str) -> None:
    x, _ = sample()
    with pytest.raises(ValueError, match=message):
        call(calibrate(prepare(build("gru")), x), x)


def test_calibration_takes_arrays_as_they_come() -> None:
    x, lengths = sample()
    one, two = (prepare(build("gru")) for _ in range(2))
    calibrate(one, x, lengths)
    calibrate(two, x.double().numpy(), lengths.numpy())  # type: ignore[arg-type]
    assert convert(one).fingerprint == convert(two).fingerprint
