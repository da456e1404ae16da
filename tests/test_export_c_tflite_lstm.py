"""C exports of the profile tflite-lstm: CMSIS-NN's integers in every layout, on this computer and on the cores."""

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgernn._tflite_lstm import operator_multipliers
from edgernn.engines import ENGINES
from edgernn.export import to_c
from edgernn.export.c import TARGETS, slow_parts
from edgernn.export.c.layouts import GENERAL, LAYOUTS, Block, Layout
from edgernn.export.c.operator import factors, left
from edgernn.export.c.rows import Rows
from edgernn.export.c.source import array_text, kernel
from edgernn.export.c.tables import tables
from edgernn.firmware_sim import Stream, run
from edgernn.firmware_sim.emulation import CORES, Session, build
from edgernn.fixedpoint import rescale, sat16
from edgernn.qmodel import Affine, IntArray, QuantizedModel
from edgernn.simulate import simulate

from . import handwritten
from . import tflite_lstm_oracle as oracle
from .boundaries import boundary_values
from .firmware_host import NAME, STRICT, HostFirmware, compile_c, write_c
from .models import HEADS, changed, random_input, random_model
from .test_export_c import LAYOUTS as LAYOUT_TARGETS
from .test_export_c import SANITIZED
from .test_export_c_cores import _START
from .test_export_c_neon import ran

FLAVOUR: Final = "cmsis"
INPUT_SCALE: Final = float(np.float32(0.037))  # whose product with another scale has more bits than a float32
WITHOUT: Final = [target for target, layout in TARGETS.items() if not LAYOUTS[layout].operator]
TARGETS_WITH: Final = {target: layout for target, layout in TARGETS.items() if target not in WITHOUT}
each_core = pytest.mark.parametrize("core", CORES)
each_layout = pytest.mark.parametrize(
    "target",
    [target for target in LAYOUT_TARGETS.values() if target not in WITHOUT],
    ids=lambda target: TARGETS[target],
)


def drawn(seed: int, **kind: Any) -> QuantizedModel:
    """All heads, one or two layers, every other one saturating, and every fourth bidirectional."""
    usual: dict[str, Any] = {
        "layers": 1 + seed % 2,
        "head": HEADS[seed % 3],
        "saturating": seed % 2 == 1,
        "bidirectional": seed % 4 == 3,
    }
    return random_model(seed, "lstm", profile="tflite-lstm", **(usual | kind))


