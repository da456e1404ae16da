"""Affine maps of a tile: rows of an operand times panels of a packed matrix."""

from typing import NamedTuple

import llvmlite.ir as ir

from ._form import LANES, Form
from ._pack import BIAS, CONSTANTS, LEFT, MULTIPLIER, RIGHT
from ._vector import I32, I64, Builder, Value, Vector, broadcast, concatenate, load, offset, repeat


class Tile(NamedTuple):
    """What is computed at once: `rows` sequences (or time steps) of `panels` * 16 units. One of the two is 1."""

    rows: int
    panels: int

    @property
    def lanes(self) -> int:
        return self.rows * self.panels * LANES


class Operand(NamedTuple):
    """Where an operand lies: [planes, rows, columns], its strides in bytes and its groups of columns."""

    address: Value
    row: Value
    plane: Value
    groups: Value
    itemsize: int  # of the operand before it was split into planes


class Matrix(NamedTuple):
    """Where a PackedMap lies, from the tile's first panel on, and how many gates it has."""

    weights: Value
    constants: Value
    gates: int


def affine(form: Form, builder: Builder, tile: Tile, x: Operand, matrix: Matrix) -> list[Vector]:
    """Of every gate [tile.lanes] integers, which `requantize` would saturate to int16."""
    sums = _accumulate(form, builder, tile, x, matrix)
    results = []
    for gate in range(matrix.gates):
        scaled = []
        for panel in range(tile.panels):
            start = _constants(builder, matrix, panel, gate)
            rows = [load(builder, offset(builder, start, k * LANES * 4), I32, LANES) for k in (MULTIPLIER, LEFT, RIGHT)]
            scaled += [form.scale(sums[row, panel, gate], *rows) for row in range(tile.rows)]
        results.append(concatenate(scaled))
    return results


def _accumulate(
    form: Form, builder: Builder, tile: Tile, x: Operand, matrix: Matrix
) -> dict[tuple[int, int, int], Vector]:
    """By row, panel and gate: bias + weights . operand."""
    vectors = [(panel, gate) for panel in range(tile.panels) for gate in range(matrix.gates)]
    planes = form.planes(x.itemsize)
    rows = max(1, min(tile.rows, form.accumulators // planes))  # at once
    together = max(1, form.accumulators // (rows * planes))
    passes = -(-len(vectors) // together)
    together = -(-len(vectors) // passes)
    sums: dict[tuple[int, int, int], Vector] = {}
    for first_row in range(0, tile.rows, rows):
        some_rows = range(first_row, min(first_row + rows, tile.rows))
        for first in range(0, len(vectors), together):
            sums |= _accumulate_vectors(form, builder, some_rows, x, matrix, vectors[first : first + together])
    return sums


def _accumulate_vectors(
    form: Form, builder: Builder, rows: range, x: Operand, matrix: Matrix, vectors: list[tuple[int, int]]
) -> dict[tuple[int, int, int], Vector]:
    """One pass over the columns, for those rows and vectors (panel, gate)."""
    size = LANES * form.group * form.item  # bytes of a vector of weights
    step, planes = matrix.gates * size, form.planes(x.itemsize)
    places = [(row, plane, vector) for row in rows for plane in range(planes) for vector in vectors]
    panel_size = builder.mul(x.groups, ir.Constant(I64, step))
    zero = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    start = []
    for _, plane, (panel, gate) in places:
        bias = load(builder, offset(builder, _constants(builder, matrix, panel, gate), BIAS * LANES * 4), I32, LANES)
        start.append(zero if plane else bias.value)

    def add(group: Value, values: list[Value]) -> list[Value]:
        weights = {}
        for panel, gate in vectors:
            at = builder.add(matrix.weights, builder.mul(panel_size, ir.Constant(I64, panel)))
            at = builder.add(at, builder.mul(group, ir.Constant(I64, step)))
            element = ir.IntType(8 * form.item)
            weights[panel, gate] = load(builder, offset(builder, at, gate * size), element, LANES * form.group)
        operands = {}
        kind = ir.IntType(8 * form.group * form.item)
        for row in rows:
            for plane in range(planes):
                at = builder.add(x.address, builder.mul(x.row, ir.Constant(I64, row)))
                at = builder.add(at, builder.mul(x.plane, ir.Constant(I64, plane)))
                at = builder.add(at, builder.mul(group, ir.Constant(I64, form.group * form.item)))
                operands[row, plane] = broadcast(builder, at, kind, LANES)
        return [
            form.dot(Vector(builder, value), weights[vector], operands[row, plane]).value
            for value, (row, plane, vector) in zip(values, places, strict=True)
        ]

    ends = dict(zip(places, (Vector(builder, v) for v in repeat(builder, x.groups, start, add)), strict=True))
    sums = {}
    for row in rows:
        for panel, gate in vectors:
            total = ends[row, 0, (panel, gate)]
            if planes == 2:
                total = total + (ends[row, 1, (panel, gate)] << 8)
            sums[row, panel, gate] = total
    return sums


def _constants(builder: Builder, matrix: Matrix, panel: int, gate: int) -> Value:
    return offset(builder, matrix.constants, (panel * matrix.gates + gate) * CONSTANTS * LANES * 4)
