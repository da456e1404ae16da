"""Layers as the SIMD kernels take them: what `pack_cell` makes of a layer's integers."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...qmodel import Affine, Layer
from ._cells import cell_scale
from ._form import Form
from ._pack import Array, PackedMap, aligned, pack_map


class LstmCell(NamedTuple):
    input: PackedMap
    recurrent: PackedMap
    scale: Array  # int32, of CELL_SCALE
    element: Any  # a zero of the operands' type, int8 or int16


class GruCell(NamedTuple):
    input: PackedMap
    recurrent: PackedMap
    element: Any


class GruResetBeforeCell(NamedTuple):
    input: PackedMap
    recurrent: PackedMap  # the rows of r and z
    candidate: PackedMap  # the rows of n, which read r * h
    element: Any


class RnnCell(NamedTuple):
    input: PackedMap
    recurrent: PackedMap
    element: Any


class Dense(NamedTuple):
    """No cell, but packed alike."""

    input: PackedMap
    element: Any


PackedCell: TypeAlias = LstmCell | GruCell | GruResetBeforeCell | RnnCell


def pack_cell(form: Form, layer: Layer, dtype: type[np.generic]) -> PackedCell:
    """dtype: of the operands. Raises OverflowError as `pack_map` does."""
    zero = dtype()
    inputs = _pack(form, zero.itemsize, len(layer.gates), layer.input)
    split = 2 * layer.hidden_size
    if layer.cell == "gru" and not layer.reset_after:
        gates, candidate = (
            _pack(form, zero.itemsize, 2, layer.recurrent, 0, split),
            _pack(form, zero.itemsize, 1, layer.recurrent, split),
        )
        return GruResetBeforeCell(inputs, gates, candidate, zero)
    recurrent = _pack(form, zero.itemsize, len(layer.gates), layer.recurrent)
    if layer.cell == "lstm":
        return LstmCell(inputs, recurrent, scale_array(layer.cell_exponent), zero)
    return (GruCell if layer.cell == "gru" else RnnCell)(inputs, recurrent, zero)


def pack_dense(form: Form, dense: Affine, dtype: type[np.generic]) -> Dense:
    """Raises OverflowError as `pack_map` does."""
    zero = dtype()
    return Dense(_pack(form, zero.itemsize, 1, dense), zero)


def scale_array(exponent: int) -> Array:
    numbers = cell_scale(exponent)
    array = aligned((len(numbers),), np.int32)
    array[:] = numbers
    return array


def _pack(form: Form, itemsize: int, gates: int, a: Affine, first: int = 0, last: int | None = None) -> PackedMap:
    rows = slice(first, last)
    return pack_map(form, itemsize, gates, a.weight[rows], a.bias[rows], a.multiplier[rows], a.shift[rows])
