"""fit: repeatable, resumable to the bit in every phase, interruptible, and clear about what it cannot train."""

import copy
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgernn.data import Dataset, Split, load, normalisation
from edgernn.nn import GRU, LSTM, RNN, Recurrent, SequenceModel
from edgernn.prune import sparsity
from edgernn.quantize import convert, is_prepared, prepare
from edgernn.train import History, TrainConfig, evaluate, fit
from edgernn.train.losses import batch_loss, counted

SEED = 7
CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
ALL_PHASES = TrainConfig(epochs=5, batch_size=8, sparsity=0.5, qat="w8a8", seed=3)  # float, prune, prune, qat, qat


def some_data(task: str = "classification", head: str = "last", n: int = 24, steps: int = 6) -> Dataset:
    """Sequences whose label is the channel with the largest mean; the regression target is the running mean."""
    rng = np.random.default_rng(SEED)

    def split(count: int) -> Split:
        lengths = rng.integers(2, steps + 1, count)
        valid = (np.arange(steps) < lengths[:, None])[..., None]
        x = (rng.normal(size=(count, steps, 3)) * valid).astype(np.float32)
        running = np.cumsum(x, axis=1) / np.arange(1, steps + 1)[:, None]
        final = running[np.arange(count), lengths - 1]
        y: Any = running if head == "steps" else final
        if task == "regression":
            return Split(x, lengths, (y[..., :2] * (valid if head == "steps" else 1)).astype(np.float32))
        labels = y.argmax(axis=-1)
        return Split(x, lengths, np.where(valid[..., 0], labels, -1) if head == "steps" else labels)

    labels = ("a", "b", "c") if task == "classification" else ()
    return Dataset("toy", task, head, split(n), split(12), labels, ("u", "v", "w"), "made here")  # type: ignore[arg-type]


def some_model(data: Dataset, cell: str = "gru", hidden_size: int = 8, **options: Any) -> SequenceModel:
    torch.manual_seed(SEED)
    mean, std = normalisation(data.train)
    rnn = CELLS[cell](data.input_size, hidden_size, batch_first=True, **options)
    return SequenceModel(
        rnn, data.output_size, data.head, labels=data.labels, task=data.task, input_mean=mean, input_std=std
    )


def train(data: Dataset, config: TrainConfig, model: SequenceModel | None = None, **options: Any) -> SequenceModel:
    model = model or some_model(data)
    fit(model, data, config, progress=False, **options)
    return model


def same(a: SequenceModel, b: SequenceModel) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(np.array_equal(left[k].numpy(), right[k].numpy()) for k in left)


def without_times(history: History) -> tuple[Any, Any]:
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]
    return records, {k: v for k, v in history.metrics.items() if k != "seconds"}


class CtrlC:
    """Sends this process the real signal at the model's n-th forward pass in training."""

    def __init__(self, model: SequenceModel, after: int) -> None:
        self.left = after
        self.hook = model.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: Any) -> None:
        self.left -= module.training
        if self.left == 0 and module.training:
            self.hook.remove()
            signal.raise_signal(signal.SIGINT)


# ---- repeatable and resumable ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cell: str) -> None:
    data = some_data()
    config = replace(ALL_PHASES, epochs=3)
    first = train(data, config, some_model(data, cell))
    torch.manual_seed(999)  # the caller's random numbers do not matter
    assert same(first, train(data, config, some_model(data, cell)))
    assert not same(first, train(data, replace(config, seed=4), some_model(data, cell)))


def test_the_callers_random_numbers_are_left_alone() -> None:
    data = some_data()
    model = some_model(data, num_layers=2, dropout=0.5)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    train(data, TrainConfig(epochs=1), model)
    assert torch.equal(torch.rand(4), expected)


# Three batches an epoch: interrupted in the first epoch, in the ramp, at the start of QAT, and within QAT.
@pytest.mark.parametrize("after", [2, 5, 10, 14])
@pytest.mark.parametrize("fresh", [True, False], ids=["new process", "same object"])
def test_ctrl_c_then_resume_ends_as_an_unbroken_run(tmp_path: Path, after: int, fresh: bool) -> None:
    data = some_data()
    options: dict[str, Any] = {"num_layers": 2, "dropout": 0.25}
    unbroken = some_model(data, **options)
    expected = fit(unbroken, data, ALL_PHASES, progress=False)
    model = some_model(data, **options)
    CtrlC(model, after)
    with pytest.raises(KeyboardInterrupt, match=rf"interrupted in epoch {(after - 1) // 3 + 1} of 5; .* resume=True"):
        fit(model, data, ALL_PHASES, tmp_path, progress=False)
    model = some_model(data, **options) if fresh else model
    history = fit(model, data, ALL_PHASES, tmp_path, resume=True, progress=False)
    assert same(model, unbroken)
    assert without_times(history) == without_times(expected)


