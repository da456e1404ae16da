"""build: a model as a shared library, compiled for this computer or, by a cross compiler, for another."""

import argparse
from pathlib import Path
from typing import Any

from ._options import add_model
from ._output import emit

HELP = "compile a model by a C compiler into a shared library, which edgernn run reads too"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="default MODEL.so beside it (.dylib, .dll)")
    parser.add_argument(
        "--cc",
        metavar="CC",
        help="C compiler, with options if need be: 'aarch64-linux-gnu-gcc -mcpu=cortex-a72' (default the environment "
        "variable CC, else cc, gcc or clang, for this computer's processor)",
    )


def run(args: argparse.Namespace) -> int:
    from .._files import write_atomic
    from ..engines import built_library
    from ..firmware_sim.native import find_compiler, read_record
    from ..qmodel import QuantizedModel
    from ._models import check_folder

    model = QuantizedModel.load(args.model)
    out: Path = args.out or args.model.with_suffix(find_compiler(args.cc).suffix)
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it with -o, such as {out / args.model.stem}.so")
    if out.exists() and out.samefile(args.model):
        raise ValueError(f"{out} is the model itself: name another file with -o")
    check_folder(out.parent)
    library = built_library(model, args.cc)
    content = library.read_bytes()
    write_atomic(out, content)
    record = read_record(content, out.name)
    data: dict[str, Any] = {
        "path": str(out),
        "bytes": len(content),
        "compiler": record.compiler,
        "command": record.command,
        "machine": record.machine,
        "system": record.system,
        "instructions": record.instructions,
    }
    made = f"for {record.machine} ({record.system}), {record.instructions}, by {record.compiler} ({record.command})"
    emit(args, f"{out}: {len(content):,} bytes {made}", data)
    return 0
