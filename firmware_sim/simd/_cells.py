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

        `multiply_high` adds 2^14 alone, which makes a difference where the lower 15 bits are 2^14 - 1, or 2^14. There
        alone, twice the product in 16 bits runs over when 2 is added, or 1 subtracted; by that a saturated sum differs.
        """
        twice, little = (gate + gate) * v, v.sign() | 2
        return self.form.multiply_high(gate, v) + (twice + little) - twice.add_saturating(little)


def view(form: Form, h: Vector, itemsize: int) -> list[Vector]:
    """h as products read it, int8 or int16, in the planes of an operand.

    sat8(round_shift(h, 8)) is the upper half of h + 129, or of h + 127 if h < 0; beyond 32767 it is 127.
    """
    if itemsize == 1:
        h = (h.add_saturating(129) + ((h >> 14) & -2)) >> 8
    return form.split(h, itemsize)


# ---- the LSTM's cell state -------------------------------------------------------------------------------------------

Numbers = Callable[[str], Vector]  # of CELL_SCALE, in every lane

CELL_SCALE: Final = ("product_shift", "product_half", "factor", "sign_factor", "offset", "shift")


def cell_scale(exponent: int) -> list[int]:
    """The numbers of CELL_SCALE, int32, for a cell state of scale 2^-exponent."""
    product_shift, left, right = 30 - exponent, max(12 - exponent, 0), max(exponent - 12, 0)
    half = (1 << right) >> 1
    product_half = (1 << (product_shift - 1)) + 1
    return [product_shift, product_half, 3 << left, 3 if right else -1, 1 + 4 * half, right + 2]


def _new_content(form: Form, i: Vector, g: Vector, number: Numbers) -> Vector:
    """round_shift(i * g, product_shift)"""
    products = form.two_products(i, g, i.filled(2), g.sign())
    return form.narrow((products + number("product_half")) >> number("product_shift"))


def _pre_activation(form: Form, c: Vector, number: Numbers) -> Vector:
    """sat16(rescale(c)): c * 3072 * 2^-exponent in two roundings. The multiplier 1 / float32(1 / 3072) is a little less
    than 3072, so that ties of the first one go towards zero: with s = -1 for c < 0, else 0, of four times its result
    (c * 3 << left) - s + 1 the floor of a quarter. To that the second one, where right > 0, adds s and a half before
    the floor of 2^-right times it. The two floors are one, of (c * 3 << left) - s + 1 + 4 * (s + half)."""
    sums = form.two_products(c, number("factor").to(16), c.sign(), number("sign_factor").to(16))
    return form.narrow((sums + number("offset")) >> number("shift"))


# ---- steps -----------------------------------------------------------------------------------------------------------


def lstm(ops: Primitives, px: Gates, ph: Gates, c: Vector, number: Numbers) -> Gates:
    """c' = f * c + i * g, h' = o * tanh(c'). Returns i, f, g, o, tanh(c'), c', h'."""
    p = [ops.add(x, h) for x, h in zip(px, ph, strict=True)]
    i, f, g, o = ops.look_up([SIGMOID, SIGMOID, TANH, SIGMOID], *p)
    c = ops.add(ops.product(f, c), _new_content(ops.form, i, g, number))
    t = ops.tanh(_pre_activation(ops.form, c, number))
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
