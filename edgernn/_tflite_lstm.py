"""Primitives of TensorFlow Lite's operator UNIDIRECTIONAL_SEQUENCE_LSTM in int8, where they differ from `fixedpoint`'s.

The operator's runtimes compute three arithmetics, its flavours, which differ in a few of a hundred hidden states,
mostly by one:

    litert  LiteRT and tflite-runtime with every set of kernels: gemmlowp's fixed-point exponential in sigmoid and tanh
    tflm    TensorFlow Lite Micro's reference kernels: sigmoid and tanh interpolate in the table of `fixedpoint`
    cmsis   CMSIS-NN: as tflm, but the recurrent term is not saturated before it is added to the input's

Pre-activations are int16 in Q3.12 (value * 2^-12), gates int16 in Q0.15, the cell state is int16 with the scale
2^-exponent (exponent 9 .. 15), the hidden state int8 with the scale 2^-7. A step, from accumulators a (of the input)
and b (of the hidden state) and their multipliers m and n:

    p  = sat16(sat16(rescale(a, m)) + rescale(b, n))                 tflm: .. + sat16(rescale(b, n)))
    c' = sat16(scaled(f * c, 15) + scaled(i * g, 30 - exponent))     scaled: round_shift; litert: round_half_away_shift
    h' = sat8(round_shift(o * tanh(c'), 23))

Functions take Python integers or NumPy int64 arrays. Sources: LiteRT tflite/kernels/lstm_eval.cc; google/gemmlowp
fixedpoint/fixedpoint.h; tflite-micro tensorflow/lite/micro/kernels/lstm_eval.h; CMSIS-NN Source/LSTMFunctions.
"""

from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from .fixedpoint import (
    decompose_multiplier,
    interpolated_sigmoid,
    interpolated_tanh,
    round_half_away_shift,
    sat16,
)

Flavour = Literal["litert", "tflm", "cmsis"]
FLAVOURS: Final[tuple[Flavour, ...]] = get_args(Flavour)
C_FLAVOUR: Final[Flavour] = "cmsis"  # of edgernn's C export

OPERATOR_SCALE: Final = 2.0**-12  # of pre-activations
OPERATOR_REACH: Final = 32767 * OPERATOR_SCALE  # a recurrent term up to here is the same in `tflm` and `cmsis`
HIDDEN_SHIFT: Final = 23  # from o * tanh(c), Q0.30, to the hidden state, Q0.7

_FRACTION: Final = 12  # bits of a pre-activation; a sigmoid or tanh of it has 15 - 12 integer bits
_INDEX_STEP: Final = 3  # of the table, for one of a value in Q3.12: (3 v / 512) / 24 = v / 4096


def check_flavour(flavour: str) -> None:
    """Raise ValueError for a name that is none of FLAVOURS."""
    if flavour not in FLAVOURS:
        raise ValueError(f"unknown flavour {flavour!r}; known are {', '.join(FLAVOURS)}")


# ---- multipliers -----------------------------------------------------------------------------------------------------


