"""The rows of a dense map as numbers to be packed."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..._tflite_lstm import C_FLAVOUR, operator_multipliers
from ...fixedpoint import requantize
from ...qmodel import Affine

Array: TypeAlias = npt.NDArray[np.integer[Any]]

_UNIT = (1 << 14, 16)  # multiplier and shift of a quarter: in the range of every layout


@dataclass(frozen=True)
class Rows:
    """weight int8 [rows, columns]; bias, multiplier and shift int64 [rows].

    A row whose weights are all zero, as pruning leaves them, is a constant; its scale, which may be anything, does not
    decide how the other rows are written.

    exponent: int64 [rows], of a map of the profile tflite-lstm. Its multipliers are those of `rescale`, without shifts,
    and not in the stream: a gate has one.
    """

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    exponent: Array | None = None

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
        """Of a map of the profile tflite-lstm."""
        q31, exponent = operator_multipliers(affine.input_scale, affine.weight_scale, C_FLAVOUR)
        return cls(affine.weight, affine.bias.astype(np.int64), q31, np.zeros_like(q31), exponent)

    @property
    def columns(self) -> int:
        return int(self.weight.shape[1])

    def accumulator_bound(self, largest_input: int) -> Array:
        """int64 [rows]: the largest |accumulator| that inputs of magnitude <= largest_input can reach."""
        bound: Array = np.abs(self.bias) + np.abs(self.weight.astype(np.int64)).sum(axis=1) * largest_input
        return bound
