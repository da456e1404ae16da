"""The text of the C files: data, and one small function for every part, around the kernels in `kernels/`."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import numpy as np

from ...qmodel import QuantizedModel
from .header import input_size
from .layouts import GENERAL, Array, Layout
from .network import Part, padded
from .tables import tables

_NUMBERS_A_LINE: Final = 16
_LEFTS: Final = {GENERAL: "ERN_GENERAL"}


def source(model: QuantizedModel, name: str, layout: Layout, parts: list[Part]) -> str:
    """NAME.c."""
    lines = [
        f"/* {name}: see {name}.h. Made by edgernn; the weights are laid out for {layout.name} kernels. */",
        f'#include "{name}.h"',
        "",
        f"#define ERN_W8A16 {int(model.scheme == 'w8a16')}",
        "",
        f"#define ERN_INPUT {input_size(model, layout)} /* values of input before the view of the hidden state */",
        "",
        kernel("common.h"),
        *(array(table, "uint32_t", values) for table, values in tables(layout.table).items()),
        *(kernel(file) for file in layout.kernels),
        kernel("cells.h"),
        *(line for part in parts for line in _data(part, layout)),
        *_functions(model, name, layout, parts),
    ]
    return "\n".join(lines)


def kernel(file: str) -> str:
    """A hand-written file of C."""
    return (files(__package__) / "kernels" / file).read_text(encoding="utf-8")


def array(name: str, kind: str, values: Array) -> str:
    """The definition of a constant array."""
    flat = [str(v) for v in values.ravel().tolist()]
    if values.dtype == np.int32:
        flat = ["(-2147483647 - 1)" if v == "-2147483648" else v for v in flat]
    suffix = "u" if kind == "uint32_t" else ""
    rows = (flat[start : start + _NUMBERS_A_LINE] for start in range(0, len(flat), _NUMBERS_A_LINE))
    body = ",\n".join("  " + ", ".join(f"{v}{suffix}" for v in row) for row in rows)
    return f"static const {kind} {name}[{len(flat)}] ERN_ALIGNED = {{\n{body}}};\n"


def _data(part: Part, layout: Layout) -> Iterator[str]:
    for name, kind in layout.arrays.items():
        yield array(f"{part.name}_{name}", kind, part.arrays[name])
    if part.layer is not None:
        columns = [layout.columns(affine.columns) for affine in part.maps]
        lefts = [_LEFTS.get(left, str(left)) for left in part.lefts]
        yield f"static const ern_layer {part.name} = {{"
        yield f"  {_stream(part, layout)}, {padded(part.layer.hidden_size)}, {columns[0]}, {columns[1]},"
        yield f"  {lefts[0]}, {lefts[1]}, {part.layer.cell_exponent}}};"
        yield ""


def _stream(part: Part, layout: Layout) -> str:
    return "{" + ", ".join(f"{part.name}_{name}" for name in layout.arrays) + "}"


def _functions(model: QuantizedModel, name: str, layout: Layout, parts: list[Part]) -> Iterator[str]:
    for part in parts:
        yield from _head(name, part, layout) if part.layer is None else _step(name, part, layout)
    yield from _reset(model, name)
    if model.bidirectional:
        yield from _run_both_ways(model, name, parts)
    else:
        yield from _run(model, name, layout, parts)


def _step(name: str, part: Part, layout: Layout) -> Iterator[str]:
    """One step of a direction, whose operand lies before the view of its own state."""
    assert part.layer is not None
    cell = "gru_reset_before" if not part.layer.reset_after else part.layer.cell
    reset = ["state->reset"] if not part.layer.reset_after else []
    arguments = ", ".join([f"&{part.name}", operand(part, layout), *reset, *(f"state->{s}" for s in part.states)])
    yield f"ERN_APART void {name}_{part.name}({name}_state_t *state) {{"
    yield f"  ern_view_of(state->{part.states[0]}, {padded(part.layer.hidden_size)}, state->operands + ERN_INPUT);"
    yield f"  ern_{cell}_step({arguments});"
    yield "}"
    yield ""


def operand(part: Part, layout: Layout) -> str:
    """Where a part's input is in memory: just before the view of the hidden state."""
    return f"state->operands + ERN_INPUT - {layout.columns(part.maps[0].columns)}"


def _head(name: str, part: Part, layout: Layout) -> Iterator[str]:
    (dense,), (left,) = part.maps, part.lefts
    yield f"ERN_APART void {name}_head(const ern_operand *operand, {name}_output_t *y) {{"
    yield f"  static const ern_stream stream = {_stream(part, layout)};"
    yield f"  ern_head(stream, operand, {layout.columns(dense.columns)}, {_LEFTS.get(left, left)}, {dense.rows}, y);"
    yield "}"
    yield ""


def _reset(model: QuantizedModel, name: str) -> Iterator[str]:
    yield f"void {name}_reset({name}_state_t *state) {{"
    yield "  int n;"
    for state, spec in model.states.items():
        yield f"  for (n = 0; n < {padded(spec.size)}; n++) state->{state}[n] = 0;"
    yield "}"
    yield ""


def _run(model: QuantizedModel, name: str, layout: Layout, parts: list[Part]) -> Iterator[str]:
    layers = [part for part in parts if part.layer is not None]
    upper = name.upper()
    yield f"static void {name}_advance({name}_state_t *state, const {name}_input_t *x) {{"
    yield f"  ern_operand *operand = {operand(layers[0], layout)};"
    yield "  int n;"
    yield f"  for (n = 0; n < {model.input_size}; n++) operand[n] = x[n];"
    for part in layers:
        if part.index:
            before = layers[part.index - 1].states[0]
            yield f"  ern_view_of(state->{before}, {part.maps[0].columns}, {operand(part, layout)});"
        yield f"  {name}_{part.name}(state);"
    yield "}"
    yield ""
    yield f"static void {name}_answer({name}_state_t *state, {name}_output_t *y) {{"
    last = layers[-1]
    size = model.layers[-1].hidden_size
    if model.head is None:
        yield "  int n;"
        yield f"  for (n = 0; n < {size}; n++) y[n] = state->{last.states[0]}[n];"
    else:
        yield f"  ern_view_of(state->{last.states[0]}, {size}, state->operands);"
        yield f"  {name}_head(state->operands, y);"
    yield "}"
    yield ""
    yield f"void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y) {{"
    yield f"  {name}_advance(state, x);"
    yield f"  if (y != 0) {name}_answer(state, y);"
    yield "}"
    yield ""
    yield f"void {name}_run({name}_state_t *state, const {name}_input_t *x, uint32_t steps, {name}_output_t *y) {{"
    yield "  uint32_t t;"
    if model.every_step:
        yield f"  for (t = 0; t < steps; t++) {name}_step(state, x + t * {upper}_INPUT_SIZE, y + t * {upper}_OUTPUT_SIZE);"
    else:
        yield f"  for (t = 0; t < steps; t++) {name}_advance(state, x + t * {upper}_INPUT_SIZE);"
        yield f"  {name}_answer(state, y);"
    yield "}"


def _run_both_ways(model: QuantizedModel, name: str, parts: list[Part]) -> Iterator[str]:
    yield ""
