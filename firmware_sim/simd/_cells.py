"""One step of each cell on vectors, as the arithmetic defines it.

px are the input's shares of the pre-activations and ph the recurrent ones, an int16 vector of every gate; h and c are
the state before the step. A gate that a sigmoid gave is never below zero, which its products make use of.
"""

from collections.abc import Callable, Sequence
from typing import Final

from ._form import SIGMOID, TANH, Form
from ._vector import Value, Vector

Gates = list[Vector]


class Primitives:
    """What the steps are made of. tables: the address that `Form.look_up` takes. saturated: collects, if it is a list,
    which lanes of each sum lost something to saturation, as vectors of bits."""

    def __init__(self, form: Form, tables: Value, saturated: list[Vector] | None = None) -> None:
        self.form, self.tables, self.saturated = form, tables, saturated

    def add(self, a: Vector, b: Vector) -> Vector:
        """sat16(a + b)"""
        total = a.add_saturating(b)
        if self.saturated is not None:
            self.saturated.append(total.compare("!=", a + b))
        return total

    def look_up(self, functions: Sequence[int], *p: Vector) -> Gates:
        """SIGMOID or TANH of each."""
        return self.form.look_up(functions, p, self.tables)

    def sigmoid(self, *p: Vector) -> Gates:
        return self.look_up([SIGMOID] * len(p), *p)

    def tanh(self, p: Vector) -> Vector:
        return self.look_up([TANH], p)[0]

    def product(self, gate: Vector, v: Vector) -> Vector:
        """round_shift(gate * v, 15) for a gate >= 0: (gate * v + 2^14 + 1) >> 15, or (.. + 2^14 - 1) >> 15 if v < 0.

        `multiply_high` adds 2^14 alone, which makes a difference where the lower 15 bits are 2^14 - 1, or 2^14.
        """
        sign = v.sign()
        lower = gate * v
        differs = (lower + lower).compare("==", sign.filled(0x7FFE) - sign - sign)
        return self.form.multiply_high(gate, v) + differs.where(sign | 1, sign.filled(0))


# ---- the LSTM's cell state -------------------------------------------------------------------------------------------

Numbers = Callable[[str], Vector]  # of CELL_SCALE, in every lane

CELL_SCALE: Final = ("product_shift", "product_half", "left", "right", "half", "sign_mask")


def cell_scale(exponent: int) -> list[int]:
    """The numbers of CELL_SCALE, int32, for a cell state of scale 2^-exponent."""
    shift, left, right = 30 - exponent, max(12 - exponent, 0), max(exponent - 12, 0)
    return [shift, (1 << (shift - 1)) + 1, left, right, (1 << right) >> 1, -1 if right else 0]


def _new_content(i: Vector, g: Vector, number: Numbers) -> Vector:
    """round_shift(i * g, product_shift)"""
    product = i.to(32) * g.to(32)
    sign = product.sign()
    return ((product + number("product_half") + sign + sign) >> number("product_shift")).to(16)


def _pre_activation(c: Vector, number: Numbers) -> Vector:
    """sat16(rescale(c)): c * 3072 * 2^-exponent in two roundings. The multiplier 1 / float32(1 / 3072) is a little less
    than 3072, so that ties of the first one go towards zero."""
    wide = c.to(32)
    sign = wide.sign()
    quarters = (wide << number("left")) * 3 - sign + 1
    return (((quarters >> 2) + number("half") + (sign & number("sign_mask"))) >> number("right")).saturate(16)


# ---- steps -----------------------------------------------------------------------------------------------------------


def lstm(ops: Primitives, px: Gates, ph: Gates, c: Vector, number: Numbers) -> Gates:
    """c' = f * c + i * g, h' = o * tanh(c'). Returns i, f, g, o, tanh(c'), c', h'."""
    p = [ops.add(x, h) for x, h in zip(px, ph, strict=True)]
    i, f, g, o = ops.look_up([SIGMOID, SIGMOID, TANH, SIGMOID], *p)
    c = ops.add(ops.product(f, c), _new_content(i, g, number))
    t = ops.tanh(_pre_activation(c, number))
    return [i, f, g, o, t, c, ops.product(o, t)]


def gru(ops: Primitives, px: Gates, ph: Gates, h: Vector) -> Gates:
    """n = tanh(px_n + r * ph_n), h' = (1 - z) * n + z * h. Returns r, z, n, ph_n, h'."""
    r, z = ops.sigmoid(ops.add(px[0], ph[0]), ops.add(px[1], ph[1]))
    n = ops.tanh(ops.add(px[2], ops.product(r, ph[2])))
    return [r, z, n, ph[2], _blend(ops, z, n, h)]


def reset_and_update(ops: Primitives, px: Gates, ph: Gates, h: Vector) -> Gates:
    """r, z and r * h, of a GRU that resets before the product."""
    r, z = ops.sigmoid(ops.add(px[0], ph[0]), ops.add(px[1], ph[1]))
    return [r, z, ops.product(r, h)]


def candidate(ops: Primitives, px: Vector, ph: Vector, z: Vector, h: Vector) -> Gates:
    """n = tanh(px + U_n (r * h)), h' = (1 - z) * n + z * h. Returns n, h'."""
    n = ops.tanh(ops.add(px, ph))
    return [n, _blend(ops, z, n, h)]


def _blend(ops: Primitives, z: Vector, n: Vector, h: Vector) -> Vector:
    """Between n and h, so that nothing saturates."""
    return n - ops.product(z, n) + ops.product(z, h)


def rnn(ops: Primitives, px: Gates, ph: Gates) -> Gates:
    """h' = tanh(px + ph)."""
    return [ops.tanh(ops.add(px[0], ph[0]))]
