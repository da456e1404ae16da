"""What runs on the device: one engine over folders of models, their exported files and the expected integers.

python -m tests.arm.device ENGINE FOLDER ..     prints the versions, then a line of JSON for every check
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import numpy as np

from edgernn._files import Tensors, read_tensors
from edgernn.engines import ENGINES, Engine, NativeEngine, tflite_runtime_version
from edgernn.engines._install import TFLITE_RUNTIME
from edgernn.firmware_sim.native import find_compiler
from edgernn.qmodel import IntArray, QuantizedModel

Way = Literal["sequence", "batch", "step", "stream"]

DATA: Final = "data.safetensors"
DATA_FORMAT: Final = "edgernn-arm"


@dataclasses.dataclass(frozen=True)
class Check:
    """A model in one way: how many integers were compared, how many differ; or what went wrong, in words."""

    seed: int
    integers: int = 0
    differences: int = 0
    problem: str | None = None


def is_own_exporter(engine: Engine) -> bool:
    """Whether it reads no file that another processor could have written."""
    return not engine.suffix or isinstance(engine, NativeEngine)


def ways(engine: Engine, model: QuantizedModel) -> list[Way]:
    """How the engine runs the model."""
    forms = engine.forms or ("sequence", "stream")
    streaming: list[Way] = [form for form in forms if form != "sequence" and not model.bidirectional]
    return ["sequence", "batch", *streaming]


def _outputs(engine: Engine, model: QuantizedModel, way: Way, content: bytes | None, data: Tensors) -> IntArray:
    """The outputs of x [N, T, input_size], flat; in the ways step and stream those of every step of the first one."""
    x, lengths = data["x"], data["lengths"]
    if way == "batch":
        return engine.open_batch(model, content)(x, lengths).ravel()
    if way == "sequence":
        run = engine.open(model, way if engine.forms else None, content)
        return np.concatenate([run(one[:length]).ravel() for one, length in zip(x, lengths, strict=True)])
    stepper = engine.stream(model, way if engine.forms else None, content)
    return np.concatenate([stepper.step(row) for row in x[0]])


def checks(engine: Engine, folder: Path) -> Iterator[Check]:
    """A check of every way that the engine runs the model in `folder`, as `suite.write` made it."""
    model, seed = QuantizedModel.load(folder / "model.ernn"), int(folder.name)
    data, _ = read_tensors(folder / DATA, DATA_FORMAT)
    for way in ways(engine, model):
        own_export = is_own_exporter(engine) or (engine.fixed and way in ("sequence", "batch"))  # one for each length
        content = None if own_export else (folder / f"{way}{engine.suffix}").read_bytes()
        try:
            found, expected = _outputs(engine, model, way, content, data), data[way]
        except (RuntimeError, ValueError) as error:
            yield Check(seed, problem=str(error))
            continue
        if (found.dtype, found.size) != (expected.dtype, expected.size):
            problem = f"{found.size} integers of {found.dtype}, not {expected.size} of {expected.dtype}"
            yield Check(seed, problem=problem)
        else:
            yield Check(seed, expected.size, int(np.count_nonzero(found != expected)))


def _versions(engine: Engine) -> str:
    """Of the runtime or the compiler, with the vector instructions where edgernn chooses them."""
    if isinstance(engine, NativeEngine):
        compiler = find_compiler()
        return f"{compiler.name}, {compiler.instructions}"
    release = tflite_runtime_version() if engine.package == TFLITE_RUNTIME else version(engine.package)
    named = f"{engine.package.replace('_', '-')} {release}"
    if engine.name != "numba":
        return named
    from edgernn.firmware_sim.simd._host import host_form  # needs Numba, which is not on every device

    form = host_form()
    return f"{named}, {form.name if form else 'off'}"


def main() -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints must not get between the results
    engine = ENGINES[sys.argv[1]]
    print(_versions(engine), file=results, flush=True)
    for case in sys.argv[2:]:
        for check in checks(engine, Path(case)):
            print(json.dumps(dataclasses.asdict(check)), file=results, flush=True)


if __name__ == "__main__":
    main()
