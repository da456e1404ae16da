"""Float and weights-only ONNX files equal torch's modules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgernn.export.onnx import Form, float_to_onnx, to_onnx
from edgernn.floatmodel import FloatLayer, FloatModel
from edgernn.qmodel import Affine, Cell, HeadKind, QuantizedModel, Scheme

from .models import HEADS, SCHEMES, VARIANTS, Variant, random_input, random_model, with_directions
from .test_export_onnx import Array, Feeds, Runtime, check, run_ort, run_reference, session, with_normalisation

torch.set_num_threads(1)

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
PATTERNS = ([False, False], [True, True], [True, False])  # which of two layers are bidirectional
LENGTHS = np.array([13, 1, 6, 12], np.int32)


class TextbookGru(nn.GRU):
    """A layer of the GRU that torch does not have: the reset gate scales the state, not its product."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ways = [self._read(x, "")]
        last = [ways[0][-1]]
        if self.bidirectional:
            backward = self._read(x.flip(0), "_reverse")
            ways.append(backward.flip(0))
            last.append(backward[-1])
        return torch.cat(ways, dim=1), torch.stack(last)

    def _read(self, x: Tensor, suffix: str) -> Tensor:
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self, f"{part}_l0{suffix}") for part in PARTS)
        size, states = self.hidden_size, [x.new_zeros(self.hidden_size)]
        for gates in x @ weight_ih.T + bias_ih + bias_hh:
            h = states[-1]
            r, z = (gates[: 2 * size] + weight_hh[: 2 * size] @ h).sigmoid().split(size)
            n = (gates[2 * size :] + weight_hh[2 * size :] @ (r * h)).tanh()
            states.append((1 - z) * n + z * h)
        return torch.stack(states[1:])


MODULES: dict[Variant, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "gru_before": TextbookGru, "rnn": nn.RNN}


