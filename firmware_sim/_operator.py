"""The kernel of TensorFlow Lite's int8 LSTM operator in the flavours of its runtimes: `_tflite_lstm` has the equations.

One direction of a layer over a batch of sequences, in plain Numba; the head is the portable one.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import numba as untyped_numba
import numpy as np
from numba import types

from .._tflite_lstm import (
    HIDDEN_SHIFT,
    Flavour,
    gemmlowp_sigmoid,
    gemmlowp_tanh,
    operator_multipliers,
    table_sigmoid,
    table_tanh,
)
from ..fixedpoint import rescale, round_half_away_shift, round_shift, sat8, sat16
from ..qmodel import Affine, Layer, QuantizedModel
from ._affine import (
    MULTIPLIER,
    SHIFT,
    SIGMOID,
    TANH,
    Array,
    PackedAffine,
    accumulate,
    look_up,
    pack_rows,
)
from ._cells import ZERO, tally
from ._jit import inlined, kernel, machine_code
from ._kernels import Code, Readable, array_type
from ._layer import time_of

numba: Any = untyped_numba

CELL_TANH = 2  # the third of the tables
INPUT, RECURRENT = 1, 2  # bits: terms of a pre-activation


class OperatorCell(NamedTuple):
    """One direction's integers, its tables, and what is particular to the flavour."""

    input: PackedAffine
    recurrent: PackedAffine
    tables: Array  # int16 [3, 65536]: SIGMOID and TANH of a pre-activation, CELL_TANH of a cell state
    product_shift: int  # from the scale of i * g, 2^-30, to the cell state's
    saturates_terms: bool  # the recurrent term is saturated before it is added to the input's
    rounds_once: bool  # the cell state's products are rounded once, not twice


class Operator(Readable):
    """A model of the profile tflite-lstm packed for its kernel; the head is the portable one."""

    def __init__(self, model: QuantizedModel, flavour: Flavour) -> None:
        super().__init__(model, partial(_pack, flavour=flavour))
        self._code: Code | None = None  # of the usual call, in which nobody counts

    def run_layer(
        self,
        layer: int,
        backward: bool,
        x: Array,
        lengths: Array,
        h: Array,
        c: Array,
        hidden: Array,
        views: Array,
        saturation: Array | None,
    ) -> None:
        cell = self._cells[layer][backward]
        if saturation is not None:
            run_operator(cell, x, lengths, h, c, hidden, views, backward, saturation)
            return
        if self._code is None:
            int8, states = array_type(types.int8, 3), (array_type(types.int8, 2), array_type(types.int16, 2))
            arrays = (int8, array_type(types.int64, 1), *states, int8, int8)
            self._code = machine_code(run_operator, numba.typeof(cell), *arrays, types.boolean, types.none)
        self._code(cell, x, lengths, h, c, hidden, views, backward, None)


def _pack(layer: Layer, flavour: Flavour) -> OperatorCell:
    exponent, litert = layer.cell_exponent, flavour == "litert"
    maps = _pack_affine(layer.input, flavour), _pack_affine(layer.recurrent, flavour)
    return OperatorCell(*maps, operator_tables(litert, exponent), 30 - exponent, flavour == "tflm", litert)


def _pack_affine(affine: Affine, flavour: Flavour) -> PackedAffine:
    """With the multipliers of `rescale`, q31 and exponent, in place of those of `requantize`."""
    multipliers = operator_multipliers(affine.input_scale, affine.weight_scale, flavour)
    return pack_rows(affine.weight, affine.bias, *multipliers)


@cache
def operator_tables(litert: bool, cell_exponent: int) -> Array:
    sigmoid, tanh = (gemmlowp_sigmoid, gemmlowp_tanh) if litert else (table_sigmoid, table_tanh)
    v = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int64)
    return np.stack([sigmoid(v), tanh(v), tanh(v, cell_exponent)]).astype(np.int16)


