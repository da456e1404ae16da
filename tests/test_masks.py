"""A masked step does nothing: torch's modules, the QAT forward, the kernel and the exports agree on what that means.

Its output is 0, the state passes it unchanged, and what the input holds there has no effect.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn.engines import ENGINES
from edgernn.export import float_to_onnx
from edgernn.firmware_sim import run
from edgernn.fixedpoint import STATE_SCALE
from edgernn.floatmodel import FloatModel
from edgernn.nn._base import valid_steps
from edgernn.qmodel import HeadKind, IntArray, QuantizedModel, Scheme
from edgernn.quantize import calibrate, convert, prepare

from . import oracle
from .models import SCHEMES, VARIANTS, Variant
from .networks import STEPS, build, sample

BATCH_ENGINES = ("numba", "litert", "tflm", "onnxruntime")
HEADS: tuple[HeadKind, ...] = ("last", "steps")
PADDINGS = (0.0, 1e30, float("inf"), float("nan"))

every_network = pytest.mark.parametrize(
    ("variant", "bidirectional", "head"), [(v, b, h) for v in VARIANTS for b in (False, True) for h in HEADS]
)


def padded(x: Tensor, lengths: Tensor, value: float) -> Tensor:
    return torch.where(valid_steps(lengths, x.shape[1])[..., None], x, value)


def as_pair(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@every_network
def test_the_float_modules(variant: Variant, bidirectional: bool, head: HeadKind) -> None:
    model, (x, lengths) = build(variant, head, bidirectional=bidirectional), sample()
    y, state = model.run(padded(x, lengths, 0.0), lengths)
    for value in PADDINGS:
        other, other_state = model.run(padded(x, lengths, value), lengths)
        assert torch.equal(y, other), value
        assert all(map(torch.equal, as_pair(state), as_pair(other_state))), value
        hidden, _ = model.rnn(padded(x, lengths, value), lengths=lengths)
        assert not bool(hidden[~valid_steps(lengths, STEPS)].any()), value
    for row, length in enumerate(lengths.tolist()):
        alone, state_alone = model.run(x[row : row + 1, :length])
        torch.testing.assert_close(y[row] if head == "last" else y[row, :length], alone[0])
        assert head == "last" or not bool(y[row, length:].any())
        for batched, single in zip(as_pair(state), as_pair(state_alone), strict=True):
            torch.testing.assert_close(batched[:, row], single[:, 0])


@every_network
def test_the_float_export(tmp_path: Path, variant: Variant, bidirectional: bool, head: HeadKind) -> None:
    model, (x, lengths) = build(variant, head, bidirectional=bidirectional), sample()
    expected = model(x, lengths).detach().numpy()
    model.save(tmp_path / "model.safetensors")
    load = ENGINES["onnxruntime"].load
    assert load is not None
    graph = load(float_to_onnx(FloatModel.load(tmp_path / "model.safetensors")))
    outputs = [
        graph({"x": padded(x, lengths, value).numpy(), "lengths": lengths.numpy().astype(np.int32)})["y"]
        for value in PADDINGS
    ]
    np.testing.assert_allclose(outputs[0], expected, atol=2e-6)
    assert all(np.array_equal(outputs[0], y) for y in outputs[1:])
    assert not outputs[0][expected == 0].any()


@every_network
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_integers(variant: Variant, bidirectional: bool, head: HeadKind, scheme: Scheme) -> None:
    model, (x, lengths) = build(variant, head, bidirectional=bidirectional), sample()
    calibrate(prepare(model, scheme), x, lengths)
    quantized = convert(model)
    integers = quantized.quantize_input(x.numpy())
    expected = oracle.run_batch(quantized, integers, lengths.tolist())

    noise = np.random.default_rng(0).integers(-quantized.input_limit, quantized.input_limit, integers.shape)
    valid = valid_steps(lengths, STEPS).numpy()[..., None]
    garbage: IntArray = np.where(valid, integers, noise.astype(integers.dtype))
    for name in BATCH_ENGINES:
        found = ENGINES[name].open_batch(quantized)(garbage, lengths.numpy())
        assert np.array_equal(found, expected), name

    with torch.no_grad():
        y, state = model.run(
            torch.cat([padded(x, lengths, value) for value in PADDINGS]), lengths.repeat(len(PADDINGS))
        )
        alone = [as_pair(model.run(x[row : row + 1, :length])[1]) for row, length in enumerate(lengths.tolist())]
    for part in y.reshape(len(PADDINGS), *expected.shape):
        assert np.array_equal(part.numpy(), quantized.dequantize_output(expected))
    for batched, singles in zip(as_pair(state), zip(*alone, strict=True), strict=True):
        assert torch.equal(batched, torch.cat(singles, dim=1).repeat(1, len(PADDINGS), 1))
    if not bidirectional:
        assert_state_is_the_kernels(quantized, state, integers, lengths)


def assert_state_is_the_kernels(model: QuantizedModel, state: Any, integers: IntArray, lengths: Tensor) -> None:
    """torch's state after a batch is the one the kernel gives back after each sequence alone."""
    for row, length in enumerate(lengths.tolist()):
        _, kernel = run(model, integers[row, :length])
        for name, spec in model.states.items():
            kind, _, layer = name.partition("_")
            real = as_pair(state)["hc".index(kind)][int(layer), row].numpy()
            assert np.array_equal(real, kernel[name] * np.float32(spec.scale)), (row, name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_without_a_head(variant: Variant, bidirectional: bool) -> None:
    model, (x, lengths) = build(variant, bidirectional=bidirectional), sample()
    calibrate(prepare(model), x, lengths)
    quantized = convert(model).without_head()
    integers = quantized.quantize_input(x.numpy())
    expected = oracle.run_batch(quantized, integers, lengths.tolist())
    for name in BATCH_ENGINES:
        assert np.array_equal(ENGINES[name].open_batch(quantized)(integers, lengths.numpy()), expected), name
    h = (as_pair(model.run(x, lengths)[1])[0][-1 - bidirectional :] / STATE_SCALE).detach().numpy()
    for row, length in enumerate(lengths.tolist()):  # the forward direction ends at the last valid step
        ends = [expected[row, length - 1, : h.shape[2]], expected[row, 0, h.shape[2] :]]
        assert all(np.array_equal(end, found) for end, found in zip(ends, h[:, row], strict=False))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_has_no_say_in_scales_and_gradients(variant: Variant, bidirectional: bool) -> None:
    x, lengths = sample()
    plain, garbage = padded(x, lengths, 0.0), padded(x, lengths, float("nan"))
    model = build(variant, "steps", bidirectional=bidirectional)
    models = [prepare(model), copy.deepcopy(model)]
    gradients = []
    for one, inputs in zip(models, (plain, garbage), strict=True):
        calibrate(one, inputs, lengths)
        torch.autograd.backward(one(inputs, lengths).square().sum())
        gradients.append([parameter.grad for parameter in one.parameters()])
    states = [one.state_dict() for one in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for a, b in zip(*gradients, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
