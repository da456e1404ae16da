"""train: data in, a trained, pruned and quantised model out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import add_data, add_profile, add_seed, fraction, gates, noise, positive_float, positive_int
from ._output import emit, percent, table

if TYPE_CHECKING:
    from ..data import Dataset
    from ..nn import SequenceModel
    from ..train import TrainConfig

HELP = "train a model, with pruning and quantisation-aware training where asked for"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser, "vowels, battery, ecg, or a folder of your own (default vowels)")
    parser.set_defaults(data="vowels")
    parser.add_argument("--cell", choices=("gru", "lstm", "rnn"), default="gru", help="recurrent cell (default gru)")
    parser.add_argument("--hidden", type=positive_int, default=32, metavar="N", help="units a layer (default 32)")
    parser.add_argument("--layers", type=positive_int, default=1, metavar="N", help="stacked layers (default 1)")
    parser.add_argument("--reset-before", action="store_true", help="GRU: reset the state, not the product")
    parser.add_argument(
        "--bidirectional", action="store_true", help="read sequences backwards too: no single steps, no streams"
    )
    parser.add_argument("--dropout", type=fraction, default=0.0, metavar="P", help="between layers (default 0)")
    parser.add_argument("--qat", choices=("w8a8", "w8a16", "none"), default="w8a8", help="integers (default w8a8)")
    add_profile(parser)
    parser.add_argument("--per-tensor", action="store_true", help="one weight scale a matrix, not one a row")
    parser.add_argument("--learn-scales", action="store_true", help="train the scales with the weights")
    parser.add_argument(
        "--sparsity", type=fraction, default=0.0, metavar="S", help="share of weights pruned (default 0)"
    )
    parser.add_argument("--gates", type=gates, metavar="G=S,..", help="shares of single gates, such as r=0.5,z=0.9")
    parser.add_argument("--block", default="unit", help="unit, element, or ROWSxCOLUMNS (default unit)")
    parser.add_argument("--epochs", type=positive_int, default=60, metavar="N", help="(default 60)")
    parser.add_argument("--batch-size", type=positive_int, default=32, metavar="N", help="(default 32)")
    parser.add_argument("--learning-rate", type=positive_float, default=0.01, metavar="LR", help="(default 0.01)")
    parser.add_argument(
        "--noise",
        type=noise,
        default=0.0,
        metavar="S",
        help="noise added to inputs in training, in standard deviations (default 0; helps small data sets)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder (default runs/DATA-CELL-SIZE)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from .._files import write_atomic
    from ..data import load
    from ..quantize import convert
    from ..train import fit
    from ._models import EXPORTS, FLOAT_KEY, check_folder, remove_derived, sha256

    _check(args)
    config = _config(args)
    dataset = load(args.data, args.seed)
    model = _build(args, dataset)
    config.schedule.check(model)
    folder = args.output or Path("runs") / _name(args)
    notes = []
    if not args.resume:
        check_folder(folder)
        notes += _unfinished(folder)
        if notes and not (args.quiet or args.json):
            print(*notes, flush=True)  # before hours of work are overwritten
    try:
        history = fit(model, dataset, config, folder, args.resume, progress=not (args.quiet or args.json))
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(str(interrupt).replace("resume=True", "--resume")) from None
    except ValueError as error:
        raise ValueError(str(error).replace("without resume", "without --resume")) from None
    provenance = {"data": args.data, "seed": args.seed, "epochs": args.epochs}
    path, content = folder / "model.safetensors", model.to_bytes(provenance)
    same = path.is_file() and path.read_bytes() == content
    removed = [] if same else remove_derived(path, ".ernn", "_float.*", *EXPORTS)  # first, see remove_derived
    write_atomic(path, content)
    files = ["model.safetensors"]
    if config.qat is not None:
        provenance[FLOAT_KEY] = sha256(path)
        convert(model, provenance).save(folder / "model.ernn")
        files.append("model.ernn")
    sizes = {name: (folder / name).stat().st_size for name in files}
    metrics = history.metrics
    found = metrics | {"output": str(folder), "bytes": sizes, "notes": notes + removed}
    emit(args, "\n".join([_text(metrics, sizes, dataset, folder), *removed]), found)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go together, in the words of the command line."""
    if args.reset_before and args.cell != "gru":
        raise ValueError(f"--reset-before is a GRU variant, the cell is {args.cell}")
    if args.dropout and args.layers == 1:
        raise ValueError("--dropout acts between layers; give --layers 2 or more")
    other = args.profile != "portable"
    schemes = "w8a8" if other else "w8a8 or w8a16"
    for name, given in (
        ("--per-tensor", args.per_tensor),
        ("--learn-scales", args.learn_scales),
        (f"--profile {args.profile}", other),
    ):
        if given and args.qat == "none":
            raise ValueError(f"{name} is about integers; give --qat {schemes} with it, or leave it out")
    if other and args.cell != "lstm":
        raise ValueError(f"--profile {args.profile} is for LSTMs; give --cell lstm with it, not {args.cell}")
    if other and args.qat != "w8a8":
        raise ValueError(f"--profile {args.profile} has 8-bit activations; give --qat w8a8 with it, not {args.qat}")
    if args.gates and args.block == "unit":
        raise ValueError("--gates needs --block element or ROWSxCOLUMNS such as 4x1: a unit block spans all gates")


