"""C exports compiled with this computer's own compiler and called through ctypes."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from edgernn.export import to_c
from edgernn.qmodel import IntArray, QuantizedModel

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")
NAME = "net"


def compile_c(*arguments: str | Path, flags: tuple[str, ...] = ()) -> None:
    """Run gcc; its messages are the error."""
    command = ["gcc", *STRICT, *flags, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"


def write_c(
    model: QuantizedModel, folder: Path, target: str, x: IntArray | None = None, y: IntArray | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vectors = None if x is None or y is None else (x, y)
    for file, text in to_c(model, NAME, target, vectors).items():
        (folder / file).write_text(text)


class HostFirmware:
    """A model's C as a shared library."""

    def __init__(self, model: QuantizedModel, folder: Path, target: str, flags: tuple[str, ...] = ("-O1",)) -> None:
        self.model = model
        write_c(model, folder, target)
        library = folder / f"{NAME}.so"
        compile_c("-shared", "-fPIC", folder / f"{NAME}.c", "-o", library, flags=flags)
        self._library = ctypes.CDLL(str(library))
        self._header = (folder / f"{NAME}.h").read_text()
        self.state = np.zeros(self.macro("STATE_BYTES"), np.uint8)

    def macro(self, name: str) -> int:
        line = next(line for line in self._header.splitlines() if line.startswith(f"#define {NAME.upper()}_{name} "))
        return int(line.split()[2])

    def reset(self) -> None:
        self._library.net_reset(_pointer(self.state))

    def step(self, x: IntArray, y: IntArray | None) -> None:
        self._library.net_step(_pointer(self.state), _pointer(x), None if y is None else _pointer(y))

    def skip(self, x: IntArray) -> None:
        """Run x without outputs."""
        self._library.net_run(_pointer(self.state), _pointer(x), ctypes.c_uint32(len(x)), None)

    def run(self, x: IntArray) -> IntArray:
        """The outputs of x [T, input_size], from the state as it is."""
        model = self.model
        y = np.full((len(x), model.output_size) if model.every_step else model.output_size, 99, model.output_dtype)
        work = []
        if model.bidirectional:
            wide = sum(2 * layer.output_size for layer in model.layers)
            work = [_pointer(np.zeros(len(x) * wide * 2, np.uint8))]
        self._library.net_run(_pointer(self.state), _pointer(x), ctypes.c_uint32(len(x)), _pointer(y), *work)
        return y


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)
