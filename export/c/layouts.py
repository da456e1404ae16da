"""How a layout packs the rows of dense maps: arrays as a kernel in `kernels/` reads them.

A block is four rows of a map, or as many as the layout says. Every layout writes blocks one after another, in the
order in which the cell needs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from .rows import Array, Rows

BLOCK: Final = 4
GENERAL: Final = -1  # ERN_GENERAL
PACKED: Final = 8  # ERN_PACKED: also the left shift that packed sums come with
_LARGEST_LEFT: Final = 8
_VECTOR: Final = 16  # columns of a row that layout_neon.h and layout_mve.h load at once


class Block(NamedTuple):
    """Some rows of a map, most often four; -1 where a block is filled up with rows of zeros. left: how its multipliers
    are written."""

    affine: Rows
    rows: tuple[int, ...]
    left: int

    def take(self, values: Array) -> Array:
        """values [rows, ..] -> int64 [rows of the block, ..]."""
        rows = np.array(self.rows)
        chosen: Array = values[rows].astype(np.int64)
        chosen[rows < 0] = 0
        return chosen

    def weights(self, columns: int) -> Array:
        """int64 [rows, columns], the columns beyond the map's zero."""
        chosen = self.take(self.affine.weight)
        return np.pad(chosen, ((0, 0), (0, columns - chosen.shape[1])))

    def multipliers(self) -> Array:
        """int64 [rows], as `ern_requantize` reads them; none of the profile tflite-lstm."""
        if self.affine.exponent is not None:
            return np.zeros(0, np.int64)
        multiplier, shift = self.take(self.affine.multiplier), self.take(self.affine.shift)
        if self.left == GENERAL:
            return multiplier << 8 | np.where(shift == 0, 17, shift)  # a row of zeros has no shift
        return np.where(shift == 0, 0, multiplier << np.maximum(32 - self.left - shift, 0))


