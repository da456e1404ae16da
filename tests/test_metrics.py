"""What is measured: metrics and losses by hand, NumPy's loss against torch's, integers against fake quantisation."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn import metrics
from edgernn.data import Dataset, Split
from edgernn.nn import GRU, SequenceModel
from edgernn.qmodel import HeadKind, Task
from edgernn.quantize import convert
from edgernn.train import TrainConfig, evaluate, fit
from edgernn.train.losses import batch_loss, counted

from . import oracle
from .models import random_model
from .training import CELLS, SEED, some_data, some_model, train


@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_fake_quantised_and_integer_metrics_agree_exactly(task: str, head: str) -> None:
    data = some_data(task, head)
    model = some_model(data)
    before = evaluate(model, data.train)["loss"]
    history = fit(model, data, TrainConfig(epochs=6, batch_size=4, qat="w8a8"), progress=False)
    test = history.metrics["test"]
    assert test["integer"] == test["fake_quant"] == evaluate(convert(model), data.test)
    assert evaluate(model, data.train)["loss"] < before
    expected = {"loss", "count"} | ({"accuracy", "macro_f1", "f1"} if task == "classification" else {"mae", "rmse"})
    assert set(test["float"]) == expected
    assert test["float"]["count"] == (12 if head == "last" else int(data.test.lengths.sum()))


@pytest.mark.parametrize("options", [{"learn_scales": True}, {"per_channel": False}], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_they_agree_whatever_the_scales(cell: str, options: dict[str, bool]) -> None:
    data = some_data(head="steps")
    config = TrainConfig(epochs=5, batch_size=4, sparsity=0.5, qat="w8a8", **options)  # type: ignore[arg-type]
    model = some_model(data, cell)
    test = fit(model, data, config, progress=False).metrics["test"]
    assert test["integer"] == test["fake_quant"] == metrics.evaluate(convert(model), data.test)


@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_integers_are_measured_as_the_oracle_computes_them(task: Task, head: HeadKind) -> None:
    split = some_data(task, head).test
    outputs = 3 if task == "classification" else 2
    model = replace(random_model(SEED, input_size=3, head=head, output_size=outputs), task=task, labels=())
    values, truth = [], []
    for x, length, y in zip(split.x, split.lengths, split.y, strict=True):
        found = model.dequantize_output(oracle.run(model, model.quantize_input(x[:length])))
        values += list(found) if head == "steps" else [found]
        truth += list(y[:length]) if head == "steps" else [y]
    measured = metrics.evaluate(model, split)
    assert measured["count"] == len(values)
    if task == "classification":
        right = [int(np.argmax(value)) == label for value, label in zip(values, truth, strict=True)]
        assert measured["accuracy"] == sum(right) / len(right)
    else:
        errors = np.abs(np.array(values, np.float64) - np.array(truth))
        assert measured["mae"] == pytest.approx(errors.sum() / errors.size, rel=1e-12)


class Fixed(SequenceModel):
    """Gives the outputs it is told."""

    outputs: Tensor

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.outputs


def fixed(data: Dataset, outputs: Any) -> Fixed:
    mold = Fixed(GRU(3, 2, batch_first=True), data.output_size, data.head, task=data.task)
    mold.outputs = torch.tensor(outputs)
    return mold


def test_classification_metrics_by_hand() -> None:
    data = some_data()
    split = replace(data.test.take(range(4)), y=np.array([0, 0, 1, 1]))
    outputs = [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]  # predicted 0, 1, 1, 1 (a tie)
    found = evaluate(fixed(data, outputs), split)
    assert found["accuracy"] == 0.75
    assert found["f1"] == [2 / 3, 4 / 5, None]
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, rel=1e-15)
    assert found["count"] == 4


def test_regression_metrics_by_hand_leave_padding_out() -> None:
    data = some_data("regression", "steps")
    x = np.zeros((1, 3, 3), np.float32)
    split = Split(x, np.array([2]), np.array([[[1, 2], [3, 4], [0, 0]]], np.float32))
    found = evaluate(fixed(data, [[[2.0, 2.0], [0.0, 4.0], [9.0, 9.0]]]), split)
    assert (found["mae"], found["rmse"], found["loss"], found["count"]) == (1.0, np.sqrt(2.5), 2.5, 2)


def test_losses_by_hand() -> None:
    outputs = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [7.0, 7.0]]])
    keep = counted(torch.tensor([2, 1]), 2, "steps")
    assert keep.tolist() == [[True, True], [True, False]]
    labels = torch.tensor([[0, 0], [1, -1]])
    expected = (np.log(2) + np.log(1 + np.exp(-1)) + np.log(1 + np.exp(-2))) / 3
    assert float(batch_loss(outputs, labels, keep, "classification")) == pytest.approx(expected, rel=1e-6)
    values = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert float(batch_loss(outputs, values, keep, "regression")) == pytest.approx((1 + 4) / 6, rel=1e-6)
    everything = counted(torch.tensor([1, 2]), 2, "last")
    assert float(batch_loss(outputs[:, 0], torch.tensor([1, 1]), everything, "classification")) == pytest.approx(
        (np.log(2) + np.log(1 + np.exp(-2))) / 2, rel=1e-6
    )


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_loss_is_that_of_training(task: Task, head: HeadKind, size: float) -> None:
    """Large logits, whose exponentials overflow, too."""
    split = some_data(task, head).train
    rng = np.random.default_rng(SEED)
    shape = split.x.shape[: 2 if head == "steps" else 1]
    outputs = size * rng.normal(size=(*shape, 3 if task == "classification" else 2))
    keep = counted(torch.from_numpy(split.lengths), split.x.shape[1], head)
    y = torch.from_numpy(split.y)
    expected = batch_loss(torch.from_numpy(outputs), y if task == "classification" else y.double(), keep, task)
    found = metrics.measure([outputs], split, task, head)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-12)
    assert found["count"] == int(keep.sum())


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_padding_changes_neither_loss_nor_gradients(task: str, quantised: bool) -> None:
    data = some_data(task, "steps")
    model = some_model(data)
    if quantised:
        model = train(data, TrainConfig(epochs=2, qat="w8a8"), model)
    x, lengths, y = (torch.from_numpy(a.copy()) for a in (data.train.x, data.train.lengths, data.train.y))
    padded = ~torch.from_numpy(data.train.valid)

    def measure() -> tuple[Tensor, list[Tensor]]:
        loss = batch_loss(model(x, lengths), y, counted(lengths, x.shape[1], "steps"), model.task)
        parameters = list(model.parameters())
        return loss, list(torch.autograd.grad(loss, parameters))

    loss, gradients = measure()
    x[padded] = 1e3
    y[padded] = 2 if task == "classification" else 1e6
    changed, changed_gradients = measure()
    assert torch.equal(loss, changed)
    assert all(torch.equal(a, b) for a, b in zip(gradients, changed_gradients, strict=True))
