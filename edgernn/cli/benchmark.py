"""benchmark: float against integers on this machine."""

import argparse
from dataclasses import asdict
from typing import Any

from ._options import add_data, add_model, add_seed, positive_int
from ._output import emit, progress, table

HELP = "compare float and integers on this machine: accuracy, size and time in every installed runtime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, "(default: the data the model was trained on)")
    parser.add_argument("--sequences", type=positive_int, default=20, metavar="N", help="how many to time (default 20)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from ..benchmark import benchmark, contenders
    from ..engines import ENGINES, missing
    from ..qmodel import QuantizedModel
    from ._models import float_file, headline, require_dataset

    model = QuantizedModel.load(args.model)
    dataset = require_dataset(args, model)
    path, notes = float_file(args.model, model)
    networks = list(contenders(model, args.model, path))
    with progress(args, "run") as report:
        rows = benchmark(model, networks, dataset.test, args.sequences, report)
    commands = {name: engine.missing() for name, engine in ENGINES.items() if engine.usual}
    commands["torch float"] = None if path is None else missing("torch")
    absent = {name: command for name, command in commands.items() if command is not None}
    reference = rows[0].name  # torch float where it is at hand, else the kernel
    first, show = headline(model.task)
    equal = {True: "yes", False: "NO", None: "-"}
    cells: list[tuple[Any, ...]] = [
        (
            row.name,
            show(row.quality),
            equal[row.equals_kernel],
            row.bytes,
            f"{row.sequence_ratio:.2f}",
            None if row.step_ratio is None else f"{row.step_ratio:.2f}",
            None if row.step_seconds is None else f"{1e6 * row.step_seconds:.1f}",
        )
        for row in rows
    ]
    headers = ("runtime", first, "equals kernel", "bytes", "time/sequence", "time/step", "us/step")
    lines = [table(headers, cells), ""]
    lines.append(f"test part of {dataset.name}; times are ratios to {reference}, one thread, Python calls included")
    lines += notes
    lines += [f"not installed: {name} ({command})" for name, command in absent.items()]
    found = {"data": dataset.name, "reference": reference, "rows": [asdict(row) for row in rows]}
    emit(args, "\n".join(lines), found | {"missing": absent, "notes": notes})
    return 0 if all(row.equals_kernel is not False for row in rows) else 1
