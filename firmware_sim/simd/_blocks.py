"""A block of sequences in the memory of a kernel, and what its steps read and write: one copy for all kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from .._jit import inlined
from ._form import LANES
from ._memory import (
    GATE_CONSTANTS,
    ITEM,
    VECTOR,
    address_of,
    copy_row,
    operand_at,
    operand_size,
    peek,
    read_row,
    size_of,
    write_row,
    write_view,
)
from ._pack import Array, PackedMap
from .cells import Dense, GruCell, GruResetBeforeCell, LstmCell, PackedCell, RnnCell
from .tiles import Place, Projection, Source, project

LANE_BYTES = LANES * 2  # of 16 values of a state


class Map(NamedTuple):
    """A PackedMap by numbers."""

    weights: int  # addresses
    constants: int
    panels: int
    groups: int
    gates: int


@inlined
def _map(packed: PackedMap) -> Any:
    panels, groups, gates = packed.weights.shape[0], packed.weights.shape[1], packed.weights.shape[2]
    return Map(address_of(packed.weights), address_of(packed.constants), panels, groups, gates)


def by_numbers(cell: PackedCell | Dense) -> Any:
    """The cell with a Map for each PackedMap, and the address of its scale."""
    raise AssertionError("for kernels only")


@overload(by_numbers, strict=False)
def _by_numbers_for(cell: Any) -> Callable[..., Any]:
    if cell.instance_class is LstmCell:
        return lambda cell: LstmCell(_map(cell.input), _map(cell.recurrent), address_of(cell.scale), cell.element)
    if cell.instance_class is GruCell:
        return lambda cell: GruCell(_map(cell.input), _map(cell.recurrent), cell.element)
    if cell.instance_class is RnnCell:
        return lambda cell: RnnCell(_map(cell.input), _map(cell.recurrent), cell.element)
    if cell.instance_class is Dense:
        return lambda cell: Dense(_map(cell.input), cell.element)
    return lambda cell: GruResetBeforeCell(_map(cell.input), _map(cell.recurrent), _map(cell.candidate), cell.element)


def scale_address(cell: PackedCell) -> int:
    """Of an LSTM by numbers; 0 of other cells."""
    raise AssertionError("for kernels only")


@overload(scale_address, strict=False)
def _scale_address_for(cell: Any) -> Callable[..., Any]:
    return (lambda cell: cell.scale) if cell.instance_class is LstmCell else (lambda cell: 0)


# ---- memory ----------------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Tiles of sequences that are run together, by address."""

    tables: int
    x: Source  # operands: inputs,
    old_view: Source  # h,
    new_view: Source
    reset_view: Source  # and r * h
    px: int  # int16 [tiles or steps, panels, gates, rows of a tile, 16]
    h: int  # states, int16 [tiles, panels, rows of a tile, 16]
    c: int
    update: int
    valid: int  # int16 [tiles, rows of a tile, 16]: -1 in rows that have this step, else 0
    panels: int
    rows: int  # of a tile


@inlined
def block_size(like: Any, inputs: Map, recurrent: Map, tiles: Any, rows: Any, steps: Any) -> Any:
    """Bytes of a block of operands of that type. steps: of one sequence that are projected at once, or 0."""
    tile = inputs.panels * rows * LANE_BYTES
    shares, input_rows = (steps, steps) if steps > 0 else (tiles, tiles * rows)
    operands = operand_size(like, input_rows, inputs.groups) + 3 * operand_size(like, tiles * rows, recurrent.groups)
    return operands + (shares * inputs.gates + 3 * tiles) * tile + tiles * rows * LANE_BYTES


@inlined
def block_at(
    memory: Any, tables: Any, like: Any, inputs: Map, recurrent: Map, tiles: Any, rows: Any, steps: Any
) -> Block:
    """A block in zeros of its size, at that address."""
    tile = inputs.panels * rows * LANE_BYTES
    shares, input_rows = (steps, steps) if steps > 0 else (tiles, tiles * rows)
    x = operand_at(memory, like, input_rows, inputs.groups)
    old = memory + operand_size(like, input_rows, inputs.groups)
    view = operand_size(like, tiles * rows, recurrent.groups)
    px = old + 3 * view
    h = px + shares * inputs.gates * tile
    return Block(
        tables,
        x,
        operand_at(old, like, tiles * rows, recurrent.groups),
        operand_at(old + view, like, tiles * rows, recurrent.groups),
        operand_at(old + 2 * view, like, tiles * rows, recurrent.groups),
        px,
        h,
        h + tiles * tile,
        h + 2 * tiles * tile,
        h + 3 * tiles * tile,
        inputs.panels,
        rows,
    )


@inlined
def swapped(block: Block) -> Block:
    """What was new is old."""
    return Block(
        block.tables,
        block.x,
        block.new_view,
        block.old_view,
        block.reset_view,
        block.px,
        block.h,
        block.c,
        block.update,
        block.valid,
        block.panels,
        block.rows,
    )


@inlined
def rows_from(operand: Source, row: Any) -> Source:
    """The operand from that row on."""
    return Source(operand.address + row * operand.row, operand.row, operand.plane, operand.groups)


