"""A model made ready for the kernels: its packed integers, and the memory that a call works in."""

from dataclasses import dataclass
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..qmodel import DIRECTION_SUFFIXES, IntArray, QuantizedModel, State
from ._affine import Array, PackedAffine, pack_affine, padded_columns, tables
from ._cells import PackedCell, pack_layer
from ._layer import run_head, run_layer


@dataclass(frozen=True)
class _Packed:
    cells: tuple[tuple[PackedCell, ...], ...]  # of every layer, its directions
    head: PackedAffine | None


_packed: Final[WeakKeyDictionary[QuantizedModel, _Packed]] = WeakKeyDictionary()


def _pack(model: QuantizedModel) -> _Packed:
    packed = _packed.get(model)
    if packed is None:
        cells = tuple(tuple(pack_layer(direction) for direction in layer.directions) for layer in model.layers)
        head = None if model.head is None else pack_affine(model.head.dense)
        packed = _packed[model] = _Packed(cells, head)
    return packed


class _Scan(NamedTuple):
    """One direction of a layer, with the arrays that `run_layer` takes: what it reads, keeps and writes."""

    layer: int
    backward: bool
    cell: PackedCell
    x: Array
    h: Array
    c: Array
    hidden: Array
    views: Array


class Network:
    """Runs `batch` sequences of `time` steps at once; keeps their state, at first zero, between calls.

    A bidirectional model is run once, from the state zero.
    """

    def __init__(self, model: QuantizedModel, batch: int, time: int) -> None:
        self._model = model
        self._packed = _pack(model)
        self._tables = tables()
        self._states = {name: np.zeros((batch, spec.size), np.int16) for name, spec in model.states.items()}

        def memory(size: int, dtype: type[np.generic] = np.int16, *, padded: bool = False) -> Array:
            return np.zeros((batch, time, padded_columns(size) if padded else size), dtype)

        self._scans: list[_Scan] = []
        self._x = self._views = memory(model.input_size, model.input_dtype, padded=True)
        no_cell_state = np.zeros((batch, 0), np.int16)
        for index, (layer, cells) in enumerate(zip(model.layers, self._packed.cells, strict=True)):
            self._hidden = memory(layer.output_size)
            operand, self._views = self._views, memory(layer.output_size, model.input_dtype, padded=True)
            for suffix, cell in zip(DIRECTION_SUFFIXES, cells, strict=False):
                h = self._states[f"h_{index}{suffix}"]
                c = self._states.get(f"c_{index}{suffix}", no_cell_state)
                self._scans.append(_Scan(index, suffix != "", cell, operand, h, c, self._hidden, self._views))

    def state(self) -> State:
        """A copy of the first sequence's state; of a bidirectional model, which cannot go on from one, an empty one."""
        return {} if self._model.bidirectional else {name: array[0].copy() for name, array in self._states.items()}

    def set_state(self, state: State) -> None:
        """Give every sequence this state. Raises ValueError when it is not one of this model."""
        self._model.check_state(state)
        for name, array in self._states.items():
            array[:] = state[name]

    def run(self, x: IntArray, lengths: Array, saturation: list[Array] | None = None) -> IntArray:
        """Outputs [batch, time, output_size] of x [batch, time, input_size], or [batch, 1, ..] for a head of the last
        step. lengths: int64 [batch]. saturation: an array of counters for every layer, as `run_layer` takes them.
        """
        self._x[:, :, : x.shape[2]] = x
        for scan in self._scans:
            run_layer(
                scan.cell,
                self._tables,
                scan.x,
                lengths,
                scan.h,
                scan.c,
                scan.hidden,
                scan.views,
                scan.backward,
                None if saturation is None else saturation[scan.layer],
            )
        if self._packed.head is None:
            return self._hidden.copy()
        last = not self._model.every_step
        if last and self._model.layers[-1].backward is not None:
            self._bring_backward_to_last(lengths)
        y = np.zeros((x.shape[0], 1 if last else x.shape[1], self._model.output_size), np.int8)
        run_head(self._packed.head, self._views, lengths, last, y)
        return y

    def _bring_backward_to_last(self, lengths: Array) -> None:
        """Copy the backward direction's last result, that of step 0, to the last valid step, where the head reads."""
        size = self._model.layers[-1].hidden_size
        halves = self._views[:, :, size : 2 * size]
        halves[np.arange(len(lengths)), lengths - 1] = halves[:, 0]
