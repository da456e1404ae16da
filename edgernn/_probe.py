"""`python -m edgernn._probe RUNTIME FILE X`: the memory that a file's network takes in a process of its own.

Loads the file in its runtime and nothing else, runs the sequence in X (.npy, [T, ..], as the network takes it) and
prints the process's peak resident memory in bytes, or nothing where the system does not tell.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

RUNS: Final = 5
ARENA: Final = 1 << 16  # bytes
LARGEST_ARENA: Final = 1 << 28

Run = Callable[[Any], object]


def peak() -> int | None:
    """Bytes of resident memory that this process has had at most. Linux alone tells; getrusage would count what the
    process had that started this one."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def _nothing(path: str) -> Run:
    return lambda x: None


def _numba(path: str) -> Run:
    from .firmware_sim import run
    from .qmodel import QuantizedModel

    model = QuantizedModel.load(path)
    return lambda x: run(model, x)


def _native(path: str) -> Run:
    from .firmware_sim.native import Library

    library = Library(Path(path))
    return lambda x: library.run(x)


def _torch(path: str) -> Run:
    import torch

    from .nn import SequenceModel

    torch.set_num_threads(1)
    model = SequenceModel.load(path)
    return torch.inference_mode()(lambda x: model(torch.from_numpy(x[None])))


def _litert(path: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    interpreter = Interpreter(model_path=path, num_threads=1)
    (x_input,) = interpreter.get_input_details()

    def run(x: Any) -> None:
        interpreter.resize_tensor_input(x_input["index"], (1, *x.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(x_input["index"], x[None])
        interpreter.invoke()

    return run


def _tflm(path: str) -> Run:
    """A file of the form step, or of the form sequence for as many steps as x has."""
    from tflite_micro import runtime  # type: ignore[import-untyped]

    content, arena, interpreter = Path(path).read_bytes(), ARENA, None
    while interpreter is None:
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena)
        except RuntimeError:
            if arena >= LARGEST_ARENA:
                raise
            arena *= 2
    steps = len(interpreter.get_input_details(0)["shape"]) == 2

    def run(x: Any) -> None:
        for part in x[:, None] if steps else [x[None]]:
            interpreter.set_input(part, 0)
            interpreter.invoke()

    return run


def _onnxruntime(path: str) -> Run:
    import numpy as np
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x[None], "lengths": np.array([len(x)], np.int32)})


RUNTIMES: Final[dict[str, Callable[[str], Run]]] = {
    "none": _nothing,
    "numba": _numba,
    "native": _native,
    "torch": _torch,
    "litert": _litert,
    "tflm": _tflm,
    "onnxruntime": _onnxruntime,
}


def main(runtime: str, path: str, inputs: str) -> None:
    import numpy as np

    x = np.load(inputs)
    run = RUNTIMES[runtime](path)
    for _ in range(RUNS):
        run(x)
    print("" if peak() is None else peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
