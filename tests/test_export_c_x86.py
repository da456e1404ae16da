"""The kernels for x86-64 in every form of theirs that this processor can run: of every value, and of whole models."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edgernn.export import to_c
from edgernn.export.c.layouts import GENERAL, LAYOUTS
from edgernn.export.c.source import array_text, kernel
from edgernn.export.c.tables import tables
from edgernn.firmware_sim import run
from edgernn.fixedpoint import cell_rescale, requantize, rescale, round_shift, sat8, sat16, sigmoid, tanh
from edgernn.qmodel import CELL_EXPONENTS, QuantizedModel, Scheme

from . import oracle
from .firmware_host import HostFirmware, compile_c
from .models import HEADS, SCHEMES, VARIANTS, random_input, random_model
from .test_export_c import emptied, narrow
from .test_kernel_bounds import check, expected

# What the compiler is told, and what Linux calls the instructions
FORMS = {
    "avx2": (("-mavx2",), {"avx2"}),
    "vnni": (
        ("-mavx2", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
        {"avx2", "avx512bw", "avx512vl", "avx512_vnni"},
    ),
}
INT16 = np.arange(-32768, 32768)


def flags_here() -> list[tuple[str, ...]]:
    """Of the forms that this processor can run; where it runs none, of plain C."""
    listed = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    present = next((set(words.split()) for title, _, words in listed if title.strip() == "flags"), set())
    return [flags for flags, needed in FORMS.values() if needed <= present] or [()]


each_form = pytest.mark.parametrize("flags", flags_here(), ids=lambda flags: "+".join(flags) or "plain")


@each_form
@pytest.mark.parametrize("scheme", SCHEMES)
def test_models(scheme: Scheme, flags: tuple[str, ...], tmp_path: Path) -> None:
    """Sizes around four columns and sixteen rows, saturating sums, both directions, multipliers of any size."""
    models: list[QuantizedModel] = []
    for seed, hidden in enumerate((1, 4, 15, 16, 17, 33)):
        cell, head = VARIANTS[seed % 4], HEADS[seed % 3]
        odd = {"saturating": seed % 2 == 1, "bidirectional": seed == 4, "output_size": 1 + 5 * seed}
        models.append(random_model(seed, cell, scheme, input_size=1 + 3 * seed, hidden_size=hidden, head=head, **odd))  # type: ignore[arg-type]
    models += [change(random_model(7, "lstm", scheme, hidden_size=9, layers=2)) for change in (narrow, emptied)]
    for number, model in enumerate(models):
        x = random_input(model, 7, number)
        firmware = HostFirmware(model, tmp_path / str(number), "x86-64", ("-O1", *flags))
        assert np.array_equal(firmware.run(x), oracle.run(model, x)), f"model {number}"


@each_form
@pytest.mark.parametrize("scheme", SCHEMES)
def test_sums_at_their_bounds(scheme: Scheme, flags: tuple[str, ...], tmp_path: Path) -> None:
    model, x, rows = expected(scheme, False)
    firmware = HostFirmware(model, tmp_path, "x86-64", ("-O1", *flags))
    states = firmware.state.view(np.int16)[: rows[0].size].reshape(rows[0].shape)
    states[:] = rows[0]
    for step, after in enumerate(rows[1:]):
        assert np.array_equal(firmware.run(x[step : step + 1])[0], states[-1])
        check(states, after, "x86")


@each_form
def test_sanitizers_find_nothing(flags: tuple[str, ...], tmp_path: Path) -> None:
    for seed, scheme in enumerate(SCHEMES):
        model = random_model(seed, "gru_before", scheme, hidden_size=5, layers=2, head="steps")
        x = random_input(model, 4, seed)
        folder = tmp_path / scheme
        folder.mkdir()
        for file, text in to_c(model, "net", "x86-64", (x, run(model, x)[0])).items():
            (folder / file).write_text(text)
        sanitized = ("-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", *flags)
        compile_c("-shared", "-fPIC", folder / "net.c", folder / "net_test.c", "-o", folder / "net.so", flags=sanitized)
        assert ctypes.CDLL(str(folder / "net.so")).net_test() == 0, scheme


# ---- the vectors' functions ------------------------------------------------------------------------------------------

VALUES = """
#define ALL(name, expression) \\
  void name(const int16_t *in, int16_t *out, int n, int k); \\
  void name(const int16_t *in, int16_t *out, int n, int k) { \\
    for (; n > 0; n -= ERN_LANES, in += ERN_LANES, out += ERN_LANES) { \\
      ern_value v = ern_load(in); \\
      (void)k; \\
      ern_store(out, expression); \\
    } \\
  }
