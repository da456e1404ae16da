"""The SIMD room's NEON forms on the emulated cores of a Raspberry Pi 4 (A72) and 5 (A76, with dot products).

They are emitted, compiled and run without Numba, which would take minutes a kernel there: `make test-arm` does that.
"""

from collections import Counter
from collections.abc import Callable

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
import pytest

from edgernn.firmware_sim._affine import tables
from edgernn.firmware_sim.simd._affine import Matrix, Operand, Tile, affine
from edgernn.firmware_sim.simd._arm import Neon, NeonDot, has_dot_products
from edgernn.firmware_sim.simd._cells import CELL_SCALE, Primitives, _new_content, _pre_activation, cell_scale
from edgernn.firmware_sim.simd._form import LANES, Form
from edgernn.firmware_sim.simd._pack import pack_map
from edgernn.firmware_sim.simd._vector import I16, I32, I64, Builder, Value, Vector, broadcast, load, repeat, store
from edgernn.fixedpoint import cell_rescale, requantize, rescale, round_shift, sat16, sigmoid, tanh
from edgernn.qmodel import CELL_EXPONENTS, IntArray

from .arm.program import TRIPLE, Argument, Call, Emit, Program
from .boundaries import boundary_values

FORMS: dict[str, Form] = {"cortex-a72": Neon(), "cortex-a76": NeonDot()}
INT16 = np.arange(-32768, 32768)
WIDTH = 64  # lanes of a tile


# ---- one primitive ---------------------------------------------------------------------------------------------------


class Ops(Primitives):
    """With the numbers of a cell's scale, which lie at `scale`."""

    def __init__(self, form: Form, builder: Builder, tables: Value, scale: Value) -> None:
        super().__init__(form, tables)
        self._builder, self._scale = builder, scale

    def number(self, name: str) -> Vector:
        at = self._builder.add(self._scale, ir.Constant(I64, 4 * CELL_SCALE.index(name)))
        return broadcast(self._builder, at, I32, WIDTH)


def lanewise(operands: int, compute: Callable[..., Vector]) -> Emit:
    """f(tables, scale, int16 operands .., to, how many lanes / WIDTH)"""

    def emit(form: Form, builder: Builder, argument: Argument) -> None:
        ops = Ops(form, builder, argument(), argument())
        sources = [argument() for _ in range(operands)]
        to, count = argument(), argument()

        def body(number: Value, _: list[Value]) -> list[Value]:
            at = builder.mul(number, ir.Constant(I64, 2 * WIDTH))
            values = [load(builder, builder.add(source, at), I16, WIDTH) for source in sources]
            store(compute(ops, *values), builder.add(to, at))
            return []

        repeat(builder, count, [], body)

    return emit


def scaled(form: Form, builder: Builder, argument: Argument) -> None:
    """f(int32 sums, multipliers, left, right, int16 to, how many lanes / LANES)"""
    sources, to, count = [argument() for _ in range(4)], argument(), argument()

    def body(number: Value, _: list[Value]) -> list[Value]:
        at = builder.mul(number, ir.Constant(I64, 4 * LANES))
        result = form.scale(*(load(builder, builder.add(source, at), I32, LANES) for source in sources))
        store(result.saturate(16), builder.add(to, builder.mul(number, ir.Constant(I64, 2 * LANES))))
        return []

    repeat(builder, count, [], body)


PRIMITIVES: dict[str, Emit] = {
    "sigmoid": lanewise(1, lambda ops, p: ops.sigmoid(p)[0]),
    "tanh": lanewise(1, lambda ops, p: ops.tanh(p)),
    "add": lanewise(2, lambda ops, a, b: ops.add(a, b)),
    "multiply_high": lanewise(2, lambda ops, a, b: ops.form.multiply_high(a, b)),
    "product": lanewise(2, lambda ops, gate, v: ops.product(gate, v)),
    "new_content": lanewise(2, lambda ops, i, g: _new_content(ops.form, i, g, ops.number)),
    "pre_activation": lanewise(1, lambda ops, c: _pre_activation(ops.form, c, ops.number)),
    "scaled": scaled,
}


@pytest.fixture(scope="module", params=FORMS)
def primitives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("primitives"), request.param, FORMS[request.param], PRIMITIVES)


