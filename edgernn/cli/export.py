"""export: a quantised model as .tflite and .onnx files, or as C."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import _bundle
from . import _firmware as firmware
from ._models import check_folder, float_file
from ._options import add_model, names, positive_int
from ._output import emit, table

if TYPE_CHECKING:
    from ..qmodel import QuantizedModel

HELP = "write a quantised model as .tflite and .onnx files, or as C for firmware"
FORMATS = ("tflite", "onnx", "c")
FORMS = ("sequence", "step", "stream")
USUAL = {  # formats and forms, by the model's profile
    "portable": (("tflite", "onnx"), ("sequence", "step")),
    "tflite-lstm": (("tflite",), ("sequence", "stream")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--format",
        type=names,
        metavar="F,..",
        help="tflite, onnx, c (default tflite,onnx; of the profile tflite-lstm tflite)",
    )
    parser.add_argument(
        "--form",
        type=names,
        metavar="F,..",
        help="sequence: whole sequences; step: one step, states as inputs and outputs; stream (TFLite): one step, "
        "states kept inside (default sequence,step; of the profile tflite-lstm sequence,stream; of a bidirectional "
        "model sequence, as it has no other)",
    )
    parser.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        help="sequence form for TFLite of exactly N steps, as TensorFlow Lite Micro needs it: MODEL_TN.tflite",
    )
    parser.add_argument(
        "--batch",
        type=positive_int,
        metavar="N",
        help="sequence form for TFLite that takes N sequences at once, and their lengths: MODEL_BN.tflite, with "
        "--steps M MODEL_TM_BN.tflite",
    )
    firmware.add_arguments(parser)
    parser.add_argument(
        "--bundle",
        metavar="B",
        help="pi: a folder to copy to a Raspberry Pi, MODEL_pi/ (or -o): the model and a script that runs it there",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder to write into (default MODEL's)")


def run(args: argparse.Namespace) -> int:
    from .._files import write_atomic
    from ..qmodel import QuantizedModel

    if args.bundle is not None:
        return _run_bundle(args)
    _check(args.format or (), FORMATS, "format")
    _check(args.form or (), FORMS, "form")
    model = QuantizedModel.load(args.model)
    usual_formats, usual_forms = USUAL[model.profile]
    args.format = args.format or usual_formats
    firmware.check(args)
    notes = _check_forms(args)
    args.form = args.form or (usual_forms[:1] if model.bidirectional else usual_forms)
    notes += _about_operators(model, args)
    folder = args.output or args.model.parent
    path, about_float = (None, []) if set(args.format) == {"c"} else float_file(args.model, model)
    notes += about_float
    contents = {folder / name: content for name, content in _exports(model, path, args)}
    for parent in sorted({path.parent for path in contents}):
        check_folder(parent)
    for path in contents:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: remove it, or choose another folder with -o")
    if "c" in args.format:
        notes += firmware.notes(model, args)
        notes += firmware.remove_former(contents)
    for path, content in contents.items():
        write_atomic(path, content)
    _report(args, contents, notes)
    return 0


def _run_bundle(args: argparse.Namespace) -> int:
    from ..qmodel import QuantizedModel

    _bundle.check(args)
    folder = args.output or args.model.with_name(f"{args.model.stem}_{args.bundle}")
    contents = _bundle.bundle(QuantizedModel.load(args.model))
    _bundle.write(folder, contents)
    _report(args, {folder / name: content for name, content in contents.items()}, [])
    return 0


def _report(args: argparse.Namespace, contents: Mapping[Path, bytes], notes: list[str]) -> None:
    files = [{"path": str(path), "bytes": len(content)} for path, content in contents.items()]
    lines = [table(("file", "bytes"), [(file["path"], file["bytes"]) for file in files]), *notes]
    emit(args, "\n".join(lines), {"files": files, "notes": notes})


def _exports(model: "QuantizedModel", path: Path | None, args: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file asked for; `path` is the float model."""
    from .. import export
    from ..engines import export_path, fixed_path
    from ..floatmodel import FloatModel

    if "c" in args.format:
        yield from firmware.exports(model, args)
    for form in args.form:
        if "tflite" in args.format and form == "sequence":
            name = fixed_path(args.model, args.steps, args.batch).name
            yield name, export.to_tflite(model, form, args.steps, args.batch)
        elif "tflite" in args.format:
            yield export_path(args.model, form, ".tflite").name, export.to_tflite(model, form)
        if "onnx" in args.format and form != "stream":
            yield export_path(args.model, form, ".onnx").name, export.to_onnx(model, form)
    if "onnx" in args.format:
        yield f"{args.model.stem}_weights.onnx", export.to_onnx(model, weights_only=True)
    if path is not None:
        network = FloatModel.load(path)
        if "onnx" in args.format:
            yield f"{args.model.stem}_float.onnx", export.float_to_onnx(network)
        if "tflite" in args.format:
            yield f"{args.model.stem}_float.tflite", export.float_to_tflite(network)


def _about_operators(model: "QuantizedModel", args: argparse.Namespace) -> list[str]:
    """What TensorFlow Lite's own LSTM operator does that its user must know of."""
    if model.profile != "tflite-lstm" or "tflite" not in args.format:
        return []
    notes = []
    if "sequence" in args.form:
        notes.append("sequence: it goes on from the states of the sequence before: reset the interpreter's variables")
    if "stream" in args.form:
        notes.append(
            "stream: not for TensorFlow Lite Micro with CMSIS-NN's kernels, which lose the states after every call: "
            "take the profile portable and its form step there"
        )
    return notes


def _check(chosen: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    for name in chosen:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")


def _check_forms(args: argparse.Namespace) -> list[str]:
    """Notes on forms that a format lacks. Raises ValueError for one that all of them lack, and --steps or --batch."""
    forms = args.form or ("sequence",)  # which is usual of every model
    if not ("sequence" in forms and "tflite" in args.format):
        for option, what in (("steps", "fixes the length of a TFLite sequence"), ("batch", "makes TFLite batches")):
            if getattr(args, option):
                raise ValueError(f"--{option} {what}; it goes with --form sequence --format tflite")
    if "stream" not in forms or "onnx" not in args.format:
        return []
    if "tflite" not in args.format:
        raise ValueError("stream is a TFLite form; add tflite to --format, or use the ONNX forms sequence and step")
    return ["stream is a TFLite form: there is no ONNX file of it"]
