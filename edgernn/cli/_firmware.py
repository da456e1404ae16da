"""What `export` does for C: its options, and the files."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._models import find_dataset

if TYPE_CHECKING:
    from ..qmodel import IntArray, QuantizedModel

_OPTIONS = ("target", "name", "package")
_VECTOR_STEPS = 20  # of random input, where the model's data are not here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="T", help="C: the core to write for, as cortex-m4 (default generic)")
    parser.add_argument(
        "--name", metavar="N", help="C: what files and functions are called (default MODEL's name); in MODEL_T/"
    )
    parser.add_argument(
        "--package", metavar="P", help="C: a library for cmake, arduino, platformio or zephyr, in MODEL_T_P/"
    )


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that goes with C alone, and for a wrong one."""
    if "c" not in args.format:
        for option in _OPTIONS:
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} goes with --format c")
        return
    if args.form and set(args.format) == {"c"}:
        raise ValueError("--form goes with --format tflite and onnx: C has all of its functions in one file")
    from ..export.c import check_name, check_target
    from ..export.c.packages import PACKAGES

    args.target = args.target or "generic"
    check_target(args.target)
    try:
        check_name(args.model.stem if args.name is None else args.name)
    except ValueError as error:
        raise ValueError(f"{error}{' with --name' if args.name is None else ''}") from None
    args.name = args.model.stem if args.name is None else args.name
    if args.package not in (None, *PACKAGES):
        raise ValueError(f"unknown package {args.package!r}; known are {', '.join(PACKAGES)}")


def exports(model: "QuantizedModel", args: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every C file."""
    from ..engines import firmware_folder
    from ..export import to_c
    from ..export.c.packages import package

    made = to_c(model, args.name, args.target, _vectors(model))
    folder = firmware_folder(args.model, args.target).name
    if args.package:
        made = package(args.package, made, args.name, model)
        folder += f"_{args.package}"
    for name, text in made.items():
        yield f"{folder}/{name}", text.encode()


def notes(model: "QuantizedModel", args: argparse.Namespace) -> list[str]:
    """What to know about the C: parts that are slower than they might be."""
    from ..export.c import slow_parts

    slow = ", ".join(slow_parts(model, args.target))
    return [f"{slow}: scales of rows are too far apart for the fast multiplication; exact, but slower"] if slow else []


def remove_former(paths: Iterable[Path]) -> list[str]:
    """Remove earlier exports of another name from the folders of these C files; a note on what that was.

    Only files that say of themselves that edgernn made them: a program that compiles the folder wants one model.
    """
    new = set(paths)
    found = []
    for folder in sorted({path.parent for path in new if path.suffix == ".c"}):
        for header in sorted(set(folder.glob("*.h")) - new):
            if "_MODEL_HASH " in header.read_text(errors="replace"):
                names = (header.name, f"{header.stem}.c", f"{header.stem}_test.c")
                found += [folder / name for name in names if (folder / name).is_file()]
    for path in found:
        path.unlink()
    return [f"removed the former {', '.join(str(path) for path in found)}"] if found else []


def _vectors(model: "QuantizedModel") -> "tuple[IntArray, IntArray]":
    """A sequence for the self-test, and its outputs: the first of the model's test data, or a random one."""
    import numpy as np

    from .._tflite_lstm import C_FLAVOUR
    from ..engines import kernel

    dataset = find_dataset(argparse.Namespace(data=None, seed=0), model)
    if dataset is not None:
        x = model.quantize_input(dataset.test.x[0, : dataset.test.lengths[0]])
    else:
        shape = (_VECTOR_STEPS, model.input_size)
        drawn = np.random.default_rng(0).integers(-model.input_limit, model.input_limit, shape)
        x = drawn.astype(model.input_dtype)
    return x, kernel(C_FLAVOUR).run(model, x)
