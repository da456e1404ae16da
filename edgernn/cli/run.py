"""run: rows of numbers in, a prediction a row out. What a Raspberry Pi runs."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import add_model
from ._output import json_line

if TYPE_CHECKING:
    from ..engines import Engine
    from ..qmodel import IntArray, QuantizedModel

QUIET = "no effect: predictions and errors are all it prints"
JSON = "print one JSON object a row"
HELP = "predict from the rows of a CSV, a .npy or stdin, one step and one line at a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a .csv or .npy file of rows, or - for CSV rows from stdin; bidirectional models predict at its end",
    )
    parser.add_argument("--engine", default="numba", metavar="E", help="engine that computes (default numba)")
    parser.add_argument("--last", action="store_true", help="print the last prediction alone")


def run(args: argparse.Namespace) -> int:
    from ..engines import select
    from ..qmodel import QuantizedModel

    model = QuantizedModel.load(args.model)
    predict = _classify if model.task == "classification" and model.head is not None else _values
    result: dict[str, Any] | None = None
    for y in _outputs(select([args.engine])[0], model, _inputs(model, args.input)):
        result = predict(model, y)
        if not args.last:
            _print(args, result)
    if result is None:
        raise ValueError(f"{_name(args.input)}: holds no rows of numbers")
    if args.last:
        _print(args, result)
    return 0


def _outputs(engine: "Engine", model: "QuantizedModel", rows: "Iterator[IntArray]") -> "Iterator[IntArray]":
    """The output after every row; a bidirectional model reads all rows before it gives its outputs, or its only one."""
    import numpy as np

    if not model.bidirectional:
        yield from map(engine.stream(model).step, rows)
        return
    x = list(rows)
    if x:
        y = engine.run(model, np.stack(x))
        yield from y if model.every_step else [y]


def _inputs(model: "QuantizedModel", source: str) -> "Iterator[IntArray]":
    """The rows as input integers [input_size]."""
    for number, row in enumerate(_rows(source), 1):
        if len(row) != model.input_size:
            found = f"{len(row)} numbers, the model has {model.input_size} channels"
            raise ValueError(f"{_name(source)}, row {number}: {found}")
        yield model.quantize_input(row)


def _name(source: str) -> str:
    return "stdin" if source == "-" else source


def _rows(source: str) -> Iterator[Any]:
    from ..data import iter_rows, read_sequence

    if source != "-":
        yield from read_sequence(Path(source))
        return
    try:
        yield from iter_rows(sys.stdin, "stdin")
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin: cannot be read as text ({error})") from None


def _classify(model: "QuantizedModel", y: "IntArray") -> dict[str, Any]:
    import numpy as np

    best = int(np.argmax(y))
    logits = model.dequantize_output(y).astype(np.float64)
    odds = np.exp(logits - logits.max())
    return {"label": model.labels[best] if model.labels else str(best), "score": float(odds[best] / odds.sum())}


def _values(model: "QuantizedModel", y: "IntArray") -> dict[str, Any]:
    return {"values": [float(value) for value in model.dequantize_output(y)]}


def _print(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json_line(result), flush=True)
    elif "label" in result:
        print(f"{result['label']}\t{result['score']:.4f}", flush=True)
    else:
        print("\t".join(f"{value:.6g}" for value in result["values"]), flush=True)
