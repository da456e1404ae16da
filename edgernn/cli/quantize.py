"""quantize: a trained float model becomes integers, with ranges measured on sample data (PTQ)."""

import argparse
from pathlib import Path

from ._options import add_data, add_model, add_seed
from ._output import emit, table

HELP = "turn a trained float model into integers without further training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "a float model (.safetensors)")
    add_data(parser, "its training part calibrates, its test part is reported", required=True)
    parser.add_argument("--scheme", choices=("w8a8", "w8a16"), default="w8a8", help="bits (default w8a8)")
    parser.add_argument("--method", choices=("minmax", "percentile", "mse"), default="minmax", help="range of values")
    parser.add_argument("--per-tensor", action="store_true", help="one weight scale a matrix, not one a row")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the .ernn to write (default beside MODEL)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from ..data import load
    from ..nn import SequenceModel
    from ..quantize import QuantConfig, calibrate, convert, is_prepared, prepare
    from ..train import evaluate
    from ._models import FLOAT_KEY, check_fit, headline, sha256

    model = SequenceModel.load(args.model)
    if is_prepared(model):
        raise ValueError(f"{args.model}: already quantised in training; its integers are in the .ernn beside it")
    dataset = load(args.data, args.seed)
    check_fit(dataset, model.rnn.input_size, model.output_size, model.task, model.head_kind, model.labels)
    before = evaluate(model, dataset.test)
    prepare(model, QuantConfig.parse(args.scheme, per_channel=not args.per_tensor))
    calibrate(model, torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.lengths), args.method)
    made_by = {"data": args.data, "seed": args.seed, "quantized": f"after training, {args.method}"}
    quantized = convert(model, made_by | {FLOAT_KEY: sha256(args.model)})
    output = args.output or args.model.with_suffix(".ernn")
    quantized.save(output)
    after = evaluate(quantized, dataset.test)
    name, show = headline(model.task)
    rows = [("float", show(before[name])), (f"integers {args.scheme}", show(after[name]))]
    text = f"{table(('model', f'test {name}'), rows)}\nwrote {output}"
    emit(args, text, {"path": str(output), "float": before, "integers": after})
    return 0