"""
FUNCTIONS = {
    "sigmoid": "ern_sigmoid(v)",
    "tanh": "ern_tanh(v)",
    "cell": "ern_tanh(ern_preactivation(v, k))",
    "scaled": "ern_scale(ern_all(k & 32767), v, k >> 15)",
}
BLOCKS = """
void many_blocks(const int32_t *rows, int16_t *out, int n, int left);
void many_blocks(const int32_t *rows, int16_t *out, int n, int left) {
  ern_stream s = {0, rows};
  for (; n > 0; n -= 16, out += 16) ern_store(out, ern_rows(&s, 0, 0, left));
}
void many_views(const int16_t *in, int8_t *out, int n);
void many_views(const int16_t *in, int8_t *out, int n) {
  ern_view_of(in, n, out);
  for (; n > 0; n--, out++) *out = (int8_t)(*out ^ ERN_FLIPPED);
}
"""


class Functions:
    """The kernels' vectors over arrays."""

    def __init__(self, folder: Path, flags: tuple[str, ...]) -> None:
        layout = LAYOUTS["x86"]
        source = [
            "#include <stdint.h>",
            "#define ERN_W8A16 0",
            f"#define ERN_BLOCK {layout.block}",
            kernel("common.h"),
            *(array_text(name, "uint16_t", values) for name, values in tables(layout.table).items()),
            *(kernel(file) for file in (*layout.kernels, "cells.h")),
            VALUES,
            *(f"ALL(many_{name}, {expression})" for name, expression in FUNCTIONS.items()),
            BLOCKS,
        ]
        (folder / "k.c").write_text("\n".join(source))
        options = ("-O1", "-Wno-unused-function", *flags)
        compile_c("-shared", "-fPIC", folder / "k.c", "-o", folder / "k.so", flags=options)
        self._library = ctypes.CDLL(str(folder / "k.so"))

    def call(
        self, name: str, values: np.ndarray, out: type[np.generic] = np.int16, count: int = 0, k: int = 0
    ) -> np.ndarray:
        found = np.zeros(count or len(values), out)
        pointers = [one.ctypes.data_as(ctypes.c_void_p) for one in (values, found)]
        getattr(self._library, f"many_{name}")(*pointers, len(found), k)
        return found


@pytest.fixture(scope="module", params=[flags for flags in flags_here() if flags], ids="+".join)
def functions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Functions:
    return Functions(tmp_path_factory.mktemp("functions"), request.param)


def test_functions_of_every_value(functions: Functions) -> None:
    values = INT16.astype(np.int16)
    assert np.array_equal(functions.call("sigmoid", values), sigmoid(INT16))
    assert np.array_equal(functions.call("tanh", values), tanh(INT16))
    for exponent in CELL_EXPONENTS:
        wanted = tanh(rescale(INT16, *cell_rescale(exponent)))
        assert np.array_equal(functions.call("cell", values, k=exponent), wanted), exponent
    for length in (len(values), 65533):
        assert np.array_equal(functions.call("views", values[:length], np.int8), sat8(round_shift(INT16[:length], 8)))


@pytest.mark.parametrize("e", range(15, 22))
def test_a_gate_times_a_value(functions: Functions, e: int) -> None:
    for gate in (0, 1, 2, 3, 255, 8191, 16383, 16384, 16385, 21845, 32766, 32767):
        found = functions.call("scaled", INT16.astype(np.int16), k=e << 15 | gate)
        assert np.array_equal(found, sat16(round_shift(gate * INT16, e))), gate


@pytest.mark.parametrize("left", [GENERAL, 0, 3, 8])
def test_requantize(functions: Functions, left: int) -> None:
    """Blocks of no columns: biases, rescaled by multipliers of every shift that a row can have."""
    rng = np.random.default_rng(5)
    count = 4096
    shift = rng.integers(8, 47, count) if left == GENERAL else rng.integers(17 - left, 33 - left, count)
    multiplier = rng.integers(2**14, 2**15, count)
    edge = sat16(rng.integers(-33000, 33000, count)) * 2**shift // multiplier  # on all of the outputs' range
    bound = 2**31 - 1 >> max(left, 0)
    acc = np.clip(edge + rng.integers(-2, 3, count), -bound, bound)
    packed = multiplier << 8 | shift if left == GENERAL else multiplier << 32 - left - shift
    rows = np.stack([one.reshape(-1, 16) for one in (acc, acc, packed)], axis=1).astype(np.int32)
    found = functions.call("blocks", rows, count=count, k=left)
    assert np.array_equal(found, requantize(acc, multiplier, shift))
