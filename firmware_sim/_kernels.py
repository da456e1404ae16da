"""The two sets of kernels behind one form: the readable ones, and those in the processor's vector instructions."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import numba as untyped_numba
import numpy as np
from numba import types

from ..qmodel import Layer, QuantizedModel
from . import _cells, _layer
from ._affine import Array, pack_affine, padded_columns, tables
from ._jit import machine_code
from .simd._form import Form
from .simd._host import host_form
from .simd.cells import pack_cell, pack_dense
from .simd.head import run_head
from .simd.rows import run_rows
from .simd.single import run_single

numba: Any = untyped_numba

FEW: Final = 2  # sequences that are faster one by one


class Kernels(Protocol):
    """A model's integers packed for kernels, and the kernels. All arrays are C-contiguous."""

    def columns(self, size: int) -> int:
        """How many columns an operand of `size` has in memory."""

    def run_layer(
        self,
        layer: int,
        backward: bool,
        x: Array,
        lengths: Array,
        h: Array,
        c: Array,
        hidden: Array,
        views: Array,
        saturation: Array | None,
    ) -> None:
        """Run one direction of a layer, as `_layer.run_layer` does."""

    def run_head(self, views: Array, lengths: Array, last: bool, y: Array) -> None:
        """Run the head, as `_layer.run_head` does."""


class Readable:
    """Plain Numba. pack: makes of a direction what its kernel takes."""

    def __init__(self, model: QuantizedModel, pack: Callable[[Layer], Any] = _cells.pack_layer) -> None:
        self._cells = [[pack(direction) for direction in layer.directions] for layer in model.layers]
        self._head = None if model.head is None else pack_affine(model.head.dense)

    def columns(self, size: int) -> int:
        return padded_columns(size)

    def run_layer(
        self,
        layer: int,
        backward: bool,
        x: Array,
        lengths: Array,
        h: Array,
        c: Array,
        hidden: Array,
        views: Array,
        saturation: Array | None,
    ) -> None:
        cell = self._cells[layer][backward]
        _layer.run_layer(cell, tables(), x, lengths, h, c, hidden, views, backward, saturation)

    def run_head(self, views: Array, lengths: Array, last: bool, y: Array) -> None:
        assert self._head is not None
        _layer.run_head(self._head, views, lengths, last, y)


Code = Callable[..., None]  # a kernel's machine code


class Simd:
    """Whole tiles in vector instructions. Raises OverflowError for a model that these cannot compute.

    They count no saturation.
    """

    def __init__(self, model: QuantizedModel, form: Form) -> None:
        dtype = model.input_dtype
        self._operand = numba.from_dtype(np.dtype(dtype))
        self._cells = [[pack_cell(form, direction, dtype) for direction in layer.directions] for layer in model.layers]
        self._head = None if model.head is None else pack_dense(form, model.head.dense, dtype)
        self._tables = tables()
        self._single: list[Code | None] = [None] * len(model.layers)
        self._rows: list[Code | None] = [None] * len(model.layers)
        self._head_code: Code | None = None

    def columns(self, size: int) -> int:
        return size

    def run_layer(
        self,
        layer: int,
        backward: bool,
        x: Array,
        lengths: Array,
        h: Array,
        c: Array,
        hidden: Array,
        views: Array,
        saturation: Array | None,
    ) -> None:
        cell = self._cells[layer][backward]
        if len(x) <= FEW:
            single = self._single[layer] or self._compile(self._single, layer, run_single)
            single(cell, self._tables, x, lengths, h, c, hidden, views, backward)
        else:
            rows = self._rows[layer] or self._compile(self._rows, layer, run_rows, types.none)
            rows(cell, self._tables, x, lengths, h, c, hidden, views, backward, None)

    def _compile(self, codes: list[Code | None], layer: int, kernel: Code, *more: Any) -> Code:
        cell, tables = numba.typeof(self._cells[layer][0]), array_type(types.int16, 2)
        state, operand = array_type(types.int16, 2), array_type(self._operand, 3)
        arrays = (operand, array_type(types.int64, 1), state, state, array_type(types.int16, 3), operand)
        codes[layer] = code = machine_code(kernel, cell, tables, *arrays, types.boolean, *more)
        return code

    def run_head(self, views: Array, lengths: Array, last: bool, y: Array) -> None:
        if self._head_code is None:
            arrays = (
                array_type(self._operand, 3),
                array_type(types.int64, 1),
                types.boolean,
                array_type(types.int8, 3),
            )
            self._head_code = machine_code(run_head, numba.typeof(self._head), *arrays)
        self._head_code(self._head, views, lengths, last, y)


def array_type(element: Any, dimensions: int) -> Any:
    return types.Array(element, dimensions, "C")


def fastest_kernels(model: QuantizedModel) -> Kernels:
    """The vector instructions', where the processor has them and they can compute the model."""
    form = host_form()
    if form is not None:
        try:
            return Simd(model, form)
        except OverflowError:  # rare: weights and biases near the limit of what int32 sums hold
            pass
    return Readable(model)
