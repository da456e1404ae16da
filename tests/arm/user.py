"""python -m tests.arm.user: the wheel, installed and used as on a Raspberry Pi, and every integer of two models there.
A third one is of the profile tflite-lstm.

What it prints are the commands as somebody types them on the device, and what they answer.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edgernn._files import write_tensors
from edgernn.data import load
from edgernn.engines import ENGINES, Form
from edgernn.firmware_sim import Stream, run_batch
from edgernn.qmodel import IntArray, QuantizedModel

from .debian import Unavailable
from .device import DATA, DATA_FORMAT, is_own_exporter, ways
from .runs import run_part
from .suite import Part
from .userland import BITS_32, BITS_64, PI_2, PI_4, PI_5, ROOT, userland
from .wheel import build_wheel

MODELS: Final = {
    "vowels": ("--cell", "gru", "--hidden", "32", "--qat", "w8a8", "--noise", "0.5"),
    "ecg": ("--cell", "gru", "--hidden", "16", "--epochs", "8"),
}


OPERATOR: Final = ("--data", "vowels", "--cell", "lstm", "--hidden", "16", "--epochs", "8", "--profile", "tflite-lstm")


class Line(NamedTuple):
    """A command line on a processor. like: the model whose predictions it must print."""

    text: str
    processor: str = PI_4
    like: str = ""


LINES: Final = (
    Line("edgernn --version"),
    Line("edgernn checks"),
    Line("edgernn run vowels/model.ernn - < vowels.csv", like="vowels"),
    Line("edgernn build vowels/model.ernn"),
    Line("edgernn run vowels/model.so - < vowels.csv", like="vowels"),
    Line("edgernn export vowels/model.ernn"),
    Line("edgernn run vowels/model_step.tflite vowels.csv", like="vowels"),
    Line("edgernn run vowels/model_step.onnx vowels.csv", like="vowels"),
    Line("edgernn eval vowels/model.ernn"),
    Line("edgernn verify vowels/model.ernn --engines native,litert,tflite-runtime,onnxruntime --sequences 5"),
    Line("edgernn benchmark vowels/model.ernn --sequences 2"),
    Line("edgernn export vowels/model.ernn --bundle pi"),
    Line("python vowels/model_pi/run.py vowels.csv", like="vowels"),
    Line("python vowels/model_pi/run_onnx.py vowels.csv", like="vowels"),
    Line("edgernn run ecg/model.ernn ecg.csv --last"),
    Line("edgernn build ecg/model.ernn", PI_5),
    Line("edgernn run ecg/model.so ecg.csv", PI_5, like="ecg"),
    Line("edgernn verify ecg/model.ernn --engines native,litert-compiled --sequences 5", PI_5),
    Line("edgernn verify operator/model.ernn --engines native,litert,litert-reference,tflite-runtime --sequences 5"),
    Line("edgernn build operator/model.ernn", PI_5),
    Line("edgernn verify operator/model.ernn --engines native,litert,tflite-runtime --sequences 5", PI_5),
    Line("edgernn checks", PI_2),
    Line("edgernn run vowels/model.ernn - < vowels.csv", PI_2, like="vowels"),
    Line("edgernn build vowels/model.ernn", PI_2),
    Line("edgernn run vowels/model.so vowels.csv", PI_2, like="vowels"),
    Line("edgernn eval vowels/model.ernn", PI_2),
    Line("edgernn benchmark vowels/model.ernn --sequences 2", PI_2),
)
PARTS: Final = (
    *(Part(engine, PI_4) for engine in ("numba", "native", "litert", "tflite-runtime", "onnxruntime")),
    *(Part(engine, PI_5) for engine in ("native", "litert", "litert-compiled")),
    Part("native", PI_2),
)
_SHOWN: Final = 12  # lines of an answer, of a long one


@dataclass(frozen=True)
class Answer:
    line: Line
    stdout: str
    stderr: str
    exit_code: int

    def failures(self, predictions: dict[str, str]) -> list[str]:
        """In words. predictions: by model, what the same command prints on this machine."""
        name = f"{self.line.text} on {self.line.processor}"
        if self.exit_code:
            return [f"{name}: exit code {self.exit_code}"]
        if self.line.like and self.stdout != predictions[self.line.like]:
            return [f"{name}: predicts otherwise than this machine"]
        return []

    def __str__(self) -> str:
        shown = self.stdout.splitlines()
        if self.line.like and len(shown) > _SHOWN:
            shown[_SHOWN // 2 : -_SHOWN // 2] = [f".. {len(shown) - _SHOWN} more lines .."]
        return "\n".join((f"{self.line.processor}$ {self.line.text}", *shown, *self.stderr.splitlines(), ""))


def main() -> int:
    try:
        for system in (BITS_64, BITS_32):
            system.prepare()
        with tempfile.TemporaryDirectory(prefix="edgernn-user-") as name:
            folder = Path(name)
            wheel = build_wheel(folder / "wheel")
            for system in (BITS_64, BITS_32):
                system.pip_install(["--force-reinstall", "--no-deps", str(wheel)])
            BITS_64.pip_install([f"{wheel}[run,export]"])  # refuses where a package is missing
            for model, options in MODELS.items():
                _host(folder, "train", "--data", model, *options, "--quiet", "-o", model)
            _host(folder, "train", *OPERATOR, "--quiet", "-o", "operator")
            failures = _session(folder) + _integers(folder)
    except Unavailable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(*failures, sep="\n", end="\n" if failures else "")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def _host(folder: Path, *arguments: str) -> str:
    """What edgernn prints of this repository, on this machine. Raises CalledProcessError."""
    command = [sys.executable, "-m", "edgernn.cli", *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout


def _session(folder: Path) -> list[str]:
    """The command lines, one after the other; what was not as it must be."""
    predictions = {}
    for model in MODELS:
        test = load(model).test
        rows = test.x[0, : test.lengths[0]].tolist()
        (folder / f"{model}.csv").write_text("".join(",".join(map(repr, row)) + "\n" for row in rows))
        predictions[model] = _host(folder, "run", f"{model}/model.ernn", f"{model}.csv", "--quiet")
    failures = []
    for line in LINES:
        answer = _answer(line, folder)
        print(answer, flush=True)
        failures += answer.failures(predictions)
    return failures


def _answer(line: Line, folder: Path) -> Answer:
    command, variables = ["/bin/sh", "-c", line.text], userland(line.processor).environment(line.processor)
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return Answer(line, result.stdout, result.stderr, result.returncode)


def _integers(folder: Path) -> list[str]:
    """Every engine of the installed wheel over the whole test sets, against this machine's kernel; what differs."""
    modules, models = folder / "modules", {}
    modules.mkdir()
    (modules / "tests").symlink_to(ROOT / "tests")  # found without the edgernn beside it
    for number, name in enumerate(MODELS):
        model = QuantizedModel.load(folder / name / "model.ernn")
        models[folder / f"{number:03}"] = (name, model)
        _write(model, name, folder / f"{number:03}")
    failures = []
    for part in PARTS:
        run = run_part(part, models, modules)
        print(run.line(), flush=True)
        failures += run.failures()
    return failures


