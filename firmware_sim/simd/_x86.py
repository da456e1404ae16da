"""x86-64: AVX-512 with VNNI, and AVX2."""

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np

from ...fixedpoint import SIGMOID_TABLE
from ._form import LANES, SIGMOID, Form
from ._vector import I16, I32, Value, Vector, call, concatenate, constant

I8 = ir.IntType(8)


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

    def scale(self, acc: Vector, multiplier: Vector, left: Vector, right: Vector) -> Vector:
        # (high * 2^16 + low) * multiplier / 2^16; a multiplier has 15 bits, and zeros above them
        acc = acc << left
        low = self.by_registers(
            self.mulhu, I16, acc.as_lanes(I16, 2 * LANES), multiplier.as_lanes(I16, 2 * LANES)
        ).as_lanes(I32, LANES)
        product = self.pair_sums(acc, multiplier << 16) + low
        return (product + (right.filled(1) << (right - 1))) >> right

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
        missing = -len(of_lanes) % (2 * _WORDS)
        of_lanes += [functions[-1]] * missing
        padded = together.shuffle(together, [*range(together.lanes), *[0] * missing]) if missing else together
        parts = padded.parts(2 * _WORDS)
        values = [_interpolate(of_lanes[n * 2 * _WORDS :][: 2 * _WORDS], part) for n, part in enumerate(parts)]
        return concatenate(values).part(0, together.lanes).parts(lanes)


_WORDS = 32  # int16 lanes of a register


def _interpolate(functions: list[int], p: Vector) -> Vector:
    """fixedpoint.sigmoid or tanh of 64 lanes. Both are odd, rounding included: about a half, and about zero.

    The upper bits of |p| choose an entry of the table, the others a place on the way to the next one. Entries lie 2^15
    lower than they are, to be signed: a sigmoid is 2^14 less for it, and tanh(x) = 2 sigmoid(2 x) - 1 is right.
    """

    def choose(of_sigmoid: int, of_tanh: int, lanes: Sequence[int] = range(2 * _WORDS), element: Any = I16) -> Vector:
        return constant(p.builder, element, [of_sigmoid if functions[n] == SIGMOID else of_tanh for n in lanes])

    sign = p.sign()
    magnitude = (p ^ sign) - sign
    index = _pack(_PACK_BYTES, I8, *magnitude.shift_right_unsigned(choose(7, 6)).parts(_WORDS))
    entries, slopes = (_unpack(*(_permute(half, index) for half in table)) for table in _byte_tables())
    ones, places = choose(128, 64).parts(_WORDS), (magnitude & choose(127, 63)).parts(_WORDS)
    values = []
    for register in range(2):
        table, way = _unpack(entries[register], slopes[register]), _unpack(ones[register], places[register])
        sums = []
        for half, lanes in enumerate(_halves(_WORDS, 16)):
            where = [register * _WORDS + lane for lane in lanes]
            rounded = _madd(table[half], way[half]) + choose(128, 32, where, I32)
            sums.append(rounded >> choose(8, 6, where, I32))
        values.append(_pack(_PACK_WORDS, I16, *sums))
    y = concatenate(values).add_saturating(choose(1 << 14, 0))
    return ((y ^ sign) - sign) + (sign & choose(-32768, 0))


@cache
def _byte_tables() -> tuple[tuple[list[int], list[int]], tuple[list[int], list[int]]]:
    """Low and high bytes of the table's 256 entries, less 2^15, and of the ways from each to the next."""
    entries = SIGMOID_TABLE.copy()
    slopes = np.append(np.diff(entries), 0)
    entries[-1], slopes[-1] = 65535, 0  # from there on it is 1
    return _bytes(entries - 32768), _bytes(slopes)


def _bytes(values: Any) -> tuple[list[int], list[int]]:
    low, high = values.astype(np.int16).view(np.uint8).reshape(-1, 2).T.tolist()
    return low, high


def _permute(table: list[int], index: Vector) -> Vector:
    """table[index] of 256 bytes."""
    quarters = [constant(index.builder, I8, table[first : first + 64]).value for first in range(0, 256, 64)]
    halves = []
    for low, high in (quarters[:2], quarters[2:]):
        halves.append(_instruction("llvm.x86.avx512.vpermi2var.qi.512", I8, low, index.value, high, like=index))
    return index.compare("<", 0).where(halves[1], halves[0])


_PACK_BYTES, _PACK_WORDS = "llvm.x86.avx512.packuswb.512", "llvm.x86.avx512.packssdw.512"


def _pack(name: str, element: Any, low: Vector, high: Vector) -> Vector:
    """Two registers narrowed into one, 128 bits of each in turn, saturating."""
    return _instruction(name, element, low.value, high.value, like=low)


def _unpack(low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """What `_pack` undoes: of each 128 bits the lower half, and the upper half, of both operands in turn; wider lanes
    if they are bytes."""
    results = []
    for firsts in _halves(low.lanes, low.element.width):
        result = low.shuffle(high, [lane for first in firsts for lane in (first, first + low.lanes)])
        results.append(result.as_lanes(I16, _WORDS))
    return results[0], results[1]


def _halves(lanes: int, width: int) -> tuple[list[int], list[int]]:
    """Of each 128 bits the lanes in the lower half, and those in the upper half."""
    count = 128 // width
    low = [start + n for start in range(0, lanes, count) for n in range(count // 2)]
    return low, [lane + count // 2 for lane in low]


def _madd(a: Vector, b: Vector) -> Vector:
    return _instruction(Avx512.madd, I32, a.value, b.value, like=a)


def _instruction(name: str, element: Any, *operands: Value, like: Vector) -> Vector:
    kind = ir.VectorType(element, 512 // element.width)
    return Vector(like.builder, call(like.builder, name, kind, *operands))
