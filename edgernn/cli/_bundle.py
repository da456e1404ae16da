"""A folder to copy to a Raspberry Pi: the model, and a script that runs it without edgernn."""

import argparse
import os
import tempfile
from pathlib import Path
from shutil import rmtree
from textwrap import indent
from typing import TYPE_CHECKING, Any, Final

from ._models import check_folder, find_dataset
from ._results import classes, text, values

if TYPE_CHECKING:
    from ..qmodel import FloatArray, QuantizedModel

BUNDLES: Final = ("pi",)
PINS: Final = {"numpy": "2.4.6", "ai-edge-litert": "2.3.0", "onnxruntime": "1.31.1"}
_SAMPLE_STEPS: Final = 20

_REQUIREMENTS: Final = """\
numpy=={numpy}
ai-edge-litert=={ai-edge-litert}
# for run_onnx.py in its place:
# onnxruntime=={onnxruntime}
"""

_README: Final = """\
Copy this folder to the device. There: python3 -m venv venv && venv/bin/pip install -r requirements.txt
Then: venv/bin/python run.py rows.csv, or PROGRAM | venv/bin/python run.py; {channels} a row in, {answer} out
To check it: venv/bin/python run.py sample.csv | diff - expected.txt prints nothing
run_onnx.py does the same by ONNX Runtime.
"""

_HEAD: Final = '''\
"""{channels} a row in, {answer} out. Takes a file of rows or stdin."""

import sys
from pathlib import Path

import numpy as np
{runtime}
MEAN = np.float32({mean})
STEP = np.float32({step})  # an integer is (x - MEAN) / STEP + ZERO
ZERO, LOW, HIGH, OUTPUT_STEP = {zero_point}, {low}, {high}, np.float32({output_scale})
{labels}
'''

_RUNTIMES: Final = {
    "run.py": """\
from ai_edge_litert.interpreter import Interpreter

run = Interpreter(str(Path(__file__).with_name("model.tflite")), num_threads=1).get_signature_runner()
""",
    "run_onnx.py": """\
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"), options)


def run(**inputs):
    return dict(zip([y.name for y in session.get_outputs()], session.run(None, inputs{lengths})))


""",
}

_SHOW_CLASS: Final = """\
logits = (y * OUTPUT_STEP).astype(float)
odds = np.exp(logits - logits.max())
print(LABELS[y.argmax()], f"{odds.max() / odds.sum():.4f}", sep="\\t", flush=True)
"""
_SHOW_VALUES: Final = """\
print(*(f"{value:.6g}" for value in y * OUTPUT_STEP), sep="\\t", flush=True)
"""

_ROWS: Final = """\
for row in filter(str.strip, open(sys.argv[1]) if len(sys.argv) > 1 else sys.stdin):
    try:
        real = np.array(row.split(","), np.float32)
    except ValueError:
        real = np.float32([])
    if real.shape != MEAN.shape or not np.isfinite(real).all():
        {bad}
    x = np.clip(np.rint((real - MEAN) / STEP) + ZERO, LOW, HIGH).astype(np.{dtype})
"""
_SKIP: Final = """\
print("-", flush=True)  # the state stays as it was
        continue"""
_STOP: Final = 'sys.exit(f"not {channels}: {{row}}")'

_STATE: Final = "state = {{name: np.zeros((1, size), np.int16) for name, size in {sizes}.items()}}\n"
_STEP: Final = """\
    out = run(x=x[None], **state)
    state = {name: out[name + "_out"] for name in state}
    y = out["y"][0]
"""
_WHOLE: Final = """\
    sequence.append(x)
outputs = run(x=np.stack(sequence)[None])["y"]
for y in outputs.reshape(-1, outputs.shape[-1]):
"""


