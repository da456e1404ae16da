"""The recurrent cells: one emitter each, for one time step. They read as the equations do."""

from collections.abc import Callable, Mapping
from typing import Final

from ...fixedpoint import PRE_ACTIVATION_SCALE
from ...qmodel import STATES, Cell, Layer, QuantizedModel
from .arithmetic import Arithmetic
from .graph import Graph, Tensor


def advance(graph: Graph, model: QuantizedModel, x: Tensor, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The states after one time step of every layer. x is the model's input, [1, 1, 1, input_size]."""
    a = Arithmetic(graph, model.scheme)
    new_states: dict[str, Tensor] = {}
    value = a.widen(x)
    for index, layer in enumerate(model.layers):
        names = [f"{name}_{index}" for name in STATES[layer.cell]]
        new = _STEPS[layer.cell](a, layer, value, *(states[name] for name in names))
        new_states |= zip(names, new, strict=True)
        if index + 1 < len(model.layers):
            value = a.view(new[0])
    return new_states


def output(graph: Graph, model: QuantizedModel, states: Mapping[str, Tensor]) -> Tensor:
    """What the model says about the last layer's hidden state: the head's int8, or that state itself."""
    a, h = Arithmetic(graph, model.scheme), states[f"h_{len(model.layers) - 1}"]
    if model.head is None:
        return h
    return a.narrow(a.affine(model.head.dense, a.view(h), name="dense"), "out", model.head.output_scale)


def _lstm(a: Arithmetic, layer: Layer, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    p = a.add(a.affine(layer.input, x), a.affine(layer.recurrent, a.view(h)), "p")
    p_i, p_f, p_g, p_o = a.split(p, "ifgo")
    i, f, g, o = a.sigmoid(p_i, "i"), a.sigmoid(p_f, "f"), a.tanh(p_g, "g"), a.sigmoid(p_o, "o")
    scale = 2.0**-layer.cell_exponent
    c = a.add(a.mul(f, c, "fc", scale), a.mul(i, g, "ig", scale), "c")
    return a.mul(o, a.tanh(a.pre_activation(c, "p"), "tanh"), "h"), c


def _gru(a: Arithmetic, layer: Layer, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    size = layer.hidden_size
    x_r, x_z, x_n = a.split(a.affine(layer.input, x), "rzn")
    if layer.reset_after:
        h_r, h_z, h_n = a.split(a.affine(layer.recurrent, a.view(h)), "rzn")
    else:
        h_r, h_z = a.split(a.affine(layer.recurrent, a.view(h), slice(0, 2 * size)), "rz")
    r, z = a.sigmoid(a.add(x_r, h_r, "r"), "r"), a.sigmoid(a.add(x_z, h_z, "z"), "z")
    if layer.reset_after:
        inner = a.mul(r, h_n, "rn", PRE_ACTIVATION_SCALE)
    else:
        inner = a.affine(layer.recurrent, a.view(a.mul(r, h, "rh")), slice(2 * size, None))
    n = a.tanh(a.add(x_n, inner, "n"), "n")
    return (a.add(a.sub(n, a.mul(z, n, "zn"), "n"), a.mul(z, h, "zh"), "h"),)


def _rnn(a: Arithmetic, layer: Layer, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (a.tanh(a.add(a.affine(layer.input, x), a.affine(layer.recurrent, a.view(h)), "p"), "h"),)


_STEPS: Final[dict[Cell, Callable[..., tuple[Tensor, ...]]]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
