"""The NEON kernels on the emulated cores of a Raspberry Pi 4 (A72) and 5 (A76, with dot products), without a libc."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgernn._tflite_lstm import table_sigmoid, table_tanh
from edgernn.export import to_c
from edgernn.export.c.layouts import LAYOUTS
from edgernn.export.c.source import array_text, kernel
from edgernn.export.c.tables import tables
from edgernn.firmware_sim import run
from edgernn.fixedpoint import cell_rescale, requantize, rescale, round_shift, sat8, sat16, sigmoid, tanh
from edgernn.qmodel import CELL_EXPONENTS

from .firmware_host import STRICT
from .models import random_input, random_model

CORES = ("cortex-a72", "cortex-a76")
INSTALL = "apt install gcc-aarch64-linux-gnu qemu-user"
INT16 = np.arange(-32768, 32768)

# Linux' system calls are all that is there: write is 64, exit 93.
START = """
__asm__(".globl _start\\n_start:\\nbl main\\nmov x8, #93\\nsvc #0\\n");
"""
MAP = """
static int16_t in[65536], out[65536];
static int8_t view[65536];
static void emit(const void *from, long bytes) {
  register long number __asm__("x8") = 64, file __asm__("x0") = 1, size __asm__("x2") = bytes;
  register const void *data __asm__("x1") = from;
  __asm__ volatile("svc #0" : "+r"(file) : "r"(number), "r"(data), "r"(size) : "memory");
}
#define ALL(expression) \\
  for (n = 0; n < 65536; n += 4) { ern_value v = ern_load(in + n); ern_store(out + n, expression); } \\
  emit(out, sizeof out)
int main(void) {
  int n;
  for (n = 0; n < 65536; n++) in[n] = (int16_t)(n - 32768);
"""


def ran(folder: Path, core: str, *sources: str) -> subprocess.CompletedProcess[bytes]:
    """What a program of these sources does on a core."""
    (folder / "start.c").write_text(START)
    flags = (*STRICT, "-O1", "-ffreestanding", "-nostdlib", "-static", f"-mcpu={core}")
    build = ["aarch64-linux-gnu-gcc", *flags, *sources, "start.c", "-o", "program"]
    try:
        built = subprocess.run(build, cwd=folder, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        return subprocess.run(["qemu-aarch64", "-cpu", core, "program"], cwd=folder, capture_output=True, timeout=60)
    except FileNotFoundError as error:
        raise AssertionError(f"{error.filename} is missing: {INSTALL}") from None


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("seed", range(4))
def test_a_model_on_the_core(seed: int, core: str, tmp_path: Path) -> None:
    model = random_model(
        seed,
        ("lstm", "gru", "gru_before", "rnn")[seed % 4],
        ("w8a8", "w8a16")[seed % 2],
        layers=1 + seed % 2,
        head=("last", "steps", None)[seed % 3],
        saturating=seed == 2,
        bidirectional=seed == 3,
    )
    x = random_input(model, 20, seed)
    y, _ = run(model, x)
    for file, text in to_c(model, "net", "raspberry-pi", (x, y)).items():
        (tmp_path / file).write_text(text)
    result = ran(tmp_path, core, "net.c", "net_test.c")
    assert result.returncode == 0, f"seed {seed}: {result}"


def test_a_wrong_output_is_told(tmp_path: Path) -> None:
    model = random_model(0, "rnn")
    x = random_input(model, 3, 0)
    for file, text in to_c(model, "net", "raspberry-pi", (x, run(model, x)[0] ^ 1)).items():
        (tmp_path / file).write_text(text)
    assert ran(tmp_path, "cortex-a72", "net.c", "net_test.c").returncode == 1


def primitives(folder: Path, body: str) -> bytes:
    layout = LAYOUTS["neon"]
    parts = [
        "#include <stdint.h>",
        "#define ERN_W8A16 0",
        f"#define ERN_BLOCK {layout.block}",
        kernel("common.h"),
        *(array_text(name, "uint32_t", values) for name, values in tables(layout.table).items()),
        *(kernel(file) for file in (*layout.kernels, "cells.h", *layout.operator)),
        MAP,
        body,
        "  (void)view;\n  (void)out;\n  return 0;\n}\n",
    ]
    (folder / "primitives.c").write_text("\n".join(parts))
    result = ran(folder, "cortex-a72", "primitives.c", "-Wno-unused-function")
    assert result.returncode == 0, result
    return result.stdout


def test_functions_of_every_value(tmp_path: Path) -> None:
    wanted = {"ern_sigmoid(v)": sigmoid(INT16), "ern_tanh(v)": tanh(INT16)}
    for exponent in CELL_EXPONENTS:
        wanted[f"ern_tanh(ern_preactivation(v, {exponent}))"] = tanh(rescale(INT16, *cell_rescale(exponent)))
        wanted[f"ern_tanh_of_cell(v, {exponent})"] = table_tanh(INT16, exponent)
    wanted |= {"ern_operator_sigmoid(v)": table_sigmoid(INT16), "ern_operator_tanh(v)": table_tanh(INT16)}
    for gate, e in ((1, 15), (16384, 15), (32767, 15), (32767, 16), (16385, 18), (255, 21)):
        wanted[f"ern_scale(vdup_n_s16({gate}), v, {e})"] = sat16(round_shift(gate * INT16, e))
    body = "".join(f"  ALL({expression});\n" for expression in wanted)
    found = np.frombuffer(primitives(tmp_path, body), np.int16).reshape(len(wanted), -1)
    for expression, values in zip(wanted, found, strict=True):
        assert np.array_equal(values, wanted[expression]), expression


def test_the_view_of_every_value(tmp_path: Path) -> None:
    body = "  ern_view_of(in, 65536, view);\n  emit(view, sizeof view);\n  ern_view_of(in, 65533, view + 1);\n"
    found = np.frombuffer(primitives(tmp_path, f"{body}  emit(view + 1, 65533);"), np.int8)
    wanted = sat8(round_shift(INT16, 8))
    assert np.array_equal(found, np.concatenate([wanted, wanted[:65533]]))


@pytest.mark.parametrize("general", [False, True])
def test_requantize(general: bool, tmp_path: Path) -> None:
    """Blocks of no columns: biases, rescaled by multipliers of every shift that a row can have."""
    rng = np.random.default_rng(5)
    count = 4096
    left = 3
    shift = rng.integers(8, 47, count) if general else rng.integers(13, 30, count)
    multiplier = rng.integers(2**14, 2**15, count)
    edge = sat16(rng.integers(-33000, 33000, count)) * 2**shift // multiplier  # on all of the outputs' range
    bound = 2**31 - 1 >> (0 if general else left)
    acc = np.clip(edge + rng.integers(-2, 3, count), -bound, bound)
    packed = multiplier << 8 | shift if general else multiplier << 32 - left - shift
    rows = np.stack([acc.reshape(-1, 4), packed.reshape(-1, 4)], axis=1).astype(np.int32)
    body = f"""
  {array_text("rows", "int32_t", rows)}
  ern_stream s = {{view, rows}};
  for (n = 0; n < {count}; n += 4) ern_store(out + n, ern_rows(&s, view, 0, {"ERN_GENERAL" if general else left}));
  emit(out, {2 * count});"""
    found = np.frombuffer(primitives(tmp_path, body), np.int16)
    assert np.array_equal(found, requantize(acc, multiplier, shift))
