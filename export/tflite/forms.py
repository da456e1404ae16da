"""The three forms of a .tflite file: loops over a sequence, one step, one step with variables."""

from collections.abc import Mapping
from functools import partial
from itertools import groupby

import numpy as np

from ...qmodel import DIRECTION_SUFFIXES, REVERSE, Layer, QuantizedModel
from .arithmetic import Arithmetic
from .cells import advance, output, passed_on
from .graph import Graph, Tensor, TFLiteFile
from .loops import Emit, Variables, loop, zero_state
from .shapes import reshape


def sequence(file: TFLiteFile, model: QuantizedModel, steps: int, batch: int | None) -> None:
    """x [batch, T, input_size] -> y, with T = steps, or any T when steps is -1.

    With a batch, `lengths` [batch] says how many steps of each sequence are valid; without, it is 1 and all are.
    """
    main, rows = file.graph("main"), batch or 1
    inputs = {"x": _input(main, model, (rows, steps, model.input_size))}
    read = {"x": reshape(main, inputs["x"], (rows, steps, 1, model.input_size), "x_4d")}
    if batch is not None:
        inputs["lengths"] = main.tensor("lengths", (rows,), "int32")
        read["lengths"] = reshape(main, inputs["lengths"], (rows, 1, 1, 1), "lengths_4d")
    *early, last = _runs(model)
    for layers in early:
        read["x"] = _both_ways(main, model, layers, read, passed_on)["y"]
    say = partial(output, model)
    if model.every_step:
        end = _both_ways(main, model, last, read, say, passed_on if model.head else say)
        y = reshape(main, end["y"], (rows, steps, model.output_size), "y")
    else:
        y = _output(main, model, _both_ways(main, model, last, read, None))
    file.signature("serving_default", main, inputs, {"y": y})


def step(file: TFLiteFile, model: QuantizedModel, batch: int) -> None:
    """x [batch, input_size] and states [batch, hidden_size] -> y [batch, output_size] and the new states."""
    graph = file.graph("main")
    x = _input(graph, model, (batch, model.input_size))
    states = {n: graph.tensor(n, (batch, s.size), "int16", s.scale) for n, s in model.states.items()}
    inner = {name: _reshape_4d(graph, state, f"{name}_4d") for name, state in states.items()}
    new = advance(Arithmetic(graph, model.scheme), _layers(model), _reshape_4d(graph, x, "x_4d"), inner)
    y = _output(graph, model, new)
    outputs = {f"{name}_out": reshape(graph, new[name], old.shape, f"{name}_out") for name, old in states.items()}
    file.signature("serving_default", graph, {"x": x, **states}, {"y": y, **outputs})


def stream(file: TFLiteFile, model: QuantizedModel, batch: int) -> None:
    """x [batch, input_size] -> y [batch, output_size]; the states are resource variables, zeroed by `reset`."""
    graph, reset = file.graph("main"), file.graph("reset")
    graph.op("CALL_ONCE", [], init_subgraph_index=reset.index)  # LiteRT does not read a variable before it is assigned
    x = _input(graph, model, (batch, model.input_size))
    handles, states = {}, {}
    for name, state in model.states.items():
        handles[name] = _variable(graph, name)
        states[name] = graph.tensor(name, (batch, 1, 1, state.size), "int16", state.scale)
        graph.op("READ_VARIABLE", [handles[name]], [states[name]])
        reset.op("ASSIGN_VARIABLE", [_variable(reset, name), zero_state(reset, model, name, batch)])
    new = advance(Arithmetic(graph, model.scheme), _layers(model), _reshape_4d(graph, x, "x_4d"), states)
    for name, handle in handles.items():
        graph.op("ASSIGN_VARIABLE", [handle, new[name]])
    file.signature("step", graph, {"x": x}, {"y": _output(graph, model, new)})
    file.signature("reset", reset, {}, {})


# ---- parts -----------------------------------------------------------------------------------------------------------


def _layers(model: QuantizedModel) -> dict[str, Layer]:
    """The layers (their forward directions) by the ends of their states' names."""
    return {str(index): layer for index, layer in enumerate(model.layers)}


def _runs(model: QuantizedModel) -> list[dict[str, Layer]]:
    """The layers as loops take them: neighbours of one direction together, a bidirectional one alone."""
    runs = groupby(_layers(model).items(), lambda item: item[1].backward and item[0])
    return [dict(items) for _, items in runs]


def _both_ways(
    main: Graph,
    model: QuantizedModel,
    layers: Mapping[str, Layer],
    read: Variables,
    emit: Emit | None,
    keep: Emit = passed_on,
) -> Variables:
    """The variables at the end of a loop over these layers, or of two over a bidirectional one.

    The backward loop goes first and keeps something of every step, which the forward one emits with its own.
    """
    place, layer = next(iter(layers.items()))
    if layer.backward is None:
        return loop(main, model, layers, read, emit)
    back = loop(main, model, {f"{place}{REVERSE}": layer.backward}, read, emit and keep, reverse=True)
    if emit:
        read = read | {"beside": back["y"]}
    return back | loop(main, model, layers, read, emit)


def _output(graph: Graph, model: QuantizedModel, states: Variables) -> Tensor:
    """y [batch, output_size] from the last layer's hidden states."""
    last = [f"h_{len(model.layers) - 1}{suffix}" for suffix in DIRECTION_SUFFIXES]
    hidden = [states[name] for name in last if name in states]
    y = output(model, Arithmetic(graph, model.scheme), hidden)
    return reshape(graph, y, (y.shape[0], model.output_size), "y")


def _input(graph: Graph, model: QuantizedModel, shape: tuple[int, ...]) -> Tensor:
    dtype = np.dtype(model.input_dtype).name
    return graph.tensor("x", shape, dtype, float(model.input_scale), model.input_zero_point)


def _variable(graph: Graph, name: str) -> Tensor:
    handle = graph.tensor(name, (), "resource")
    graph.op("VAR_HANDLE", [], [handle], container="", shared_name=name)
    return handle


def _reshape_4d(graph: Graph, rows: Tensor, name: str) -> Tensor:
    """[batch, size] -> [batch, 1, 1, size], the shape CONV_2D wants."""
    return reshape(graph, rows, (rows.shape[0], 1, 1, rows.shape[1]), name)
