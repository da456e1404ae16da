"""Primitives of the integer arithmetic, version 1: exact functions of integers.

Every function takes Python integers, NumPy int64 arrays, or scalars inside a Numba kernel (firmware_sim/_jit.py lets
kernels call them), and computes the same integers in each. `>>` is the arithmetic shift, which rounds towards minus
infinity. Unless a comment says otherwise nothing saturates, and the caller keeps products within int64.

The formats they connect: hidden state and gates are int16 in Q0.15 (value * 2^-15), pre-activations are int16 with the
scale 1/3072, the LSTM's cell state is int16 with a power-of-two scale 2^-15 .. 2^-9.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._sigmoid_table import SIGMOID_TABLE as _SIGMOID_ENTRIES

ARITHMETIC_VERSION: Final = 1

STATE_SCALE: Final = 2.0**-15  # hidden state and gates, Q0.15
STATE_VIEW_SCALE: Final = 2.0**-7  # the int8 view of the hidden state that w8a8 multiplies with
PRE_ACTIVATION_SCALE: Final = float(np.float32(1.0 / 3072.0))  # sigmoid and tanh index their table at exactly 4 * p

MULTIPLIER_EXPONENT_MIN: Final = -31  # the range TensorFlow Lite's int64 requantization accepts: m in [2^-32, 2^7)
MULTIPLIER_EXPONENT_MAX: Final = 7

SIGMOID_TABLE: Final[npt.NDArray[np.int64]] = np.array(_SIGMOID_ENTRIES, np.int64)  # Q0.16, step 1/24

# ---- saturation and rounding -----------------------------------------------------------------------------------------


def sat16(v: Any) -> Any:
    """Clamp to int16: [-32768, 32767]."""
    return np.minimum(np.maximum(v, -32768), 32767)


def sat8(v: Any) -> Any:
    """Clamp to int8: [-128, 127]."""
    return np.minimum(np.maximum(v, -128), 127)


def round_half_away_shift(v: Any, k: Any) -> Any:
    """v / 2^k rounded to nearest, ties away from zero, for 0 <= k <= 62 (gemmlowp's RoundingDivideByPOT)."""
    mask = (1 << k) - 1
    return (v >> k) + ((v & mask) > ((mask >> 1) + (v < 0)))


def round_shift(v: Any, e: Any) -> Any:
    """v * 2^-e for e >= 1, in two roundings: half up for the first bit, then half away from zero for the others.

    This is what a multiplication of two int16 tensors with power-of-two scales does in TensorFlow Lite. |v| < 2^62.
    """
    return round_half_away_shift((v + 1) >> 1, e - 1)


def requantize(acc: Any, multiplier: Any, shift: Any) -> Any:
    """sat16(acc * m), ties towards plus infinity, for m = multiplier * 2^-shift: one product and one rounding.

    `multiplier` has 15 bits (0 .. 32767) and 8 <= shift <= 46, as `quantize_multiplier` gives them; |acc| < 2^31.
    """
    return sat16((acc * multiplier + (1 << (shift - 1))) >> shift)


def rescale(v: Any, q31: Any, exponent: Any) -> Any:
    """v * q31 * 2^(exponent - 31) with two roundings: half up, then half away from zero. Not saturating.

    |v| * 2^max(exponent, 0) < 2^31 and 0 <= q31 < 2^31, so that the product stays within int64.
    """
    doubled_high = ((v << np.maximum(exponent, 0)) * q31 + (1 << 30)) >> 31
    return round_half_away_shift(doubled_high, np.maximum(-exponent, 0))


# ---- sigmoid and tanh ------------------------------------------------------------------------------------------------
# The table holds sigmoid at 0, 1/24, 2/24, ..; a pre-activation p stands for p / 3072 = (4 p / 512) / 24, so 4 p holds
# the table's index above its lowest 9 bits and the position between two entries in them. tanh(x) = 2 sigmoid(2 x) - 1.


def sigmoid(p: Any) -> Any:
    """Q0.15 sigmoid of the int16 pre-activation p (scale 1/3072), in [0, 32767]; within 1.1 LSB of the real value."""
    return interpolated_sigmoid(4 * p)


def interpolated_sigmoid(v: Any) -> Any:
    """Q0.15 sigmoid of v / (24 * 512), |v| < 2^40."""
    magnitude = np.abs(v)
    index = np.minimum(magnitude >> 9, 255)
    lower = SIGMOID_TABLE[index]
    upper = SIGMOID_TABLE[np.minimum(index + 1, 255)]
    positive = (lower << 9) + (magnitude & 511) * (upper - lower)
    positive = positive + (index > 254) * ((32767 << 10) - positive)
    mirrored = (1 << 25) - positive - 1
    return (positive + (v < 0) * (mirrored - positive) + 512) >> 10


def tanh(p: Any) -> Any:
    """Q0.15 tanh of the int16 pre-activation p (scale 1/3072), in [-32768, 32767]; within 1.6 LSB of the real value."""
    return interpolated_tanh(4 * p)


def interpolated_tanh(v: Any) -> Any:
    """Q0.15 tanh of v / (24 * 512), |v| < 2^40."""
    magnitude = np.abs(v)
    index = np.minimum(magnitude >> 8, 255)
    lower = SIGMOID_TABLE[index]
    upper = SIGMOID_TABLE[np.minimum(index + 1, 255)]
    positive = (lower << 8) + (magnitude & 255) * (upper - lower)
    positive = positive + (index > 254) * ((65535 << 8) - positive) - (1 << 23)
    return (positive + (v < 0) * (-positive - 1 - positive) + 128) >> 8


# ---- real multipliers as integers (done once, in Python) -------------------------------------------------------------


def decompose_multiplier(m: Any) -> tuple[Any, Any]:
    """(q31, exponent) with m = q31 / 2^31 * 2^exponent and 2^30 <= q31 < 2^31 (TensorFlow Lite's QuantizeMultiplier).

    m is a float64 or an array of them. Raises ValueError unless all are positive and finite.
    """
    values = np.asarray(m, np.float64)
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        raise ValueError(f"a requantization multiplier must be positive and finite, not {values[wrong][0]}")
    fraction, exponent = np.frexp(values)
    q31 = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    carry = q31 == 1 << 31  # the fraction rounded up to one
    return (q31 >> carry)[()], (exponent.astype(np.int64) + carry)[()]


def quantize_multiplier(m: Any) -> tuple[Any, Any]:
    """(multiplier, shift) of `requantize` for the real multiplier m: 15 bits and m ~ multiplier * 2^-shift.

    m is a float64 or an array of them. Raises ValueError when one is outside [2^-32, 2^7), which no runtime's
    requantization covers.
    """
    q31, exponent = decompose_multiplier(m)
    if np.min(exponent) < MULTIPLIER_EXPONENT_MIN or np.max(exponent) > MULTIPLIER_EXPONENT_MAX:
        worst = float(np.min(m) if np.min(exponent) < MULTIPLIER_EXPONENT_MIN else np.max(m))
        raise ValueError(f"requantization multiplier {worst:g} is outside [2^-32, 2^7): the scales do not fit together")
    return np.where(q31 < 0x7FFF0000, (q31 + (1 << 15)) >> 16, 0x7FFF)[()], 15 - exponent


def cell_rescale(cell_exponent: int) -> tuple[int, int]:
    """(q31, exponent) of the `rescale` from an LSTM cell state of scale 2^-cell_exponent to a pre-activation."""
    q31, exponent = decompose_multiplier(2.0**-cell_exponent / PRE_ACTIVATION_SCALE)
    return int(q31), int(exponent)
