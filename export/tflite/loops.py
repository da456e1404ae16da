"""A WHILE loop that takes a stack of layers through a sequence, forwards or backwards."""

from collections.abc import Mapping

import numpy as np

from ...qmodel import STATES
from .arithmetic import Arithmetic
from .cells import advance
from .graph import Graph, Tensor
from .network import Direction, Emit, Network, Variables
from .shapes import ANY, cut, dimensions, time_of

_START = (0, 0, 0, 0)
_NEXT_STEP = (0, 1, 0, 0)  # along the time axis of [batch, T, 1, size]
_STEP_BEFORE = (0, -1, 0, 0)


def loop(
    main: Graph,
    network: Network,
    layers: Mapping[str, Direction],
    read: Variables,
    emit: Emit | None = None,
    reverse: bool = False,
) -> Variables:
    """Append the loop to `main`; return its variables at the end: the states, and y when something is emitted.

    layers: as `cells.advance` takes them.
    read: what the loop reads and does not change. x [batch, T, 1, input_size]; perhaps lengths [batch, 1, 1, 1] (steps
        from there on are padding: they change no state, and their outputs are 0) and beside [batch, T, 1, size].
    emit: makes the output of a step from the last layer's new hidden state and what stands beside it.
    reverse: from the last step to the first. y is in the order of x all the same.
    """
    condition, body = (main.file.graph(f"{name}_{next(iter(layers))}") for name in ("condition", "body"))
    x = read["x"]
    names = [f"{name}_{place}" for place, layer in layers.items() for name in STATES[layer.cell]]
    start = {"time": _end_of(main, x) if reverse else main.constant("time", _START), **read}
    start |= {name: network.zero_state(main, name, x.shape[0]) for name in names}
    old = _copies(body, start)
    new = _step(network.arithmetic(body), layers, old, emit, reverse)
    if emit is not None:
        start["y"] = _empty_outputs(network.arithmetic(main), x, new["y"])
        old |= _copies(body, {"y": start["y"]})
        new["y"] = _append(body, old["y"], new["y"], reverse)
    body.inputs, body.outputs = list(old.values()), list((old | new).values())
    _condition(condition, _copies(condition, start), reverse)
    end = _copies(main, start, "_end")
    subgraphs = {"cond_subgraph_index": condition.index, "body_subgraph_index": body.index}
    main.op("WHILE", list(start.values()), list(end.values()), **subgraphs)
    return end


def _condition(graph: Graph, variables: Variables, reverse: bool) -> None:
    """Whether a step is left. `time` is [0, t, 0, 0]: the step to be read, or in reverse the one read last."""
    time = time_of(graph, variables["time"], "time")
    pair = [graph.constant("first", [0]), time] if reverse else [time, _steps(graph, variables["x"])]
    more = graph.tensor("more", (1,), "bool")
    graph.op("LESS", pair, [more])
    graph.inputs, graph.outputs = list(variables.values()), [more]


def _step(
    a: Arithmetic, layers: Mapping[str, Direction], old: Variables, emit: Emit | None, reverse: bool
) -> Variables:
    """The new time and states, and in `y` the step's output."""
    graph, time = a.graph, a.graph.tensor("time", (4,), "int32")
    graph.op("ADD", [old["time"], graph.constant("next", _STEP_BEFORE if reverse else _NEXT_STEP)], [time])
    now = time if reverse else old["time"]
    new = advance(a, layers, _at(graph, old["x"], now), old)
    if emit is not None:
        hidden = [new[f"h_{place}"] for place in layers][-1:]
        beside = [_at(graph, old["beside"], now)] if "beside" in old else []
        new["y"] = emit(a, hidden + beside)
    if "lengths" in old:
        new = _masked(a, now, old, new)
    return {"time": time, **new}


def _masked(a: Arithmetic, now: Tensor, old: Variables, new: Variables) -> Variables:
    """The new values where the step is valid; elsewhere the old states, and zeros as output."""
    valid = a.graph.tensor("valid", old["lengths"].shape, "bool")
    a.graph.op("LESS", [time_of(a.graph, now, "time"), old["lengths"]], [valid])
    if "y" in new:
        y = new["y"]
        old = old | {"y": a.graph.constant("padding", np.zeros((1, *y.shape[1:])), y.dtype, y.scale)}
    return {name: a.select(valid, value, old[name], name) for name, value in new.items()}


# ---- parts -----------------------------------------------------------------------------------------------------------


def _copies(graph: Graph, like: Variables, suffix: str = "") -> Variables:
    """The loop's variables once more, as new tensors of a subgraph."""
    return {name: graph.tensor(name + suffix, t.shape, t.dtype, t.scale, t.zero_point) for name, t in like.items()}


def _at(graph: Graph, sequence: Tensor, time: Tensor) -> Tensor:
    """The values of a sequence at a step."""
    shape = (sequence.shape[0], 1, 1, sequence.shape[3])
    return cut(graph, sequence, time, shape, shape, "x")


def _steps(graph: Graph, x: Tensor) -> Tensor:
    """T as a vector of one."""
    if x.shape[1] == ANY:
        return time_of(graph, dimensions(graph, x), "steps")
    return graph.constant("steps", [x.shape[1]])


def _end_of(graph: Graph, x: Tensor) -> Tensor:
    """[0, T, 0, 0]: the place behind the last step."""
    if x.shape[1] != ANY:
        return graph.constant("time", (0, x.shape[1], 0, 0))
    end = graph.tensor("time", (4,), "int32")
    graph.op("MUL", [dimensions(graph, x), graph.constant("next", _NEXT_STEP)], [end])
    return end


def _append(graph: Graph, y: Tensor, out: Tensor, reverse: bool) -> Tensor:
    """y without its first step and with `out` at its end; in reverse without its last, with `out` at its start."""
    batch, steps, _, size = y.shape
    longer = graph.tensor("y", (batch, ANY if steps == ANY else steps + 1, 1, size), y.dtype, y.scale)
    graph.op("CONCATENATION", [out, y] if reverse else [y, out], [longer], axis=1)
    if reverse:
        return cut(graph, longer, _START, dimensions(graph, y), y.shape, "y")
    return cut(graph, longer, _NEXT_STEP, (batch, ANY, 1, size), y.shape, "y")


def _empty_outputs(a: Arithmetic, x: Tensor, out: Tensor) -> Tensor:
    """Zeros [batch, T, 1, size] that the loop shifts out. T comes with x, so that it follows when x is resized."""
    graph, column = a.graph, cut(a.graph, x, _START, (x.shape[0], ANY, 1, 1), (*x.shape[:3], 1), "x")
    if x.dtype != out.dtype:
        column = a.cast(column, out.dtype)
    zeros = graph.constant("zero", np.zeros((1, 1, 1, out.shape[3])), out.dtype, out.scale)
    y = graph.tensor("y", (*x.shape[:3], out.shape[3]), out.dtype, out.scale)
    graph.op("MUL", [column, zeros], [y])
    return y
