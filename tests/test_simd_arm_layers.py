"""Whole layers by the SIMD room's steps, on emulated aarch64 cores: in tiles of sequences, and in tiles of units."""

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

from edgernn.firmware_sim._affine import tables
from edgernn.firmware_sim.simd import tiles
from edgernn.firmware_sim.simd._form import LANES, Form
from edgernn.firmware_sim.simd._pack import PackedMap
from edgernn.firmware_sim.simd._vector import Builder, Value, cgutils
from edgernn.firmware_sim.simd.cells import GruResetBeforeCell, LstmCell, PackedCell, pack_cell
from edgernn.qmodel import IntArray, QuantizedModel, Scheme

from . import vectorised
from .arm.program import Argument, Call, Emit, Program
from .models import SCHEMES, VARIANTS, Variant, random_input, random_model
from .test_simd_arm import FORMS, operand

STEPS = 6

_NUMBA: Any = numba


# ---- what Numba would emit for a call --------------------------------------------------------------------------------


def packed(builder: Builder, argument: Argument, count: int) -> Value:
    return cgutils.pack_struct(builder, [argument() for _ in range(count)])


def tiled(intrinsic: Any, cell: PackedCell, rows: int, panels: int, saving: bool) -> Emit:
    """f(source .., place ..)"""
    kind, literal = _NUMBA.typeof(cell), _NUMBA.types.literal
    _, generate = intrinsic._defn(None, kind, literal(rows), literal(panels), None, None, literal(saving))

    def emit(form: Form, builder: Builder, argument: Argument) -> None:
        source, place = packed(builder, argument, 4), packed(builder, argument, len(tiles.Place._fields))
        generate(cpu_target.target_context, builder, None, [None, None, None, source, place, None])

    return emit


def projected(cell: PackedCell, saving: bool) -> Emit:
    """f(source .., weights, constants, projection ..)"""
    kind, none = _NUMBA.typeof(cell), (None,) * 4
    _, generate = tiles.project._defn(None, kind, *none, _NUMBA.types.literal(saving))

    def emit(form: Form, builder: Builder, argument: Argument) -> None:
        arguments = [packed(builder, argument, 4), argument(), argument(), packed(builder, argument, 4), None]
        generate(cpu_target.target_context, builder, None, [None, *arguments])

    return emit


def steps(cell: PackedCell, rows: int, panels: int, saving: bool) -> dict[str, Emit]:
    found = {f"step{panels}": tiled(tiles.step, cell, rows, panels, saving)}
    if isinstance(cell, GruResetBeforeCell):
        found[f"reset{panels}"] = tiled(tiles.reset, cell, rows, panels, saving)
    return found


# ---- a layer ---------------------------------------------------------------------------------------------------------


