"""The recurrent cells: one emitter each, for one time step. They read as the equations do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ...fixedpoint import PRE_ACTIVATION_SCALE
from ...qmodel import STATES, Cell
from .arithmetic import Arithmetic
from .graph import Tensor
from .network import Direction


def advance(
    a: Arithmetic, layers: Mapping[str, Direction], x: Tensor, states: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The states after one time step of a stack of layers, named by the ends of their states' names ("0", "1", ..).

    x is [batch, 1, 1, input_size], a state [batch, 1, 1, hidden_size].
    """
    new_states: dict[str, Tensor] = {}
    last = list(layers)[-1]
    for place, layer in layers.items():
        names = [f"{name}_{place}" for name in STATES[layer.cell]]
        new = _STEPS[layer.cell](a, layer, x, *(states[name] for name in names))
        new_states |= zip(names, new, strict=True)
        if place != last:
            x = a.view(new[0])
    return new_states


def passed_on(a: Arithmetic, hidden: Sequence[Tensor]) -> Tensor:
    """What the next layer reads of a layer's hidden states, one a direction."""
    return a.join([a.view(h) for h in hidden])


def _lstm(a: Arithmetic, layer: Direction, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    p = a.add(a.affine(layer.input, x), a.affine(layer.recurrent, a.view(h)), "p")
    p_i, p_f, p_g, p_o = a.split(p, "ifgo")
    i, f, g, o = a.sigmoid(p_i, "i"), a.sigmoid(p_f, "f"), a.tanh(p_g, "g"), a.sigmoid(p_o, "o")
    scale = 2.0**-layer.cell_exponent
    c = a.add(a.mul(f, c, "fc", scale), a.mul(i, g, "ig", scale), "c")
    return a.mul(o, a.tanh(a.pre_activation(c, "p"), "tanh"), "h"), c


def _gru(a: Arithmetic, layer: Direction, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
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


def _rnn(a: Arithmetic, layer: Direction, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (a.tanh(a.add(a.affine(layer.input, x), a.affine(layer.recurrent, a.view(h)), "p"), "h"),)


_STEPS: Final[dict[Cell, Callable[..., tuple[Tensor, ...]]]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
