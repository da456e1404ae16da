"""Inference in integers: a sequence, a batch of sequences, or a stream of steps."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from .._tflite_lstm import Flavour
from ..qmodel import IntArray, QuantizedModel, State, check_lengths
from ._network import Network
from .simd.rows import BLOCK

STEPS_AT_ONCE: Final = 4096  # of a batch, for one thread: enough to hide the call, few enough to stay in the cache


def run(
    model: QuantizedModel, x: IntArray, state: State | None = None, flavour: Flavour = "litert"
) -> tuple[IntArray, State]:
    """(y, state) of one sequence x [time, input_size] of model.input_dtype, from `state` (zero by default).

    y is int8 [output_size] for a head of the last step, int8 [time, output_size] for one of every step, and without a
    head the last layer's hidden state [time, its output_size], int16, in the profile tflite-lstm int8. A sequence in
    pieces, each from the state of the one before, gives the same integers as in one. A bidirectional model needs the
    whole: it takes no state and gives back an empty one.

    flavour: which of the operator's arithmetics the profile tflite-lstm is computed in: `litert` (LiteRT,
    tflite-runtime), `tflm` (TensorFlow Lite Micro's reference kernels) or `cmsis` (CMSIS-NN); they differ in a
    few of a hundred hidden states, mostly by one. The portable profile has one arithmetic, whatever the flavour.

    Raises ValueError for a wrong type, shape or state and for an unknown flavour.
    """
    x = model.check_input(x, ("time", "input_size"))
    network = Network(model, 1, flavour=flavour)
    if state is not None:
        network.set_state(state)
    y = network.run(x[np.newaxis], _one_length(len(x)))[0]
    return (y if model.every_step else y[0]), network.state()


def run_batch(
    model: QuantizedModel, x: IntArray, lengths: npt.ArrayLike | None = None, flavour: Flavour = "litert"
) -> IntArray:
    """y [batch, output_size] or [batch, time, output_size] of x [batch, time, input_size], each from the state zero.

    lengths: integers [batch], how many steps of each sequence are valid (all by default). What follows them never
    matters: the last step is the last valid one, outputs of later steps are 0. Uses every core, or as many as the
    environment variable NUMBA_NUM_THREADS says. flavour: as `run` takes it. Raises ValueError for a wrong type, shape
    or length and for an unknown flavour.
    """
    x = model.check_input(x, ("batch", "time", "input_size"))
    valid = check_lengths(lengths, len(x), x.shape[1])
    order = np.argsort(valid, kind="stable")  # those that are run side by side end together
    y = np.zeros((len(x), x.shape[1] if model.every_step else 1, model.output_size), model.output_dtype)

    def run_piece(piece: slice) -> None:
        rows = order[piece]
        steps = int(valid[rows[-1]])
        outputs = Network(model, len(rows), flavour=flavour).run(x[rows, :steps], valid[rows])
        y[rows, : outputs.shape[1]] = outputs

    pieces = batch_pieces(*x.shape[:2])
    threads = min(len(pieces), available_threads())
    if threads == 1:
        deque(map(run_piece, pieces), maxlen=0)
    else:
        with ThreadPoolExecutor(threads) as pool:  # kernels release the GIL; a pool of a call's own survives a fork
            deque(pool.map(run_piece, pieces), maxlen=0)
    return y if model.every_step else y[:, 0]


class Stream:
    """A model that is fed step by step, as on a device, and remembers its state. Not for two threads at once.

    flavour: as `run` takes it. Raises ValueError for a bidirectional model and for an unknown flavour.
    """

    def __init__(self, model: QuantizedModel, flavour: Flavour = "litert") -> None:
        model.check_streaming()
        self.model = model
        self._network = Network(model, 1, flavour=flavour)

    def step(self, x: IntArray) -> IntArray:
        """y [output_size] after this step of x [input_size] of model.input_dtype, whatever the head is.

        Raises ValueError for a wrong type or shape.
        """
        x = self.model.check_input(x, ("input_size",))
        y: IntArray = self._network.run(x[np.newaxis, np.newaxis], _one_length(1))[0, 0]
        return y

    def reset(self) -> None:
        """Forget everything: the state is zero again."""
        self.state = self.model.zero_state()

    @property
    def state(self) -> State:
        """A copy of the state, to give to this stream, to another one, to `run` or to `model.save_state`.

        Setting one raises ValueError unless it is a state of this model.
        """
        return {name: array.copy() for name, array in self._network.state().items()}

    @state.setter
    def state(self, state: State) -> None:
        self._network.set_state(state)


@lru_cache
def _one_length(steps: int) -> IntArray:
    """The lengths of a batch of one sequence, which nobody writes to."""
    return np.array([steps])


def batch_pieces(batch: int, time: int) -> list[slice]:
    """Sequences that are run at once, piece by piece: in blocks that the kernels run side by side."""
    size = max(1, STEPS_AT_ONCE // time // BLOCK) * BLOCK
    return [slice(start, start + size) for start in range(0, batch, size)]


def available_threads() -> int:
    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)
