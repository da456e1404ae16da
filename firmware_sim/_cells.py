"""One step of each cell, as in the arithmetic's definition; every form of inference calls these and nothing else.

A step gets `px`, the input's share of the pre-activations (int16 [rows]), and advances the state in place: h and c
(int16 [hidden_size]) and `view`, h as the matrix product reads it. `saturation` is None, or int64 counters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import types
from numba.extending import overload

from ..fixedpoint import cell_rescale, rescale, round_shift, sat16
from ..qmodel import Layer
from ._affine import SIGMOID, TANH, Array, PackedAffine, apply_affine, look_up, pack_affine, write_view
from ._jit import inlined


class LstmCell(NamedTuple):
    input: PackedAffine
    recurrent: PackedAffine
    product_shift: int  # from the scale of i * g, 2^-30, to the cell state's
    tanh_multiplier: int  # from the cell state's scale to a pre-activation's
    tanh_exponent: int


class GruCell(NamedTuple):
    input: PackedAffine
    recurrent: PackedAffine


class GruResetBeforeCell(NamedTuple):
    input: PackedAffine
    recurrent: PackedAffine  # the rows of r and z
    candidate: PackedAffine  # the rows of n, which read r * h


class RnnCell(NamedTuple):
    input: PackedAffine
    recurrent: PackedAffine


PackedCell: TypeAlias = LstmCell | GruCell | GruResetBeforeCell | RnnCell


class Scratch(NamedTuple):
    """Memory that a step uses: sized by `scratch_for`."""

    acc: Array  # int32 [rows]
    gates: Array  # int16 [rows]
    reset: Array  # int16 [hidden_size]: r * h
    reset_view: Array  # that as the matrix product reads it, like `view`


def pack_layer(layer: Layer) -> PackedCell:
    """The layer's integers as its step reads them."""
    inputs, recurrent = pack_affine(layer.input), pack_affine(layer.recurrent)
    if layer.cell == "lstm":
        return LstmCell(inputs, recurrent, 30 - layer.cell_exponent, *cell_rescale(layer.cell_exponent))
    if layer.cell == "rnn":
        return RnnCell(inputs, recurrent)
    if layer.reset_after:
        return GruCell(inputs, recurrent)
    split = 2 * layer.hidden_size
    return GruResetBeforeCell(inputs, pack_affine(layer.recurrent, 0, split), pack_affine(layer.recurrent, split))


# ---- the equations ---------------------------------------------------------------------------------------------------
# `gates` holds one block of hidden_size values a gate, in GATES order; i, f, g, o, r, z, n are where the blocks start.
# Indices are unsigned: for signed ones the compiler adds Python's wrap-around of negative indices.

ZERO = np.uint64(0)


@inlined
def add_saturating(px: Array, gates: Array, count: Any) -> None:
    """gates = sat16(px + gates), the first `count` of them."""
    for n in range(count):
        gates[n] = sat16(px[n] + gates[n])


@inlined
def tally(saturation: Any, slot: int, values: Array, first: Any, count: Any) -> None:
    """Count the values at an end of int16; compiles to nothing when nobody counts."""
    if saturation is not None:
        for n in range(first, first + count):
            saturation[slot] += (values[n] == 32767) | (values[n] == -32768)


@inlined
def lstm_step(
    cell: LstmCell, tables: Array, px: Array, h: Array, c: Array, view: Array, scratch: Scratch, saturation: Any
) -> None:
    """c' = f * c + i * g, h' = o * tanh(c')."""
    size, gates = np.uint64(h.shape[0]), scratch.gates
    i, f, g, o = ZERO, size, size + size, size + size + size
    apply_affine(cell.recurrent, view, scratch.acc, gates)
    add_saturating(px, gates, o + size)
    for slot in range(4):
        tally(saturation, slot, gates, np.uint64(slot) * size, size)
    look_up(tables, SIGMOID, gates, i, g)
    look_up(tables, TANH, gates, g, size)
    look_up(tables, SIGMOID, gates, o, size)
    for u in range(size):
        kept = sat16(round_shift(gates[f + u] * c[u], 15))
        c[u] = sat16(kept + sat16(round_shift(gates[i + u] * gates[g + u], cell.product_shift)))
        gates[g + u] = sat16(rescale(c[u], cell.tanh_multiplier, cell.tanh_exponent))
    look_up(tables, TANH, gates, g, size)
    for u in range(size):
        h[u] = sat16(round_shift(gates[o + u] * gates[g + u], 15))


