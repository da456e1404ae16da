"""Float and weights-only ONNX files equal torch's modules."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgernn.export.onnx import float_to_onnx, to_onnx
from edgernn.floatmodel import FloatLayer, FloatModel
from edgernn.qmodel import Affine, Cell, HeadKind, QuantizedModel, Scheme

from .models import SCHEMES, Variant, random_input, random_model
from .test_export_onnx import Array, Feeds, Runtime, check, run_ort, run_reference, with_normalisation

torch.set_num_threads(1)

TORCH: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Network(nn.Module):
    """What a float file computes after its normalisation, with torch's own modules."""

    def __init__(self, cell: Cell, inputs: int, hidden: int, outputs: int, layers: int, head: HeadKind) -> None:
        super().__init__()
        self.rnn = TORCH[cell](inputs, hidden, num_layers=layers, batch_first=True)
        self.dense = nn.Linear(hidden, outputs)
        self.head = head

    @torch.no_grad()
    def run(self, x: Array, lengths: Array) -> Array:
        tensor = torch.from_numpy(np.asarray(x, np.float32))
        packed = nn.utils.rnn.pack_padded_sequence(tensor, torch.from_numpy(lengths).long(), True, False)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], True, total_length=x.shape[1])
        valid = torch.arange(x.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        y = self.dense(hidden) * valid[:, :, None]
        result: Array = (
            y if self.head == "steps" else y[torch.arange(len(x)), torch.from_numpy(lengths).long() - 1]
        ).numpy()
        return result

    def set_weights(self, **weights: Array) -> None:
        for name, value in weights.items():
            getattr(self.rnn, name).data = torch.from_numpy(np.asarray(value, np.float32))


def float_model(network: Network, cell: Cell, mean: Array, std: Array, reset_after: bool = True) -> FloatModel:
    weights = {name: value.detach().numpy() for name, value in network.rnn.named_parameters()}
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layers = [
        FloatLayer(cell, reset_after, *(weights[f"{part}_l{index}"] for part in parts))
        for index in range(network.rnn.num_layers)
    ]
    dense = [value.detach().numpy() for value in (network.dense.weight, network.dense.bias)]
    labels = tuple(f"class {i}" for i in range(len(dense[1])))
    return FloatModel(tuple(layers), network.head, dense[0], dense[1], mean, std, labels, "classification")


def random_float_model(
    seed: int, cell: Cell, head: HeadKind, reset_after: bool = True
) -> tuple[Network, FloatModel, Array]:
    """A network of torch, the same as FloatModel, and raw inputs [4, 13, 5] for it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Network(cell, 5, 11, 3, 2, head)
    for parameter in network.rnn.parameters():
        parameter.data *= 2
    mean, std = rng.normal(0, 3, 5).astype(np.float32), rng.uniform(0.5, 4, 5).astype(np.float32)
    x = (rng.normal(0, 1, (4, 13, 5)) * std + mean).astype(np.float32)
    return network, float_model(network, cell, mean, std, reset_after), x


LENGTHS = np.array([13, 1, 6, 12], np.int32)


@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_float_file_equals_torch(cell: Cell, head: HeadKind) -> None:
    network, model, x = random_float_model(81, cell, head)
    content = float_to_onnx(model)
    check(content)
    y = run_ort(content, {"x": x, "lengths": LENGTHS})["y"]
    np.testing.assert_allclose(y, network.run((x - model.input_mean) / model.input_std, LENGTHS), rtol=0, atol=1e-5)


def loop_steps(content: bytes, x: Array, run: Runtime) -> Array:
    """All outputs [N, T, ..] of a float step file from states of zero."""
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
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_looped_float_step_equals_torch(cell: Cell, run: Runtime) -> None:
    network, model, x = random_float_model(82, cell, "steps")
    content = float_to_onnx(model, "step")
    check(content)
    want = network.run((x - model.input_mean) / model.input_std, np.full(4, 13))
    np.testing.assert_allclose(loop_steps(content, x, run), want, rtol=0, atol=1e-5)


def textbook_gru(model: FloatModel, x: Array) -> Array:
    """[N, T, outputs] of a GRU whose reset gate comes before the matrix product, which torch does not have."""
    sequence = (np.asarray(x, np.float64) - model.input_mean) / model.input_std
    for layer in model.layers:
        size, states = layer.hidden_size, []
        h = np.zeros((len(x), size))
        for t in range(x.shape[1]):
            gates = sequence[:, t] @ layer.weight_ih.T + layer.bias_ih + layer.bias_hh
            rz = gates[:, : 2 * size] + h @ layer.weight_hh[: 2 * size].T
            r, z = np.split(1 / (1 + np.exp(-rz)), 2, axis=1)
            n = np.tanh(gates[:, 2 * size :] + (r * h) @ layer.weight_hh[2 * size :].T)
            h = (1 - z) * n + z * h
            states.append(h)
        sequence = np.stack(states, axis=1)
    result: Array = sequence @ model.head_weight.T + model.head_bias
    return result


def test_float_gru_with_the_reset_before_the_product() -> None:
    _, model, x = random_float_model(83, "gru", "steps", reset_after=False)
    want = textbook_gru(model, x)
    y = run_ort(float_to_onnx(model), {"x": x, "lengths": np.full(4, 13, np.int32)})["y"]
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(loop_steps(float_to_onnx(model, "step"), x, run_ort), want, rtol=0, atol=1e-5)


def dequantised_torch(model: QuantizedModel) -> Network:
    """Torch's modules with the integers' real values; its input is integer * scale, with the zero point left in.

    Layer 0's bias holds -zero_point * sum(weights), and so it expects the input like that.
    """
    assert model.head is not None
    first = model.layers[0]
    sizes = (model.input_size, first.hidden_size, model.output_size, len(model.layers))
    network = Network(first.cell, *sizes, model.head.kind)
    for index, layer in enumerate(model.layers):
        for name, affine in (("ih", layer.input), ("hh", layer.recurrent)):
            weight, bias = real(affine)
            network.set_weights(**{f"weight_{name}_l{index}": weight, f"bias_{name}_l{index}": bias})
    network.dense.weight.data, network.dense.bias.data = (
        torch.from_numpy(value.astype(np.float32)) for value in real(model.head.dense)
    )
    return network


def real(affine: Affine) -> tuple[Array, Array]:
    scale = affine.weight_scale.astype(np.float64)
    return affine.weight * scale[:, None], affine.bias * scale * affine.input_scale


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_weights_only_file_equals_torch(cell: Variant, head: HeadKind, scheme: Scheme) -> None:
    model = with_normalisation(random_model(91, cell, scheme, head=head, layers=2, hidden_size=9, input_size=4), 91)
    assert scheme == "w8a16" or model.input_zero_point != 0
    integers = random_input(model, 13, 91, (4,)).astype(np.float64)
    raw = (integers - model.input_zero_point) * model.input_scale * model.input_std + model.input_mean
    want = dequantised_torch(model).run(integers * model.input_scale, LENGTHS)
    content = to_onnx(model, weights_only=True)
    check(content)
    y = run_ort(content, {"x": raw.astype(np.float32), "lengths": LENGTHS})["y"]
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
    if head == "steps":
        content = to_onnx(model, "step", weights_only=True)
        check(content)
        whole = run_ort(
            to_onnx(model, weights_only=True), {"x": raw.astype(np.float32), "lengths": np.full(4, 13, np.int32)}
        )
        np.testing.assert_allclose(loop_steps(content, raw.astype(np.float32), run_ort), whole["y"], rtol=0, atol=1e-5)


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown form 'stream'"):
        float_to_onnx(random_float_model(105, "gru", "last")[1], "stream")  # type: ignore[arg-type]