def far_apart(affine: Affine, limit: int) -> Affine:
    """Multipliers of one map of very different sizes: a gate's sums are large, another's must be shifted by seven."""
    scale = np.array([2.0**-12, 2.0**-30, 0.7, 100.0]) * affine.output_scale / affine.input_scale
    scale = np.repeat(scale, affine.rows // 4).astype(np.float32)
    bias = affine.bias >> 20
    if affine.bias.any():
        bias[0] = 2**25
    return dataclasses.replace(affine, weight=np.sign(affine.weight), bias=bias, weight_scale=scale)


def offset(affine: Affine, bias: int) -> Affine:
    """With an input's biases of up to this magnitude, which are pre-activations of up to 12,000."""
    own = affine.bias.astype(np.float64)
    largest = np.abs(own).max() or 1.0
    scale = 12e3 / (bias if own.any() else 2**14) * affine.output_scale / affine.input_scale
    scales = np.repeat(scale * np.array([0.9, 0.3, 0.5, 0.7]), affine.rows // 4).astype(np.float32)
    return dataclasses.replace(affine, bias=(own / largest * bias).astype(np.int32), weight_scale=scales)


def extreme(seed: int, **kind: Any) -> dict[str, QuantizedModel]:
    """Models whose sums or multipliers do not fit the fast ways of rescaling, by what they do not fit."""
    model = drawn(seed, layers=1, bidirectional=False, saturating=False, **kind)
    return {
        "far apart": changed(model, far_apart),
        "no packed sums": changed(model, lambda affine, limit: offset(affine, 2**26)),
        "32-bit sums": changed(model, lambda affine, limit: offset(affine, 2**31 - 2**21)),
    }


@each_layout
def test_the_integers_are_the_oracles(target: str, tmp_path: Path) -> None:
    """Of both directions with every head; `test_step_by_step_and_in_pieces` has one direction."""
    for seed in range(4):
        model = drawn(seed, bidirectional=seed > 0)
        x = random_input(model, 8, seed)
        firmware = HostFirmware(model, tmp_path / str(seed), target)
        assert np.array_equal(firmware.run(x), oracle.run(model, x, FLAVOUR)), f"seed {seed}"


@each_layout
def test_sums_and_multipliers_of_any_size(target: str, tmp_path: Path) -> None:
    for kind, model in extreme(5, hidden_size=6, head=None).items():
        x = random_input(model, 8, 5)
        firmware = HostFirmware(model, tmp_path / kind.replace(" ", "_"), target)
        assert np.array_equal(firmware.run(x), oracle.run(model, x, FLAVOUR)), kind


def test_slow_parts_are_named() -> None:
    """Those whose sums leave 32 bits on the way; no distance of multipliers makes any slow."""
    slow = {kind: [slow_parts(model, target) for target in TARGETS_WITH] for kind, model in extreme(5).items()}
    assert slow == {kind: [["layer_0"] if kind == "32-bit sums" else []] * len(TARGETS_WITH) for kind in slow}
    usual = [slow_parts(drawn(seed), target) for seed in range(4) for target in TARGETS_WITH]
    assert usual == [[]] * 4 * len(TARGETS_WITH)


def test_targets_without_kernels_for_it_refuse() -> None:
    assert WITHOUT == ["x86-64"]
    for refused in (to_c, lambda *args: slow_parts(args[0], args[2])):
        with pytest.raises(ValueError, match="no kernels for x86-64 of the profile tflite-lstm: use"):
            refused(drawn(0), "model", "x86-64")


@each_layout
def test_sanitizers_find_nothing(target: str, tmp_path: Path) -> None:
    for number, model in enumerate([drawn(3), extreme(1, input_size=1)["32-bit sums"]]):
        folder = tmp_path / str(number)
        x = random_input(model, 5, number)
        write_c(model, folder, target, x, run(model, x, flavour=FLAVOUR)[0])
        compile_c(folder / f"{NAME}.c", folder / f"{NAME}_test.c", "-o", folder / "test", flags=SANITIZED)
        result = subprocess.run([folder / "test"], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, ""), f"case {number}"


@each_layout
def test_step_by_step_and_in_pieces(target: str, tmp_path: Path) -> None:
    for seed, head in enumerate(("last", None)):
        model = drawn(seed, layers=2, head=head, bidirectional=False)
        x = random_input(model, 9, seed)
        firmware, stream = HostFirmware(model, tmp_path / str(seed), target), Stream(model, FLAVOUR)
        firmware.state[:] = 77
        firmware.reset()
        for t in range(4):
            y = np.zeros(model.output_size, np.int8)
            firmware.step(x[t], y)
            assert np.array_equal(y, stream.step(x[t]))
        firmware.step(x[4], None)
        firmware.skip(x[5:7])
        whole = run(model, x, flavour=FLAVOUR)[0]
        assert np.array_equal(firmware.run(x[7:]), whole[7:] if model.every_step else whole)


def test_the_header_tells_the_profile_and_the_states() -> None:
    """Hidden states are bytes, cell states half-words; sizes rounded up to four."""
    model = drawn(2, layers=2, hidden_size=5, head=None, bidirectional=False)
    text = to_c(model, "net", "cortex-m4")["net.h"]
    assert '#define NET_PROFILE "tflite-lstm"' in text
    assert "typedef int8_t net_output_t;" in text
    assert re.findall(r"int\d+_t [hc]_\d\[\d+\]", text) == [
        "int8_t h_0[8]",
        "int16_t c_0[8]",
        "int8_t h_1[8]",
        "int16_t c_1[8]",
    ]
    assert '#define NET_PROFILE "portable"' in to_c(random_model(0), "net")["net.h"]


# ---- gates: the rescaling of every layout ----------------------------------------------------------------------------

_GATE = """
static int wrong_{case}(void) {{
  static const ern_layer layer = {{{{{stream}}}, {rows}, {unit}, {unit}, {lefts}, 12}};
  static const ern_factor factors[2] = {{{factors}}};
  static ern_operand operands[2 * {unit}];
  int16_t found[ERN_UNITS];
  ern_stream s = layer.stream;
  int u, n, wrong = 0;
  for (u = 0; u < {rows}; u += ERN_UNITS) {{
    ern_value p[ERN_VALUES];
    ern_operator_gate(&s, &layer, factors, operands, p);
    for (n = 0; n < ERN_VALUES; n++) ern_store(found + n * ERN_LANES, ern_saturated(p[n]));
    for (n = 0; n < ERN_UNITS; n++) wrong += found[n] != expected_{case}[u + n];
  }}
  return wrong;
}}
"""
_MAIN = """
int model_test(void);
int model_test(void) {{
  return {sum};
}}
#ifndef EDGERNN_NO_MAIN
int main(void) {{ return model_test() != 0; }}
#endif
"""
ROWS: Final = 512
MULTIPLIERS: Final = (
    (0.3, 0.07),
    (1.7, 0.6),
    (0.5, 2.0**-9),
    (2.0**-12, 5.3),
    (3e-6, 1e-3),
    (60.0, 0.9),
    (3.1e-9, 0.11),
)


def gates(layout_name: str) -> str:
    """A program that makes pre-activations of sums (the biases of rows of zeros), and tells how many are wrong: for
    every pair of MULTIPLIERS of sums of 22 bits, which may be packed, and of 31."""
    layout = LAYOUTS[layout_name]
    cases = [
        ([sums_of(one, bits, seed) for seed, one in enumerate(pair)], pair) for pair in MULTIPLIERS for bits in (22, 31)
    ]
    return "\n".join(
        [
            "#include <stdint.h>",
            "#define ERN_W8A16 0",
            f"#define ERN_BLOCK {layout.block}",
            kernel("common.h"),
            *(array_text(name, f"{values.dtype}_t", values) for name, values in tables(layout.table).items()),
            *(kernel(file) for file in (*layout.kernels, "cells.h", *layout.operator)),
            *(text for case, (sums, m) in enumerate(cases) for text in _gate(layout, case, sums, m)),
            _MAIN.format(sum=" + ".join(f"wrong_{case}()" for case in range(len(cases)))),
        ]
    )


def _gate(layout: Layout, case: int, sums: list[IntArray], m: tuple[float, float]) -> Iterator[str]:
    affines = [_zeros(one, scale) for one, scale in zip(sums, m, strict=True)]
    maps = [Rows.of_operator(affine) for affine in affines]
    lefts = [left(layout, one, 128) for one in maps]
    step = layout.group // 4
    starts = [start + part for start in range(0, ROWS, layout.group) for part in range(step)]
    blocks = [
        Block(one, tuple(range(start, start + layout.group, step)), shift)
        for start in starts
        for one, shift in zip(maps, lefts, strict=True)
    ]
    names = [f"{name}_{case}" for name in layout.arrays]
    for name, kind, values in zip(names, layout.arrays.values(), layout.pack(blocks, layout.unit), strict=True):
        yield array_text(name, kind, values)
    shares = [
        rescale(one, *(v[0] for v in operator_multipliers(INPUT_SCALE, affine.weight_scale, FLAVOUR)))
        for one, affine in zip(sums, affines, strict=True)
    ]
    yield array_text(f"expected_{case}", "int16_t", sat16(sat16(shares[0]) + shares[1]))
    yield _GATE.format(
        case=case,
        stream=", ".join(names),
        rows=ROWS,
        unit=layout.columns(1),
        lefts=", ".join("ERN_GENERAL" if one == GENERAL else str(one) for one in lefts),
        factors=", ".join("{" + ", ".join(map(str, row)) + "}" for row in factors(maps, ROWS).tolist()),
    )


def _zeros(bias: IntArray, m: float) -> Affine:
    scale = np.full(len(bias), m / INPUT_SCALE * 2.0**-12, np.float32)
    return Affine(np.zeros((len(bias), 1), np.int8), bias.astype(np.int32), scale, INPUT_SCALE, 2.0**-12)


def sums_of(m: float, bits: int, seed: int) -> IntArray:
    """Where halves come out of a multiplication by m, and at the limits of so many bits."""
    rng = np.random.default_rng(seed)
    bound = min(2**bits, int((2**31 - 2**16) / max(1.0, 2 * m))) - 1
    halves = np.rint((rng.integers(-33000, 33000, ROWS - 200) + 0.5) / m) + rng.integers(-2, 3, ROWS - 200)
    picked = np.concatenate([rng.choice(boundary_values(bits + 1, seed), 200), halves])
    sums: IntArray = np.clip(picked, -bound, bound).astype(np.int64)
    return sums


@pytest.mark.parametrize("layout", sorted(set(TARGETS_WITH.values())))
def test_gates(layout: str, tmp_path: Path) -> None:
    (tmp_path / "gates.c").write_text(gates(layout))
    compile_c(tmp_path / "gates.c", "-o", tmp_path / "gates", flags=("-O1", "-fsanitize=undefined"))
    done = subprocess.run([tmp_path / "gates"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_gates_on_the_core(core: str) -> None:
    with Session(build(core, {**handwritten.SOURCES, "model_test.c": gates(TARGETS[core])})) as session:
        assert session.self_test() == 0


def test_gates_on_a_raspberry_pi(tmp_path: Path) -> None:
    (tmp_path / "gates.c").write_text(gates("neon"))
    assert ran(tmp_path, "cortex-a72", "gates.c", "-Wno-unused-function").returncode == 0


# ---- the cores -------------------------------------------------------------------------------------------------------


@each_core
def test_outputs_and_states_on_the_core(core: str) -> None:
    """From a state of any integers."""
    number = list(CORES).index(core)
    rng = np.random.default_rng(number)
    model = drawn(number, head=None, layers=2, bidirectional=False)
    x = random_input(model, 12, number)
    before: dict[str, IntArray] = {
        name: rng.integers(np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max + 1, spec.size).astype(spec.dtype)
        for name, spec in model.states.items()
    }
    y, after = run(model, x, before, FLAVOUR)
    with Session(build(core, to_c(model, "model", core))) as session:
        session.state = before
        assert np.array_equal(session.run(x, from_zero=False), y)
        found = session.state
    for name, values in after.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name][: len(values)], values), name


@pytest.mark.parametrize("level", ["-O2", "-Os"])
@each_core
def test_the_object_needs_nothing(core: str, level: str, tmp_path: Path) -> None:
    """Neither a library's functions nor a compiler's: no product or shift of 64 bits where the core has none."""
    one = CORES[core]
    sizes = {"input_size": 40, "hidden_size": 36}
    for model in (drawn(7, **sizes, layers=2, head=None), extreme(6, **sizes, head=None)["32-bit sums"]):
        write_c(model, tmp_path, core)
        made = tmp_path / f"{NAME}.o"
        flags = [*one.flags, level, *STRICT, "-ffreestanding"]
        command = [one.compiler, *flags, "-c", str(tmp_path / f"{NAME}.c"), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        nm = one.compiler.replace("-gcc", "-nm")
        assert subprocess.run([nm, "-u", made], capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76"])
def test_a_model_on_a_raspberry_pi(core: str, tmp_path: Path) -> None:
    for number, model in enumerate([drawn(1), drawn(3), extreme(4)["32-bit sums"]]):
        x = random_input(model, 20, number)
        for file, text in to_c(model, "net", "raspberry-pi", (x, run(model, x, flavour=FLAVOUR)[0])).items():
            (tmp_path / file).write_text(text)
        assert ran(tmp_path, core, "net.c", "net_test.c").returncode == 0, f"case {number}"


@each_layout
def test_big_endian(target: str, tmp_path: Path) -> None:
    flags = ["-march=armv7-a", "-mthumb", "-mbig-endian", "-mfloat-abi=soft", "-O2", "-ffreestanding", "-nostdlib"]
    (tmp_path / "start.S").write_text(_START)
    model = drawn(4)
    x = random_input(model, 9, 5)
    write_c(model, tmp_path, target, x, run(model, x, flavour=FLAVOUR)[0])
    sources = [str(tmp_path / name) for name in ("start.S", f"{NAME}.c", f"{NAME}_test.c")]
    command = ["arm-none-eabi-gcc", *flags, "-static", "-Wl,--be8", *sources, "-o", str(tmp_path / "test")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["qemu-armeb", str(tmp_path / "test")]).returncode == 0


# ---- engines and costs -----------------------------------------------------------------------------------------------


def test_the_engine_of_a_core() -> None:
    """In the flavour cmsis, with its forms: whole sequences and steps."""
    engine = ENGINES["qemu-cortex-m4"]
    model = drawn(1, layers=2, head="steps")
    x = random_input(model, 9, 1)
    assert (engine.flavour, engine.forms_of(model)) == (FLAVOUR, ("sequence", "step"))
    assert np.array_equal(engine.run(model, x), run(model, x, flavour=FLAVOUR)[0])
    stepper, stream = engine.stream(model), Stream(model, FLAVOUR)
    for t in range(4):
        assert np.array_equal(stepper.step(x[t]), stream.step(x[t]))
    for name, values in stream.state.items():
        assert stepper.state[name].dtype == values.dtype
        assert np.array_equal(stepper.state[name], values), name


def test_costs_are_counted() -> None:
    """And compared with the flavour cmsis: that of LiteRT has other outputs here."""
    model = drawn(0, hidden_size=16, head="steps")
    x = random_input(model, 32, 0)
    cmsis, litert = (run(model, x, flavour=flavour)[0] for flavour in (FLAVOUR, "litert"))
    assert not np.array_equal(cmsis, litert)
    assert simulate(model, "cortex-m0", steps=32, x=x).equals_kernel
