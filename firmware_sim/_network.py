"""A model made ready for the kernels: its packed integers, and the memory that a call works in."""

from typing import Any, Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from .._tflite_lstm import Flavour, check_flavour
from ..qmodel import DIRECTION_SUFFIXES, IntArray, QuantizedModel, State
from ._affine import Array
from ._kernels import Kernels, Readable, fastest_kernels
from ._operator import Operator


class _Direction(NamedTuple):
    """One direction of a layer: the names of its states (no c: None), and the columns of what the layer writes."""

    layer: int
    backward: bool
    h: str
    c: str | None
    hidden_columns: int
    view_columns: int


class _Plan:
    """What all networks of a model share."""

    def __init__(self, model: QuantizedModel, kernels: Kernels) -> None:
        self.kernels = kernels
        self.states = [(name, spec.size, np.dtype(spec.dtype)) for name, spec in model.states.items()]
        self.hidden_dtype = np.dtype(next(iter(model.states.values())).dtype)
        self.no_hidden = _NO_OUTPUT[self.hidden_dtype]
        self.streams = not model.bidirectional
        self.input_columns = self.kernels.columns(model.input_size)
        self.dtype = np.dtype(model.input_dtype)
        self.outputs = None if model.head is None else model.output_size
        self.every_step = model.every_step
        self.last_backward = None if model.layers[-1].backward is None else model.layers[-1].hidden_size
        self.directions: list[_Direction] = []
        for index, layer in enumerate(model.layers):
            is_output = model.head is None and index == len(model.layers) - 1
            columns = (layer.output_size, 0) if is_output else (0, self.kernels.columns(layer.output_size))
            for suffix, _ in zip(DIRECTION_SUFFIXES, layer.directions, strict=False):
                c = f"c_{index}{suffix}" if layer.cell == "lstm" else None
                self.directions.append(_Direction(index, suffix != "", f"h_{index}{suffix}", c, *columns))


_Kind = Literal["fastest", "readable"] | Flavour  # of kernels: of the profile tflite-lstm its flavours
_plans: Final[WeakKeyDictionary[QuantizedModel, dict[_Kind, _Plan]]] = WeakKeyDictionary()


def _plan(model: QuantizedModel, kind: _Kind) -> _Plan:
    plans = _plans.get(model)
    if plans is None:
        plans = _plans[model] = {}
    plan = plans.get(kind)
    if plan is None:
        plan = plans[kind] = _Plan(model, _kernels(model, kind))
    return plan


def _kernels(model: QuantizedModel, kind: _Kind) -> Kernels:
    if kind == "readable":
        return Readable(model)
    return fastest_kernels(model) if kind == "fastest" else Operator(model, kind)


_INT8: Final = np.dtype(np.int8)  # what zeros() would make of the type in every call
_INT16: Final = np.dtype(np.int16)
_NO_STATE: Final = np.empty((0, 0), _INT16)
_NO_OUTPUT: Final[dict[Any, Array]] = {dtype: np.empty((0, 0, 0), dtype) for dtype in (_INT8, _INT16)}


class Network:
    """Runs `batch` sequences at once; keeps their state, at first zero, between calls.

    A bidirectional model is run once, from the state zero. readable: with the readable kernels. flavour: of the profile
    tflite-lstm; the portable profile has one arithmetic. Raises ValueError for an unknown flavour.
    """

    def __init__(
        self, model: QuantizedModel, batch: int, *, readable: bool = False, flavour: Flavour = "litert"
    ) -> None:
        check_flavour(flavour)
        self._model = model
        self._plan = _plan(model, flavour if model.profile == "tflite-lstm" else "readable" if readable else "fastest")
        self._states = {name: np.zeros((batch, size), dtype) for name, size, dtype in self._plan.states}

    def state(self) -> State:
        """The first sequence's state, which the next call changes; of a bidirectional model, which cannot go on from
        one, an empty one."""
        return {name: array[0] for name, array in self._states.items()} if self._plan.streams else {}

    def set_state(self, state: State) -> None:
        """Give every sequence this state. Raises ValueError when it is not one of this model."""
        self._model.check_state(state)
        for name, array in self._states.items():
            array[:] = state[name]

    def run(self, x: IntArray, lengths: Array, saturation: list[Array] | None = None) -> IntArray:
        """Outputs [batch, time, output_size] of x [batch, time, input_size], or [batch, 1, ..] for a head of the last
        step. lengths: int64 [batch]. saturation: an array of counters for every layer, as `run_layer` takes them.
        """
        plan, (batch, time, _) = self._plan, x.shape
        operand = hidden = views = self._operand(x)
        for layer, backward, h, c, hidden_columns, view_columns in plan.directions:
            if not backward:  # a layer begins, which reads what the one before wrote
                operand = views
                hidden = (
                    np.zeros((batch, time, hidden_columns), plan.hidden_dtype) if hidden_columns else plan.no_hidden
                )
                views = np.zeros((batch, time, view_columns), plan.dtype) if view_columns else _NO_OUTPUT[plan.dtype]
            cell_state = self._states[c] if c else _NO_STATE
            counters = saturation[layer] if saturation else None
            plan.kernels.run_layer(
                layer, backward, operand, lengths, self._states[h], cell_state, hidden, views, counters
            )
        if plan.outputs is None:
            return hidden
        y = np.zeros((batch, time if plan.every_step else 1, plan.outputs), _INT8)
        if plan.last_backward and not plan.every_step:
            self._bring_backward_to_last(views, plan.last_backward, lengths)
        plan.kernels.run_head(views, lengths, not plan.every_step, y)
        return y

    def _operand(self, x: IntArray) -> Array:
        """The input as the kernels take it."""
        if x.shape[2] == self._plan.input_columns and x.flags.carray:
            return x
        operand = np.zeros((*x.shape[:2], self._plan.input_columns), x.dtype)
        operand[:, :, : x.shape[2]] = x
        return operand

    def _bring_backward_to_last(self, views: Array, size: int, lengths: Array) -> None:
        """Copy the backward direction's last result, that of step 0, to the last valid step, where the head reads."""
        halves = views[:, :, size : 2 * size]
        halves[np.arange(len(lengths)), lengths - 1] = halves[:, 0]