def operator_multipliers(
    input_scale: float, weight_scale: npt.NDArray[np.floating[Any]], flavour: Flavour = "tflm"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(q31, exponent) [rows] of `fixedpoint.rescale` from accumulators to pre-activations.

    The runtimes of `litert` round the product of both float32 scales to float32, the others do not. Raises ValueError
    when it is beyond float32.
    """
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.float32(input_scale) * weight_scale.astype(np.float32)
    exact = float(np.float32(input_scale)) * weight_scale.astype(np.float64)
    products = rounded.astype(np.float64) if flavour == "litert" else exact
    q31, exponent = decompose_multiplier(products / OPERATOR_SCALE)
    return np.atleast_1d(q31), np.atleast_1d(exponent)


def check_operator_range(bound: npt.NDArray[np.int64], exponent: npt.NDArray[np.int64]) -> None:
    """Raise ValueError unless accumulators of magnitude <= bound [rows] stay within int32 all the way through
    `rescale` and the sum after it."""
    shifted = bound << np.maximum(exponent, 0)
    row = int(np.argmax(shifted))
    if shifted[row] >= 2**31 - 2**16:
        raise ValueError(
            f"row {row} can overflow the operator's 32 bits (bound {bound[row]}, shifted left by {exponent[row]}): "
            "use smaller scales or fewer inputs, or the profile portable"
        )


# ---- sigmoid and tanh by the table: tflm, cmsis ----------------------------------------------------------------------


def table_sigmoid(p: Any) -> Any:
    """Q0.15 sigmoid of p, int16 in Q3.12."""
    return interpolated_sigmoid(_INDEX_STEP * p)


def table_tanh(v: Any, fraction: int = _FRACTION) -> Any:
    """Q0.15 tanh of v, int16 with `fraction` bits behind the point (9 .. 15)."""
    finer = fraction - _FRACTION
    if finer <= 0:
        return interpolated_tanh((_INDEX_STEP * v) << -finer)
    return interpolated_tanh((_INDEX_STEP * v + (1 << (finer - 1))) >> finer)


# ---- sigmoid and tanh by gemmlowp: litert ----------------------------------------------------------------------------

_EXP_EIGHTH: Final = 28918  # Q0.15 exp(-1/8)
_THIRD: Final = 10923  # Q0.15
_EXPONENTIALS: Final = (25520, 19875, 12055, 4435, 600, 11, 0)  # Q0.15 exp(-2^e) for e = -2 .. 4
_NEWTON_START: Final = (23130, -15420)  # Q2.13 48/17 and -32/17: a first guess of 1 / v as a line


def gemmlowp_sigmoid(p: Any) -> Any:
    """Q0.15 sigmoid of p, int16 in Q3.12; up to 6.4 LSB from the real value, and not monotone."""
    positive = _over_one_plus(_exp_negative(-np.abs(p), _FRACTION)) << 1
    return np.where(p == 0, 1 << 14, np.where(p > 0, positive, 32767 - positive))


def gemmlowp_tanh(v: Any, fraction: int = _FRACTION) -> Any:
    """Q0.15 tanh of v, int16 with `fraction` bits behind the point (9 .. 15); up to 12.1 LSB from the real value."""
    twice = _over_one_plus(_exp_negative(-np.abs(v), fraction - 1))  # 1 / (1 + exp(-2 |v|)), Q1.14
    return np.sign(v) * sat16((twice - (1 << 13)) << 2)


def _product(a: Any, b: Any) -> Any:
    """a * b * 2^-15, ties towards plus infinity (SaturatingRoundingDoublingHighMul; -1 * -1 does not occur)."""
    return (a * b + (1 << 14)) >> 15


def _exp_negative(v: Any, fraction: int) -> Any:
    """Q0.15 exp(v) of v <= 0 with `fraction` bits behind the point: exp of v's remainder in [-1/4, 0) from a Taylor
    series about -1/8, times a constant for every higher bit."""
    quarter = 1 << (fraction - 2)
    remainder = (v & (quarter - 1)) - quarter
    x = (remainder << (15 - fraction)) + (1 << 12)
    x2 = _product(x, x)
    third_and_fourth = _product(round_half_away_shift(_product(x2, x2), 2) + _product(x2, x), _THIRD)
    result = _EXP_EIGHTH + _product(_EXP_EIGHTH, x + round_half_away_shift(third_and_fourth + x2, 1))
    for bit, factor in enumerate(_EXPONENTIALS, fraction - 2):
        result = np.where((remainder - v) >> bit & 1, _product(result, factor), result)
    return np.where(v < -(32 << fraction), 0, result)


def _over_one_plus(v: Any) -> Any:
    """Q1.14 1 / (1 + v) of v in [0, 1], Q0.15: Newton's method for the reciprocal of half of it, in Q2.13."""
    half = (v + 32768) >> 1
    constant, slope = _NEWTON_START
    x = constant + _product(half, slope)
    for _ in range(3):
        x = x + (_product(x, (1 << 13) - _product(half, x)) << 2)
    return x
