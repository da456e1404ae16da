"""The primitives of the C kernels, of every layout, on all of their inputs: the integers of edgernn.fixedpoint."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edgernn.export.c.layouts import LAYOUTS
from edgernn.export.c.source import array_text, kernel
from edgernn.export.c.tables import tables
from edgernn.fixedpoint import (
    cell_rescale,
    interpolated_sigmoid,
    interpolated_tanh,
    quantize_multiplier,
    requantize,
    rescale,
    round_shift,
    sat8,
    sigmoid,
    tanh,
)
from edgernn.qmodel import CELL_EXPONENTS

from .boundaries import boundary_values
from .firmware_host import compile_c

INT16 = np.arange(-32768, 32768)
SUMS = np.arange(-65536, 65535)  # of two pre-activations

_WRAPPERS = """
void many_scale(const int32_t *p, const int32_t *v, int32_t *y, int n, int e);
void many_tanh(const int32_t *p, int32_t *y, int n);
void many_view(const int32_t *h, int32_t *y, int n);
void many_cell(const int32_t *c, int32_t *y, int n, int exponent);
void many_general(const int32_t *acc, int32_t *y, int n, int32_t packed);
void many_scale(const int32_t *p, const int32_t *v, int32_t *y, int n, int e) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_scale(ern_sigmoid(p[i]), v[i], e);
}
void many_tanh(const int32_t *p, int32_t *y, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_tanh(p[i]);
}
void many_view(const int32_t *h, int32_t *y, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_view8(h[i]);
}
void many_cell(const int32_t *c, int32_t *y, int n, int exponent) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_cell_to_preactivation(c[i], exponent);
}
void many_general(const int32_t *acc, int32_t *y, int n, int32_t packed) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_requantize_general(acc[i], packed);
}
"""

_FINE_WRAPPERS = """
void many_fine_sigmoid(const int32_t *v, int32_t *y, int n);
void many_fine_tanh(const int32_t *v, int32_t *y, int n);
void many_fine_sigmoid(const int32_t *v, int32_t *y, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_scale(ern_fine_sigmoid(v[i]), 32767, 15);
}
void many_fine_tanh(const int32_t *v, int32_t *y, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = ern_fine_tanh(v[i]);
}
"""  # of the profile tflite-lstm


class Primitives:
    """The kernels' functions over arrays."""

    def __init__(self, folder: Path, layout: str) -> None:
        chosen = LAYOUTS[layout]
        source = [
            "#include <stdint.h>",
            "#define ERN_W8A16 0",
            f"#define ERN_BLOCK {chosen.block}",
            kernel("common.h"),
            *(array_text(name, f"{values.dtype}_t", values) for name, values in tables(chosen.table).items()),
            *(kernel(file) for file in chosen.kernels),
            _WRAPPERS,
            *([_FINE_WRAPPERS] if chosen.operator else []),
        ]
        (folder / "k.c").write_text("\n".join(source))
        flags = ("-O1", "-Wno-unused-function", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
        compile_c("-shared", "-fPIC", folder / "k.c", "-o", folder / "k.so", flags=flags)
        self._library = ctypes.CDLL(str(folder / "k.so"))

    def call(self, name: str, *arguments: np.ndarray, last: tuple[int, ...] = ()) -> np.ndarray:
        arrays = [np.ascontiguousarray(one, np.int32) for one in np.broadcast_arrays(*arguments)]
        y = np.zeros_like(arrays[0])
        pointers = [one.ctypes.data_as(ctypes.c_void_p) for one in (*arrays, y)]
        getattr(self._library, f"many_{name}")(*pointers, len(y), *last)
        return y


@pytest.fixture(scope="module", params=LAYOUTS)
def primitives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Primitives:
    return Primitives(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("e", range(15, 22))
def test_a_gate_times_a_value(primitives: Primitives, e: int) -> None:
    for v in (-32768, -32767, -16384, -3, -1, 0, 1, 2, 12345, 32767):
        wanted = round_shift(sigmoid(np.clip(SUMS, -32768, 32767)) * v, e)
        assert np.array_equal(primitives.call("scale", SUMS, np.array(v), last=(e,)), wanted), v
    for p in (-32768, -5000, -1, 0, 700, 32767):
        wanted = round_shift(sigmoid(np.int64(p)) * INT16, e)
        assert np.array_equal(primitives.call("scale", np.array(p), INT16, last=(e,)), wanted), p


def test_tanh(primitives: Primitives) -> None:
    assert np.array_equal(primitives.call("tanh", SUMS), tanh(np.clip(SUMS, -32768, 32767)))


@pytest.mark.parametrize("layout", [name for name, one in LAYOUTS.items() if one.operator])
def test_positions_in_the_table(layout: str, tmp_path: Path) -> None:
    """Of the profile tflite-lstm: three times an int16, for tanh of a cell state eight times that."""
    primitives, v = Primitives(tmp_path, layout), 3 * INT16
    assert np.array_equal(primitives.call("fine_sigmoid", v), round_shift(interpolated_sigmoid(v) * 32767, 15))
    v = np.arange(-70000, 70000)
    assert np.array_equal(primitives.call("fine_tanh", v), interpolated_tanh(v))
    assert np.array_equal(primitives.call("fine_tanh", 24 * INT16), interpolated_tanh(24 * INT16))


def test_the_view_of_a_state(primitives: Primitives) -> None:
    assert np.array_equal(primitives.call("view", INT16), sat8(round_shift(INT16, 8)))


@pytest.mark.parametrize("exponent", CELL_EXPONENTS)
def test_a_cell_state_as_a_pre_activation(primitives: Primitives, exponent: int) -> None:
    wanted = rescale(INT16, *cell_rescale(exponent))
    assert np.array_equal(primitives.call("cell", INT16, last=(exponent,)), wanted)


@pytest.mark.parametrize("m", [2.0**-32, 3e-9, 1.7e-6, 0.001, 0.3, 0.5, 0.99999, 1.0, 1.5, 77.7, 127.9])
def test_requantize_by_multipliers_of_any_size(primitives: Primitives, m: float) -> None:
    multiplier, shift = (int(v) for v in quantize_multiplier(m))
    acc = np.array(boundary_values(32))
    found = primitives.call("general", acc, last=(multiplier << 8 | shift,))
    assert np.array_equal(found, requantize(acc, multiplier, shift))
