"""The rows of a dense map as numbers to be packed."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..._tflite_lstm import operator_multipliers
from ...fixedpoint import requantize
from ...qmodel import Affine

Array: TypeAlias = npt.NDArray[np.integer[Any]]

_UNIT = (1 << 14, 16)  # multiplier and shift of a quarter: in the range of every layout
_BITS = 15  # of a multiplier
_OPERATOR_BITS = 24  # of the operator's: runtimes have it from a float32


@dataclass(frozen=True)
class Rows:
    """weight int8 [rows, columns]; bias, multiplier and shift int64 [rows]. bits: of a multiplier, at most.

    A row whose weights are all zero, as pruning leaves them, is a constant; its scale, which may be anything, does not
    decide how the other rows are written.

    right: int64 [rows], a gate's second shift in the profile tflite-lstm, whose multipliers are not in the stream.
    """

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    bits: int = _BITS
    right: Array | None = None

    @classmethod
    def of(cls, affine: Affine) -> "Rows":
        bias = affine.bias.astype(np.int64)
        constant = ~affine.weight.any(axis=1)
        value = 4 * requantize(bias, affine.multiplier, affine.shift)
        return cls(
            affine.weight,
            np.where(constant, value, bias),
            np.where(constant, _UNIT[0], affine.multiplier),
            np.where(constant, _UNIT[1], affine.shift),
        )

    @classmethod
    def of_operator(cls, affine: Affine) -> "Rows":
        """Of a map of the profile tflite-lstm: (sum * multiplier, rounded, * 2^-shift), rounded, * 2^-right."""
        q31, exponent = operator_multipliers(affine.input_scale, affine.weight_scale)
        multiplier, shift = q31 >> (31 - _OPERATOR_BITS), _OPERATOR_BITS - np.maximum(exponent, 0)
        right = np.maximum(-exponent, 0)
        return cls(affine.weight, affine.bias.astype(np.int64), multiplier, shift, _OPERATOR_BITS, right)

    @property
    def columns(self) -> int:
        return int(self.weight.shape[1])

    def accumulator_bound(self, largest_input: int) -> Array:
        """int64 [rows]: the largest |accumulator| that inputs of magnitude <= largest_input can reach."""
        bound: Array = np.abs(self.bias) + np.abs(self.weight.astype(np.int64)).sum(axis=1) * largest_input
        return bound
