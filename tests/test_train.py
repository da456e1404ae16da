"""fit: its phases, what they leave behind, and clear words about what it cannot train."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgernn._files import read_tensors
from edgernn.data import Dataset, load
from edgernn.nn import GRU, SequenceModel
from edgernn.prune import sparsity
from edgernn.quantize import convert, is_prepared, prepare
from edgernn.train import TrainConfig, evaluate, fit
from edgernn.train.averaging import Average
from edgernn.train.loop import _noisy
from edgernn.train.state import TrainingState

from .training import ALL_PHASES, CELLS, same, some_data, some_model, train

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


def test_the_best_epoch_has_the_lowest_validation_loss() -> None:
    data = some_data()
    history = fit(some_model(data), data, TrainConfig(epochs=8, batch_size=4), progress=False)
    losses = [record["validation"]["loss"] for record in history.epochs]
    assert history.metrics["best_epoch"] == losses.index(min(losses))


@pytest.mark.parametrize("cell", CELLS)
def test_gates_can_be_pruned_apart(cell: str) -> None:
    data = some_data()
    gate = CELLS[cell].gates[-1]
    model = train(data, TrainConfig(epochs=3, block="4x1", gates={gate: 0.5}), some_model(data, cell))
    last = model.rnn.masks()["weight_hh_l0"].chunk(len(model.rnn.gates))[-1]
    assert float(last.float().mean()) == 0.5


def test_a_small_model_learns_the_vowels_in_integers() -> None:
    vowels = load("vowels")
    part = replace(vowels, test=vowels.test.take(range(0, len(vowels.test), 4)))
    model = some_model(part, hidden_size=16)
    history = fit(model, part, TrainConfig(epochs=12, qat="w8a8", seed=0), progress=False)
    assert history.metrics["test"]["integer"]["accuracy"] >= 0.85  # chance: 1 in 9


@pytest.mark.parametrize("cell", CELLS)
def test_scales_are_learned_one_a_matrix(cell: str) -> None:
    data = some_data()
    config = TrainConfig(epochs=4, batch_size=8, qat="w8a16", per_channel=False, learn_scales=True)
    model = some_model(data, cell)
    history = fit(model, data, config, progress=False)
    assert (history.metrics["config"]["per_channel"], history.metrics["config"]["learn_scales"]) == (False, True)
    quantized = convert(model)
    layer = quantized.layers[0]
    assert quantized.scheme == "w8a16"
    for name, affine in (("weight_ih_l0", layer.input), ("weight_hh_l0", layer.recurrent)):
        assert len(set(affine.weight_scale.tolist())) == 1
        follows = (
            float(model.rnn.effective(name).detach().abs().max()) / 127
        )  # where it would be if it were not learned
        assert abs(float(affine.weight_scale[0]) / follows - 1) > 1e-3


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
        ({"ema_decay": 1.0}, r"ema_decay must be a share in \[0, 1\)"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63"),
        ({"learning_rate": None}, "learning_rate must be positive and finite, not None"),
        ({"learning_rate": "a"}, "learning_rate must be positive and finite, not 'a'"),
        ({"clip_norm": True}, "clip_norm must be positive and finite, not True"),
        ({"weight_decay": [0]}, "weight_decay must be finite and not negative"),
        ({"validation": "x"}, r"validation must be a share in \[0, 1\), not 'x'"),
        ({"qat": 8}, "qat must be None or the name of a scheme such as 'w8a8', not 8"),
        ({"qat": "w8a8", "per_channel": "no"}, "per_channel must be True or False, not 'no'"),
        ({"gates": 0.5}, "gates must be None or shares by gate"),
        ({"input_noise": -0.1}, r"input_noise must be 0 \.\. 10, not -0.1"),
        ({"input_noise": 1e30}, r"input_noise must be 0 \.\. 10, not 1e\+30"),
        ({"validation": 1.0}, r"validation must be a share in \[0, 1\)"),
        ({"sparsity": 1.0}, r"sparsity must be a share in \[0, 1\)"),
        ({"sparsity": 0.5, "block": "big"}, "unknown block 'big'"),
        ({"gates": {"r": 0.5}}, '"unit" block'),
        ({"qat": "w3a3"}, "unknown scheme w3a3"),
        ({"per_channel": False}, "per_channel=False and learn_scales go with qat"),
        ({"learn_scales": True}, "per_channel=False and learn_scales go with qat"),
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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(epochs=3, block="element", gates={"f": 0.5}), "GRU has no gate 'f'; it has r, z, n"),
        (TrainConfig(epochs=3, block="3x1", gates={"z": 0.5}), "block 3x1 would straddle two gates"),
    ],
)
def test_pruning_that_does_not_fit_the_model_is_refused_before_training(
    tmp_path: Path, config: TrainConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(some_data(), config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_classes_in_the_model_are_refused() -> None:
    data = some_data()
    narrow = SequenceModel(GRU(3, 4, batch_first=True), 2)
    with pytest.raises(ValueError, match="output_size is 2, the data set 'toy' needs 3"):
        train(data, TrainConfig(epochs=1), narrow)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 1"):
        evaluate(narrow, data.test)
    part = data.test.take(range(4))
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 2, the model's classes; found -1 \.\. 2"):
        evaluate(some_model(data), replace(part, y=np.array([0, -1, 1, 2])))
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.LSTM(3, 4)}, "model must be an edgernn SequenceModel, not LSTM; .*from_float"),
        ({"data": "vowels"}, "data must be an edgernn Dataset, not str; see edgernn.data.load"),
        ({"config": {"epochs": 3}}, "config must be an edgernn TrainConfig, not dict"),
    ],
)
def test_foreign_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    data = some_data()
    given: dict[str, Any] = {"model": some_model(data), "data": data, "config": TrainConfig(epochs=1)}
    with pytest.raises(ValueError, match=message):
        fit(**given | change)


def test_other_class_names_are_refused() -> None:
    data = some_data()
    with pytest.raises(ValueError, match=r"data toy \(c, b, a\) are not those of the model \(a, b, c\)"):
        train(replace(data, labels=("c", "b", "a")), TrainConfig(epochs=1), some_model(data))


@pytest.mark.parametrize("validation", [0.25, 0.0])
def test_numbers_too_large_for_integers_are_a_divergence(validation: float) -> None:
    """Weights that float32 still holds, but whose scales no requantisation reaches."""
    data = some_data()
    config = TrainConfig(epochs=2, qat="w8a8", learning_rate=1e15, final_learning_rate=1e15, validation=validation)
    with pytest.raises(ValueError, match=r"diverged in epoch 2: .*; lower learning_rate \(now 1e\+15\)"):
        train(data, config)


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


def test_input_noise_follows_the_spread_of_each_channel() -> None:
    data = some_data()
    model = some_model(data)
    model.input_std.copy_(torch.tensor([1.0, 10.0, 0.1]))
    state = TrainingState.start(model, TrainConfig(input_noise=0.5, seed=1))
    x = torch.zeros(200, 50, 3)
    noise = _noisy(x, state)
    torch.testing.assert_close(noise.std(dim=(0, 1)), torch.tensor([0.5, 5.0, 0.05]), rtol=0.05, atol=0)
    assert torch.equal(_noisy(x, TrainingState.start(model, TrainConfig(seed=1))), x)
    assert not torch.equal(_noisy(x, state), noise)


def test_the_average_is_the_exponential_moving_one() -> None:
    model, expected = torch.nn.Linear(2, 1, bias=False), None
    average = Average(0.5)
    for step, value in enumerate((1.0, 3.0, -2.0, 8.0, 4.0)):
        torch.nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    with average.applied(model):
        assert model.weight.tolist() == [[pytest.approx(expected)] * 2]
    assert model.weight.tolist() == [[4.0, 4.0]]


def test_the_kept_weights_are_the_average_of_those_trained(tmp_path: Path) -> None:
    data = some_data()
    ends = []
    for decay in (0.0, 0.9):
        model = train(data, TrainConfig(epochs=4, validation=0.0, ema_decay=decay), out=tmp_path / str(decay))
        tensors, _ = read_tensors(tmp_path / str(decay) / "checkpoint.safetensors", "edgernn.training_checkpoint")
        ends.append((model.rnn.weight_hh_l0.detach().numpy(), tensors["model.rnn.weight_hh_l0"]))
    (plain, trained), (averaged, trained_again) = ends
    assert np.array_equal(plain, trained)
    assert np.array_equal(trained, trained_again)  # averaging does not touch the path of the optimiser
    assert not np.array_equal(averaged, trained)