@inlined
def gru_step(
    cell: GruCell, tables: Array, px: Array, h: Array, c: Array, view: Array, scratch: Scratch, saturation: Any
) -> None:
    """n = tanh(px_n + r * (U_n h + b_n)), h' = (1 - z) * n + z * h."""
    size, gates = np.uint64(h.shape[0]), scratch.gates
    r, n = ZERO, size + size
    apply_affine(cell.recurrent, view, scratch.acc, gates)
    reset_and_update_gates(tables, px, gates, size, saturation)
    for u in range(size):
        gates[n + u] = sat16(px[n + u] + sat16(round_shift(gates[r + u] * gates[n + u], 15)))
    interpolate_hidden(tables, h, gates, saturation)


@inlined
def gru_reset_before_step(
    cell: GruResetBeforeCell,
    tables: Array,
    px: Array,
    h: Array,
    c: Array,
    view: Array,
    scratch: Scratch,
    saturation: Any,
) -> None:
    """n = tanh(px_n + U_n (r * h)), h' = (1 - z) * n + z * h."""
    size, gates, reset = np.uint64(h.shape[0]), scratch.gates, scratch.reset
    r, n = ZERO, size + size
    apply_affine(cell.recurrent, view, scratch.acc, gates)
    reset_and_update_gates(tables, px, gates, size, saturation)
    for u in range(size):
        reset[u] = sat16(round_shift(gates[r + u] * h[u], 15))
    write_view(reset, scratch.reset_view)
    apply_affine(cell.candidate, scratch.reset_view, scratch.acc, gates[n:])
    add_saturating(px[n:], gates[n:], size)
    interpolate_hidden(tables, h, gates, saturation)


@inlined
def reset_and_update_gates(tables: Array, px: Array, gates: Array, size: Any, saturation: Any) -> None:
    """r, z = sigmoid(px + U h)."""
    r, z = ZERO, size
    add_saturating(px, gates, size + size)
    tally(saturation, 0, gates, r, size)
    tally(saturation, 1, gates, z, size)
    look_up(tables, SIGMOID, gates, r, size + size)


@inlined
def interpolate_hidden(tables: Array, h: Array, gates: Array, saturation: Any) -> None:
    """n = tanh(n), h' = (1 - z) * n + z * h."""
    size = np.uint64(h.shape[0])
    z, n = size, size + size
    tally(saturation, 2, gates, n, size)
    look_up(tables, TANH, gates, n, size)
    for u in range(size):
        new = sat16(gates[n + u] - round_shift(gates[z + u] * gates[n + u], 15))
        h[u] = sat16(new + round_shift(gates[z + u] * h[u], 15))


@inlined
def rnn_step(
    cell: RnnCell, tables: Array, px: Array, h: Array, c: Array, view: Array, scratch: Scratch, saturation: Any
) -> None:
    """h' = tanh(px + U h)."""
    size, gates = np.uint64(h.shape[0]), scratch.gates
    apply_affine(cell.recurrent, view, scratch.acc, gates)
    add_saturating(px, gates, size)
    tally(saturation, 0, gates, ZERO, size)
    look_up(tables, TANH, gates, ZERO, size)
    for u in range(size):
        h[u] = gates[u]


def step(
    cell: PackedCell, tables: Array, px: Array, h: Array, c: Array, view: Array, scratch: Scratch, saturation: Any
) -> None:
    """Advance h and c by one step of whichever cell it is."""
    raise AssertionError("for kernels only")


_STEPS: dict[type, Callable[..., None]] = {
    LstmCell: lstm_step,
    GruCell: gru_step,
    GruResetBeforeCell: gru_reset_before_step,
    RnnCell: rnn_step,
}


@overload(step, strict=False, jit_options={"forceinline": True})
def _step_for(cell: Any, *_: types.Type) -> Callable[..., None]:
    return _STEPS[cell.instance_class]
