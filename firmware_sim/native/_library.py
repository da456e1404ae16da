"""A library in use: whole sequences, batches on all cores, and streams of steps; one call in C for each."""

import ctypes
import math
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._files import read_bytes
from ..._interface import Interface, State, check_state
from ..._layers import IntArray
from ...qmodel import check_lengths
from ._compiler import this_machine
from ._record import Record, read_record

_PIECES: Final = 4  # of a batch for each thread: its sequences may differ in length


class Library:
    """A model that was compiled, from its file. Any number of threads may call it.

    To open a library is to let it do anything on this computer: it must be one that you built, or trust. Raises
    ValueError for a file that is damaged, that edgernn has not built, or that this computer cannot run.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path).absolute()
        self.record: Record = read_record(read_bytes(path), path.name)
        _check_machine(path.name, self.record)
        names = ("state", "work", "output", *self.record.states)
        try:
            self._library = ctypes.CDLL(str(path))
            self.c_run, self.c_reset = self._library.edgernn_run, self._library.edgernn_reset
            self._c_run_batch = self._library.edgernn_run_batch
            sizes = (ctypes.c_uint32 * len(names)).in_dll(self._library, "edgernn_sizes")
        except (OSError, AttributeError, ValueError) as error:
            raise ValueError(f"{path.name} cannot be loaded: {error}") from None
        address, many = ctypes.c_void_p, ctypes.c_int64
        self.c_reset.restype = self.c_run.restype = self._c_run_batch.restype = None
        self.c_reset.argtypes = (address,)
        self.c_run.argtypes = (address, address, ctypes.c_uint32, address, address)
        self._c_run_batch.argtypes = (address, address, many, many, address, address)
        self.state_bytes, self._work_bytes, width, *places = sizes
        self.output_dtype: Final = np.dtype(f"int{8 * width}")
        self.places = dict(zip(self.record.states, places, strict=True))  # bytes before each state

    @property
    def interface(self) -> Interface:
        """What a program needs to feed it and to read its answers."""
        return self.record.interface

    def run(self, x: IntArray) -> IntArray:
        """y of one sequence x [time, input_size] of the input's type, as `firmware_sim.run` gives it.

        Raises ValueError for a wrong type or shape.
        """
        x = self.interface.check_input(x, ("time", "input_size"))
        state, work = (ctypes.create_string_buffer(n) for n in (self.state_bytes, self._work_bytes * len(x)))
        return self.run_from(state, x, work)

    def run_from(self, state: ctypes.Array[ctypes.c_char] | int, x: IntArray, work: Any = None) -> IntArray:
        """As `run`, from the state that lies there, and on in it."""
        shape = (len(x), self.interface.output_size) if self.interface.every_step else (self.interface.output_size,)
        y: Any = ctypes.create_string_buffer(math.prod(shape) * self.output_dtype.itemsize)
        self.c_run(state, x.tobytes(), len(x), y, work)  # bytes and buffers: NumPy takes 1.5 us to tell an address
        outputs: IntArray = np.frombuffer(y, self.output_dtype).reshape(shape)
        return outputs

    def run_batch(self, x: IntArray, lengths: npt.ArrayLike | None = None) -> IntArray:
        """y of x [batch, time, input_size], of which `lengths` steps are valid, as `firmware_sim.run_batch` gives it.

        Uses every core, or as many as the environment variable NUMBA_NUM_THREADS says. Raises ValueError for a wrong
        type, shape or length.
        """
        x = self.interface.check_input(x, ("batch", "time", "input_size"))
        x, valid = np.ascontiguousarray(x), check_lengths(lengths, *x.shape[:2])
        batch, time = x.shape[:2]
        axes = (batch, time) if self.interface.every_step else (batch,)
        y = np.zeros((*axes, self.interface.output_size), self.output_dtype)

        def run(start: int, stop: int) -> None:
            work = np.empty(self._work_bytes * time, np.uint8)
            arrays = (_address(array) for array in (x[start:], valid[start:]))
            self._c_run_batch(*arrays, stop - start, time, _address(y[start:]), _address(work))

        threads = min(batch, _threads())
        if threads == 1:
            run(0, batch)
        else:
            cuts = np.linspace(0, batch, min(batch, _PIECES * threads) + 1).astype(int).tolist()
            with ThreadPoolExecutor(threads) as pool:
                deque(pool.map(run, cuts, cuts[1:]), maxlen=0)
        return y

    def stream(self) -> "Stream":
        """The model step by step, from the state zero. Raises ValueError for a bidirectional model."""
        self.interface.check_streaming()
        return Stream(self)


class Stream:
    """A library that is fed step by step, and remembers its state. Not for two threads at once."""

    def __init__(self, library: Library) -> None:
        self._library, self._interface = library, library.interface
        self._memory = np.zeros(library.state_bytes, np.uint8)
        self._x = np.zeros(self._interface.input_size, self._interface.input_dtype)
        self._y = np.zeros(self._interface.output_size, library.output_dtype)
        self._states = {
            name: np.frombuffer(self._memory, dtype, size, library.places[name])
            for name, (size, dtype) in library.record.states.items()
        }
        self._state = _address(self._memory)
        self._one_step = self._state, _address(self._x), 1, _address(self._y), None

    def step(self, x: IntArray) -> IntArray:
        """y [output_size] after this step of x [input_size] of the input's type. Raises ValueError for another."""
        self._x[:] = self._interface.check_input(x, ("input_size",))
        self._library.c_run(*self._one_step)
        return self._y.copy()

    def run(self, x: IntArray) -> IntArray:
        """y of x [time, input_size] from the state as it is: of every step, or of the last. Raises ValueError."""
        return self._library.run_from(self._state, self._interface.check_input(x, ("time", "input_size")))

    def reset(self) -> None:
        """Forget everything: the state is zero again."""
        self._library.c_reset(self._state)

    @property
    def state(self) -> State:
        """A copy of the state. Setting one raises ValueError unless it is a state of this model."""
        return {name: values.copy() for name, values in self._states.items()}

    @state.setter
    def state(self, state: State) -> None:
        states = self._library.record.states
        check_state(state, {name: (size, np.dtype(dtype).type) for name, (size, dtype) in states.items()})
        for name, values in self._states.items():
            values[:] = state[name]


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


def _threads() -> int:
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _check_machine(name: str, record: Record) -> None:
    """Raise ValueError unless this computer can run it: another would stop with no more than the name of a signal."""
    if (record.machine, record.system) != (this_machine(), sys.platform):
        here = f"this is {this_machine()} with {sys.platform}"
        raise ValueError(f"{name} was built for {record.machine} with {record.system}, {here}; build it here")
    present = _processor_features()
    lacking = [feature for feature in record.features if feature not in present] if present else []
    if lacking:
        raise ValueError(f"{name} needs a processor with {', '.join(lacking)}, which this one has not; build it here")


def _processor_features() -> set[str]:
    """As Linux lists them; nothing where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    title = "Features" if this_machine() in ("aarch64", "arm") else "flags"
    listed = (line.partition(":") for line in lines)
    return next((set(words.split()) for name, _, words in listed if name.strip() == title), set())
