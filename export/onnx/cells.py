"""One time step of each cell in integers, as ONNX operators. Equations and formats: the cell's own, in int16.

The products of a gate (0 .. 32767) and an int16 value lie within +-32767 * 32768, and so within int16 after the shift
by 15: where the arithmetic saturates such a product, there is nothing to do here.
"""

from dataclasses import dataclass

import numpy as np

from ...qmodel import STATES, IntArray, Layer
from .emitter import Emitter
from .exact import GATE_SPAN, Tables, affine, round_shift, sat16


@dataclass(frozen=True)
class Cell:
    """A layer's emitter: `input_gates` for all steps at once, `step` for one."""

    layer: Layer
    int8_view: bool  # w8a8: matrix products read the hidden state as int8
    tables: Tables

    @property
    def states(self) -> tuple[str, ...]:
        return STATES[self.layer.cell]

    @property
    def gate_sizes(self) -> list[int]:
        """Columns of the values that `input_gates` gives."""
        size = self.layer.hidden_size
        return {"lstm": [4 * size], "gru": [2 * size, size], "rnn": [size]}[self.layer.cell]

    def input_gates(self, g: Emitter, x: str, largest_input: int) -> list[str]:
        """What the input adds to the gates' arguments, with each gate's position in its table already added."""
        position = np.full(len(self._gate_order), float(GATE_SPAN))
        if self.layer.cell == "lstm":
            position[3 * self.layer.hidden_size :] += 2 * GATE_SPAN
        gates = g.op("Add", affine(g, x, self.layer.input, largest_input, self._gate_order), position)
        return g.split(gates, *self.gate_sizes) if self.layer.cell == "gru" else [gates]

    def step(self, g: Emitter, gates: list[str], states: list[str]) -> list[str]:
        """The next states [N, hidden_size] from one step's input gates and the states."""
        if self.layer.cell == "lstm":
            return self._lstm(g, gates[0], *states)
        if self.layer.cell == "gru":
            return [self._gru(g, *gates, *states)]
        return [self._rnn(g, gates[0], states[0])]

    def view(self, g: Emitter, h: str) -> str:
        """The hidden state as matrix products read it."""
        return self.tables.look_up(g, self.tables.to_int8, h) if self.int8_view else h

    @property
    def _gate_order(self) -> IntArray:
        """Rows of the weights; an LSTM's become f, i, o, g: the sigmoids lie together, and f * c lies beside i * g."""
        blocks = [1, 0, 3, 2] if self.layer.cell == "lstm" else range(len(self.layer.gates))
        rows = np.arange(self.layer.recurrent.rows).reshape(len(self.layer.gates), -1)
        return np.concatenate([rows[block] for block in blocks])

    def _recurrent(self, g: Emitter, h: str, rows: slice | None = None) -> str:
        order = self._gate_order if rows is None else self._gate_order[rows]
        return affine(g, self.view(g, h), self.layer.recurrent, 128 if self.int8_view else 32768, order)

    def _rnn(self, g: Emitter, x: str, h: str) -> str:
        return self.tables.look_up(g, self.tables.tanh, g.op("Add", x, self._recurrent(g, h)))

    def _lstm(self, g: Emitter, x: str, h: str, c: str) -> list[str]:
        size = self.layer.hidden_size
        gates = self.tables.look_up(g, self.tables.lstm_gates, g.op("Add", x, self._recurrent(g, h)))
        half_fi, half_o, candidate = g.split(gates, 2 * size, size, size)
        # c' = f * c + i * g: rescaling i * g by 2^(k - 30) rounds as round_shift by 30 - k does
        shifts = np.repeat([15, 30 - self.layer.cell_exponent], size)
        terms = round_shift(g, g.op("Mul", half_fi, g.op("Concat", c, candidate, axis=-1)), shifts)
        c = sat16(g, g.op("Add", *g.split(terms, size, size)))
        squashed = self.tables.look_up(g, self.tables.cell_tanh(self.layer.cell_exponent), c)
        return [round_shift(g, g.op("Mul", half_o, squashed), 15), c]

    def _gru(self, g: Emitter, x_rz: str, x_n: str, h: str) -> str:
        size = self.layer.hidden_size
        if self.layer.reset_after:
            h_rz, h_n = g.split(self._recurrent(g, h), 2 * size, size)
        else:
            h_rz = self._recurrent(g, h, slice(0, 2 * size))
        half_rz = self.tables.look_up(g, self.tables.half_sigmoid, g.op("Add", x_rz, h_rz))
        half_r, half_z = g.split(half_rz, size, size)
        inner = round_shift(g, g.op("Mul", half_r, h_n if self.layer.reset_after else h), 15)
        if not self.layer.reset_after:
            inner = self._recurrent(g, inner, slice(2 * size, None))
        n = self.tables.look_up(g, self.tables.tanh, g.op("Add", x_n, inner))
        # h' = n - z * n + z * h; monotone in n and in h, and n itself where they are equal, so that it cannot saturate
        products = g.op("Concat", g.op("Mul", half_z, n), g.op("Mul", half_z, h), axis=-1)
        zn, zh = g.split(round_shift(g, products, 15), size, size)
        return g.op("Add", g.op("Sub", n, zn), zh)
