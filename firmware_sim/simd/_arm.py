"""aarch64: NEON, and its dot products of bytes."""

from typing import Any, Final

import llvmlite.binding as llvm
import llvmlite.ir as ir

from ._form import Form
from ._vector import I16, I32, Vector, call, concatenate

I8 = ir.IntType(8)


class Neon(Form):
    """Every aarch64 processor: fours of bytes, all of them signed."""

    name = "neon"
    group = 4
    bytewise = True
    accumulators = 4
    word = 4

    def flips(self, itemsize: int) -> tuple[int, ...]:
        return (0,) if itemsize == 1 else (0x80, 0)

    def excess(self, itemsize: int) -> int:
        return 0 if itemsize == 1 else -0x80

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        # a weight is never -128, so that the sum of two products is within int16
        columns = zip(_pairs(weights), _pairs(x), strict=True)
        first, second = (w.to(16) * v.to(16) for w, v in columns)
        return acc + _instruction("saddlp", I32, first + second)

    def scale(self, acc: Vector, multiplier: Vector, left: Vector, right: Vector) -> Vector:
        # sqdmulh: the upper half of twice a product, here of acc * multiplier * 2^16; srshl to the right rounds
        product = _instruction("sqdmulh", I32, acc << left, multiplier << 15)
        return _instruction("srshl", I32, product, right.filled(0) - right)

    def multiply_high(self, a: Vector, b: Vector) -> Vector:
        return _instruction("sqrdmulh", I16, a, b)


class NeonDot(Neon):
    """With dot products (Armv8.2 and later, as the Cortex-A76)."""

    name = "neondot"

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        kind: Any = ir.VectorType(I32, 4)
        parts = zip(acc.parts(4), weights.as_lanes(I8, 64).parts(16), x.as_lanes(I8, 64).parts(16), strict=True)
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        sums = [Vector(acc.builder, call(acc.builder, name, kind, a.value, w.value, b.value)) for a, w, b in parts]
        return concatenate(sums)


def _pairs(fours: Vector) -> list[Vector]:
    """Of fours of bytes the first two of each, and the other two."""
    words = fours.as_lanes(I16, 32)
    return [words.shuffle(words, range(start, 32, 2)).as_lanes(I8, 32) for start in (0, 1)]


def _instruction(name: str, result: Any, *operands: Vector) -> Vector:
    """One on registers of 128 bits, over operands that fill one or more of them."""
    builder, element = operands[0].builder, operands[0].element
    lanes, count = 128 // element.width, 128 // result.width
    types = f"v{count}i{result.width}" + ("" if result == element else f".v{lanes}i{element.width}")
    kind: Any = ir.VectorType(result, count)
    registers = zip(*(operand.parts(lanes) for operand in operands), strict=True)
    function = f"llvm.aarch64.neon.{name}.{types}"
    return concatenate([Vector(builder, call(builder, function, kind, *(v.value for v in r))) for r in registers])


_DOT_PRODUCT: Final = """
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i32 @dot(<16 x i8> %a, <16 x i8> %b) {
  %x = sext <16 x i8> %a to <16 x i32>
  %y = sext <16 x i8> %b to <16 x i32>
  %products = mul <16 x i32> %x, %y
  %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
  ret i32 %sum
}
"""


def has_dot_products(triple: str, cpu: str, features: str) -> bool:
    """Whether LLVM compiles a dot product of bytes to the instruction there.

    That is what shows it: LLVM knows by the processor's name, and does not list it among the features it finds.
    """
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    return "sdot" in machine.emit_assembly(llvm.parse_assembly(_DOT_PRODUCT))
