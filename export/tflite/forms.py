"""The three forms of a .tflite file around the same step: a loop over a sequence, a step, a step with variables."""

from collections.abc import Sequence

import numpy as np

from ...qmodel import QuantizedModel, StateSpec
from .arithmetic import Arithmetic
from .cells import advance, output
from .graph import Graph, Tensor, TFLiteFile

_NEXT_STEP = (0, 1, 0, 0)  # along the time axis of [1, T, 1, size]


def sequence(file: TFLiteFile, model: QuantizedModel, steps: int) -> None:
    """x [1, T, input_size] -> y, a WHILE loop over T = steps, or over any T when steps is -1."""
    main, condition, body = file.graph("main"), file.graph("condition"), file.graph("body")
    x = _input(main, model, (1, steps, model.input_size))
    start = {"time": main.constant("time", [0, 0, 0, 0])}
    start["x"] = _reshape(main, x, (1, steps, 1, model.input_size), "x_4d")
    for name, state in model.states.items():
        start[name] = _zeros(main, name, state)
    if model.every_step:
        start["y"] = _empty_outputs(main, model, start["x"])

    end = _variables(main, start, "_end")
    loop = {"cond_subgraph_index": condition.index, "body_subgraph_index": body.index}
    main.op("WHILE", list(start.values()), list(end.values()), **loop)
    _condition(condition, _variables(condition, start))
    _body(body, model, _variables(body, start))

    every_step = (1, steps, model.output_size)
    y = _reshape(main, end["y"], every_step, "y") if model.every_step else _output(main, model, end)
    file.signature("serving_default", main, {"x": x}, {"y": y})


def step(file: TFLiteFile, model: QuantizedModel) -> None:
    """x [1, input_size] and states [1, hidden_size] -> y [1, output_size] and the new states."""
    graph = file.graph("main")
    x = _input(graph, model, (1, model.input_size))
    states = {n: graph.tensor(n, (1, s.size), "int16", s.scale) for n, s in model.states.items()}
    inner = {name: _reshape(graph, state, (1, 1, *state.shape), f"{name}_4d") for name, state in states.items()}
    new = advance(graph, model, _reshape(graph, x, (1, 1, *x.shape), "x_4d"), inner)
    y = _output(graph, model, new)
    outputs = {f"{name}_out": _reshape(graph, new[name], old.shape, f"{name}_out") for name, old in states.items()}
    file.signature("serving_default", graph, {"x": x, **states}, {"y": y, **outputs})


def stream(file: TFLiteFile, model: QuantizedModel) -> None:
    """x [1, input_size] -> y [1, output_size]; the states are resource variables, zeroed by the signature `reset`."""
    graph, reset = file.graph("main"), file.graph("reset")
    graph.op("CALL_ONCE", [], init_subgraph_index=reset.index)  # LiteRT does not read a variable before it is assigned
    x = _input(graph, model, (1, model.input_size))
    handles, states = {}, {}
    for name, state in model.states.items():
        handles[name] = _variable(graph, name)
        states[name] = graph.tensor(name, (1, 1, 1, state.size), "int16", state.scale)
        graph.op("READ_VARIABLE", [handles[name]], [states[name]])
        reset.op("ASSIGN_VARIABLE", [_variable(reset, name), _zeros(reset, name, state)])
    new = advance(graph, model, _reshape(graph, x, (1, 1, *x.shape), "x_4d"), states)
    for name, handle in handles.items():
        graph.op("ASSIGN_VARIABLE", [handle, new[name]])
    file.signature("step", graph, {"x": x}, {"y": _output(graph, model, new)})
    file.signature("reset", reset, {}, {})


# ---- the loop's subgraphs --------------------------------------------------------------------------------------------


def _condition(graph: Graph, variables: dict[str, Tensor]) -> None:
    """Whether time < T, both taken from the second entries of [0, time, 0, 0] and [1, T, 1, input_size]."""
    x = variables["x"]
    if x.shape[1] == -1:
        shape = graph.tensor("shape", (4,), "int32")
        graph.op("SHAPE", [x], [shape], out_type=2)
        steps = _slice(graph, shape, [1], [1], "steps")
    else:
        steps = graph.constant("steps", [x.shape[1]])
    more = graph.tensor("more", (1,), "bool")
    graph.op("LESS", [_slice(graph, variables["time"], [1], [1], "time"), steps], [more])
    graph.inputs, graph.outputs = list(variables.values()), [more]


