"""The three forms of a .tflite file: loops over a sequence, one step, one step with variables."""

from collections.abc import Mapping
from itertools import groupby

from ...qmodel import DIRECTION_SUFFIXES, REVERSE
from .cells import advance, passed_on
from .graph import Graph, Tensor, TFLiteFile
from .network import Direction, Emit, Network, Variables
from .shapes import reshape


def sequence(file: TFLiteFile, network: Network, steps: int, batch: int | None) -> None:
    """x [batch, T, input_size] -> y, with T = steps, or any T when steps is -1.

    With a batch, `lengths` [batch] says how many steps of each sequence are valid; without, it is 1 and all are.
    """
    main, rows = file.graph("main"), batch or 1
    inputs = {"x": network.input(main, (rows, steps, network.input_size))}
    x = reshape(main, inputs["x"], (rows, steps, 1, network.input_size), "x_4d")
    read = {"x": network.prepared(main, x)}
    if batch is not None:
        inputs["lengths"] = main.tensor("lengths", (rows,), "int32")
        read["lengths"] = reshape(main, inputs["lengths"], (rows, 1, 1, 1), "lengths_4d")
    *early, last = _runs(network)
    for layers in early:
        read["x"] = _both_ways(main, network, layers, read, passed_on)["y"]
    if network.every_step:
        say = network.output
        end = _both_ways(main, network, last, read, say, passed_on if network.has_head else say)
        y = reshape(main, end["y"], (rows, steps, network.output_size), "y")
    else:
        y = _output(main, network, _both_ways(main, network, last, read, None))
    file.signature("serving_default", main, inputs, {"y": y})


def step(file: TFLiteFile, network: Network, batch: int) -> None:
    """x [batch, input_size] and states [batch, hidden_size] -> y [batch, output_size] and the new states."""
    graph = file.graph("main")
    x = network.input(graph, (batch, network.input_size))
    states = {name: network.state(graph, name, (batch, size)) for name, size in network.state_sizes.items()}
    inner = {name: _reshape_4d(graph, state, f"{name}_4d") for name, state in states.items()}
    read = network.prepared(graph, _reshape_4d(graph, x, "x_4d"))
    new = advance(network.arithmetic(graph), _layers(network), read, inner)
    y = _output(graph, network, new)
    outputs = {f"{name}_out": reshape(graph, new[name], old.shape, f"{name}_out") for name, old in states.items()}
    file.signature("serving_default", graph, {"x": x, **states}, {"y": y, **outputs})


def stream(file: TFLiteFile, network: Network, batch: int) -> None:
    """x [batch, input_size] -> y [batch, output_size]; the states are resource variables, zeroed by `reset`."""
    graph, reset = file.graph("main"), file.graph("reset")
    graph.op("CALL_ONCE", [], init_subgraph_index=reset.index)  # LiteRT does not read a variable before it is assigned
    x = network.input(graph, (batch, network.input_size))
    handles, states = {}, {}
    for name, size in network.state_sizes.items():
        handles[name] = _variable(graph, name)
        states[name] = network.state(graph, name, (batch, 1, 1, size))
        graph.op("READ_VARIABLE", [handles[name]], [states[name]])
        reset.op("ASSIGN_VARIABLE", [_variable(reset, name), network.zero_state(reset, name, batch)])
    read = network.prepared(graph, _reshape_4d(graph, x, "x_4d"))
    new = advance(network.arithmetic(graph), _layers(network), read, states)
    for name, handle in handles.items():
        graph.op("ASSIGN_VARIABLE", [handle, new[name]])
    file.signature("step", graph, {"x": x}, {"y": _output(graph, network, new)})
    file.signature("reset", reset, {}, {})


# ---- parts -----------------------------------------------------------------------------------------------------------


def _layers(network: Network) -> dict[str, Direction]:
    """The layers (their forward directions) by the ends of their states' names."""
    return {str(index): layer for index, layer in enumerate(network.layers)}


def _runs(network: Network) -> list[dict[str, Direction]]:
    """The layers as loops take them: neighbours of one direction together, a bidirectional one alone."""
    runs = groupby(_layers(network).items(), lambda item: item[1].backward and item[0])
    return [dict(items) for _, items in runs]


def _both_ways(
    main: Graph,
    network: Network,
    layers: Mapping[str, Direction],
    read: Variables,
    emit: Emit | None,
    keep: Emit = passed_on,
) -> Variables:
    """The variables at the end of a loop over these layers, or of two over a bidirectional one.

    The backward loop goes first and keeps something of every step, which the forward one emits with its own.
    """
    place, layer = next(iter(layers.items()))
    if layer.backward is None:
        return network.loop(main, layers, read, emit, False)
    back = network.loop(main, {f"{place}{REVERSE}": layer.backward}, read, emit and keep, True)
    if emit:
        read = read | {"beside": back["y"]}
    return back | network.loop(main, layers, read, emit, False)


def _output(graph: Graph, network: Network, states: Variables) -> Tensor:
    """y [batch, output_size] from the last layer's hidden states."""
    last = [f"h_{len(network.layers) - 1}{suffix}" for suffix in DIRECTION_SUFFIXES]
    hidden = [states[name] for name in last if name in states]
    y = network.output(network.arithmetic(graph), hidden)
    return reshape(graph, y, (y.shape[0], network.output_size), "y")


def _variable(graph: Graph, name: str) -> Tensor:
    handle = graph.tensor(name, (), "resource")
    graph.op("VAR_HANDLE", [], [handle], container="", shared_name=name)
    return handle


def _reshape_4d(graph: Graph, rows: Tensor, name: str) -> Tensor:
    """[batch, size] -> [batch, 1, 1, size], the shape CONV_2D wants."""
    return reshape(graph, rows, (rows.shape[0], 1, 1, rows.shape[1]), name)
