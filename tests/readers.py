"""Everything that reads a file from outside: good samples of its files, and what is to be had of one it accepts."""

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from edgernn._artifacts import read_artifact
from edgernn.export import float_to_onnx, to_onnx, to_tflite
from edgernn.firmware_sim import run
from edgernn.floatmodel import FloatModel
from edgernn.nn import SequenceModel
from edgernn.prune import prune_
from edgernn.qmodel import QuantizedModel
from edgernn.quantize import QuantConfig, calibrate, prepare
from edgernn.train import checkpoint, fit
from edgernn.train.loop import CHECKPOINT_NAME
from edgernn.train.state import TrainingState

from .forgery import Container
from .models import SCHEMES, VARIANTS, random_input, random_model
from .networks import build, sample
from .training import ALL_PHASES, CtrlC, some_data, some_model

DATA: Final = some_data()


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read. name: of such a file. share: how many of all the files attack it.

    contents: makes good samples. read: gives everything that it takes from a file. use: raises when a file that was
    forged and accepted is not kept entire, or does not run. container: it is a safetensors file with a checksum.
    """

    name: str
    share: float
    contents: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    use: Callable[[Path, Any], None]
    container: bool = True


def parts(value: Any) -> Any:
    """A value as nested lists that are equal when everything in it is equal, types included."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, value.tobytes()]
    if dataclasses.is_dataclass(value):
        return [type(value).__name__, *(parts(getattr(value, field.name)) for field in dataclasses.fields(value))]
    if isinstance(value, Mapping):
        return {key: parts(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [parts(entry) for entry in value]
    return [type(value).__name__, value]


def bytes_of(save: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def check_kept(path: Path, save: Callable[[Path], object]) -> None:
    """What was taken from the file, saved again, is the same file: nothing was left out and nothing made of it."""
    given, saved = Container.parse(path.read_bytes()), Container.parse(bytes_of(save))
    assert parts((saved.header, saved.tensors)) == parts((given.header, given.tensors)), "saved again it is another"


# ---- .ernn, and the states of its models -----------------------------------------------------------------------------


def quantized_models() -> list[QuantizedModel]:
    """Every cell and scheme, of one and of two layers and directions."""
    models = []
    for seed, (cell, scheme) in enumerate((cell, scheme) for cell in VARIANTS for scheme in SCHEMES):
        for layers, both in ((1, False), (2, False), (2, True)):
            head = ("last", "steps", None)[(seed + layers) % 3]
            sizes = {"input_size": 3, "hidden_size": 2 + seed, "layers": layers}
            model = random_model(seed, cell, scheme, head=head, bidirectional=both, **sizes)  # type: ignore[arg-type]
            provenance = {"data": "vowels", "seed": seed, "float_sha256": "0" * 64, "nested": {"ä": [1.5, None, True]}}
            models.append(dataclasses.replace(model, provenance=provenance))
    return models


def use_quantized(path: Path, model: QuantizedModel) -> None:
    check_kept(path, model.save)
    y, _ = run(model, random_input(model, 3, 0))
    assert y.dtype == model.output_dtype
    model.quantize_input(np.array([[0.0], [1.0], [-1e3]]) * np.ones(model.input_size))
    model.dequantize_output(y)


STREAMING: Final = random_model(5, "lstm", input_size=3, hidden_size=4, layers=2)


def states() -> list[bytes]:
    runs = [run(STREAMING, random_input(STREAMING, steps, steps))[1] for steps in (1, 7)]
    return [bytes_of(partial(STREAMING.save_state, state=state)) for state in runs]


def use_state(path: Path, state: Any) -> None:
    check_kept(path, partial(STREAMING.save_state, state=state))
    run(STREAMING, random_input(STREAMING, 3, 0), state)


# ---- model.safetensors -----------------------------------------------------------------------------------------------


def float_files() -> list[bytes]:
    """Every cell; pruned, with and without biases and dropout, with fixed and learned scales, of both directions."""
    models = [build(variant, layers=layers, size=3, inputs=2) for variant in VARIANTS for layers in (1, 2)]
    models += [build(variant, layers=2, size=3, inputs=2, bidirectional=True) for variant in VARIANTS]
    models += [some_model(DATA, "gru", 3, bias=False), some_model(DATA, "lstm", 3, num_layers=2, dropout=0.25)]
    prune_(models[3], 0.5, "4x1")
    for index, config in ((0, "w8a8"), (2, "w8a16"), (5, QuantConfig(learn_scales=True)), (8, "w8a8")):
        prepare(models[index], config)
        calibrate(models[index], *sample(inputs=2))
    return [bytes_of(partial(model.save, provenance={"seed": 1})) for model in models]


def use_float(path: Path, model: FloatModel) -> None:
    float_to_onnx(model)


def read_sequence(path: Path) -> list[Any]:
    model = SequenceModel.load(path)
    rnn, quantizer = model.rnn, model.quantizer
    sizes = [rnn.input_size, rnn.hidden_size, rnn.num_layers, rnn.bias, rnn.dropout, rnn.bidirectional]
    facts = [model.cell, model.output_size, model.head_kind, model.task, model.labels, getattr(rnn, "reset_after", 0)]
    return [*sizes, *facts, dict(model.state_dict()), None if quantizer is None else quantizer.config]


def use_sequence(path: Path, state: list[Any]) -> None:
    model = SequenceModel.load(path)
    check_kept(path, partial(model.save, provenance=Container.parse(path.read_bytes()).header["provenance"]))
    FloatModel.load(path)
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, model.rnn.input_size))
    except ValueError:  # scales that do not fit the weights, of which every forward pass makes integers
        assert model.quantizer is not None


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoints() -> list[bytes]:
    """Of the float phase, of the ramp, of QAT, and of a finished run."""
    return [bytes_of(partial(_train, passes=passes)) for passes in (5, 8, 14, 0)]


def _train(path: Path, passes: int) -> None:
    model = some_model(DATA)
    if passes:
        CtrlC(model, passes)
    with contextlib.suppress(KeyboardInterrupt):
        fit(model, DATA, ALL_PHASES, path.parent, progress=False)
    (path.parent / CHECKPOINT_NAME).rename(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    state = TrainingState.start(some_model(DATA), ALL_PHASES)
    with torch.random.fork_rng(devices=[]):
        checkpoint.restore(path, state, DATA)
        random = torch.get_rng_state()
    kept = {name: getattr(state, name) for name in ("epoch", "records", "best", "best_float", "average")}
    random_numbers = [random, state.shuffle.get_state()]
    return kept | {
        "prepared": state.model.quantizer is not None,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "random": random_numbers,
    }


def use_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """The training goes on to its end, or says that it cannot: forged weights may be such that numbers overflow."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        (Path(folder) / CHECKPOINT_NAME).write_bytes(path.read_bytes())
        try:
            fit(some_model(DATA), DATA, ALL_PHASES, folder, resume=True, progress=False)
        except ValueError as error:
            if "diverged" not in str(error):
                raise


# ---- exports ---------------------------------------------------------------------------------------------------------


def tflite_files() -> list[bytes]:
    files = [to_tflite(model) for model in quantized_models()[::5]]
    return files + [to_tflite(STREAMING, form) for form in ("sequence", "step", "stream")]


def onnx_files() -> list[bytes]:
    models = quantized_models()[::5]
    files = [to_onnx(model) for model in models] + [to_onnx(model, weights_only=True) for model in models]
    return [*files, to_onnx(STREAMING, "step"), float_to_onnx(_float_model())]


def _float_model() -> FloatModel:
    with tempfile.TemporaryDirectory() as folder:
        build("lstm").save(Path(folder) / "file")
        return FloatModel.load(Path(folder) / "file")


def use_artifact(path: Path, value: Any) -> None:
    """An export has no checksum: `verify` compares what is accepted here with the model."""


READERS: Final = {
    "QuantizedModel": Reader(
        "model.ernn",
        0.58,
        lambda: [bytes_of(model.save) for model in quantized_models()],
        QuantizedModel.load,
        use_quantized,
    ),
    "state": Reader("state.safetensors", 0.03, states, STREAMING.load_state, use_state),
    "FloatModel": Reader("model.safetensors", 0.13, float_files, FloatModel.load, use_float),
    "SequenceModel": Reader("model.safetensors", 0.12, float_files, read_sequence, use_sequence),
    "checkpoint": Reader("checkpoint.safetensors", 0.02, checkpoints, read_checkpoint, use_checkpoint),
    "tflite": Reader("model.tflite", 0.07, tflite_files, read_artifact, use_artifact, container=False),
    "onnx": Reader("model.onnx", 0.05, onnx_files, read_artifact, use_artifact, container=False),
}