def _write(model: QuantizedModel, data: str, folder: Path) -> None:
    """What `device.checks` takes: the test set, what the kernel makes of it here, and the files that engines read."""
    folder.mkdir()
    model.save(folder / "model.ernn")
    test = load(data).test
    x, lengths = model.quantize_input(test.x), test.lengths
    y = run_batch(model, x, lengths)
    valid = y[np.arange(x.shape[1]) < lengths[:, np.newaxis]] if model.every_step else y
    tensors = {"x": x, "lengths": lengths, "sequence": valid.ravel(), "batch": y.ravel()}
    every = _streamed(model, x[0])
    write_tensors(folder / DATA, tensors | {"step": every, "stream": every}, {"format": DATA_FORMAT})
    for engine in {ENGINES[part.engine] for part in PARTS}:
        for way in () if is_own_exporter(engine) else ways(engine, model):
            form: Form = "sequence" if way == "batch" else way
            content = engine.export(model, form, batch=len(x) if way == "batch" else None)
            (folder / f"{way}{engine.suffix}").write_bytes(content)


def _streamed(model: QuantizedModel, x: IntArray) -> IntArray:
    stream = Stream(model)
    return np.concatenate([stream.step(row) for row in x])


if __name__ == "__main__":
    raise SystemExit(main())
