"""eval: how good a model is in float, fake-quantised and in integers, side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import add_data, add_model, add_seed
from ._output import emit, progress, table

if TYPE_CHECKING:
    from ..data import Dataset

HELP = "measure float, fake-quantised and integer accuracy on the test part of a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, "(default: the data the model was trained on)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from ..engines import kernel, missing
    from ..metrics import evaluate, evaluate_integers
    from ..qmodel import QuantizedModel
    from ._models import float_file, headline, require_dataset

    quantized = QuantizedModel.load(args.model)
    dataset = require_dataset(args, quantized)
    path, notes = float_file(args.model, quantized)
    cure = None if path is None else missing("torch")
    absent = {} if cure is None else {"torch": cure}
    measured = {} if path is None or absent else _in_torch(args, path, dataset)
    with progress(args, "sequence") as report:
        if kernel().name == "numba":
            measured |= evaluate_integers(quantized, dataset.test, "integers", report)
        else:
            name = "integers" if quantized.profile == "portable" else f"integers_{kernel().flavour}"
            measured[name] = evaluate(quantized, dataset.test, report, run_batch=kernel().open_batch(quantized))

    first, show = headline(quantized.task)
    metrics = ("accuracy", "macro_f1", "loss") if quantized.task == "classification" else ("mae", "rmse", "loss")
    rows = [
        (name.replace("_", " "), *(show(values[metric]) if metric == first else values[metric] for metric in metrics))
        for name, values in measured.items()
    ]
    lines = [table((f"test part of {dataset.name}", *metrics), rows)]
    lines += notes
    if path is None and not notes:
        lines.append(f"no float model beside {args.model}: {args.model.with_suffix('.safetensors').name} is missing")
    lines += [f"not installed: {name}, which would add the float rows ({how})" for name, how in absent.items()]
    emit(args, "\n".join(lines), {"data": dataset.name, "models": measured, "missing": absent, "notes": notes})
    return 0


def _in_torch(args: argparse.Namespace, path: Path, dataset: "Dataset") -> dict[str, dict[str, Any]]:
    """The rows of the float model: in float, and fake-quantised where it was trained so."""
    from ..nn import SequenceModel
    from ..quantize import is_prepared
    from ..train import evaluate

    def measure() -> dict[str, Any]:
        with progress(args, "sequence") as report:
            return evaluate(model, dataset.test, report)

    model = SequenceModel.load(path)
    fake = {"fake-quantised": measure()} if is_prepared(model) else {}
    model.quantizer = None
    return {"float": measure()} | fake
