"""Opening what the command line names: models, data sets, and the files beside a model."""

import argparse
import hashlib
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._output import percent

if TYPE_CHECKING:
    from ..data import Dataset
    from ..qmodel import QuantizedModel


FLOAT_KEY: Final = "float_sha256"  # in a .ernn's provenance


# The ends of the names of what `export` and `build` make of a .ernn
EXPORTS: Final = (
    ".tflite",
    "_step.tflite",
    "_stream.tflite",
    "_T[0-9]*.tflite",
    "_B[0-9]*.tflite",
    ".onnx",
    "_step.onnx",
    "_weights.onnx",
    ".so",
    ".dylib",
    ".dll",
)


def remove_derived(model_file: Path, *endings: str) -> list[str]:
    """Remove what was made of a model that is about to be replaced, so that it never lies beside one it was not made
    of; a note on what that was."""
    folder, stem = model_file.parent, escape(model_file.stem)
    found = [path for end in endings for path in sorted(folder.glob(f"{stem}{end}")) if path.is_file()]
    for path in found:
        path.unlink()
    return [f"{folder}: removed {', '.join(path.name for path in found)} of the former model"] if found else []


def find_dataset(args: argparse.Namespace, model: "QuantizedModel") -> "Dataset | None":
    """The data set named by --data; or else the one the model was trained on, split as it was then, if it is here.

    Raises ValueError when it is unknown, or does not fit the model's inputs.
    """
    from ..data import NAMES, load

    trained_on = model.provenance.get("data")
    chosen = args.data or trained_on
    if not isinstance(chosen, str) or (not args.data and chosen not in NAMES and not Path(chosen).exists()):
        return None
    seed = model.provenance.get("seed", args.seed) if chosen == trained_on else args.seed
    dataset = load(chosen, seed)
    if dataset.input_size != model.input_size:
        raise ValueError(f"the data {chosen} have {dataset.input_size} channels, the model needs {model.input_size}")
    dataset.check_labels(model.labels)
    return dataset


def require_dataset(args: argparse.Namespace, model: "QuantizedModel") -> "Dataset":
    """`find_dataset`, with targets that fit the model too. Raises ValueError, also when no data set is at hand."""
    dataset = find_dataset(args, model)
    if dataset is None:
        known = model.provenance.get("data")
        why = f"{known} is not here" if known else "the model does not say which data it was trained on"
        raise ValueError(f"{why}; name the data with --data")
    check_model_fits(dataset, model)
    return dataset


def check_model_fits(dataset: "Dataset", model: "QuantizedModel") -> None:
    """`check_fit` of a quantised model."""
    head = "steps" if model.every_step else "last"
    check_fit(dataset, model.input_size, model.output_size, model.task, head, model.labels)


def check_fit(
    dataset: "Dataset", input_size: int, output_size: int, task: str, head: str, labels: tuple[str, ...]
) -> None:
    """Raise ValueError unless the data set has a model's inputs, targets and class names."""
    data = (dataset.input_size, dataset.output_size, dataset.task, dataset.head)
    if data != (input_size, output_size, task, head):
        found, needed = (
            f"{i} channels, {o} outputs, {t}, {h}" for i, o, t, h in (data, (input_size, output_size, task, head))
        )
        raise ValueError(f"the data {dataset.name} ({found}) do not fit the model ({needed})")
    dataset.check_labels(labels)


def headline(task: str) -> tuple[str, Callable[[float], str]]:
    """The metric that is shown first for a task, and how."""
    return ("accuracy", percent) if task == "classification" else ("mae", lambda value: f"{value:.5g}")


def float_file(path: Path, model: "QuantizedModel") -> tuple[Path | None, list[str]]:
    """(the float model beside a quantised one, if it is the one it was made from; notes on one that is not)."""
    beside = path.with_suffix(".safetensors")
    if not beside.is_file():
        return None, []
    recorded = model.provenance.get(FLOAT_KEY)
    if recorded == sha256(beside):
        return beside, []
    why = "is of another model" if recorded else f"may be of another model ({path.name} does not say)"
    return None, [f"{beside.name} beside it {why}: float figures are left out"]


def sha256(path: Path) -> str:
    """The checksum of a float model's file, by which the integers made from it know it again."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def check_folder(folder: Path) -> None:
    """Make the folder, before work that takes long. Raises ValueError when it cannot be made or written into."""
    import os

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror}; choose another folder with -o") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"cannot write into {folder}: permission denied; choose another folder with -o")