def test_a_finished_run_resumes_to_the_same_model_and_metrics(tmp_path: Path) -> None:
    data = some_data()
    model = train(data, ALL_PHASES, out=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    again = some_model(data)
    fit(again, data, ALL_PHASES, tmp_path, resume=True, progress=False)
    assert same(model, again)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_interrupted_without_a_folder_says_so() -> None:
    data = some_data()
    model = some_model(data)
    CtrlC(model, 1)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted in epoch 1 of 5$"):
        train(data, ALL_PHASES, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(ALL_PHASES, learning_rate=0.5)}, "another config: learning_rate was 0.01, now it is 0.5"),
        ({"config": replace(ALL_PHASES, qat=None)}, "another config: qat was 'w8a8', now it is None"),
        ({"data": some_data(n=25)}, "another data: train.x was"),
        ({"model": some_model(some_data(), hidden_size=9)}, "another model: hidden_size was 8, now it is 9"),
        ({"model": some_model(some_data(), cell="rnn")}, "another model: cell was 'gru', now it is 'rnn'"),
    ],
)
def test_resuming_another_run_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = some_data()
    train(data, ALL_PHASES, out=tmp_path)
    run: dict[str, Any] = {"model": some_model(data), "data": data, "config": ALL_PHASES} | change
    with pytest.raises(ValueError, match=message):
        fit(**run, out=tmp_path, resume=True, progress=False)


