"""aarch64: NEON, and its dot products of bytes."""

from typing import Any, ClassVar

import llvmlite.ir as ir

from ._form import Form
from ._vector import I16, I32, Vector, call, concatenate

I8 = ir.IntType(8)


class Neon(Form):
    """Every aarch64 processor: LLVM makes widening multiplications (smlal) of the products."""

    name = "neon"
    accumulators = 4

    def multiply_high(self, a: Vector, b: Vector) -> Vector:
        kind: Any = ir.VectorType(I16, 8)
        pairs = zip(a.parts(8), b.parts(8), strict=True)
        name = "llvm.aarch64.neon.sqrdmulh.v8i16"
        return concatenate([Vector(a.builder, call(a.builder, name, kind, x.value, y.value)) for x, y in pairs])


class NeonDot(Neon):
    """With dot products (Armv8.2 and later, as the Cortex-A76): fours of bytes, all of them signed."""

    name: ClassVar[str] = "neondot"
    group: ClassVar[int] = 4
    bytewise: ClassVar[bool] = True

    def flips(self, itemsize: int) -> tuple[int, ...]:
        return (0,) if itemsize == 1 else (0x80, 0)

    def excess(self, itemsize: int) -> int:
        return 0 if itemsize == 1 else -0x80

    def dot(self, acc: Vector, weights: Vector, x: Vector) -> Vector:
        kind: Any = ir.VectorType(I32, 4)
        parts = zip(acc.parts(4), weights.as_lanes(I8, 64).parts(16), x.as_lanes(I8, 64).parts(16), strict=True)
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        sums = [Vector(acc.builder, call(acc.builder, name, kind, a.value, w.value, b.value)) for a, w, b in parts]
        return concatenate(sums)
