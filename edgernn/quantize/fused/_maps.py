"""The integers of an affine map for a training step, and the gradients of what they were made of.

The same numbers as `ModelQuantizer.integers` and `pack_map` give, and the gradients of the former's operations. All of
it is compiled: a few dozen calls of torch or NumPy would take as long as the rest of a small network's step.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from ... import fixedpoint
from ...firmware_sim._jit import inlined, kernel
from ...firmware_sim.simd._form import LANES
from ...firmware_sim.simd._pack import BIAS, CONSTANTS, LEFT, MULTIPLIER, RIGHT, Array, PackedMap, aligned
from ...firmware_sim.simd.tiles import required_form
from .._limits import BIAS_LIMIT, MULTIPLIER_FLOOR

_MULTIPLIER_FLOOR: Final = MULTIPLIER_FLOOR
_BIAS_LIMIT: Final = BIAS_LIMIT
_EXPONENT_MIN: Final = fixedpoint.MULTIPLIER_EXPONENT_MIN
_EXPONENT_MAX: Final = fixedpoint.MULTIPLIER_EXPONENT_MAX


class Scales(NamedTuple):
    """Of a map's operand and of its result; the operand's zero point."""

    operand: float
    result: float
    zero_point: int


# ---- integers --------------------------------------------------------------------------------------------------------


@inlined
def _find_scales(weight: Array, bias: Array, scales: Scales, per_channel: bool, out: Array) -> None:
    """ModelQuantizer.weight_scale where scales are not learned: float64 [rows] to `out`."""
    least = _MULTIPLIER_FLOOR * scales.result / scales.operand
    bits = np.empty(1, np.int32)
    size = bits.view(np.float32)
    for row in range(weight.shape[0]):
        largest, wrong = np.int32(0), weight[row].view(np.int32)
        for k in range(np.uint64(weight.shape[1])):
            largest = max(largest, wrong[k] & np.int32(0x7FFFFFFF))  # the order of sizes, with NaN above infinity
        bits[0] = largest
        of_bias, scale = abs(np.float64(bias[row])) / (scales.operand * _BIAS_LIMIT), np.float64(size[0]) / 127.0
        floor = np.float64(least) if of_bias < least else of_bias  # so written that NaN stays, here and below
        out[row] = floor if scale < floor or floor != floor else scale
    largest_scale = 0.0
    for row in range(out.shape[0]):
        largest_scale = largest_scale if out[row] <= largest_scale else out[row]
        if largest_scale != largest_scale:
            break
    for row in range(out.shape[0]):
        out[row] = np.float64(np.float32(out[row] if per_channel else largest_scale))


@inlined
def _multiplier(bits: Any) -> tuple[Any, Any]:
    """fixedpoint.quantize_multiplier of the bits of a positive float64; of others an exponent beyond the limits."""
    q31 = ((bits & ((1 << 52) - 1)) + (1 << 52) + (1 << 21)) >> 22
    exponent = (bits >> 52) - 1022
    if q31 == 1 << 31:
        q31, exponent = q31 >> 1, exponent + 1
    return (q31 + (1 << 15)) >> 16 if q31 < 0x7FFF0000 else 0x7FFF, exponent


@kernel
def quantize(
    weight: Array, bias: Array, scales: Scales, learned: bool, per_channel: bool, w: Array, real: Array, shifts: Array
) -> bool:
    """The integers of weight [rows, columns] and bias [rows], float32: int8 to w; bias, multiplier and scale (given if
    it is learned) to real, float64 [3, rows]; multiplier and shift to shifts, int64 [2, rows].

    False for scales that no multiplier fits.
    """
    scale = real[2]
    if not learned:
        _find_scales(weight, bias, scales, per_channel, scale)
    m, fits = np.empty(1), True
    bits = m.view(np.int64)
    for row in range(weight.shape[0]):
        values, integers, total = weight[row], w[row], np.int64(0)
        for k in range(np.uint64(weight.shape[1])):
            integers[k] = np.int8(min(max(np.rint(np.float64(values[k]) / scale[row]), -127.0), 127.0))
        for k in range(np.uint64(weight.shape[1])):
            total += integers[k]
        m[0] = scales.operand * scale[row] / scales.result
        multiplier, exponent = _multiplier(bits[0])
        fits &= _EXPONENT_MIN <= exponent <= _EXPONENT_MAX
        shifts[0, row], shifts[1, row] = multiplier, 15 - exponent
        real[0, row] = np.rint(np.float64(bias[row]) / (scales.operand * scale[row])) - scales.zero_point * total
        real[1, row] = multiplier * 2.0 ** (exponent - 15)
    return fits


@kernel
def pack(
    w: Array, bias: Array, shifts: Array, largest_operand: float, excess: int, weights: Array, constants: Array
) -> bool:
    """`pack_map` to zeros of its sizes; False where it raises OverflowError."""
    groups, gates, group = weights.shape[1], weights.shape[2], weights.shape[4]
    units, to, fits = w.shape[0] // gates, weights.reshape(-1), True
    for row in range(w.shape[0]):
        gate, panel, lane = row // units, row % units // LANES, row % units % LANES
        values, total, size = w[row], np.int64(0), np.int64(0)
        for k in range(np.uint64(w.shape[1])):
            total += values[k]
            size += abs(np.int64(values[k]))
        at, step = ((panel * groups * gates + gate) * LANES + lane) * group, gates * LANES * group
        for first in range(0, w.shape[1], group):
            for k in range(first, min(first + group, w.shape[1])):
                to[at + k - first] = values[k]
            at += step
        left = max(17 - shifts[1, row], 0)
        fits &= (abs(bias[row]) + size * largest_operand) * 2.0**left < 2.0**31
        rows = constants[panel, gate]
        rows[BIAS, lane] = np.int32(np.int64(bias[row]) - excess * total)  # it may wrap: sums do too
        rows[MULTIPLIER, lane], rows[LEFT, lane], rows[RIGHT, lane] = shifts[0, row], left, shifts[1, row] + left - 16
    return fits


@kernel
def pack_factors(w: Array, factor: Array, gates: int, width: int, out: Array) -> None:
    """w * factor[rows] as the factor of a product: panels of `width` * 16 columns, each of all rows, one after another.

    The rows of a gate and the columns are padded to a multiple of 16. out: float32 zeros [padded rows * columns].
    """
    columns, units = w.shape[1], w.shape[0] // gates
    vectors = (columns + LANES - 1) // LANES
    rows, at = out.shape[0] // (vectors * LANES), 0
    for start in range(0, columns, width * LANES):
        count = min(width, vectors - start // LANES) * LANES
        for row in range(w.shape[0]):
            place = at + (row // units * (rows // gates) + row % units) * count
            to, values, share = out[place : place + count], w[row, start : start + count], np.float32(factor[row])
            for k in range(np.uint64(values.shape[0])):
                to[k] = np.float32(values[k]) * share
        at += rows * count


# ---- gradients -------------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """What the backward pass gathers in every thread: gradients of sums times operands, and of sums."""

    weight: Array  # float32 [threads, padded rows, padded columns]
    bias: Array  # float32 [threads, gates, padded units]


class Gradients(NamedTuple):
    """Of a map: float32 [rows, columns] and [rows]; with learned scales float64 [rows] and [operand, result]."""

    weight: Array
    bias: Array
    scale: Array
    scales: Array


@kernel
def finish(
    sums: Sums, weight: Array, bias: Array, w: Array, real: Array, scales: Scales, learned: bool, out: Gradients
) -> None:
    """From the gradients of pre-activations to those of a map's weight, bias and scales."""
    units, padding = w.shape[0] // sums.bias.shape[1], sums.bias.shape[2]
    out.scales[:] = 0
    total = np.empty(w.shape[1], np.float32)
    for row in range(w.shape[0]):
        gate, unit, db = row // units, row % units, np.float64(0)
        total[:] = 0
        for thread in range(sums.weight.shape[0]):
            db += sums.bias[thread, gate, unit]
            values = sums.weight[thread, gate * padding + unit]
            for k in range(np.uint64(w.shape[1])):
                total[k] += values[k]
        b, m, scale = real[0, row], real[1, row], real[2, row]
        factor, shared, to = np.float32(m / scale), np.float32(scales.zero_point * m * db / scale), out.weight[row]
        for k in range(np.uint64(w.shape[1])):
            to[k] = factor * total[k] - shared
        out.bias[row] = m * db / (scales.operand * scale)
        if learned:
            dm, ds = b * db, np.float64(0)
            for k in range(w.shape[1]):
                dm += np.float64(total[k]) * w[row, k]
                ratio = np.float64(weight[row, k]) / scale
                if abs(np.rint(ratio)) > 127:
                    to[k] = 0
                else:
                    ds -= (m * np.float64(total[k]) - scales.zero_point * m * db) * ratio
            share = m * db * np.float64(bias[row]) / (scales.operand * scale)
            out.scale[row] = (ds - share) / scale + dm * scales.operand / scales.result
            out.scales[0] += dm * scale / scales.result - share / scales.operand
            out.scales[1] -= dm * scales.operand * scale / scales.result**2


