"""A model made ready for the kernels: its packed integers, and the memory that a call works in."""

from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from ..qmodel import IntArray, QuantizedModel
from ._affine import Array, PackedAffine, pack_affine, padded_columns, tables
from ._cells import PackedCell, pack_layer
from ._layer import run_head, run_layer
from ._state import State, cell_state_size


@dataclass(frozen=True)
class _Packed:
    cells: tuple[PackedCell, ...]
    head: PackedAffine | None


_packed: Final[WeakKeyDictionary[QuantizedModel, _Packed]] = WeakKeyDictionary()


def _pack(model: QuantizedModel) -> _Packed:
    packed = _packed.get(model)
    if packed is None:
        head = None if model.head is None else pack_affine(model.head.dense)
        packed = _packed[model] = _Packed(tuple(pack_layer(layer) for layer in model.layers), head)
    return packed


class Network:
    """Runs `batch` sequences of `time` steps at once; keeps their state, at first zero, between calls."""

    def __init__(self, model: QuantizedModel, batch: int, time: int) -> None:
        self._model = model
        self._packed = _pack(model)
        self._tables = tables()

        def memory(size: int, dtype: type[np.generic] = np.int16, *, padded: bool = False) -> Array:
            return np.zeros((batch, time, padded_columns(size) if padded else size), dtype)

        sizes = [layer.hidden_size for layer in model.layers]
        self._x = memory(model.input_size, model.input_dtype, padded=True)
        self._hidden = [memory(size) for size in sizes]
        self._views = [memory(size, model.input_dtype, padded=True) for size in sizes]
        self._h = [np.zeros((batch, size), np.int16) for size in sizes]
        self._c = [np.zeros((batch, cell_state_size(layer)), np.int16) for layer in model.layers]

    def state(self) -> State:
        """The state of the first sequence."""
        return State(tuple(h[0] for h in self._h), tuple(c[0] for c in self._c))

    def set_state(self, state: State) -> None:
        """Give every sequence this state. Raises ValueError when it is not one of this model."""
        if not isinstance(state, State):
            raise ValueError(f"state must be a firmware_sim.State, not {type(state).__name__}; see State.zeros(model)")
        state.check(self._model)
        for target, source in zip(self._h + self._c, state.h + state.c, strict=True):
            target[:] = source

    def run(self, x: IntArray, lengths: Array, saturation: list[Array] | None = None) -> IntArray:
        """Outputs [batch, time, output_size] of x [batch, time, input_size], or [batch, 1, ..] for a head of the last
        step. lengths: int64 [batch]. saturation: an array of counters for every layer, as `run_layer` takes them.
        """
        operand = self._x
        operand[:, :, : x.shape[2]] = x
        for index, cell in enumerate(self._packed.cells):
            views = self._views[index]
            counters = None if saturation is None else saturation[index]
            run_layer(
                cell,
                self._tables,
                operand,
                lengths,
                self._h[index],
                self._c[index],
                self._hidden[index],
                views,
                counters,
            )
            operand = views
        if self._packed.head is None:
            return self._hidden[-1].copy()
        last = not self._model.every_step
        y = np.zeros((x.shape[0], 1 if last else x.shape[1], self._model.output_size), np.int8)
        run_head(self._packed.head, operand, lengths, last, y)
        return y