def test_a_missing_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    data = some_data()
    with pytest.raises(ValueError, match="nothing to resume"):
        train(data, ALL_PHASES, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs out"):
        train(data, ALL_PHASES, resume=True)
    train(data, ALL_PHASES, out=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        train(data, ALL_PHASES, out=tmp_path, resume=True)


# ---- phases ----------------------------------------------------------------------------------------------------------


def test_phases_follow_each_other_and_masks_stay(tmp_path: Path) -> None:
    data = some_data()
    model = some_model(data)
    history = fit(model, data, ALL_PHASES, tmp_path, progress=False)
    assert [record["phase"] for record in history.epochs] == ["float", "prune", "prune", "qat", "qat"]
    shares = [record["sparsity"] for record in history.epochs]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[2] == shares[4] == history.metrics["sparsity"]["overall"] == 0.5
    assert history.metrics["best_epoch"] in (3, 4)
    assert is_prepared(model)
    assert not model.training
    layer = convert(model).layers[0]
    for weight in (layer.input.weight, layer.recurrent.weight):
        blocks = weight.reshape(3, 8, -1)
        assert (blocks == 0).all(axis=0).mean() >= 0.5 * 0.9  # of the units' columns in all three gates
    assert sparsity(copy.deepcopy(model)) == sparsity(model)
    model.save(tmp_path / "model.safetensors")
    assert same(SequenceModel.load(tmp_path / "model.safetensors"), model)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["history"] == history.epochs
    assert written["config"]["qat"] == "w8a8"
    assert set(written["seconds"]) == {"float", "prune", "qat"}
    assert set(written["test"]) == {"float", "fake_quant", "integer"}


@pytest.mark.parametrize(
    ("config", "phases"),
    [
        (TrainConfig(epochs=2), ["float", "float"]),
        (TrainConfig(epochs=3, qat="w8a16"), ["float", "float", "qat"]),
        (TrainConfig(epochs=3, sparsity=0.5), ["float", "prune", "sparse"]),
        (TrainConfig(epochs=10, sparsity=0.5, qat="w8a8"), ["float"] * 2 + ["prune"] * 4 + ["qat"] * 4),
        (TrainConfig(epochs=3, block="element", gates={"z": 0.5}), ["float", "prune", "sparse"]),
        (TrainConfig(epochs=1), ["float"]),
        (TrainConfig(epochs=2, qat="w8a8"), ["float", "qat"]),
    ],
)
def test_every_phase_has_its_share_of_the_epochs(config: TrainConfig, phases: list[str]) -> None:
    assert [config.phase(epoch) for epoch in range(config.epochs)] == phases


@pytest.mark.parametrize("epochs", range(3, 40))
def test_the_full_sparsity_is_reached_before_the_last_phase(epochs: int) -> None:
    config = TrainConfig(epochs=epochs, sparsity=0.9, qat="w8a8")
    ramp = [epoch for epoch in range(epochs) if config.phase(epoch) == "prune"]
    assert config.phase(0) == "float"
    assert config.phase(epochs - 1) == "qat"
    assert config.schedule.factor((ramp[-1] + 1) / epochs) == 1.0
    assert config.schedule.factor(ramp[0] / epochs) == 0.0


def test_the_learning_rate_is_a_cosine() -> None:
    config = TrainConfig(learning_rate=0.3, final_learning_rate=0.1)
    assert np.allclose([config.learning_rate_at(p) for p in (0.0, 0.5, 1.0)], [0.3, 0.2, 0.1])


def test_without_validation_the_last_epoch_is_kept() -> None:
    data = some_data()
    history = fit(some_model(data), data, TrainConfig(epochs=3, validation=0.0), progress=False)
    assert history.metrics["best_epoch"] == 2
    assert all("validation" not in record for record in history.epochs)


def test_the_best_epoch_is_by_accuracy_then_loss() -> None:
    data = some_data()
    history = fit(some_model(data), data, TrainConfig(epochs=8, batch_size=4), progress=False)
    scores = [(record["validation"]["accuracy"], -record["validation"]["loss"]) for record in history.epochs]
    assert history.metrics["best_epoch"] == scores.index(max(scores))


@pytest.mark.parametrize("cell", CELLS)
def test_gates_can_be_pruned_apart(cell: str) -> None:
    data = some_data()
    gate = CELLS[cell].gates[-1]
    model = train(data, TrainConfig(epochs=3, block="4x1", gates={gate: 0.5}), some_model(data, cell))
    last = model.rnn.masks()["weight_hh_l0"].chunk(len(model.rnn.gates))[-1]
    assert float(last.float().mean()) == 0.5


# ---- what is measured ------------------------------------------------------------------------------------------------


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


def test_a_small_model_learns_the_vowels_in_integers() -> None:
    vowels = load("vowels")
    part = replace(vowels, test=vowels.test.take(range(0, len(vowels.test), 4)))
    model = some_model(part, hidden_size=16)
    history = fit(model, part, TrainConfig(epochs=12, qat="w8a8", seed=0), progress=False)
    assert history.metrics["test"]["integer"]["accuracy"] >= 0.85  # chance: 1 in 9


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite"),
        ({"final_learning_rate": float("inf")}, "final_learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"validation": 1.0}, r"validation must be a share in \[0, 1\)"),
        ({"sparsity": 1.0}, r"sparsity must be a share in \[0, 1\)"),
        ({"sparsity": 0.5, "block": "big"}, "unknown block 'big'"),
        ({"gates": {"r": 0.5}}, '"unit" block'),
        ({"qat": "w3a3"}, "unknown scheme w3a3"),
        ({"epochs": 2, "qat": "w8a8", "sparsity": 0.5}, "epochs=2 is too few: the phases float, prune, qat"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (some_data(head="steps"), "head is 'last', the data set 'toy' needs 'steps'"),
        (some_data("regression"), "task is 'classification', the data set 'toy' needs 'regression'"),
        (load("vowels"), "input_size is 3, the data set 'vowels' needs 12"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(other: Dataset, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(other, TrainConfig(epochs=1), some_model(some_data()))


def test_too_few_classes_in_the_model_are_refused() -> None:
    data = some_data()
    narrow = SequenceModel(GRU(3, 4, batch_first=True), 2)
    with pytest.raises(ValueError, match="output_size is 2, the data set 'toy' needs 3"):
        train(data, TrainConfig(epochs=1), narrow)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 1"):
        evaluate(narrow, data.test)
    with pytest.raises(ValueError, match="needs targets float32"):
        evaluate(SequenceModel(GRU(3, 4, batch_first=True), 3, task="regression"), data.test)
    with pytest.raises(ValueError, match="without a head"):
        evaluate(convert(train(data, TrainConfig(epochs=2, qat="w8a8"))).without_head(), data.test)


def test_unsound_data_do_not_get_as_far_as_training() -> None:
    train_part = some_data().train
    with pytest.raises(ValueError, match="NaN"):
        replace(train_part, x=np.where(train_part.x == train_part.x.max(), np.float32("nan"), train_part.x))
    with pytest.raises(ValueError, match="at least one sequence"):
        train_part.take([])
    data = some_data()
    with pytest.raises(ValueError, match="cannot be split in two"):
        train(replace(data, train=data.train.take([0])), TrainConfig(epochs=1))


def test_a_prepared_model_is_refused() -> None:
    data = some_data()
    with pytest.raises(ValueError, match="prepared for quantisation already"):
        train(data, TrainConfig(epochs=1), prepare(some_model(data)))


def test_a_model_elsewhere_than_on_the_cpu_is_refused() -> None:
    data = some_data()
    with pytest.raises(ValueError, match=r"the model is on meta; .* model\.cpu\(\)"):
        train(data, TrainConfig(epochs=1), some_model(data).to("meta"))


def test_divergence_is_reported_with_what_to_do() -> None:
    data = some_data("regression")
    huge = replace(data, train=replace(data.train, y=np.full_like(data.train.y, 3e38)))
    with pytest.raises(ValueError, match=r"diverged in epoch 1: .*lower learning_rate \(now 0.01\)"):
        train(huge, TrainConfig(epochs=1))


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    data = some_data()
    model = some_model(data)
    untrained = copy.deepcopy(model)
    with pytest.raises(ValueError, match="cannot write"):
        train(data, TrainConfig(epochs=1), model, out=tmp_path / "file" / "run")
    assert same(model, untrained)


def test_one_progress_bar_for_the_whole_run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = some_data()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fit(some_model(data), data, replace(ALL_PHASES, epochs=3), progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err
    assert "phase=qat" in shown.err
    fit(some_model(data), data, replace(ALL_PHASES, epochs=3), progress=False)
    assert capfd.readouterr().err == ""
