"""QuantizedModel -> an ONNX graph that computes its integers, bit for bit."""

import json
from typing import Any

import numpy as np

from ...qmodel import QuantizedModel
from .cells import Cell
from .emitter import Emitter, tensor, valid_steps
from .exact import Tables, affine


def sequence_graph(model: QuantizedModel) -> bytes:
    """x [N, T, input_size], lengths [N] -> y [N, output_size], or [N, T, output_size] for every step."""
    g = Emitter()
    tables = Tables(g)
    valid = valid_steps(g)
    batch = g.op("Shape", "x", start=0, end=1)
    hidden, last = g.cast("x", np.float64), ""
    for index, layer in enumerate(model.layers):
        scanned = []
        for direction in layer.directions:
            cell = Cell(direction, model.scheme == "w8a8", tables)
            gates = cell.input_gates(g, hidden, model.view_limit if index else model.input_limit)
            if index == 0:  # time first from here on; x itself is not transposed (ONNX Runtime 1.31 crashes on that)
                gates = [g.op("Transpose", value, perm=[1, 0, 2]) for value in gates]
            scanned.append(_scan(g, cell, gates, valid, batch, backward=direction is layer.backward))
        last, every = (g.concat(*values) for values in zip(*scanned, strict=True))
        hidden = cell.view(g, every) if index + 1 < len(model.layers) else every
    y = _output(g, model, tables, every if model.every_step else last)
    if model.every_step:
        y = g.op("Transpose", g.op("Where", valid, y, 0.0), perm=[1, 0, 2])
    g.rename(g.cast(y, model.output_dtype), "y")
    inputs = [tensor("x", model.input_dtype, "N", "T", model.input_size), tensor("lengths", np.int32, "N")]
    shape = ("N", "T", model.output_size) if model.every_step else ("N", model.output_size)
    return g.finish("edgernn_exact", inputs, [tensor("y", model.output_dtype, *shape)], _properties(model, "sequence"))


def step_graph(model: QuantizedModel) -> bytes:
    """x [N, input_size] and the int16 states [N, hidden_size] -> y [N, output_size] and the next states.

    Raises ValueError for a bidirectional model.
    """
    model.check_streaming()
    g = Emitter()
    tables = Tables(g)
    inputs = [tensor("x", model.input_dtype, "N", model.input_size)]
    outputs = [tensor("y", model.output_dtype, "N", model.output_size)]
    hidden, h = g.cast("x", np.float64), ""
    for index, layer in enumerate(model.layers):
        cell = Cell(layer, model.scheme == "w8a8", tables)
        names = [f"{state}_{index}" for state in cell.states]
        gates = cell.input_gates(g, hidden, model.view_limit if index else model.input_limit)
        states = cell.step(g, gates, [g.cast(name, np.float64) for name in names])
        for name, state in zip(names, states, strict=True):
            inputs.append(tensor(name, np.int16, "N", layer.hidden_size))
            outputs.append(tensor(f"{name}_out", np.int16, "N", layer.hidden_size))
            g.rename(g.cast(state, np.int16), f"{name}_out")
        h = states[0]
        hidden = cell.view(g, h) if index + 1 < len(model.layers) else h
    g.rename(g.cast(_output(g, model, tables, h), model.output_dtype), "y")
    return g.finish("edgernn_exact", inputs, outputs, _properties(model, "step"))


def _scan(g: Emitter, cell: Cell, gates: list[str], valid: str, batch: str, backward: bool) -> tuple[str, str]:
    """Loop over time from states of zero: the hidden state at the loop's end [N, H], and all of them [T, N, H].

    A padded step leaves the states as they are (zero, where a backward loop begins with padding); the hidden state
    given for that step means nothing. A backward loop reads flipped values: onnx.reference has no Scan in reverse.
    """
    size, body = cell.layer.hidden_size, g.body()
    states = [body.name(state) for state in cell.states]
    parts = [body.name("x") for _ in gates]
    now = body.name("valid")
    following = cell.step(body, parts, states)
    kept = [body.op("Where", now, new, old) for new, old in zip(following, states, strict=True)]
    carried = [tensor(name, np.float64, "N", size) for name in states]
    columns = [tensor(name, np.float64, "N", n) for name, n in zip(parts, cell.gate_sizes, strict=True)]
    graph = body.body_graph(
        [*carried, *columns, tensor(now, np.bool_, "N", 1)],
        [*(tensor(name, np.float64, "N", size) for name in kept), tensor(following[0], np.float64, "N", size)],
    )
    zeros = g.op("Expand", 0.0, g.op("Concat", batch, [size], axis=0))
    scanned = [g.flip(value) if backward else value for value in (*gates, valid)]
    attributes: dict[str, Any] = {"body": graph, "num_scan_inputs": len(scanned)}
    out = g.ops("Scan", *[zeros] * len(states), *scanned, outputs=len(states) + 1, **attributes)
    return out[0], g.flip(out[-1]) if backward else out[-1]


def _output(g: Emitter, model: QuantizedModel, tables: Tables, h: str) -> str:
    """The head's int8 output, or h itself without a head."""
    if model.head is None:
        return h
    seen = tables.look_up(g, tables.to_int8, h) if model.scheme == "w8a8" else h
    return tables.look_up(g, tables.to_int8, affine(g, seen, model.head.dense, model.view_limit))


def _properties(model: QuantizedModel, form: str) -> dict[str, str]:
    """What a host needs to feed the integers in and to read them, as metadata."""
    scales = {name: state.scale for name, state in model.states.items()}
    return {
        "edgernn.kind": "exact",
        "edgernn.form": form,
        "edgernn.arithmetic_version": str(model.arithmetic_version),
        "edgernn.scheme": model.scheme,
        "edgernn.fingerprint": model.fingerprint,
        "edgernn.task": model.task,
        "edgernn.every_step": json.dumps(model.every_step),
        "edgernn.output_size": str(model.output_size),
        "edgernn.labels": json.dumps(model.labels),
        "edgernn.input_mean": json.dumps(model.input_mean.tolist()),
        "edgernn.input_std": json.dumps(model.input_std.tolist()),
        "edgernn.input_scale": repr(float(np.float32(model.input_scale))),
        "edgernn.input_zero_point": str(model.input_zero_point),
        "edgernn.output_scale": repr(float(np.float32(model.output_scale))),
        "edgernn.state_scales": json.dumps(scales),
    }
