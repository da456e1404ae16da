"""The arithmetic once more, in NumPy and whole vectors at a time: for models that are too large for tests/oracle.py.

Of the product it uses the primitives alone, which tests/test_fixedpoint.py compares with the oracle's. Dot products are
taken in float64, which holds all integers below 2^53.
"""

from collections.abc import Callable

import numpy as np

from edgernn.fixedpoint import cell_rescale, requantize, rescale, round_shift, sat8, sat16, sigmoid, tanh
from edgernn.qmodel import Affine, IntArray, Layer, QuantizedModel

Map = Callable[[IntArray], IntArray]


def affine(a: Affine, first: int = 0) -> Map:
    """The map of [.., columns] to pre-activations [.., rows], from the row `first` on."""
    weight, bias = a.weight[first:].T.astype(np.float64), a.bias[first:].astype(np.int64)
    multiplier, shift = a.multiplier[first:], a.shift[first:]
    return lambda x: requantize((x @ weight).astype(np.int64) + bias, multiplier, shift)


def view(h: IntArray, scheme: str) -> IntArray:
    result: IntArray = sat8(round_shift(h, 8)) if scheme == "w8a8" else h
    return result


def product(a: IntArray, b: IntArray) -> IntArray:
    result: IntArray = round_shift(a * b, 15)
    return result


def scan(layer: Layer, scheme: str, x: IntArray) -> IntArray:
    """The hidden states [time, hidden_size] of one direction, in the order in which it reads x [time, input_size]."""
    size, k = layer.hidden_size, layer.cell_exponent
    recurrent, candidate = affine(layer.recurrent), affine(layer.recurrent, 2 * size if layer.cell == "gru" else 0)
    h = c = np.zeros(size, np.int64)
    hidden = []
    for px in affine(layer.input)(x).reshape(len(x), -1, size):
        ph = recurrent(view(h, scheme)).reshape(-1, size)
        p = sat16(px + ph)
        if layer.cell == "lstm":
            kept, new = sat16(product(sigmoid(p[1]), c)), sigmoid(p[0]) * tanh(p[2])
            c = sat16(kept + sat16(rescale(new, 1 << 30, k - 29)))
            h = sat16(product(sigmoid(p[3]), tanh(sat16(rescale(c, *cell_rescale(k))))))
        elif layer.cell == "rnn":
            h = tanh(p[0])
        else:
            r, z = sigmoid(p[0]), sigmoid(p[1])
            inner = product(r, ph[2]) if layer.reset_after else candidate(view(sat16(product(r, h)), scheme))
            n = tanh(sat16(px[2] + sat16(inner)))
            h = sat16(sat16(n - product(z, n)) + product(z, h))
        hidden.append(h)
    return np.array(hidden)


def run(model: QuantizedModel, x: IntArray) -> IntArray:
    """Integer outputs of one sequence x [T, input_size], as `oracle.run` gives them."""
    operand: IntArray = x
    for layer in model.layers:
        directions = [
            scan(one, model.scheme, operand[::order]) for one, order in zip(layer.directions, (1, -1), strict=False)
        ]
        last = np.concatenate([hidden[-1] for hidden in directions])
        hidden = np.concatenate([directions[0], *(backward[::-1] for backward in directions[1:])], axis=1)
        operand = view(hidden, model.scheme)
    if model.head is None:
        return hidden.astype(np.int16)
    read = operand if model.every_step else view(last, model.scheme)
    return np.asarray(sat8(round_shift(affine(model.head.dense)(read), 8)), np.int8)