_NOT_WITH: Final = ("format", "form", "steps", "batch", "target", "name", "package")


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for an unknown bundle, and for options that it leaves no choice of."""
    if args.bundle not in BUNDLES:
        raise ValueError(f"unknown bundle {args.bundle!r}; known are {', '.join(BUNDLES)}")
    given = [name for name in _NOT_WITH if getattr(args, name)]
    if given:
        raise ValueError(f"--{given[0]} does not go with --bundle: a bundle has what its script needs")


def bundle(model: "QuantizedModel") -> dict[str, bytes]:
    """{file name: content}; the form is step, or of a bidirectional model sequence.

    Raises ValueError where no engine can compute the sample's outputs.
    """
    from .. import export

    if model.profile != "portable":
        raise ValueError(
            f"a bundle carries the state in a script of its own, which the profile {model.profile} keeps inside the "
            "runtime: train with the profile portable, or export it for TFLite"
        )
    form: Any = "sequence" if model.bidirectional else "step"
    sample = _sample(model)
    texts = {
        **{name: _script(model, runtime) for name, runtime in _RUNTIMES.items()},
        "requirements.txt": _REQUIREMENTS.format_map(PINS),
        "README.txt": _README.format(**_words(model)),
        "sample.csv": "".join(",".join(map(str, row)) + "\n" for row in sample),
        "expected.txt": _expected(model, sample),
    }
    models = {"model.tflite": export.to_tflite(model, form), "model.onnx": export.to_onnx(model, form)}
    return models | {name: text.encode() for name, text in texts.items()}


def write(folder: Path, contents: dict[str, bytes]) -> None:
    """The whole folder or nothing, in the place of a former bundle. Raises ValueError for one with other files."""
    from .._files import write_atomic

    folder = Path(os.path.realpath(folder))
    _check_place(folder, set(contents))
    check_folder(folder.parent)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        for name, content in contents.items():
            write_atomic(work / "new" / name, content)
        if folder.exists():
            os.replace(folder, work / "former")
        os.replace(work / "new", folder)
    except BaseException:
        if (work / "former").exists() and not folder.exists():
            os.replace(work / "former", folder)
        raise
    finally:
        rmtree(work, ignore_errors=True)


def _check_place(folder: Path, names: set[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: remove it, or choose another with -o")
    others = sorted({path.name for path in folder.iterdir()} - names)
    if others:
        raise ValueError(f"{folder} holds {others[0]}, which is no part of a bundle: choose another folder with -o")


# ---- the texts -------------------------------------------------------------------------------------------------------


def _classifies(model: "QuantizedModel") -> bool:
    return model.task == "classification" and model.head is not None


def _words(model: "QuantizedModel") -> dict[str, str]:
    size = model.input_size
    when = "after every row" if model.every_step or not model.bidirectional else "at their end"
    if model.bidirectional and model.every_step:
        when = "for every row, at their end"
    answer = "the label and its score" if _classifies(model) else "the outputs"
    return {"channels": f"{size} number{'s' if size > 1 else ''}", "answer": f"{answer} {when}"}


def _script(model: "QuantizedModel", runtime: str) -> str:
    import numpy as np

    words, labels = _words(model), model.labels or tuple(map(str, range(model.output_size)))
    dtype, show = np.dtype(model.input_dtype).name, _SHOW_CLASS if _classifies(model) else _SHOW_VALUES
    head = _HEAD.format(
        **words,
        runtime=runtime.replace("{lengths}", ' | {"lengths": np.int32([inputs["x"].shape[1]])}' * model.bidirectional),
        mean=_literal(model.input_mean),
        step=_literal(model.input_std * np.float32(model.input_scale)),
        zero_point=model.input_zero_point,
        low=-model.input_limit,
        high=model.input_limit - 1,
        output_scale=str(np.float32(model.output_scale)),
        labels=f"LABELS = {list(labels)}\n" if _classifies(model) else "",
    )
    if model.bidirectional:
        loop = "sequence = []\n" + _ROWS.format(dtype=dtype, bad=_STOP.format(**words)) + _WHOLE
    else:
        state = _STATE.format(sizes={name: state.size for name, state in model.states.items()})
        loop = state + _ROWS.format(dtype=dtype, bad=_SKIP) + _STEP
    return head + loop + indent(show, "    ")


def _literal(values: "FloatArray") -> str:
    """A list of float32 numbers, each as its shortest exact decimal."""
    return f"[{', '.join(map(str, values))}]"


def _sample(model: "QuantizedModel") -> "FloatArray":
    """The beginning of the first sequence of the model's test data; random rows where they are not here."""
    import numpy as np

    dataset = find_dataset(argparse.Namespace(data=None, seed=0), model)
    if dataset is not None:
        return dataset.test.x[0, : min(_SAMPLE_STEPS, dataset.test.lengths[0])].astype(np.float32)
    drawn = np.random.default_rng(0).normal(0, 1, (_SAMPLE_STEPS, model.input_size)).astype(np.float32)
    return (drawn * model.input_std + model.input_mean).astype(np.float32)


def _expected(model: "QuantizedModel", sample: "FloatArray") -> str:
    """What the script prints of the sample, by an engine that is here."""
    import numpy as np

    from ..engines import ENGINES

    engine = next((one for one in ENGINES.values() if one.usual and one.missing() is None), None)
    if engine is None:
        raise ValueError(
            "no engine is here to compute the sample's outputs: pip install edgernn, or see edgernn checks"
        )
    x = model.quantize_input(sample)
    if model.bidirectional:
        outputs = np.atleast_2d(engine.run(model, x))
    else:
        outputs = np.array([*map(engine.stream(model).step, x)])
    results = classes(model.labels) if _classifies(model) else values
    return "".join(f"{text(result)}\n" for result in results(model.dequantize_output(outputs)))