@dataclass(frozen=True)
class Layout:
    """One way to hold weights.

    kernels: the files it is made of, in order. arrays: the C types of the stream's arrays, and pack: their values.
    unit: operands are padded to a multiple of it. wide: operands are int16 in w8a8 too. group: so many units' rows of a
    gate lie beside each other, in blocks. block: the rows of one. packs: it has PACKED. operator: the files of the
    profile tflite-lstm, after all others; none where there are no kernels for it.
    """

    name: str
    kernels: tuple[str, ...]
    table: str
    arrays: dict[str, str]
    pack: Callable[[Sequence[Block], int], list[Array]]
    left: Callable[[Rows, int], int]
    unit: int = 1
    wide: bool = False
    group: int = BLOCK
    block: int = BLOCK
    packs: bool = False
    operator: tuple[str, ...] = ("operator.h", "cells_tflite_lstm.h")

    def columns(self, count: int) -> int:
        return -(-count // self.unit) * self.unit

    def units(self, count: int) -> int:
        """How many a hidden state of `count` units has in memory."""
        return -(-count // self.group) * self.group


def high_word(affine: Rows, limit: int, least: int = 0) -> int:
    """The smallest left shift of the sums with which every multiplier is a fraction of 2^32, or GENERAL."""
    bound = int(affine.accumulator_bound(limit).max())
    for left in range(least, _LARGEST_LEFT + 1):
        if 16 - left <= affine.shift.min() and affine.shift.max() <= 32 - left and bound << left < 2**31:
            return left
    return GENERAL


def doubled_high_word(affine: Rows, limit: int) -> int:
    """As `high_word`, at least 1: for products that come doubled."""
    return high_word(affine, limit, least=1)


def packed_or_high_word(affine: Rows, limit: int) -> int:
    """PACKED where two rows' sums can share a word, else as `high_word`."""
    fits = limit == 128 and affine.accumulator_bound(limit).max() < 2**23 and affine.shift.max() <= 24
    return PACKED if fits else high_word(affine, limit)


def packed_or_high_half(affine: Rows, limit: int) -> int:
    """PACKED where two rows' sums can share a word, else the least left shift with which every shift is 17 or more."""
    bound, least = int(affine.accumulator_bound(limit).max()), int(affine.shift.min())
    if bound < 2**23 and least >= 17 - PACKED:
        return PACKED
    left = max(0, 17 - least)
    return left if bound << left < 2**31 else GENERAL


def interleaved(blocks: Sequence[Block], unit: int) -> list[Array]:
    """weights [columns][4] of every block, and rows: 4 biases, 4 multipliers."""
    weights = [block.weights(_columns(block, unit)).T for block in blocks]
    return [_joined(weights, np.int8), _joined([_rows(block) for block in blocks], np.int32)]


def half_words(blocks: Sequence[Block], unit: int) -> list[Array]:
    """The stream of layout_dsp.h."""
    parts: list[Array] = []
    for block in blocks:
        weights, bias = block.weights(_columns(block, unit)), block.take(block.affine.bias)
        if block.left == PACKED:
            half = _paired(weights)
            parts += [_starts(bias), (half[:, 0::2] | half[:, 1::2] << 16).T]
        else:
            quads = weights.reshape(BLOCK, -1, 4) & 0xFF
            words = quads[..., 0] | quads[..., 2] << 8 | quads[..., 1] << 16 | quads[..., 3] << 24
            parts += [bias, words.T]
        parts.append(block.multipliers())
    return [_joined(parts, np.uint32)]


def column_words(blocks: Sequence[Block], unit: int) -> list[Array]:
    """The stream of layout_v6m.h."""
    parts: list[Array] = []
    for block in blocks:
        weights, bias = block.weights(_columns(block, unit)), block.take(block.affine.bias)
        if block.left == PACKED:
            half = _paired(weights)
            parts += [_starts(bias), half[0] | half[1] << 16]
        else:
            row = weights & 0xFF
            parts += [bias, row[0] | row[1] << 8 | row[2] << 16 | row[3] << 24]
            if block.left != GENERAL and block.affine.exponent is None:
                parts.append(np.array([block.left]))
        parts.append(_high_halves(block))
    return [_joined(parts, np.uint32)]


def _paired(weights: Array) -> Array:
    """Half-words [2, columns]: 256 * a + b for every two rows a, b."""
    half: Array = (256 * weights[0::2] + weights[1::2]) & 0xFFFF
    return half


def _starts(bias: Array) -> Array:
    """[2, 2]: for every two rows what the sums of 256 * a + b and of b start from."""
    return np.stack([256 * bias[0::2] + bias[1::2], bias[1::2]], axis=1)


def row_groups(blocks: Sequence[Block], unit: int) -> list[Array]:
    """weights [columns / 16][4][16] of every block, then [4][8] if eight columns remain; rows as `interleaved`."""
    weights: list[Array] = []
    for block in blocks:
        rows = block.weights(_columns(block, unit))
        weights += np.split(rows, range(_VECTOR, rows.shape[1], _VECTOR), axis=1)
    return [_joined(weights, np.int8), _joined([_rows(block) for block in blocks], np.int32)]


def bytes_of_rows(blocks: Sequence[Block], unit: int) -> list[Array]:
    """The stream of layout_mve.h."""
    parts: list[Array] = []
    for block in blocks:
        weights = block.weights(_columns(block, unit)).reshape(BLOCK, -1, _VECTOR)
        chunks = np.ascontiguousarray(weights.swapaxes(0, 1), np.int8)
        parts += [block.take(block.affine.bias), chunks.view("<u4"), block.multipliers()]
    return [_joined(parts, np.uint32)]


def row_words(blocks: Sequence[Block], unit: int) -> list[Array]:
    """The stream of layout_x86.h: weights [columns / 4][16][4] of every block, and rows."""
    weights, rows = [], []
    for block in blocks:
        own = block.weights(_columns(block, unit))
        weights.append(own.reshape(len(own), -1, 4).swapaxes(0, 1))
        bias = block.take(block.affine.bias)
        rows.append(np.concatenate([bias, bias - 128 * own.sum(axis=1), block.multipliers()]))
    return [_joined(weights, np.int8), _joined(rows, np.int32)]


def _high_halves(block: Block) -> Array:
    """int64 [4]: multipliers, and by how much less 1 what is above 2^16 of a product is shifted."""
    if block.left == GENERAL or block.affine.exponent is not None:
        return block.multipliers()
    shift = block.take(block.affine.shift) + block.left - 17
    return block.take(block.affine.multiplier) << 8 | np.clip(shift, 0, 31)  # of 31 bits nothing is left


def _rows(block: Block) -> Array:
    return np.concatenate([block.take(block.affine.bias), block.multipliers()])


def _columns(block: Block, unit: int) -> int:
    return -(-block.affine.columns // unit) * unit


def _joined(parts: Sequence[Array], dtype: type[np.integer[Any]]) -> Array:
    joined = np.concatenate([part.ravel() for part in parts])
    return (joined & np.iinfo(np.uint32).max if dtype == np.uint32 else joined).astype(dtype)


_BYTES: Final = {"weights": "int8_t", "rows": "int32_t"}

LAYOUTS: Final[dict[str, Layout]] = {
    layout.name: layout
    for layout in (
        Layout(
            "generic",
            ("activation_small.h", "requantize_high.h", "operand_narrow.h", "layout_generic.h", "sum.h"),
            "small",
            _BYTES,
            interleaved,
            high_word,
        ),
        Layout(
            "dsp",
            ("activation_fast.h", "requantize_high.h", "operand_wide.h", "layout_dsp.h"),
            "fast",
            {"words": "uint32_t"},
            half_words,
            packed_or_high_word,
            unit=4,
            wide=True,
            packs=True,
            operator=("operator_dsp.h", "operator.h", "cells_tflite_lstm.h"),
        ),
        Layout(
            "v6m",
            ("activation_small.h", "operand_wide.h", "layout_v6m.h"),
            "small",
            {"words": "uint32_t"},
            column_words,
            packed_or_high_half,
            unit=4,
            wide=True,
            packs=True,
        ),
        Layout(
            "neon",
            (
                "activation_neon.h",
                "activation_fast.h",
                "requantize_high.h",
                "operand_narrow.h",
                "layout_neon.h",
                "sum.h",
            ),
            "fast",
            _BYTES,
            row_groups,
            doubled_high_word,
            unit=8,
            operator=("operator.h", "operator_neon.h", "cells_tflite_lstm.h"),
        ),
        Layout(
            "mve",
            ("activation_mve.h", "requantize_high.h", "operand_narrow.h", "layout_mve.h"),
            "mve",
            {"words": "uint32_t"},
            bytes_of_rows,
            high_word,
            unit=_VECTOR,
            group=8,
            operator=("operator.h", "operator_mve.h", "cells_tflite_lstm.h"),
        ),
        Layout(
            "x86",
            ("activation_x86.h", "requantize_high.h", "operand_x86.h", "layout_x86.h", "sum.h"),
            "entries",
            _BYTES,
            row_words,
            high_word,
            unit=4,
            group=16,
            block=16,
            operator=(),
        ),
    )
}