@inlined
def place(cell: Any, a_map: Map, block: Block, view: Source, tile: Any, panel: Any, share: Any, record: Any) -> Place:
    """Where tile and panel have what a step with this map needs.

    share: which one of block.px; record: the address of what a training step keeps.
    """
    size = block.rows * LANE_BYTES
    at = (tile * block.panels + panel) * size
    return Place(
        block.tables,
        block.px + (share * block.panels + panel) * cell.input.gates * size,
        a_map.weights + panel * a_map.groups * a_map.gates * VECTOR,
        a_map.constants + panel * a_map.gates * GATE_CONSTANTS,
        block.h + at,
        block.c + at,
        view.address + tile * block.rows * view.row + panel * LANES * ITEM,
        block.valid + tile * size,
        scale_address(cell),
        block.update + at,
        record,
    )


@inlined
def project_panel(cell: Any, operand: Source, panel: Any, to: Projection, saving: Any) -> None:
    """The input's shares of a panel's pre-activations, for ROWS rows. saving: None, or anything else."""
    weights = cell.input.weights + panel * cell.input.groups * cell.input.gates * VECTOR
    constants = cell.input.constants + panel * cell.input.gates * GATE_CONSTANTS
    if saving is None:
        project(cell, operand, weights, constants, to, False)
    else:
        project(cell, operand, weights, constants, to, True)


def last_map(cell: Any, block: Block) -> Any:
    """The map of the step's last product, and its operand."""
    raise AssertionError("for kernels only")


@overload(last_map, strict=False)
def _last_map_for(cell: Any, block: Any) -> Callable[..., Any]:
    if cell.instance_class is GruResetBeforeCell:
        return lambda cell, block: (cell.candidate, block.reset_view)
    return lambda cell, block: (cell.recurrent, block.old_view)


# ---- in and out ------------------------------------------------------------------------------------------------------


class Sequences(NamedTuple):
    """The arrays of a kernel's arguments, by address, and their sizes."""

    x: int
    lengths: int
    h: int
    c: int
    hidden: int
    views: int
    batch: int
    time: int
    inputs: int
    units: int
    has_c: int
    hidden_columns: int
    view_columns: int
    backward: bool


@inlined
def sequences_of(
    x: Array, lengths: Array, h: Array, c: Array, hidden: Array, views: Array, backward: bool
) -> Sequences:
    return Sequences(
        address_of(x),
        address_of(lengths),
        address_of(h),
        address_of(c),
        address_of(hidden),
        address_of(views),
        x.shape[0],
        x.shape[1],
        x.shape[2],
        h.shape[1],
        c.shape[1] > 0,
        hidden.shape[2],
        views.shape[2],
        backward,
    )


@inlined
def length_of(s: Sequences, b: Any) -> Any:
    """How many steps of a sequence are valid."""
    return peek(s.lengths + 8 * b, np.int64(0))


@inlined
def time_of(number: Any, length: Any, backward: bool) -> Any:
    """The place in the sequence of the step that a direction computes after `number` others."""
    return length - 1 - number if backward else number


@inlined
def _state_row(block: Block, states: Any, row: Any) -> Any:
    """The address of a row of block.h or block.c in its first panel."""
    return states + (row // block.rows * block.panels * block.rows + row % block.rows) * LANE_BYTES


@inlined
def _write_state(values: Any, units: Any, block: Block, states: Any, row: Any) -> None:
    to, like = _state_row(block, states, row), np.int16(0)
    if block.rows == 1:
        copy_row(values, like, units, to, 0)
    else:
        for first in range(0, units, LANES):
            copy_row(values + 2 * first, like, min(LANES, units - first), to + first * block.rows * 2, 0)


@inlined
def _read_state(block: Block, states: Any, row: Any, units: Any, to: Any) -> None:
    source, like = _state_row(block, states, row), np.int16(0)
    if block.rows == 1:
        copy_row(source, like, units, to, 0)
    else:
        for first in range(0, units, LANES):
            copy_row(source + first * block.rows * 2, like, min(LANES, units - first), to + 2 * first, 0)


@inlined
def enter_state(like: Any, block: Block, row: Any, s: Sequences, b: Any) -> None:
    """Begin a row with the state of sequence b."""
    h = s.h + b * s.units * 2
    _write_state(h, s.units, block, block.h, row)
    if s.has_c:
        _write_state(s.c + b * s.units * 2, s.units, block, block.c, row)
    view = block.old_view
    write_view(h, like, s.units, view.address + row * view.row, view.plane)


@inlined
def leave_state(block: Block, row: Any, s: Sequences, b: Any) -> None:
    """Write the state of a row to sequence b."""
    _read_state(block, block.h, row, s.units, s.h + b * s.units * 2)
    if s.has_c:
        _read_state(block, block.c, row, s.units, s.c + b * s.units * 2)


@inlined
def enter_step(like: Any, block: Block, row: Any, s: Sequences, b: Any, time: Any) -> None:
    """The inputs of a step to a row of block.x."""
    values = s.x + (b * s.time + time) * s.inputs * size_of(like)
    write_row(values, like, s.inputs, block.x.address + row * block.x.row, block.x.plane)


@inlined
def leave_step(like: Any, block: Block, row: Any, s: Sequences, b: Any, time: Any) -> None:
    """Write h and its view to the first columns of a step's outputs, or the last ones if backward, if there are any."""
    if s.hidden_columns > 0:
        column = s.hidden_columns - s.units if s.backward else 0
        _read_state(block, block.h, row, s.units, s.hidden + ((b * s.time + time) * s.hidden_columns + column) * 2)
    if s.view_columns > 0:
        column = s.view_columns - s.units if s.backward else 0
        to = s.views + ((b * s.time + time) * s.view_columns + column) * size_of(like)
        if size_of(like) == 1:
            read_row(block.new_view.address + row * block.new_view.row, like, s.units, to, 0)
        else:
            _read_state(block, block.h, row, s.units, to)
