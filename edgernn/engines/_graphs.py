"""What every runtime is behind: graphs of named tensors, and steppers that carry states from step to step."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..qmodel import IntArray, State, StateSpec
from ._worker import Specs, Tensors

Session = Callable[[IntArray], IntArray]
BatchSession = Callable[[IntArray, npt.NDArray[Any]], IntArray]


class Graph(Protocol):
    """An exported file in its runtime: named tensors in, named tensors out. `reset` clears states it keeps itself."""

    @property
    def inputs(self) -> Specs: ...

    @property
    def outputs(self) -> Sequence[str]: ...

    def __call__(self, feeds: Tensors) -> Tensors: ...

    def reset(self) -> None: ...


class Stepper(Protocol):
    """A network that takes one row of inputs [input_size] at a time."""

    def step(self, x: IntArray) -> IntArray: ...

    def reset(self) -> None: ...


class StateStepper(Stepper, Protocol):
    """A QuantizedModel that takes one row of integers at a time, as `firmware_sim.Stream` does, and its `state`."""

    @property
    def state(self) -> State: ...

    @state.setter
    def state(self, state: State) -> None: ...


def whole(run: BatchSession) -> Session:
    """The outputs of single sequences x [T, ..]."""
    return lambda x: run(x[None], np.array([len(x)]))[0]


def batched(graph: Graph, *, keeps_states: bool = False) -> BatchSession:
    """The outputs of sequences x [N, T, ..], of which `lengths` [N] steps are valid, from a graph of that form.

    keeps_states: it would go on from the states of the sequence before, and is reset first.
    Raises ValueError for another number of sequences or steps than the graph was made for, and for a sequence that
    ends earlier in a graph that takes no lengths.
    """
    wanted = graph.inputs["x"][0][:2]

    def run(x: IntArray, lengths: npt.NDArray[Any]) -> IntArray:
        for what, size, found in zip(("sequences", "steps"), wanted, x.shape, strict=False):
            if size not in (-1, found):
                raise ValueError(f"this file was exported for {size} {what} at a time, x has {found}")
        feeds = {"x": np.ascontiguousarray(x)}
        if "lengths" in graph.inputs:
            feeds["lengths"] = lengths.astype(np.int32)
        elif (lengths != x.shape[1]).any():
            raise ValueError(f"this file takes no lengths, all {x.shape[1]} steps are valid: export it with a batch")
        if keeps_states:
            graph.reset()
        y: IntArray = graph(feeds)["y"]
        return y

    return run


def stepwise(stepper: Stepper, every_step: bool) -> Session:
    """The outputs of sequences x [T, ..], one step after the other from the state zero."""

    def run(x: IntArray) -> IntArray:
        stepper.reset()
        outputs = [stepper.step(row) for row in x]
        return np.array(outputs) if every_step else outputs[-1]

    return run


class GraphStepper:
    """Carries the states from a graph's outputs to its next inputs; or none, where the graph keeps them itself.

    dtype: of the states where they are not integers.
    """

    def __init__(self, graph: Graph, specs: Mapping[str, StateSpec], dtype: type[np.generic] | None = None) -> None:
        self._graph, self._specs, self._dtype = graph, specs, dtype
        self._states: Tensors = {}
        self.reset()

    def step(self, x: IntArray) -> IntArray:
        result = self._graph({"x": np.ascontiguousarray(x[None]), **self._states})
        self._states = {name: result[f"{name}_out"] for name in self._specs}
        y: IntArray = result["y"][0]
        return y

    def reset(self) -> None:
        self._states = {name: np.zeros((1, spec.size), self._dtype or spec.dtype) for name, spec in self._specs.items()}
        self._graph.reset()

    @property
    def state(self) -> State:
        """A copy of the states that are carried."""
        return {name: value[0].copy() for name, value in self._states.items()}

    @state.setter
    def state(self, state: State) -> None:
        self._states = {name: state[name][None].copy() for name in self._specs}


def fork_lock() -> threading.Lock:
    """A lock that a fork waits for: the child would be left with one that nobody releases."""
    lock = threading.Lock()
    if sys.platform != "win32":
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


_stderr: Final = fork_lock()  # descriptor 2 belongs to the whole process


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what a runtime's C++ writes to stderr (a banner; errors that it also raises) from the user's terminal."""
    with _stderr:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