def computed(program: Program, name: str, *operands: IntArray, exponent: int = 12) -> IntArray:
    size = len(operands[0])
    padding = -size % WIDTH
    memory = program.memory()
    scale = memory.put(np.array(cell_scale(exponent), np.int32))
    sources = [memory.put(np.pad(operand, (0, padding)).astype(np.int16)) for operand in operands]
    to = memory.put(np.zeros(size + padding, np.int16))
    call = Call(name, [memory.put(tables()), scale, *sources, to, (size + padding) // WIDTH])
    program.run([call], memory)
    return memory.get(to)[:size]


def pairs(a: IntArray, b: IntArray) -> tuple[IntArray, IntArray]:
    return np.repeat(a, len(b)), np.tile(b, len(a))


NEAR = np.array(boundary_values(16))  # int16, and where its arithmetic goes wrong
GATES = np.unique(np.concatenate([NEAR[NEAR >= 0][::16], [0, 1, 2, 16383, 16384, 16385, 32766, 32767]]))


def test_tables_of_every_value(primitives: Program) -> None:
    assert np.array_equal(computed(primitives, "sigmoid", INT16), sigmoid(INT16))
    assert np.array_equal(computed(primitives, "tanh", INT16), tanh(INT16))


def test_sums_saturate(primitives: Program) -> None:
    a, b = pairs(NEAR, NEAR)
    assert np.array_equal(computed(primitives, "add", a, b), sat16(a + b))


def test_products(primitives: Program) -> None:
    a, b = pairs(NEAR, NEAR[1:])  # never both -32768
    assert np.array_equal(computed(primitives, "multiply_high", a, b), (a * b + (1 << 14)) >> 15)
    gate, v = pairs(GATES, INT16)
    assert np.array_equal(computed(primitives, "product", gate, v), round_shift(gate * v, 15))


@pytest.mark.parametrize("exponent", CELL_EXPONENTS)
def test_a_cell_state(exponent: int, primitives: Program) -> None:
    i, g = pairs(GATES, NEAR)
    found = computed(primitives, "new_content", i, g, exponent=exponent)
    assert np.array_equal(found, rescale(i * g, 1 << 30, exponent - 29).astype(np.int16))
    found = computed(primitives, "pre_activation", INT16, exponent=exponent)
    assert np.array_equal(found, sat16(rescale(INT16, *cell_rescale(exponent))))


@pytest.mark.parametrize("shift", range(8, 47))
def test_requantize(shift: int, primitives: Program) -> None:
    """Sums around the ties of the outputs where those saturate and change their sign, and at the sums' own limits."""
    outputs = np.array([*range(-32770, -32764), *range(-3, 4), *range(32764, 32770), -12345, 23456])
    multipliers = np.array([1 << 14, (1 << 14) + 1, 23170, 29999, 32766, 32767])
    multiplier, output = pairs(multipliers, outputs)
    tie = ((2 * output + 1) << (shift - 1)) // multiplier
    near = np.concatenate([tie + d for d in (-1, 0, 1, 2)])
    left = max(17 - shift, 0)
    limit = ((1 << 31) - 1) >> left
    ends = np.array([-limit, 1 - limit, -1, 0, 1, limit - 1, limit])
    acc = np.clip(np.concatenate([near, np.tile(ends, len(multipliers))]), -limit, limit)
    multiplier = np.concatenate([np.tile(multiplier, 4), np.repeat(multipliers, len(ends))])
    padding = -len(acc) % LANES
    acc, multiplier = np.pad(acc, (0, padding)), np.pad(multiplier, (0, padding))
    memory = primitives.memory()
    operands = (acc, multiplier, np.full(len(acc), left), np.full(len(acc), shift + left - 16))
    sources = [memory.put(operand.astype(np.int32)) for operand in operands]
    to = memory.put(np.zeros(len(acc), np.int16))
    primitives.run([Call("scaled", [*sources, to, len(acc) // LANES])], memory)
    assert np.array_equal(memory.get(to), requantize(acc, multiplier, shift))


# ---- affine maps -----------------------------------------------------------------------------------------------------

MAPS = {
    (rows, panels, itemsize): f"map{rows}{panels}{itemsize}" for rows, panels in ((4, 1), (1, 2)) for itemsize in (1, 2)
}
MAP_GATES = 3


def mapped(rows: int, panels: int, itemsize: int) -> Emit:
    """f(operand's address, row, plane, groups, weights, constants, int16 to [gates, lanes])"""

    def emit(form: Form, builder: Builder, argument: Argument) -> None:
        x = Operand(argument(), argument(), argument(), argument(), itemsize)
        matrix, to = Matrix(argument(), argument(), MAP_GATES), argument()
        for number, gate in enumerate(affine(form, builder, Tile(rows, panels), x, matrix)):
            store(gate.saturate(16), builder.add(to, ir.Constant(I64, number * 2 * gate.lanes)))

    return emit


@pytest.fixture(scope="module", params=FORMS)
def maps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Form, Program]:
    form, functions = FORMS[request.param], {name: mapped(*kind) for kind, name in MAPS.items()}
    return form, Program(tmp_path_factory.mktemp("maps"), request.param, form, functions)


def operand(form: Form, x: np.ndarray) -> np.ndarray:
    """x [rows, columns] as the form's products read it: uint8 [planes, rows, bytes], columns padded with zeros."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % form.group)))
    if not form.bytewise:
        return padded.astype(np.int16).view(np.uint8)[np.newaxis]
    planes = [(padded.astype(np.int64) >> 8 * n & 255) ^ flip for n, flip in enumerate(form.flips(x.itemsize))]
    return np.array(planes, np.uint8)


def extreme(rng: np.random.Generator, rows: int, columns: int, low: int, high: int) -> IntArray:
    """Rows of the lowest values, of the highest, of both in turn, and random ones."""
    values = rng.integers(low, high + 1, (rows, columns))
    values[0::5], values[1::5] = low, high
    values[2::5] = np.where(np.arange(columns) % 2, low, high)
    values[3::5] = rng.choice([low, high], values[3::5].shape)
    return values


@pytest.mark.parametrize("columns", [1, 3, 4, 66, 511])
@pytest.mark.parametrize("itemsize", [1, 2])
@pytest.mark.parametrize(("rows", "panels"), [(4, 1), (1, 2)])
def test_affine(rows: int, panels: int, itemsize: int, columns: int, maps: tuple[Form, Program]) -> None:
    form, program = maps
    rng = np.random.default_rng(columns)
    units = panels * LANES
    weight = extreme(rng, MAP_GATES * units, columns, -127, 127)
    bias = rng.integers(-(2**24), 2**24, len(weight)) // (1 if itemsize == 2 else 256)
    largest = np.abs(bias) + np.abs(weight).sum(axis=1) * (128 if itemsize == 1 else 32768)
    assert largest.max() < 2**31
    shift = np.clip(np.ceil(np.log2(largest)).astype(np.int64) - rng.integers(-1, 4, len(weight)), 17, 46)
    multiplier = rng.integers(2**14, 2**15, len(weight))
    packed = pack_map(form, itemsize, MAP_GATES, weight, bias, multiplier, shift)
    limit = 1 << (8 * itemsize - 1)
    x = extreme(rng, 5 * rows, columns, -limit, limit - 1).astype(np.int8 if itemsize == 1 else np.int16)
    memory = program.memory()
    weights, constants = memory.put(packed.weights), memory.put(packed.constants)
    calls = []
    for first in range(0, len(x), rows):
        planes = operand(form, x[first : first + rows])
        source = [memory.put(planes), planes.shape[2], rows * planes.shape[2], packed.weights.shape[1]]
        to = memory.put(np.zeros((MAP_GATES, panels, rows, LANES), np.int16))
        calls.append(Call(MAPS[rows, panels, itemsize], [*source, weights, constants, to]))
    program.run(calls, memory)
    found = np.concatenate([memory.get(call.arguments[-1]).transpose(2, 0, 1, 3).reshape(rows, -1) for call in calls])
    wanted = requantize(bias + x.astype(np.int64) @ weight.T, multiplier, shift)
    assert np.array_equal(found, wanted), f"columns {columns}: {np.argwhere(found != wanted)[:5]}"
    assert np.unique(wanted).size > 20 or columns < 4


# ---- the instructions ------------------------------------------------------------------------------------------------

DOTS = {"neon": {"smull": 16, "smlal": 16, "sadalp": 16}, "neondot": {"sdot": 16}}  # of 4 rows, 16 units, 4 columns
SCALAR = {"umov", "smov", "ins", "fmov", "madd", "smaddl", "ldrb", "ldrsb", "ldrh", "ldrsh"}


def counted(instructions: list[str]) -> Counter[str]:
    """How often each one occurs; those of the upper half of a register count with those of the lower one."""
    return Counter(line.split()[0].removesuffix("2") for line in instructions)


def test_the_loop_of_a_dot_product(maps: tuple[Form, Program]) -> None:
    form, program = maps
    for itemsize in (1, 2):
        loops = [counted(loop) for loop in program.loops(MAPS[4, 1, itemsize])]
        assert len(loops) == MAP_GATES * itemsize  # a pass over the columns for each gate, and for each pair of rows
        for loop in loops:
            found = {name: loop[name] for name in DOTS[form.name]}
            assert found == DOTS[form.name], loop
            assert not SCALAR & set(loop), loop


def test_requantisation_in_registers_of_32_bits(primitives: Program) -> None:
    (loop,) = primitives.loops("scaled")
    found = counted(loop)
    assert [found[name] for name in ("sqdmulh", "srshl", "sqxtn")] == [4, 4, 4], loop
    assert not any(".2d" in line for line in loop), loop
    (loop,) = primitives.loops("multiply_high")
    assert counted(loop)["sqrdmulh"] == WIDTH // 8, loop


def test_where_there_are_dot_products() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    found = {core: has_dot_products(TRIPLE, core, "") for core in (*FORMS, "generic", "apple-m1")}
    assert found == {"cortex-a72": False, "cortex-a76": True, "generic": False, "apple-m1": True}
    assert not has_dot_products(TRIPLE, "cortex-a76", "-dotprod")
    assert has_dot_products(TRIPLE, "generic", "+dotprod")
