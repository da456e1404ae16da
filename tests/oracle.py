"""The arithmetic once more, for the tests alone: plain Python integers, written from the equations, not the code.

Slow on purpose. It shares the sigmoid table with the product (the table is data) and nothing else.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import floor

import numpy as np
import numpy.typing as npt

from edgernn._sigmoid_table import SIGMOID_TABLE
from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel

Vector = list[int]


def clamp(v: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, v))


def half_away(v: Fraction) -> int:
    return floor(v + Fraction(1, 2)) if v >= 0 else -floor(-v + Fraction(1, 2))


def round_shift(v: int, e: int) -> int:
    return half_away(Fraction((v + 1) >> 1, 2 ** (e - 1))) if e > 1 else (v + 1) >> 1


def rescale(v: int, m: Fraction) -> int:
    q31, exponent = _q31(m)
    doubled = (v * 2 ** max(exponent, 0) * q31 + 2**30) >> 31
    return half_away(Fraction(doubled, 2 ** max(-exponent, 0)))


@cache  # the multipliers of a model are the same at every step
def _q31(m: Fraction) -> tuple[int, int]:
    exponent = 0
    while m >= 1:
        m, exponent = m / 2, exponent + 1
    while m < Fraction(1, 2):
        m, exponent = m * 2, exponent - 1
    q31 = floor(m * 2**31 + Fraction(1, 2))
    return (q31 // 2, exponent + 1) if q31 == 2**31 else (q31, exponent)


def requantize(acc: int, m: Fraction) -> int:
    q31, exponent = _q31(m)
    rq = (q31 + 2**15) >> 16 if q31 < 0x7FFF0000 else 0x7FFF
    return clamp((acc * rq + 2 ** (14 - exponent)) >> (15 - exponent), 16)


def sigmoid(p: int) -> int:
    return sigmoid_at(4 * p)


def sigmoid_at(position: int) -> int:
    """At a position in the table, in steps of 1/512 of an entry."""
    index, rest = divmod(abs(position), 512)
    table = 0x7FFF << 10
    if index < 255:
        table = SIGMOID_TABLE[index] * 512 + rest * (SIGMOID_TABLE[index + 1] - SIGMOID_TABLE[index])
    return (table + 512) >> 10 if position >= 0 else (2**25 - table + 511) >> 10


def tanh(p: int) -> int:
    return tanh_at(4 * p)


def tanh_at(position: int) -> int:
    index, rest = divmod(abs(position), 256)
    table = 0xFFFF << 8
    if index < 255:
        table = SIGMOID_TABLE[index] * 256 + rest * (SIGMOID_TABLE[index + 1] - SIGMOID_TABLE[index])
    return (table - 2**23 + 128) >> 8 if position >= 0 else (-table + 2**23 + 127) >> 8


def f32(v: float) -> Fraction:
    return Fraction(float(np.float32(v)))


def affine(a: Affine, x: Vector) -> Vector:
    out = []
    for weights, bias, scale in zip(a.weight.tolist(), a.bias.tolist(), a.weight_scale, strict=True):
        m = Fraction(float(f32(a.input_scale)) * float(scale) / float(f32(a.output_scale)))
        out.append(requantize(bias + sum(w * v for w, v in zip(weights, x, strict=True)), m))
    return out


def view(h: Vector, scheme: str) -> Vector:
    return [clamp(round_shift(v, 8), 8) for v in h] if scheme == "w8a8" else h


def step(layer: Layer, scheme: str, x: Vector, h: Vector, c: Vector) -> tuple[Vector, Vector]:
    """One time step of one layer: the next (hidden, cell) state."""
    size = layer.hidden_size
    px, ph = affine(layer.input, x), affine(layer.recurrent, view(h, scheme))

    def gate(index: int) -> Vector:
        rows = range(index * size, (index + 1) * size)
        return [clamp(px[row] + ph[row], 16) for row in rows]

    if layer.cell == "rnn":
        return [tanh(p) for p in gate(0)], c
    if layer.cell == "lstm":
        i, f, o = ([sigmoid(p) for p in gate(index)] for index in (0, 1, 3))
        g = [tanh(p) for p in gate(2)]
        k = layer.cell_exponent
        c = [
            clamp(clamp(round_shift(f[u] * c[u], 15), 16) + clamp(rescale(i[u] * g[u], Fraction(2**k, 2**30)), 16), 16)
            for u in range(size)
        ]
        to_p = Fraction(1, 2**k) / f32(1 / 3072)
        return [clamp(round_shift(o[u] * tanh(clamp(rescale(c[u], to_p), 16)), 15), 16) for u in range(size)], c
    r, z = ([sigmoid(p) for p in gate(index)] for index in (0, 1))
    if layer.reset_after:
        inner = [clamp(round_shift(r[u] * ph[2 * size + u], 15), 16) for u in range(size)]
    else:
        reset = [clamp(round_shift(r[u] * h[u], 15), 16) for u in range(size)]
        inner = affine(layer.recurrent, view(reset, scheme))[2 * size :]
    n = [tanh(clamp(px[2 * size + u] + inner[u], 16)) for u in range(size)]
    return [
        clamp(clamp(n[u] - round_shift(z[u] * n[u], 15), 16) + round_shift(z[u] * h[u], 15), 16) for u in range(size)
    ], c


def scan(layer: Layer, scheme: str, sequence: list[Vector], h: Vector, c: Vector) -> list[Vector]:
    """The hidden states of one direction, in the order in which it reads."""
    hidden = []
    for vector in sequence:
        h, c = step(layer, scheme, vector, h, c)
        hidden.append(h)
    return hidden


def run(model: QuantizedModel, x: IntArray, states: Sequence[tuple[Vector, Vector]] | None = None) -> IntArray:
    """Integer outputs of one sequence x [T, input_size]: [output_size], or [T, output_size] for every step."""
    sequence: list[Vector] = x.tolist()
    for index, layer in enumerate(model.layers):
        zeros = [0] * layer.hidden_size
        hidden = scan(layer, model.scheme, sequence, *(states[index] if states else (zeros, zeros)))
        last = hidden[-1]
        if layer.backward is not None:
            reverse = scan(layer.backward, model.scheme, sequence[::-1], zeros, zeros)
            last = last + reverse[-1]
            hidden = [a + b for a, b in zip(hidden, reverse[::-1], strict=True)]
        sequence = [view(v, model.scheme) for v in hidden]
    if model.head is None:
        return np.array(hidden, np.int16)
    read = sequence if model.head.kind == "steps" else [view(last, model.scheme)]
    out = [[clamp(round_shift(v, 8), 8) for v in affine(model.head.dense, vector)] for vector in read]
    return np.array(out if model.head.kind == "steps" else out[0], np.int8)


def run_batch(model: QuantizedModel, x: IntArray, lengths: Sequence[int] | npt.NDArray[np.integer]) -> IntArray:
    """The outputs of the valid part of every sequence of x [N, T, input_size] by itself; zeros at its padding."""
    outputs = [run(model, sequence[:length]) for sequence, length in zip(x, lengths, strict=True)]
    if model.every_step:
        outputs = [np.pad(y, ((0, x.shape[1] - len(y)), (0, 0))) for y in outputs]
    return np.stack(outputs)
