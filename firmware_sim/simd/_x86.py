"""x86-64: AVX-512 with VNNI, and AVX2."""

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Final

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from ...fixedpoint import SIGMOID_TABLE
from ._form import LANES, SIGMOID, Form
from ._vector import I16, I32, Value, Vector, call, concatenate, constant

I1, I8 = ir.IntType(1), ir.IntType(8)


class _Madd(Form):
    """What both have: sums of two products of int16, and high halves of products."""

    registers: ClassVar[int]  # bits
    madd: ClassVar[str]
    mulhu: ClassVar[str]
    mulhrs: ClassVar[str]

    def by_registers(self, name: str, result: Any, a: Vector, b: Vector) -> Vector:
        """An instruction on whole registers of int16 lanes, over operands that fill one or more of them."""
        lanes = self.registers // 16
        kind = ir.VectorType(result, self.registers // result.width)
        pairs = zip(a.parts(lanes), b.parts(lanes), strict=True)
        return concatenate([Vector(a.builder, call(a.builder, name, kind, x.value, y.value)) for x, y in pairs])

    def pair_sums(self, a: Vector, b: Vector) -> Vector:
        """int32 [16]: of neighbouring int16 lanes the sums of their products."""
        words = (v.as_lanes(I16, 2 * LANES) for v in (a, b))
        return self.by_registers(self.madd, I32, *words)

    def two_products(self, a: Vector, x: Vector, b: Vector, y: Vector) -> Vector:
        lanes = self._lanes(a.lanes)
        sums = []
        for registers in zip(*(v.parts(lanes) for v in (a, b, x, y)), strict=True):
            pairs = zip(unpack(*registers[:2]), unpack(*registers[2:]), strict=True)
            sums += [instruction(_MADD[lanes], I32, factors, others) for factors, others in pairs]
        return concatenate(sums)

    def narrow(self, wide: Vector) -> Vector:
        lanes = self._lanes(wide.lanes)
        registers = wide.parts(lanes // 2)
        pairs = zip(registers[::2], registers[1::2], strict=True)
        return concatenate([instruction(_PACK[lanes], I16, low, high) for low, high in pairs])

    def _lanes(self, lanes: int) -> int:
        """Of int16 in a register, for that many in all."""
        return 32 if self.registers == 512 and lanes % 32 == 0 else 16

    def scale(self, acc: Vector, multiplier: Vector, left: Vector, right: Vector) -> Vector:
        # (high * 2^16 + low) * multiplier / 2^16; a multiplier has 15 bits, and zeros above them
        acc = acc << left
        low = self.by_registers(
            self.mulhu, I16, acc.as_lanes(I16, 2 * LANES), multiplier.as_lanes(I16, 2 * LANES)
        ).as_lanes(I32, LANES)
        high = self.pair_sums(acc, multiplier << 16) + (right.filled(1) << (right - 1))
        return (high + low) >> right

    def multiply_high(self, a: Vector, b: Vector) -> Vector:
        lanes = self.registers // 16
        if a.lanes < lanes:
            padding = [*range(a.lanes), *[0] * (lanes - a.lanes)]
            a, b = a.shuffle(a, padding), b.shuffle(b, padding)
            return self.by_registers(self.mulhrs, I16, a, b).part(0, LANES)
        return self.by_registers(self.mulhrs, I16, a, b)


class Avx2(_Madd):
    """AVX2: pairs of int16."""

    name = "avx2"
    group = 2
    accumulators = 6
    float_tile = (4, 1)
    registers = 256
    madd, mulhu, mulhrs = "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.pmulhu.w", "llvm.x86.avx2.pmul.hr.sw"

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        return acc + self.pair_sums(weights, x)


class Avx512(_Madd):
    """AVX-512 with VNNI: fours of bytes, of which the operand's are unsigned."""

    name = "avx512"
    group = 4
    bytewise = True
    accumulators = 24
    float_tile = (8, 3)
    registers = 512
    madd, mulhu, mulhrs = (
        "llvm.x86.avx512.pmaddw.d.512",
        "llvm.x86.avx512.pmulhu.w.512",
        "llvm.x86.avx512.pmul.hr.sw.512",
    )

    def flips(self, itemsize: int) -> tuple[int, ...]:
        return (0x80,) if itemsize == 1 else (0, 0x80)

    def excess(self, itemsize: int) -> int:
        return 0x80 if itemsize == 1 else 0x8000

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        kind = ir.VectorType(I32, LANES)
        element, lanes = (I8, 4 * LANES) if llvm.llvm_version_info >= (21,) else (I32, LANES)  # as LLVM declares it
        operands = (v.as_lanes(element, lanes).value for v in (x, weights))
        return Vector(acc.builder, call(acc.builder, "llvm.x86.avx512.vpdpbusd.512", kind, acc.value, *operands))


class Avx512Vbmi(Avx512):
    """And with VBMI, whose permutations of bytes look up tables of 128 entries in registers."""

    name = "avx512vbmi"

    def look_up(self, functions: Sequence[int], p: Sequence[Vector], tables: Value) -> list[Vector]:
        lanes, together = p[0].lanes, concatenate(p)
        of_lanes = [function for function in functions for _ in range(lanes)]
        filled = [n % len(of_lanes) for n in range(-(-len(of_lanes) // (2 * _WORDS)) * 2 * _WORDS)]
        of_lanes = [of_lanes[n] for n in filled]
        parts = together.shuffle(together, filled).parts(2 * _WORDS)
        values = [_interpolate(of_lanes[n * 2 * _WORDS :][: 2 * _WORDS], part) for n, part in enumerate(parts)]
        return concatenate(values).part(0, together.lanes).parts(lanes)


_WORDS = 32  # int16 lanes of a register


def _interpolate(functions: list[int], p: Vector) -> Vector:
    """fixedpoint.sigmoid or tanh of 64 lanes. Both are odd, rounding included: about a half, and about zero.

    The upper bits of |p| choose an entry e of the table and the slope s from there to the next one, the others are the
    place x between them. All is done in 16 bits.
    """
    bits = constant(p.builder, I16, [7 if function == SIGMOID else 6 for function in functions])
    negative = p.compare("<", 0)
    magnitude = negative.where(p.filled(0) - p, p)
    index = instruction(_PACK_BYTES, I8, *magnitude.shift_right_unsigned(bits).parts(_WORDS))
    entries, slopes = (unpack(*(_permute(half, index) for half in table)) for table in _byte_tables())
    parts = (functions[:_WORDS], functions[_WORDS:]), entries, slopes, magnitude.parts(_WORDS)
    values = concatenate([_between(*part) for part in zip(*parts, strict=True)])
    ends = constant(p.builder, I16, [-32768 if function == SIGMOID else 0 for function in functions])  # f(p) + f(-p)
    return negative.where(ends - values, values)


def _between(functions: list[int], entry: Vector, slope: Vector, magnitude: Vector) -> Vector:
    """(128 e + s x + 128) >> 8, a sigmoid, is the mean of e and s x >> 7, rounded up, and 2^15 only where it is 1.

    tanh(x) = 2 sigmoid(2 x) - 1 is e + ((s x + 32) >> 6) - 2^15.
    """
    place = magnitude << 9
    sigmoid = instruction(_AVERAGE, I16, entry, instruction(Avx512.mulhu, I16, slope, place))
    sigmoid = sigmoid.call("llvm.umin", sigmoid, sigmoid.filled(32767))
    tanh = (entry ^ -32768) + instruction(Avx512.mulhrs, I16, slope, place & 32767)
    return constant(entry.builder, I1, [function == SIGMOID for function in functions]).where(sigmoid, tanh)


@cache
def _byte_tables() -> tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]:
    """Low and high bytes of the table's 256 entries, and of their slopes."""
    entries = SIGMOID_TABLE.copy()
    slopes = np.append(np.diff(entries), 0)
    entries[-1], slopes[-1] = 65535, 0  # from there on it is 1
    return _bytes(entries), _bytes(slopes)


def _bytes(values: Any) -> tuple[list[int], list[int]]:
    low, high = values.astype(np.uint16).view(np.uint8).reshape(-1, 2).T.tolist()
    return low, high


def _permute(table: list[int], index: Vector) -> Vector:
    """table[index] of 256 bytes."""
    halves = []
    for first in (0, 128):
        low, high = (constant(index.builder, I8, table[n : n + 64]) for n in (first, first + 64))
        zero = not any(table[first : first + 128])
        halves.append(low if zero else instruction("llvm.x86.avx512.vpermi2var.qi.512", I8, low, index, high))
    return index.compare("<", 0).where(halves[1], halves[0])


# ---- registers of 256 or 512 bits ------------------------------------------------------------------------------------

_MADD: Final = {16: "llvm.x86.avx2.pmadd.wd", 32: "llvm.x86.avx512.pmaddw.d.512"}  # by their int16 lanes
_PACK: Final = {16: "llvm.x86.avx2.packssdw", 32: "llvm.x86.avx512.packssdw.512"}
_AVERAGE: Final = "llvm.x86.avx512.pavg.w.512"
_PACK_BYTES: Final = "llvm.x86.avx512.packuswb.512"


def unpack(low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """What packing undoes: of each 128 bits the lower half, and the upper half, of both operands in turn; as int16."""
    results = []
    for firsts in _halves(low.lanes, low.element.width):
        result = low.shuffle(high, [lane for first in firsts for lane in (first, first + low.lanes)])
        results.append(result.as_lanes(I16, low.lanes * low.element.width // 16))
    return results[0], results[1]


def _halves(lanes: int, width: int) -> tuple[list[int], list[int]]:
    """Of each 128 bits the lanes in the lower half, and those in the upper half."""
    count = 128 // width
    low = [start + n for start in range(0, lanes, count) for n in range(count // 2)]
    return low, [lane + count // 2 for lane in low]


def instruction(name: str, element: Any, *operands: Vector) -> Vector:
    """On a register of each operand."""
    first = operands[0]
    kind = ir.VectorType(element, first.lanes * first.element.width // element.width)
    return Vector(first.builder, call(first.builder, name, kind, *(v.value for v in operands)))
