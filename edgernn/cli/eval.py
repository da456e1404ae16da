"""eval: how good a model is in float, fake-quantised and in integers, side by side."""

import argparse
from typing import Any

from ._options import add_data, add_model, add_seed
from ._output import emit, table

HELP = "measure float, fake-quantised and integer accuracy on the test part of a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, "(default: the data the model was trained on)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from ..nn import SequenceModel
    from ..qmodel import QuantizedModel
    from ..quantize import is_prepared
    from ..train import evaluate
    from ._models import float_file, headline, require_dataset

    quantized = QuantizedModel.load(args.model)
    dataset = require_dataset(args, quantized)
    path = float_file(args.model)
    measured: dict[str, dict[str, Any]] = {}
    if path is not None:
        model = SequenceModel.load(path)
        fake = evaluate(model, dataset.test) if is_prepared(model) else None
        model.quantizer = None
        measured["float"] = evaluate(model, dataset.test)
        if fake is not None:
            measured["fake-quantised"] = fake
    measured["integers"] = evaluate(quantized, dataset.test)

    first, show = headline(quantized.task)
    metrics = ("accuracy", "macro_f1", "loss") if quantized.task == "classification" else ("mae", "rmse", "loss")
    rows = [
        (name, *(show(values[metric]) if metric == first else values[metric] for metric in metrics))
        for name, values in measured.items()
    ]
    lines = [table((f"test part of {dataset.name}", *metrics), rows)]
    if path is None:
        lines.append(f"no float model beside {args.model}: {args.model.with_suffix('.safetensors').name} is missing")
    emit(args, "\n".join(lines), {"data": dataset.name, "models": measured})
    return 0
