"""TensorFlow Lite's int8 LSTM operator once more, for the tests alone: plain Python integers, written from the kernels'
descriptions, in the three flavours. It shares tests/oracle.py, and with the product the sigmoid table.

Fixed point as gemmlowp has it: a raw int16 and how many of its bits are in front of the point.
"""

from dataclasses import dataclass
from decimal import Decimal, getcontext
from fractions import Fraction
from functools import cache

import numpy as np

from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel

from . import oracle
from .oracle import Vector, clamp, half_away

getcontext().prec = 40


def int16(v: int) -> int:
    """What an int16 keeps of v."""
    return (v + 2**15) % 2**16 - 2**15


# ---- gemmlowp --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fixed:
    raw: int
    bits: int

    def __post_init__(self) -> None:
        assert -(2**15) <= self.raw < 2**15

    def __mul__(self, other: "Fixed") -> "Fixed":
        """SaturatingRoundingDoublingHighMul, with C's division, which truncates."""
        product = self.raw * other.raw
        if self.raw == other.raw == -(2**15):
            return Fixed(2**15 - 1, self.bits + other.bits)
        nudged = product + (2**14 if product >= 0 else 1 - 2**14)
        return Fixed(abs(nudged) // 2**15 * (1 if nudged >= 0 else -1), self.bits + other.bits)

    def __add__(self, other: "Fixed") -> "Fixed":
        assert self.bits == other.bits
        return Fixed(int16(self.raw + other.raw), self.bits)

    def __sub__(self, other: "Fixed") -> "Fixed":
        assert self.bits == other.bits
        return Fixed(int16(self.raw - other.raw), self.bits)

    def divided(self, exponent: int) -> "Fixed":
        return Fixed(half_away(Fraction(self.raw, 2**exponent)), self.bits)

    def rescaled(self, bits: int) -> "Fixed":
        return Fixed(clamp(self.raw * 2 ** (self.bits - bits), 16), bits)

    def renamed(self, bits: int) -> "Fixed":
        """The same integer, which is another value then."""
        return Fixed(self.raw, bits)


@cache
def constant(real: Decimal | Fraction, bits: int) -> Fixed:
    """A real number, rounded to int32 and then to int16."""
    value = Fraction(real) * 2 ** (31 - bits)
    return Fixed(clamp(half_away(Fraction(half_away(value), 2**16)), 16), bits)


EXP_EIGHTH = constant(Decimal("-0.125").exp(), 0)
THIRD = constant(Fraction(1, 3), 0)
POWERS = [(e, constant(Decimal(-(Decimal(2) ** e)).exp(), 0)) for e in range(-2, 5)]


def exp_of_negative(a: Fixed) -> Fixed:
    quarter = 2 ** (13 - a.bits)
    low = a.raw % quarter - quarter
    x = Fixed(low, a.bits).rescaled(0) + constant(Fraction(1, 8), 0)
    square = x * x
    cube, fourth = square * x, square * square
    polynomial = (((fourth.divided(2) + cube) * THIRD) + square).divided(1)
    result = EXP_EIGHTH + EXP_EIGHTH * (x + polynomial)
    high = int16(low - a.raw)
    for e, factor in POWERS:
        if a.bits > e and high & 2 ** (15 - a.bits + e):
            result = result * factor
    if a.bits > 5 and a.raw < -32 * 2 ** (15 - a.bits):
        result = Fixed(0, 0)
    return Fixed(2**15 - 1, 0) if a.raw == 0 else result


def reciprocal(a: Fixed) -> Fixed:
    """2 / (1 + a) for a in [0, 1], with 2 integer bits."""
    half_denominator = Fixed((a.raw + 2**15 - 1 + 1) // 2, 0)
    x = constant(Fraction(48, 17), 2) + half_denominator * constant(Fraction(-32, 17), 2)
    one = constant(Fraction(1), 2)
    for _ in range(3):
        error = one - half_denominator * x
        x = x + (x * error).rescaled(2)
    return x


@cache
def gemmlowp_sigmoid(p: int) -> int:
    if p == 0:
        return 2**14
    positive = reciprocal(exp_of_negative(Fixed(-abs(p), 3))).renamed(1).rescaled(0).raw
    return positive if p > 0 else int16(2**15 - 1 - positive)


@cache
def gemmlowp_tanh(v: int, bits: int) -> int:
    if v == 0:
        return 0
    decay = exp_of_negative(Fixed(-abs(v), bits + 1))
    positive = (reciprocal(decay) - constant(Fraction(1), 2)).rescaled(0).raw
    return positive if v > 0 else int16(-positive)


# ---- the table -------------------------------------------------------------------------------------------------------


def table_sigmoid(p: int) -> int:
    return oracle.sigmoid_at(3 * p)


def table_tanh(v: int, bits: int) -> int:
    """`bits` in front of the point: 0 .. 6."""
    return oracle.tanh_at(3 * v * 2 ** (bits - 3) if bits >= 3 else (3 * v + 2 ** (2 - bits)) // 2 ** (3 - bits))


# ---- the operator ----------------------------------------------------------------------------------------------------


@cache
def product_of_scales(a: float, b: float, flavour: str) -> Fraction:
    """Of two float32 numbers; LiteRT multiplies them in float32."""
    exact = Fraction(a) * Fraction(b)
    return oracle.f32(float(exact)) if flavour == "litert" else exact


def terms(a: Affine, x: Vector, flavour: str) -> list[int]:
    """Each row's accumulator in the scale of pre-activations, not saturated."""
    out = []
    for weights, bias, scale in zip(a.weight.tolist(), a.bias.tolist(), a.weight_scale.tolist(), strict=True):
        m = product_of_scales(float(np.float32(a.input_scale)), scale, flavour) * 2**12
        out.append(oracle.rescale(bias + sum(w * v for w, v in zip(weights, x, strict=True)), m))
    return out


def pre_activations(layer: Layer, flavour: str, x: Vector, h: Vector) -> Vector:
    p = []
    for from_x, from_h in zip(terms(layer.input, x, flavour), terms(layer.recurrent, h, flavour), strict=True):
        recurrent = clamp(from_h, 16) if flavour == "tflm" else from_h
        p.append(clamp(clamp(from_x, 16) + recurrent, 16))
    return p


def step(layer: Layer, flavour: str, x: Vector, h: Vector, c: Vector) -> tuple[Vector, Vector]:
    """One time step: the next (hidden, cell) state."""
    size, k = layer.hidden_size, layer.cell_exponent
    litert = flavour == "litert"
    p = pre_activations(layer, flavour, x, h)
    sigmoid = gemmlowp_sigmoid if litert else table_sigmoid
    tanh = gemmlowp_tanh if litert else table_tanh
    i, f, o = ([sigmoid(v) for v in p[gate * size : (gate + 1) * size]] for gate in (0, 1, 3))
    g = [tanh(v, 3) for v in p[2 * size : 3 * size]]
    new_c, new_h = [], []
    for u in range(size):
        if litert:
            kept, fresh = half_away(Fraction(f[u] * c[u], 2**15)), half_away(Fraction(i[u] * g[u], 2 ** (30 - k)))
            assert int16(kept) == kept
            assert int16(fresh) == fresh
        else:
            kept = clamp(oracle.rescale(f[u] * c[u], Fraction(1, 2**15)), 16)
            fresh = clamp(oracle.rescale(i[u] * g[u], Fraction(2**k, 2**30)), 16)
        new_c.append(clamp(kept + fresh, 16))
        new_h.append(clamp(oracle.rescale(o[u] * tanh(new_c[u], 15 - k), Fraction(1, 2**23)), 8))
    return new_h, new_c


def scan(
    layer: Layer, flavour: str, sequence: list[Vector], h: Vector | None = None, c: Vector | None = None
) -> tuple[list[Vector], tuple[Vector, Vector]]:
    """The hidden states of every step, and the last (hidden, cell) state; from zero, or from another one."""
    zero = [0] * layer.hidden_size
    h, c = h or zero, c or zero
    hidden = []
    for vector in sequence:
        h, c = step(layer, flavour, vector, h, c)
        hidden.append(h)
    return hidden, (h, c)


def run(model: QuantizedModel, x: IntArray, flavour: str) -> IntArray:
    """Integer outputs of one sequence x [T, input_size]: [output_size], or [T, output_size] for every step."""
    sequence: list[Vector] = x.tolist()
    for layer in model.layers:
        hidden, _ = scan(layer, flavour, sequence)
        last = hidden[-1]
        if layer.backward is not None:
            reverse, _ = scan(layer.backward, flavour, sequence[::-1])
            last = last + reverse[-1]
            hidden = [a + b for a, b in zip(hidden, reverse[::-1], strict=True)]
        sequence = hidden
    if model.head is None:
        return np.array(sequence, np.int8)
    read = sequence if model.head.kind == "steps" else [last]
    out = [[clamp(oracle.round_shift(v, 8), 8) for v in oracle.affine(model.head.dense, one)] for one in read]
    return np.array(out if model.head.kind == "steps" else out[0], np.int8)
