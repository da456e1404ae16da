"""Operators that move integers and change none of them."""

from collections.abc import Sequence

from .graph import Graph, Tensor

ANY = -1  # a dimension that whoever runs the file sets


def reshape(graph: Graph, t: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The same values, in order, in another shape."""
    out = graph.tensor(name, shape, t.dtype, t.scale, t.zero_point)
    graph.op("RESHAPE", [t, graph.constant("shape", shape)], [out])
    return out


def cut(
    graph: Graph,
    t: Tensor,
    begin: Tensor | Sequence[int],
    size: Tensor | Sequence[int],
    shape: tuple[int, ...],
    name: str,
) -> Tensor:
    """The part of that size (-1: all the rest) that begins there. `shape` is its size as the file can know it."""
    ends = [v if isinstance(v, Tensor) else graph.constant(n, v) for n, v in (("begin", begin), ("size", size))]
    out = graph.tensor(name, shape, t.dtype, t.scale, t.zero_point)
    graph.op("SLICE", [t, *ends], [out])
    return out


def time_of(graph: Graph, vector: Tensor, name: str) -> Tensor:
    """The second entry of a place or a shape, [batch, time, 1, channel], as a vector of one."""
    return cut(graph, vector, [1], [1], (1,), name)


def dimensions(graph: Graph, t: Tensor) -> Tensor:
    """The shape of a tensor as an int32 vector."""
    if ANY not in t.shape:
        return graph.constant("shape", t.shape)
    out = graph.tensor("shape", (len(t.shape),), "int32")
    graph.op("SHAPE", [t], [out], out_type=2)
    return out