def _body(graph: Graph, model: QuantizedModel, variables: dict[str, Tensor]) -> None:
    """One time step: read x at `time`, advance the states, append to y."""
    time, x = variables["time"], variables["x"]
    x_now = graph.tensor("x", (1, 1, 1, model.input_size), x.dtype, x.scale, x.zero_point)
    graph.op("SLICE", [x, time, graph.constant("size", x_now.shape)], [x_now])
    new = {**variables, **advance(graph, model, x_now, variables)}
    new["time"] = graph.tensor("time", time.shape, "int32")
    graph.op("ADD", [time, graph.constant("next", _NEXT_STEP)], [new["time"]])
    if model.every_step:
        y = variables["y"]
        longer_by_one = (1, -1 if y.shape[1] == -1 else y.shape[1] + 1, 1, y.shape[3])
        longer = graph.tensor("y", longer_by_one, y.dtype, y.scale)
        graph.op("CONCATENATION", [y, output(graph, model, new)], [longer], axis=1)
        new["y"] = _slice(graph, longer, _NEXT_STEP, (1, -1, 1, y.shape[3]), "y", y.shape)
    graph.inputs, graph.outputs = list(variables.values()), list(new.values())


# ---- parts -----------------------------------------------------------------------------------------------------------


def _output(graph: Graph, model: QuantizedModel, states: dict[str, Tensor]) -> Tensor:
    """y [1, output_size] from the last layer's hidden state."""
    return _reshape(graph, output(graph, model, states), (1, model.output_size), "y")


def _input(graph: Graph, model: QuantizedModel, shape: tuple[int, ...]) -> Tensor:
    dtype = np.dtype(model.input_dtype).name
    return graph.tensor("x", shape, dtype, float(model.input_scale), model.input_zero_point)


def _variables(graph: Graph, like: dict[str, Tensor], suffix: str = "") -> dict[str, Tensor]:
    """The loop's variables once more, as new tensors of a subgraph."""
    return {name: graph.tensor(name + suffix, t.shape, t.dtype, t.scale, t.zero_point) for name, t in like.items()}


def _empty_outputs(graph: Graph, model: QuantizedModel, x: Tensor) -> Tensor:
    """Zeros [1, T, 1, output_size] that the loop shifts out. T comes with x, so that it follows when x is resized."""
    dtype = np.dtype(model.output_dtype).name
    column = _slice(graph, x, (0, 0, 0, 0), (1, -1, 1, 1), "x", (*x.shape[:3], 1))
    if x.dtype != dtype:
        column = Arithmetic(graph, model.scheme).cast(column, dtype)
    zeros = graph.constant("zero", np.zeros((1, 1, 1, model.output_size)), dtype, model.output_scale)
    y = graph.tensor("y", (*x.shape[:3], model.output_size), dtype, model.output_scale)
    graph.op("MUL", [column, zeros], [y])
    return y


def _zeros(graph: Graph, name: str, state: StateSpec) -> Tensor:
    return graph.constant(name, np.zeros((1, 1, 1, state.size)), "int16", state.scale)


def _variable(graph: Graph, name: str) -> Tensor:
    handle = graph.tensor(name, (), "resource")
    graph.op("VAR_HANDLE", [], [handle], container="", shared_name=name)
    return handle


def _reshape(graph: Graph, t: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    out = graph.tensor(name, shape, t.dtype, t.scale, t.zero_point)
    graph.op("RESHAPE", [t, graph.constant("shape", shape)], [out])
    return out


def _slice(
    graph: Graph, t: Tensor, begin: Sequence[int], size: Sequence[int], name: str, shape: tuple[int, ...] | None = None
) -> Tensor:
    """Part of a tensor; `shape` says what comes out where the size has a -1 (all the rest)."""
    out = graph.tensor(name, shape or tuple(size), t.dtype, t.scale, t.zero_point)
    graph.op("SLICE", [t, graph.constant("begin", begin), graph.constant("size", size)], [out])
    return out