# ---- a map -----------------------------------------------------------------------------------------------------------


def padded(size: int) -> int:
    """The next multiple of a vector's lanes."""
    return -(-size // LANES) * LANES


class Map(NamedTuple):
    """An affine map's integers, and what they were made of."""

    weight: Array
    bias: Array
    scales: Scales
    w: Array
    real: Array  # float64 [3, rows]: integer bias, multiplier, weight scale
    shifts: Array  # int64 [2, rows]: multiplier and shift of `requantize`

    @classmethod
    def of(cls, name: str, weight: Array, bias: Array, scale: Array | None, scales: Scales, per_channel: bool) -> "Map":
        """scale: float64 [rows] if it is learned. Raises ValueError for weights that are too large or not finite."""
        made = cls(
            weight if scale is None else weight.copy(),  # learned scales: the backward pass looks at it again
            bias if scale is None else bias.copy(),
            scales,
            np.empty(weight.shape, np.int8),
            np.empty((3, len(weight))),
            np.empty((2, len(weight)), np.int64),
        )
        if scale is not None:
            made.real[2] = scale
        if not quantize(weight, bias, scales, scale is not None, per_channel, *made[3:]):
            try:
                with np.errstate(all="ignore"):
                    fixedpoint.quantize_multiplier(scales.operand * made.real[2] / scales.result)
            except ValueError as error:
                advice = "its weights are too large or not finite; train with a lower learning rate"
                raise ValueError(f"{name}: {error}; {advice}") from None
        return made

    def pack(self, gates: int, itemsize: int, rows: slice = slice(None)) -> PackedMap:
        """What `pack_map` makes of these rows. Raises OverflowError as it does."""
        form, w = required_form(), self.w[rows]
        panels, groups = -(-len(w) // (gates * LANES)), -(-w.shape[1] // form.group)
        size = panels * groups * gates * LANES * form.group * form.item
        memory = aligned((size + panels * gates * CONSTANTS * LANES * 4,), np.uint8)
        weights = memory[:size].view(np.int8 if form.bytewise else np.int16)
        weights = weights.reshape(panels, groups, gates, LANES, form.group)
        constants = memory[size:].view(np.int32).reshape(panels, gates, CONSTANTS, LANES)
        constants[:, :, RIGHT] = 1  # any valid one
        bias, shifts = np.ascontiguousarray(self.real[0, rows]), np.ascontiguousarray(self.shifts[:, rows])
        if not pack(w, bias, shifts, 2.0 ** (8 * itemsize - 1), form.excess(itemsize), weights, constants):
            raise OverflowError("sums beyond what can be shifted within int32")
        return PackedMap(weights, constants)

    def factors(self, gates: int, rows: slice = slice(None)) -> Array:
        """The map as the factor of the product that gives its operand's gradient."""
        w = self.w[rows]
        out = np.zeros(gates * padded(len(w) // gates) * padded(w.shape[1]), np.float32)
        pack_factors(w, np.ascontiguousarray(self.real[1, rows]), gates, required_form().float_tile[1], out)
        return out

    def gradients(self, sums: Sums, learned: bool) -> Gradients:
        rows = len(self.w)
        bias = np.empty(rows, np.float32)
        out = Gradients(np.empty(self.w.shape, np.float32), bias, np.empty(rows if learned else 0), np.empty(2))
        finish(sums, self.weight, self.bias, self.w, self.real, self.scales, learned, out)
        return out