def _name(args: argparse.Namespace) -> str:
    """Of the default folder: vowels-gru-32, vowels-gru-before-2x32-bidirectional, vowels-lstm-32-tflite-lstm."""
    size = f"{args.layers}x{args.hidden}" if args.layers > 1 else f"{args.hidden}"
    cell = f"{args.cell}{'-before' if args.reset_before else ''}"
    profile = "" if args.profile == "portable" else f"-{args.profile}"
    return f"{Path(args.data).name}-{cell}-{size}{'-bidirectional' if args.bidirectional else ''}{profile}"


def _unfinished(folder: Path) -> list[str]:
    """A note when the folder holds a training that stopped half-way, which the new one overwrites."""
    from ..train.checkpoint import epochs_done
    from ..train.loop import CHECKPOINT_NAME

    done, epochs = epochs_done(folder / CHECKPOINT_NAME)
    if not 0 < done < epochs:
        return []
    return [f"{folder}: overwriting a training stopped after epoch {done} of {epochs} (--resume would have gone on)"]


def _config(args: argparse.Namespace) -> "TrainConfig":
    from ..train import TrainConfig

    return TrainConfig(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        input_noise=args.noise,
        seed=args.seed,
        qat=None if args.qat == "none" else args.qat,
        per_channel=not args.per_tensor,
        learn_scales=args.learn_scales,
        profile=args.profile,
        sparsity=args.sparsity,
        block=args.block,
        gates=args.gates,
    )


def _build(args: argparse.Namespace, dataset: "Dataset") -> "SequenceModel":
    import torch

    from ..data import normalisation
    from ..nn import GRU, LSTM, RNN, SequenceModel

    torch.set_num_threads(1)  # no slower on networks this small, and the weights do not depend on the number of cores
    torch.manual_seed(args.seed)
    options: dict[str, Any] = {
        "num_layers": args.layers,
        "dropout": args.dropout,
        "bidirectional": args.bidirectional,
        "batch_first": True,
    }
    if args.cell == "gru":
        rnn = GRU(dataset.input_size, args.hidden, reset_after=not args.reset_before, **options)
    else:
        rnn = {"lstm": LSTM, "rnn": RNN}[args.cell](dataset.input_size, args.hidden, **options)
    mean, std = normalisation(dataset.train)
    return SequenceModel(
        rnn,
        dataset.output_size,
        dataset.head,
        labels=dataset.labels,
        task=dataset.task,
        input_mean=mean,
        input_std=std,
    )


def _text(metrics: dict[str, Any], sizes: dict[str, int], dataset: "Dataset", folder: Path) -> str:
    from ._models import headline

    name, show = headline(dataset.task)
    titles = {
        "float": "float phase",
        "sparse": "float, pruned",
        "fake_quant": "fake-quantised",
        "integer": "integers",
        "integer_litert": "integers litert",
        "integer_tflm": "integers tflm",
        "integer_cmsis": "integers cmsis",
    }
    rows = [(titles[kind], show(measured[name])) for kind, measured in metrics["test"].items()]
    lines = [table(("model", f"test {name}"), rows), ""]
    lines.append(f"zeros among the recurrent layers' weights: {percent(metrics['sparsity']['overall'])}")
    lines += [f"wrote {folder / file} ({size:,} bytes)" for file, size in sizes.items()]
    return "\n".join(lines)
