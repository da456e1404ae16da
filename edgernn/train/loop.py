"""fit: a plain training loop in phases (float, pruning ramp, integers), checkpointed after every epoch."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .._files import write_atomic
from ..data import Dataset, Split, split_validation
from ..metrics import evaluate as evaluate_kernel
from ..metrics import evaluate_integers
from ..nn import SequenceModel
from ..prune import sparsity
from ..quantize import calibrate, convert, is_prepared
from . import checkpoint
from .config import TrainConfig
from .losses import batch_loss, counted
from .metrics import evaluate
from .state import Best, History, Record, TrainingState, load_best

CHECKPOINT_NAME = "checkpoint.safetensors"
METRICS_NAME = "metrics.json"
_CALIBRATION_SEQUENCES = 512


def fit(
    model: SequenceModel,
    data: Dataset,
    config: TrainConfig | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train `model` in place on data.train, choose its best epoch, and measure it on data.test.

    The epochs pass through phases (see TrainConfig): float, the pruning ramp, then training in the device's integers.
    Only epochs of the last phase compete for the final weights; the one with the lowest loss on held-back training
    sequences wins, computed in integers when the model is prepared. The same config, data, model and thread count give
    the same weights.

    out: a folder for `checkpoint.safetensors` (rewritten after every epoch) and `metrics.json`. resume=True goes on
    from that checkpoint and ends with the weights of an unbroken run; a finished one is only measured again. Ctrl-C
    raises KeyboardInterrupt with a message; the last checkpoint stays usable. Regression targets of order one train
    best.

    Raises ValueError when model, data and config do not fit together, when training diverges, when `out` cannot be
    written, or when a checkpoint to resume from is missing, damaged or of another run.
    """
    config = TrainConfig() if config is None else config
    _check(model, data, config, resume, out)
    config.schedule.check(model)
    state = TrainingState.start(model, config)
    path = None if out is None else Path(out) / CHECKPOINT_NAME
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if path is not None:
            checkpoint.restore(path, state, data) if resume else checkpoint.save(path, state, data)
        _train(state, data, path, progress)
        history = _finish(state, data)
    if out is not None:
        metrics = history.metrics | {"history": history.epochs}
        write_atomic(Path(out) / METRICS_NAME, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return history


def _check(model: SequenceModel, data: Dataset, config: TrainConfig, resume: bool, out: str | Path | None) -> None:
    wanted: list[tuple[str, Any, type, str]] = [
        ("model", model, SequenceModel, "see SequenceModel and SequenceModel.from_float"),
        ("data", data, Dataset, "see edgernn.data.load"),
        ("config", config, TrainConfig, "see TrainConfig"),
    ]
    for name, value, kind, where in wanted:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be an edgernn {kind.__name__}, not {type(value).__name__}; {where}")
    facts = {
        "task": (model.task, data.task),
        "head": (model.head_kind, data.head),
        "input_size": (model.rnn.input_size, data.input_size),
        "output_size": (model.output_size, data.output_size),
    }
    for name, (of_model, of_data) in facts.items():
        if of_model != of_data:
            raise ValueError(f"the model's {name} is {of_model!r}, the data set {data.name!r} needs {of_data!r}")
    data.check_labels(model.labels)
    if config.quantization is not None:
        config.quantization.check_cell(model.cell)
    if model.head.weight.device.type != "cpu":
        raise ValueError(f"the model is on {model.head.weight.device}; fit trains on the CPU: call model.cpu() first")
    if resume and out is None:
        raise ValueError("resume needs out, the folder with the checkpoint")
    if is_prepared(model) and not resume:
        raise ValueError("the model is prepared for quantisation already; give fit the float model and qat='w8a8'")


def _train(state: TrainingState, data: Dataset, path: Path | None, progress: bool) -> None:
    config, train, validation = state.config, data.train, None
    if config.validation:
        train, validation = split_validation(data.train, config.validation, config.seed)
    bar = tqdm(total=config.epochs, initial=state.epoch, unit="epoch", disable=None if progress else True)
    try:
        with bar:
            while state.epoch < config.epochs:
                with _divergence(state, state.epoch):
                    record = _epoch(state, train, validation)
                state.records.append(record)
                state.epoch += 1
                if path is not None:
                    checkpoint.save(path, state, data)
                bar.set_postfix(_postfix(record), refresh=False)
                bar.update()
    except KeyboardInterrupt:
        kept = "" if path is None else f"; {path} holds the epochs before it, go on with resume=True"
        raise KeyboardInterrupt(f"interrupted in epoch {state.epoch + 1} of {config.epochs}{kept}") from None


def _epoch(state: TrainingState, train: Split, validation: Split | None) -> Record:
    started, config, model = time.perf_counter(), state.config, state.model
    phase = config.phase(state.epoch)
    if phase == "prune":
        config.schedule.apply_(model, (state.epoch + 1) / config.epochs)
    if phase == "qat" and not is_prepared(model):
        state.prepare()
        _calibrate(model, train)
    loss = _optimise(state, train)
    with state.average.applied(model):
        record = {"epoch": state.epoch, "phase": phase, "loss": loss, "sparsity": sparsity(model)["overall"]}
        return record | _validate(state, validation) | {"seconds": time.perf_counter() - started}


def _validate(state: TrainingState, validation: Split | None) -> Record:
    if validation is None:
        state.consider(-float(state.epoch))  # nothing to compare: the latest is kept
        return {}
    model = state.model
    if is_prepared(model):
        metrics = evaluate_kernel(convert(model), validation, flavour="tflm")  # that of the forward pass
    else:
        metrics = evaluate(model, validation)
    if not math.isfinite(metrics["loss"]):
        raise ValueError(f"validation loss {metrics['loss']}")
    state.consider(metrics["loss"])
    names = ("accuracy", "macro_f1", "mae", "rmse", "loss")
    return {"validation": {name: metrics[name] for name in names if name in metrics}}


def _calibrate(model: SequenceModel, train: Split) -> None:
    part = train.take(range(0, len(train), -(-len(train) // _CALIBRATION_SEQUENCES)))
    calibrate(model, torch.from_numpy(part.x), torch.from_numpy(part.lengths))


def _optimise(state: TrainingState, train: Split) -> float:
    """One pass over the training sequences in random order; the mean loss."""
    config, model, optimizer = state.config, state.model, state.optimizer
    x, lengths, y = (torch.from_numpy(array) for array in (train.x, train.lengths, train.y))
    batches = torch.split(torch.randperm(len(x), generator=state.shuffle), config.batch_size)
    total = 0.0
    model.train()
    for step, rows in enumerate(batches):
        rate = config.learning_rate_at((state.epoch + step / len(batches)) / config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        steps = int(lengths[rows].max())
        keep = counted(lengths[rows], steps, model.head_kind)
        targets = y[rows, :steps] if model.head_kind == "steps" else y[rows]
        inputs = _noisy(x[rows, :steps], state)
        loss = batch_loss(model(inputs, lengths[rows]), targets, keep, model.task)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        if not (math.isfinite(float(loss.detach())) and math.isfinite(float(norm))):
            raise ValueError(f"loss {float(loss.detach())}, gradient norm {float(norm)}")
        optimizer.step()
        state.average.update(model)
        total += float(loss.detach()) * len(rows)
    model.eval()
    return total / len(x)


def _noisy(x: Tensor, state: TrainingState) -> Tensor:
    """x with Gaussian noise of config.input_noise times each channel's standard deviation."""
    if not state.config.input_noise:
        return x
    return x + state.config.input_noise * state.model.input_std * torch.randn(x.shape, generator=state.shuffle)


@contextlib.contextmanager
def _divergence(state: TrainingState, epoch: int) -> Iterator[None]:
    """Say what helps: after the checks before training, a ValueError comes from numbers that have grown too large."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"training diverged in epoch {epoch + 1}: {error}; lower learning_rate (now "
            f"{state.config.learning_rate:g}) or clip_norm (now {state.config.clip_norm:g}), and check that the model "
            "normalises its input (input_mean, input_std)"
        ) from None


def _finish(state: TrainingState, data: Dataset) -> History:
    """Load the best weights into the model and measure everything on the test part."""
    assert state.best is not None
    assert state.best_float is not None
    model, config = state.model, state.config
    with _divergence(state, state.best.epoch):
        measured = _measure(state, data.test, state.best, state.best_float)
    seconds = dict.fromkeys(config.phases_used, 0.0)
    for record in state.records:
        seconds[record["phase"]] += record["seconds"]
    metrics = {
        "data": {"name": data.name, "train": len(data.train), "test": len(data.test)},
        "test": measured,
        "best_epoch": state.best.epoch,
        "sparsity": sparsity(model),
        "seconds": seconds,
        "config": config.as_dict(),
    }
    return History(deepcopy(state.records), metrics)


def _measure(state: TrainingState, test: Split, best: Best, best_float: Best) -> dict[str, Any]:
    """The metrics on `test` of the best weights in float and of the best ones of all, which the model keeps."""
    model, quantizer = state.model, state.model.quantizer
    load_best(model, best_float, None)
    measured = {"float": evaluate(model, test)}
    load_best(model, best, quantizer)
    if is_prepared(model):
        measured["fake_quant"] = evaluate(model, test)
        measured |= evaluate_integers(convert(model), test, "integer")
    elif state.config.prunes:
        measured["sparse"] = evaluate(model, test)
    for kind, metrics in measured.items():
        if not math.isfinite(metrics["loss"]):
            raise ValueError(f"test loss {metrics['loss']} ({kind})")
    return measured


def _postfix(record: Record) -> dict[str, Any]:
    shown: dict[str, Any] = {"phase": record["phase"], "loss": f"{record['loss']:.4f}"}
    for name, value in record.get("validation", {}).items():
        shown[f"val {name}"] = f"{value:.4f}"
    return shown