class Network(nn.Module):
    """What a float file computes after its normalisation, in float64, one sequence without padding at a time."""

    def __init__(
        self, cell: Variant, inputs: int, hidden: int, outputs: int, pattern: Sequence[bool], head: HeadKind | None
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for both in pattern:
            self.layers.append(MODULES[cell](inputs, hidden, bidirectional=both))
            inputs = hidden * (1 + both)
        self.dense = nn.Linear(inputs, outputs)
        self.head = head
        self.double()

    @torch.no_grad()
    def run(self, x: Array, lengths: Array) -> Array:
        rows = [self._one(torch.from_numpy(row[:end].astype(np.float64))) for row, end in zip(x, lengths, strict=True)]
        if self.head == "last":
            return np.stack(rows)
        y = np.zeros((*x.shape[:2], rows[0].shape[1]))
        for padded, row in zip(y, rows, strict=True):
            padded[: len(row)] = row
        return y

    def _one(self, x: Tensor) -> Array:
        last = x
        for layer in self.layers:
            x, state = layer(x)
            last = (state[0] if isinstance(layer, nn.LSTM) else state).flatten()
        read = last if self.head == "last" else x
        y: Array = (self.dense(read) if self.head else read).numpy()
        return y


def float_model(network: Network, mean: Array, std: Array) -> FloatModel:
    def layer(module: nn.RNNBase, suffix: str, backward: FloatLayer | None) -> FloatLayer:
        cell: Cell = "lstm" if isinstance(module, nn.LSTM) else "gru" if isinstance(module, nn.GRU) else "rnn"
        w_ih, w_hh, b_ih, b_hh = (getattr(module, f"{part}_l0{suffix}").detach().float().numpy() for part in PARTS)
        return FloatLayer(cell, not isinstance(module, TextbookGru), w_ih, w_hh, b_ih, b_hh, backward)

    modules: list[Any] = list(network.layers)
    layers = [layer(one, "", layer(one, "_reverse", None) if one.bidirectional else None) for one in modules]
    dense = [value.detach().float().numpy() for value in (network.dense.weight, network.dense.bias)]
    labels = tuple(f"class {i}" for i in range(len(dense[1])))
    assert network.head is not None
    return FloatModel(tuple(layers), network.head, dense[0], dense[1], mean, std, labels, "classification")


def random_float_model(
    seed: int, cell: Variant, head: HeadKind, pattern: Sequence[bool] = PATTERNS[0]
) -> tuple[Network, FloatModel, Array]:
    """A network of torch, the same as FloatModel, and raw inputs [4, 13, 5] for it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Network(cell, 5, 11, 3, pattern, head)
    for name, parameter in network.named_parameters():
        parameter.data = (parameter.data * (2 if "layers" in name else 1)).float().double()
    mean, std = rng.normal(0, 3, 5).astype(np.float32), rng.uniform(0.5, 4, 5).astype(np.float32)
    x = (rng.normal(0, 1, (4, 13, 5)) * std + mean).astype(np.float32)
    return network, float_model(network, mean, std), x


def check_float_file(content: bytes, x: Array, want: Array) -> None:
    """The file's outputs of x [4, 13, ..] with LENGTHS, whatever x is beyond them."""
    check(content)
    loaded = session(content)
    y = loaded.run(None, {"x": x, "lengths": LENGTHS})[0]
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    for padding in (np.nan, np.inf, -1e30):
        padded = np.where(np.arange(13)[None, :, None] < LENGTHS[:, None, None], x, np.float32(padding))
        assert np.array_equal(loaded.run(None, {"x": padded, "lengths": LENGTHS})[0], y), f"padding {padding}"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("cell", VARIANTS)
def test_float_file_equals_torch(cell: Variant, head: HeadKind, pattern: list[bool]) -> None:
    network, model, x = random_float_model(81, cell, head, pattern)
    check_float_file(float_to_onnx(model), x, network.run((x - model.input_mean) / model.input_std, LENGTHS))


def loop_steps(content: bytes, x: Array, run: Runtime) -> Array:
    """All outputs [N, T, ..] of a float step file from states of zero."""
    check(content)
    inputs = onnx.load_from_string(content).graph.input
    sizes = {i.name: i.type.tensor_type.shape.dim[1].dim_value for i in inputs if i.name != "x"}
    states: Feeds = {name: np.zeros((len(x), size), np.float32) for name, size in sizes.items()}
    ys = []
    for t in range(x.shape[1]):
        out = run(content, {"x": x[:, t], **states})
        states = {name: out[f"{name}_out"] for name in states}
        ys.append(out["y"])
    return np.stack(ys, axis=1)


@pytest.mark.parametrize("run", [run_ort, run_reference])
@pytest.mark.parametrize("cell", VARIANTS)
def test_looped_float_step_equals_torch(cell: Variant, run: Runtime) -> None:
    network, model, x = random_float_model(82, cell, "steps")
    want = network.run((x - model.input_mean) / model.input_std, np.full(4, 13))
    np.testing.assert_allclose(loop_steps(float_to_onnx(model, "step"), x, run), want, rtol=0, atol=1e-5)


def dequantised_torch(model: QuantizedModel, cell: Variant) -> Network:
    """Torch's modules with the integers' real values; its input is integer * scale, with the zero point left in.

    Layer 0's bias holds -zero_point * sum(weights), and so it expects the input like that.
    """
    pattern = [layer.backward is not None for layer in model.layers]
    sizes = (model.input_size, model.layers[0].hidden_size, model.output_size)
    network = Network(cell, *sizes, pattern, model.head.kind if model.head else None)
    for layer, module in zip(model.layers, network.layers, strict=True):
        for suffix, direction in zip(("", "_reverse"), layer.directions, strict=False):
            for name, affine in (("ih", direction.input), ("hh", direction.recurrent)):
                weight, bias = real(affine)
                getattr(module, f"weight_{name}_l0{suffix}").data = weight
                getattr(module, f"bias_{name}_l0{suffix}").data = bias
    if model.head is not None:
        network.dense.weight.data, network.dense.bias.data = real(model.head.dense)
    return network


def real(affine: Affine) -> tuple[Tensor, Tensor]:
    scale = affine.weight_scale.astype(np.float64)
    return torch.from_numpy(affine.weight * scale[:, None]), torch.from_numpy(affine.bias * scale * affine.input_scale)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", VARIANTS)
def test_weights_only_file_equals_torch(
    cell: Variant, head: HeadKind | None, scheme: Scheme, pattern: list[bool]
) -> None:
    zero_point = -128 if head else 127
    sizes: dict[str, Any] = {"layers": 2, "hidden_size": 9, "input_size": 4, "input_zero_point": zero_point}
    made = random_model(91, cell, scheme, head=head, bidirectional=True, **sizes)
    model = with_normalisation(with_directions(made, pattern), 91)
    integers = random_input(model, 13, 91, (4,)).astype(np.float64)
    x = (integers - model.input_zero_point) * model.input_scale * model.input_std + model.input_mean
    network = dequantised_torch(model, cell)
    want = network.run(integers * model.input_scale, LENGTHS)
    check_float_file(to_onnx(model, weights_only=True), x.astype(np.float32), want)
    if model.every_step and not model.bidirectional:
        y = loop_steps(to_onnx(model, "step", weights_only=True), x.astype(np.float32), run_ort)
        want = network.run(integers * model.input_scale, np.full(4, 13))
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("cell", VARIANTS)
def test_an_empty_sequence_leaves_the_state_zero(cell: Variant, pattern: list[bool]) -> None:
    network, model, x = random_float_model(101, cell, "last", pattern)
    lengths = np.array([0, 13, 0, 5], np.int32)
    y = run_ort(float_to_onnx(model), {"x": x, "lengths": lengths})["y"]
    assert np.array_equal(y[[0, 2]], np.stack([model.head_bias] * 2))
    want = network.run((x - model.input_mean) / model.input_std, np.maximum(lengths, 1))
    np.testing.assert_allclose(y[[1, 3]], want[[1, 3]], rtol=0, atol=1e-5)


def test_other_forms_are_refused() -> None:
    stream: Form = "stream"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="unknown form 'stream'"):
        float_to_onnx(random_float_model(105, "gru", "last")[1], stream)
    with pytest.raises(ValueError, match="a bidirectional model reads whole sequences"):
        float_to_onnx(random_float_model(105, "gru", "last", PATTERNS[1])[1], "step")
