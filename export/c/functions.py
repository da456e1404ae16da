"""The functions of NAME.c: a step of every part, and how they follow each other."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from ...qmodel import Layer
from .network import Network, Part
from .operator import CELL
from .words import give, left_name, operand, stream, view

_CLEAR: Final = {np.dtype(np.int16): "ern_clear", np.dtype(np.int8): "ern_clear_bytes"}


def functions(network: Network) -> Iterator[str]:
    """The definition of every function, one after the other."""
    for part in network.parts:
        yield _head(network, part) if part.layer is None else _step(network, part, part.layer)
    yield _reset(network)
    yield from _both_ways(network) if network.model.bidirectional else _one_way(network)


def _function(declaration: str, *lines: str) -> str:
    return "\n".join([f"{declaration} {{", *(f"  {line}" for line in lines), "}\n"])


def _step(network: Network, part: Part, layer: Layer) -> str:
    """One step of a direction, whose operand lies before the view of its own state."""
    before = [] if layer.reset_after else ["state->reset.values"]
    cell = CELL if network.operator else layer.cell if layer.reset_after else "gru_reset_before"
    factors = [f"{part.name}_factors"] if network.operator else []
    states = [f"state->{name}" for name in part.states]
    arguments = ", ".join([f"&{part.name}", *factors, operand(network, part), *before, *states])
    units = network.layout.units(layer.hidden_size)
    return _function(
        f"ERN_APART void {network.name}_{part.name}({network.name}_state_t *state)",
        view(network, states[0], units, "state->operands.values + ERN_INPUT"),
        f"ern_{cell}_step({arguments});",
    )


def _head(network: Network, part: Part) -> str:
    (dense,), (left,) = part.maps, part.lefts
    columns = network.layout.columns(dense.columns)
    return _function(
        f"ERN_APART void {network.name}_head(const ern_operand *operand, {network.name}_output_t *y)",
        f"static const ern_stream first = {stream(network, part)};",
        f"ern_head(first, operand, {columns}, {left_name(left)}, {dense.rows}, y);",
    )


def _reset(network: Network) -> str:
    states = network.model.states.items()
    return _function(
        f"void {network.name}_reset({network.name}_state_t *state)",
        *(
            f"{_CLEAR[np.dtype(spec.dtype)]}(state->{name}, {network.layout.units(spec.size)});"
            for name, spec in states
        ),
    )


# ---- step by step ----------------------------------------------------------------------------------------------------


def _one_way(network: Network) -> Iterator[str]:
    name, parts = network.name, network.directions
    upper, every_step = name.upper(), network.model.every_step
    each = f"y == 0 ? 0 : y + t * {upper}_OUTPUT_SIZE" if every_step else "0"
    yield _function(
        f"static void {name}_answer({name}_state_t *state, {name}_output_t *y)", *_answer(network, parts[-1])
    )
    yield _function(
        f"void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y)",
        f"ern_take_input(x, {upper}_INPUT_SIZE, {operand(network, parts[0])});",
        f"{name}_{parts[0].name}(state);",
        *(line for before, part in zip(parts, parts[1:], strict=False) for line in _next(network, before, part)),
        f"if (y != 0) {name}_answer(state, y);",
    )
    yield _function(
        f"void {name}_run({name}_state_t *state, const {name}_input_t *x, uint32_t steps, {name}_output_t *y)",
        "uint32_t t;",
        "for (t = 0; t < steps; t++) {",
        f"  {name}_step(state, x + t * {upper}_INPUT_SIZE, {each});",
        "}",
        *([] if every_step else [f"if (y != 0) {name}_answer(state, y);"]),
    )


def _next(network: Network, before: Part, part: Part) -> Iterator[str]:
    """A layer that reads the one before."""
    yield view(network, f"state->{before.states[0]}", part.maps[0].columns, operand(network, part))
    yield f"{network.name}_{part.name}(state);"


def _answer(network: Network, last: Part) -> Iterator[str]:
    """From the state to y, by the head if there is one."""
    size = network.model.layers[-1].hidden_size
    if network.model.head is None:
        yield give(network, f"state->{last.states[0]}", size, "y")
    else:
        yield view(network, f"state->{last.states[0]}", size, "state->operands.values")
        yield f"{network.name}_head(state->operands.values, y);"


# ---- whole sequences -------------------------------------------------------------------------------------------------
# Layer after layer: outputs of the layers lie in `work`, those of every other layer from its start.


def _both_ways(network: Network) -> Iterator[str]:
    name, model = network.name, network.model
    places = ("work", f"work + {network.work[0]} * steps")
    body = ["uint32_t t;", f"{name}_reset(state);"]
    if sum(network.work) == 0:
        body.append("(void)work;")
    source, columns = "x", model.input_size
    for index, layer in enumerate(model.layers):
        final = index == len(model.layers) - 1
        place = "" if final and (model.head is None or not model.every_step) else places[index % 2]
        for part in (part for part in network.directions if part.index == index):
            body += _scan(network, part, source, columns, place, "y" if final and model.head is None else "")
        source, columns = places[index % 2], layer.output_size
    if model.head is not None:
        body += _heads(network, source)
    yield _function(
        f"void {name}_run({name}_state_t *state, const {name}_input_t *x, uint32_t steps, {name}_output_t *y, "
        f"{name}_work_t *work)",
        *body,
    )


def _scan(network: Network, part: Part, source: str, columns: int, place: str, output: str) -> Iterator[str]:
    """One direction over a sequence: reads rows of `source`, leaves views at `place` or hidden states in `output`."""
    assert part.layer is not None
    layer = network.model.layers[part.index]
    size, width = layer.hidden_size, layer.output_size
    offset = f" + {size}" if part.suffix else ""
    yield "for (t = steps; t-- > 0;) {" if part.suffix else "for (t = 0; t < steps; t++) {"
    take = "ern_take_view" if part.index else "ern_take_input"
    yield f"  {take}({source} + t * {columns}, {columns}, {operand(network, part)});"
    yield f"  {network.name}_{part.name}(state);"
    if place:
        yield f"  {view(network, f'state->{part.states[0]}', size, f'{place} + t * {width}{offset}')}"
    if output:
        yield f"  {give(network, f'state->{part.states[0]}', size, f'{output} + t * {width}{offset}')}"
    yield "}"


def _heads(network: Network, source: str) -> Iterator[str]:
    """The head over every step, or over both directions' last state: the backward one's is that of step 0."""
    name, layer = network.name, network.model.layers[-1]
    if network.model.every_step:
        width = layer.output_size
        yield "for (t = 0; t < steps; t++) {"
        yield f"  ern_take_view({source} + t * {width}, {width}, state->operands.values);"
        yield f"  {name}_head(state->operands.values, y + t * {name.upper()}_OUTPUT_SIZE);"
        yield "}"
        return
    parts = [part for part in network.directions if part.index == len(network.model.layers) - 1]
    for number, part in enumerate(parts):
        place = f"state->operands.values + {number * layer.hidden_size}"
        yield view(network, f"state->{part.states[0]}", layer.hidden_size, place)
    yield f"{name}_head(state->operands.values, y);"