@kernel
def run_operator(
    cell: OperatorCell,
    x: Array,
    lengths: Array,
    h: Array,
    c: Array,
    hidden: Array,
    views: Array,
    backward: bool,
    saturation: Array | None,
) -> None:
    """As `_layer.run_layer`, but h and hidden are int8 as views are, all three the same integers."""
    rows, size = cell.input.rows.shape[1], np.uint64(h.shape[1])
    acc, gates = np.empty(rows, np.int32), np.empty(rows, np.int16)
    view = np.zeros(cell.recurrent.weight.shape[0], np.int8)
    column = size if backward else ZERO
    for b in range(np.uint64(x.shape[0])):
        length = np.uint64(lengths[b])
        view[: h.shape[1]] = h[b]
        for n in range(length):
            t = time_of(n, length, backward)
            pre_activations(cell, x[b, t], view, acc, gates, None)
            for slot in range(4):
                tally(saturation, slot, gates, np.uint64(slot) * size, size)
            advance(cell, gates, c[b], view)
            for out in (hidden, views):
                if out.shape[2] > 0:
                    for u in range(size):
                        out[b, t, column + u] = view[u]
            tally_bytes(saturation, view, size)
            tally(saturation, -1, c[b], ZERO, size)
        h[b] = view[: h.shape[1]]


@inlined
def tally_bytes(saturation: Any, view: Array, size: Any) -> None:
    """Count the hidden states at an end of int8."""
    if saturation is not None:
        for u in range(size):
            saturation[-2] += (view[u] == 127) | (view[u] == -128)


@inlined
def pre_activations(cell: OperatorCell, x: Array, view: Array, acc: Array, gates: Array, passes: Any) -> None:
    """gates = sat16(sat16(input term) + recurrent term).

    passes: None, or uint8 as gates, for training: which of the terms, INPUT and RECURRENT, the limits leave alone.
    """
    accumulate(cell.input, x, acc)
    for n in range(np.uint64(gates.shape[0])):
        term = rescale(acc[n], cell.input.rows[MULTIPLIER, n], cell.input.rows[SHIFT, n])
        gates[n] = sat16(term)
        if passes is not None:
            passes[n] = INPUT * (term == sat16(term))
    accumulate(cell.recurrent, view, acc)
    for n in range(np.uint64(gates.shape[0])):
        term = rescale(acc[n], cell.recurrent.rows[MULTIPLIER, n], cell.recurrent.rows[SHIFT, n])
        total = gates[n] + (sat16(term) if cell.saturates_terms else term)
        gates[n] = sat16(total)
        if passes is not None:
            passes[n] = (passes[n] | RECURRENT * (term == sat16(term))) * (total == sat16(total))


@inlined
def scaled(cell: OperatorCell, product: Any, shift: Any) -> Any:
    """product * 2^-shift, rounded as the flavour does; within int16."""
    return round_half_away_shift(product, shift) if cell.rounds_once else round_shift(product, shift)


@inlined
def advance(cell: OperatorCell, gates: Array, c: Array, view: Array) -> None:
    """c' = f * c + i * g, h' = o * tanh(c')."""
    size = np.uint64(c.shape[0])
    i, f, g, o = ZERO, size, size + size, size + size + size
    look_up(cell.tables, SIGMOID, gates, i, g)
    look_up(cell.tables, TANH, gates, g, size)
    look_up(cell.tables, SIGMOID, gates, o, size)
    for u in range(size):
        kept, fresh = gates[f + u] * c[u], gates[i + u] * gates[g + u]
        c[u] = sat16(scaled(cell, kept, 15) + scaled(cell, fresh, cell.product_shift))
        gates[g + u] = c[u]
    look_up(cell.tables, CELL_TANH, gates, g, size)
    for u in range(size):
        view[u] = sat8(round_shift(gates[o + u] * gates[g + u], HIDDEN_SHIFT))
