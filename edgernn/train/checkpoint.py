"""Checkpoints: one safetensors file with a JSON header after every epoch, from which a run goes on bit for bit."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .._files import Tensors, checksum, parsing, read_tensors, typed, write_tensors
from ..data import Dataset
from ..nn import SequenceModel
from ..quantize import is_prepared
from .state import Best, TrainingState, make_optimizer, strip

FILE_FORMAT: Final = "edgernn.training_checkpoint"


def save(path: Path, state: TrainingState, data: Dataset) -> None:
    """Write the state between two epochs, atomically. Raises ValueError when the place cannot be written."""
    write_tensors(path, *_content(state, identity(state, data)))


def restore(path: Path, state: TrainingState, data: Dataset) -> None:
    """Bring a freshly started state, and torch's random numbers, to where the checkpoint left them.

    Raises ValueError when there is no checkpoint, when it is damaged, or when it is of another config, model or data
    (naming what differs).
    """
    if not path.is_file():
        raise ValueError(f"nothing to resume: there is no {path}; train without resume first")
    tensors, header = read_tensors(path, FILE_FORMAT)
    known = identity(state, data)
    with parsing(path):
        _check_identity(header, known)
        _restore(state, tensors, header)
        _check_progress(state)
        _check_weights(state)
        if checksum(*_content(state, known)) != checksum(tensors, header):
            raise ValueError("does not hold what a checkpoint needs; train anew")


def _content(state: TrainingState, identity: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header of a checkpoint."""
    tensors = _prefixed("model.", state.model.state_dict())
    bests = {"best": state.best, "best_float": state.best_float}
    for name, best in bests.items():
        tensors |= {} if best is None else _prefixed(f"{name}.", best.weights)
    tensors |= _prefixed("average.", state.average.values)
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer.{index}.", moments)
    tensors |= _prefixed("rng.", {"shuffle": state.shuffle.get_state(), "torch": torch.get_rng_state()})
    return tensors, {
        "format": FILE_FORMAT,
        "epoch": state.epoch,
        "prepared": is_prepared(state.model),
        "records": state.records,
        "averaged_steps": state.average.steps,
        "bests": {name: None if best is None else [best.epoch, best.loss] for name, best in bests.items()},
        **identity,
    }


def epochs_done(path: Path) -> tuple[int, int]:
    """(epochs done, epochs in all) of the run that left a checkpoint; zeros where there is none that can be read."""
    try:
        header = read_tensors(path, FILE_FORMAT)[1]
        return int(header["epoch"]), int(header["config"]["epochs"])
    except (ValueError, KeyError, TypeError):
        return 0, 0


def identity(state: TrainingState, data: Dataset) -> dict[str, dict[str, Any]]:
    """What must be the same for a run to go on: config, model and data, by field."""
    arrays = {
        f"{part}.{name}": getattr(getattr(data, part), name)
        for part in ("train", "test")
        for name in ("x", "lengths", "y")
    }
    return {
        "config": state.config.as_dict(),
        "model": _description(state.model),
        "data": {"name": data.name, "labels": list(data.labels)} | {n: _digest(array) for n, array in arrays.items()},
    }


def _description(model: SequenceModel) -> dict[str, Any]:
    rnn = model.rnn
    return {
        "cell": model.cell,
        "input_size": rnn.input_size,
        "hidden_size": rnn.hidden_size,
        "num_layers": rnn.num_layers,
        "bias": rnn.bias,
        "dropout": rnn.dropout,
        "bidirectional": rnn.bidirectional,
        "reset_after": getattr(rnn, "reset_after", True),
        "output_size": model.output_size,
    }


def _digest(array: "np.ndarray[Any, Any]") -> str:
    return f"{array.dtype} {list(array.shape)} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def _check_identity(header: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, fields in now.items():
        for name, value in fields.items():
            if header[kind][name] != value:
                raise ValueError(
                    f"made with another {kind}: {name} was {header[kind][name]!r}, now it is {value!r}; "
                    "resume with the same, or train without resume"
                )


def _restore(state: TrainingState, tensors: Tensors, header: Mapping[str, Any]) -> None:
    strip(state.model)
    if header["prepared"]:
        state.prepare()
    else:
        state.optimizer = make_optimizer(state.model, state.config)  # without scales that were learned after this epoch
    state.model.load_state_dict(_taken("model.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _taken("optimizer.", tensors).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    state.average.values, state.average.steps = _taken("average.", tensors), header["averaged_steps"]
    random = _taken("rng.", tensors)
    state.shuffle.set_state(random["shuffle"])
    torch.set_rng_state(random["torch"])
    state.epoch, state.records = header["epoch"], typed(header["records"], list)
    for name, entry in header["bests"].items():
        if entry is not None:
            epoch, loss = entry
            setattr(state, name, Best(typed(epoch, int), typed(loss, float), _taken(f"{name}.", tensors)))


def _check_progress(state: TrainingState) -> None:
    """Raise ValueError unless epochs, records and best weights are those of a training that came this far."""
    config, done = state.config, typed(state.epoch, int)
    if not 0 <= done <= config.epochs or typed(state.average.steps, int) < 0:
        raise ValueError(f"{done} epochs of {config.epochs} and {state.average.steps} steps cannot be done")
    wanted = [(epoch, config.phase(epoch), float) for epoch in range(done)]
    if [(record["epoch"], record["phase"], type(record["seconds"])) for record in state.records] != wanted:
        raise ValueError(f"the records are not those of {done} epochs")
    final = done > 0 and config.phase(done - 1) == config.phases_used[-1]
    if (state.best is not None, state.best_float is not None) != (final, done > 0):
        raise ValueError(f"the best weights are missing, or of a phase that has not begun after {done} epochs")


def _check_weights(state: TrainingState) -> None:
    """Raise ValueError unless all weights that are kept, and the optimiser's moments, fit the model."""
    weights = state.model.state_dict()
    plain = {name: value for name, value in weights.items() if not name.startswith("quantizer.")}
    plain = {name: value for name, value in plain.items() if not name.endswith("_mask")}
    kept = [(state.best, weights), (state.best_float, plain)]
    pairs = [(best.weights, expected) for best, expected in kept if best is not None]
    if state.epoch:
        pairs.append((state.average.values, dict(state.model.named_parameters())))
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for index, moments in state.optimizer.state_dict()["state"].items():
        like = parameters[index]
        pairs.append((moments, {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like}))
        if not 1 <= float(moments["step"]) <= state.average.steps:
            raise ValueError(f"the optimiser has done {float(moments['step'])} steps of {state.average.steps}")
    for found, expected in pairs:
        if _shapes(found) != _shapes(expected):
            raise ValueError("the weights it keeps do not have the shapes of this model's; train anew")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (value.dtype, value.shape) for name, value in tensors.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: value.detach().cpu().numpy() for name, value in tensors.items()}


def _taken(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    found = {name: array for name, array in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): torch.from_numpy(array) for name, array in found.items()}