class Layer:
    """One tile's rows of sequences through a layer: the calls that the kernels make, and the memory they work in."""

    def __init__(self, program: Program, form: Form, cell: PackedCell, rows: int, saving: bool) -> None:
        self.program, self.form, self.cell, self.rows, self.saving = program, form, cell, rows, saving
        self.memory, self.calls = program.memory(), list[Call]()
        self.panels, _, self.gates = cell.input.weights.shape[:3]
        self.units = self.panels * LANES
        self.tables = self.memory.put(tables())
        self.scale: int = self.memory.put(cell.scale) if isinstance(cell, LstmCell) else 0
        self.maps: dict[int, tuple[int, int]] = {}
        state = np.zeros((self.panels, rows, LANES), np.int16)
        self.h, self.c, self.update = (self.memory.put(state) for _ in range(3))
        self.dtype = type(cell.element)
        self.reset_view = self.view()
        self.views = [self.view()]
        self.records: list[int] = []

    def view(self) -> int:
        return self.memory.put(operand(self.form, np.zeros((self.rows, self.units), self.dtype)))

    def source(self, address: int, a_map: PackedMap) -> list[int]:
        _, rows, row = self.memory.get(address).shape
        return [address, row, rows * row, a_map.weights.shape[1]]

    def at(self, a_map: PackedMap, panel: int) -> tuple[int, int]:
        """Where the panel's weights and constants lie."""
        if id(a_map) not in self.maps:
            self.maps[id(a_map)] = self.memory.put(a_map.weights), self.memory.put(a_map.constants)
        weights, constants = self.maps[id(a_map)]
        return weights + panel * a_map.weights[0].nbytes, constants + panel * a_map.constants[0].nbytes

    def project(self, x: IntArray) -> list[int]:
        """Of x [steps, rows, columns] the addresses of every step's pre-activations; at once of four steps of a row."""
        steps = -(-len(x) // tiles.ROWS) * tiles.ROWS  # it always writes ROWS rows
        px = self.memory.put(np.zeros((steps, self.panels, self.gates, self.rows, LANES), np.int16))
        size = self.panels * self.gates * self.rows * LANES * 2  # bytes of a step
        for step in range(0, len(x), tiles.ROWS // self.rows):
            source = self.source(self.memory.put(operand(self.form, self._four(x[step:]))), self.cell.input)
            for panel in range(self.panels):
                to = px + step * size + panel * self.gates * self.rows * LANES * 2
                strides = [size, LANES * 2] if self.rows == 1 else [LANES * 2, self.rows * LANES * 2]
                arguments = [*source, *self.at(self.cell.input, panel), to, *strides, self.record(step, panel)]
                self.calls.append(Call("project", arguments))
        return [px + step * size for step in range(len(x))]

    def _four(self, x: IntArray) -> IntArray:
        rows = x.reshape(-1, x.shape[-1])[: tiles.ROWS]
        return np.pad(rows, ((0, tiles.ROWS - len(rows)), (0, 0)))

    def record(self, step: int, panel: int) -> int:
        if not self.saving:
            return 0
        number: int = step * self.panels + panel
        while len(self.records) <= number:
            self.records.append(self.memory.put(np.zeros(tiles.record_size(type(self.cell)), np.uint8)))
        return self.records[number]

    def step(self, number: int, px: int, valid: np.ndarray) -> None:
        self.views.append(self.view())
        old, new = self.views[-2:]
        self.valid = self.memory.put(np.repeat(-valid.astype(np.int16)[:, np.newaxis], LANES, axis=1))
        if isinstance(self.cell, GruResetBeforeCell):
            self._calls("reset", self.cell.recurrent, old, self.reset_view, px, number)
            self._calls("step", self.cell.candidate, self.reset_view, new, px, number)
        else:
            self._calls("step", self.cell.recurrent, old, new, px, number)

    def _calls(self, name: str, a_map: PackedMap, read: int, written: int, px: int, number: int) -> None:
        panel, size = 0, self.rows * LANES * 2  # bytes of a panel's state
        while panel < self.panels:
            width = max(width for width in ((4, 2, 1) if self.rows == 1 else (1,)) if width <= self.panels - panel)
            place = tiles.Place(
                self.tables,
                px + panel * self.gates * size,
                *self.at(a_map, panel),
                self.h + panel * size,
                self.c + panel * size,
                written + panel * LANES * self.form.item,
                self.valid,
                self.scale,
                self.update + panel * size,
                self.record(number, panel),
            )
            self.calls.append(Call(f"{name}{width}", [*self.source(read, a_map), *place]))
            panel += width

    def run(self, x: IntArray, lengths: IntArray) -> None:
        """x [steps, rows, columns]"""
        for number, px in enumerate(self.project(x)):
            self.step(number, px, number < lengths)
        self.program.run(self.calls, self.memory)

    def state(self) -> IntArray:
        """h [rows, units]"""
        return self.memory.get(self.h).transpose(1, 0, 2).reshape(self.rows, -1)


def check(layer: Layer, model: QuantizedModel, x: IntArray, lengths: IntArray) -> None:
    """h after the last step, and its view after every one, of x [rows, steps, columns]."""
    size = model.layers[0].hidden_size
    layer.run(x.transpose(1, 0, 2), lengths)
    hidden = np.array([vectorised.run(model, one) for one in x])
    assert np.ptp(hidden.astype(np.int64)) > 1000
    last = hidden[np.arange(len(x)), lengths - 1]
    assert np.array_equal(layer.state()[:, :size], last)
    assert not layer.state()[:, size:].any()
    for number, address in enumerate(layer.views[1:]):
        h = hidden[np.arange(len(x)), np.minimum(number, lengths - 1)]
        h = np.pad(h, ((0, 0), (0, layer.units - size))).astype(np.int64)
        view = vectorised.view(h, model.scheme).astype(layer.dtype)
        assert np.array_equal(layer.memory.get(address), operand(layer.form, view)), f"step {number}"


def built(
    folder: Path, core: str, form: Form, cell: PackedCell, rows: int, widths: tuple[int, ...], saving: bool
) -> Layer:
    functions = {"project": projected(cell, saving)}
    for panels in widths:
        functions |= steps(cell, rows, panels, saving)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "required_form", lambda: form)
        program = Program(folder, core, form, functions)
    return Layer(program, form, cell, rows, saving)


@pytest.mark.parametrize("core", FORMS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tiles_of_sequences(variant: Variant, scheme: Scheme, core: str, tmp_path: Path) -> None:
    model = random_model(7, variant, scheme, input_size=5, hidden_size=21, head=None, saturating=scheme == "w8a16")
    cell = pack_cell(FORMS[core], model.layers[0], model.input_dtype)
    layer = built(tmp_path, core, FORMS[core], cell, tiles.ROWS, (1,), saving=False)
    check(layer, model, random_input(model, STEPS, 7, (tiles.ROWS,)), np.array([STEPS, 2, 1, 4]))


@pytest.mark.parametrize("core", FORMS)
@pytest.mark.parametrize(("variant", "scheme"), [("lstm", "w8a8"), ("gru_before", "w8a16")])
def test_tiles_of_units(variant: Variant, scheme: Scheme, core: str, tmp_path: Path) -> None:
    model = random_model(3, variant, scheme, input_size=5, hidden_size=101, head=None, saturating=scheme == "w8a8")
    cell = pack_cell(FORMS[core], model.layers[0], model.input_dtype)
    layer = built(tmp_path, core, FORMS[core], cell, 1, (4, 2, 1), saving=False)
    check(layer, model, random_input(model, STEPS, 3, (1,)), np.array([STEPS]))


@pytest.mark.parametrize(
    ("variant", "scheme", "core"), [("lstm", "w8a8", "cortex-a72"), ("gru_before", "w8a16", "cortex-a76")]
)
def test_what_a_training_step_keeps(variant: Variant, scheme: Scheme, core: str, tmp_path: Path) -> None:
    """It is what LLVM's own operations make it."""
    model = random_model(4, variant, scheme, input_size=5, hidden_size=16, head=None, saturating=True)
    x, records = random_input(model, STEPS, 4, (tiles.ROWS,)), []
    for form in (FORMS[core], Form()):
        folder = tmp_path / form.name
        folder.mkdir()
        cell = pack_cell(form, model.layers[0], model.input_dtype)
        layer = built(folder, core, form, cell, tiles.ROWS, (1,), saving=True)
        check(layer, model, x, np.array([STEPS, 2, 1, 4]))
        records.append(np.array([layer.memory.get(address) for address in layer.records]))
    assert len(records[0]) == STEPS
    assert np.array_equal(records[0], records[1]), np.argwhere(records[0] != records[1])[:5]
    masks = len(tiles.SAVED[type(cell)]) * tiles.ROWS * LANES * 2
    assert records[0][:, masks:].any(axis=0).sum() > 8, "hardly anything saturates"
