"""quantize: a trained float model becomes integers, with ranges measured on sample data (PTQ)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import add_data, add_model, add_profile, add_seed
from ._output import emit, table

if TYPE_CHECKING:
    from ..nn import SequenceModel
    from ..qmodel import QuantizedModel

HELP = "turn a trained float model into integers without further training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "a float model (.safetensors)")
    add_data(parser, "its training part calibrates, its test part is reported", required=True)
    parser.add_argument("--scheme", choices=("w8a8", "w8a16"), default="w8a8", help="bits (default w8a8)")
    add_profile(parser)
    parser.add_argument("--method", choices=("minmax", "percentile", "mse"), default="minmax", help="range of values")
    parser.add_argument("--per-tensor", action="store_true", help="one weight scale a matrix, not one a row")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the .ernn to write (default beside MODEL)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from ..data import load
    from ..metrics import evaluate_integers
    from ..nn import SequenceModel
    from ..quantize import QuantConfig, calibrate, convert, is_prepared, prepare
    from ..train import evaluate
    from ._models import EXPORTS, FLOAT_KEY, check_fit, headline, remove_derived, sha256

    model = SequenceModel.load(args.model)
    if is_prepared(model):
        raise ValueError(f"{args.model}: already quantised in training; its integers are in the .ernn beside it")
    dataset = load(args.data, args.seed)
    check_fit(dataset, model.rnn.input_size, model.output_size, model.task, model.head_kind, model.labels)
    before = evaluate(model, dataset.test)
    prepare(model, QuantConfig.parse(args.scheme, per_channel=not args.per_tensor, profile=args.profile))
    calibrate(model, torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.lengths), args.method)
    made_by = {"data": args.data, "seed": args.seed, "quantized": f"after training, {args.method}"}
    notes = _shrunk_rows(model) if args.profile == "tflite-lstm" else []
    quantized = convert(model, made_by | {FLOAT_KEY: sha256(args.model)})
    output = args.output or args.model.with_suffix(".ernn")
    notes += [] if _is_same(output, quantized) else remove_derived(output, *EXPORTS)
    quantized.save(output)
    after = evaluate_integers(quantized, dataset.test, "integers")
    name, show = headline(model.task)
    rows = [("float", show(before[name]))]
    for kind, measured in after.items():
        rows.append((" ".join(["integers", args.scheme, *kind.split("_")[1:]]), show(measured[name])))
    lines = [table(("model", f"test {name}"), rows), f"wrote {output}", *notes]
    emit(args, "\n".join(lines), {"path": str(output), "float": before, **after, "notes": notes})
    return 0


def _shrunk_rows(model: "SequenceModel") -> list[str]:
    """A note on the rows of recurrent weights that TensorFlow Lite's operator has smaller than the float model."""
    from .._tflite_lstm import OPERATOR_REACH

    names = [name for name in model.rnn.weight_names() if name.startswith("weight_hh")]
    sums = [size for name in names for size in model.rnn.effective(name).detach().abs().sum(dim=1).tolist()]
    shrunk = sum(size > OPERATOR_REACH for size in sums)
    if not shrunk:
        return []
    return [f"{shrunk} of {len(sums)} rows of recurrent weights were shrunk until they add up to 8, as int16 needs it"]


def _is_same(path: Path, model: "QuantizedModel") -> bool:
    """Whether the file holds this model, or there is none."""
    from ..qmodel import QuantizedModel

    try:
        return not path.exists() or QuantizedModel.load(path).fingerprint == model.fingerprint
    except ValueError:
        return False
