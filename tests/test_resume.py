"""fit is repeatable, resumable to the bit in every phase, and interruptible."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgernn.train import TrainConfig, fit

from .training import ALL_PHASES, CELLS, CtrlC, same, some_data, some_model, train, without_times


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
@pytest.mark.parametrize("config", [ALL_PHASES, replace(ALL_PHASES, learn_scales=True)], ids=["", "learned scales"])
def test_ctrl_c_then_resume_ends_as_an_unbroken_run(
    tmp_path: Path, config: TrainConfig, after: int, fresh: bool
) -> None:
    data = some_data()
    options: dict[str, Any] = {"num_layers": 2, "dropout": 0.25}
    unbroken = some_model(data, **options)
    expected = fit(unbroken, data, config, progress=False)
    model = some_model(data, **options)
    CtrlC(model, after)
    with pytest.raises(KeyboardInterrupt, match=rf"interrupted in epoch {(after - 1) // 3 + 1} of 5; .* resume=True"):
        fit(model, data, config, tmp_path, progress=False)
    model = some_model(data, **options) if fresh else model
    history = fit(model, data, config, tmp_path, resume=True, progress=False)
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
        (
            {"config": replace(ALL_PHASES, learn_scales=True)},
            "another config: learn_scales was False, now it is True",
        ),
        ({"data": some_data(n=25)}, "another data: train.x was"),
        ({"model": some_model(some_data(), hidden_size=9)}, "another model: hidden_size was 8, now it is 9"),
        ({"model": some_model(some_data(), cell="rnn")}, "another model: cell was 'gru', now it is 'rnn'"),
        (
            {"model": some_model(some_data(), bidirectional=True)},
            "another model: bidirectional was False, now it is True",
        ),
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
