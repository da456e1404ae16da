"""C exports on this computer: every layout's plain C, all warnings, sanitizers, the interface of the header."""

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgernn.export import to_c
from edgernn.export.c import TARGETS, slow_parts
from edgernn.firmware_sim import Stream, run
from edgernn.qmodel import Affine, QuantizedModel, Scheme

from . import oracle
from .firmware_host import NAME, HostFirmware, compile_c, write_c
from .models import HEADS, SCHEMES, VARIANTS, Variant, changed, random_input, random_model, with_directions

LAYOUTS = {layout: target for target, layout in reversed(TARGETS.items())}  # a target for each
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

each_layout = pytest.mark.parametrize("target", LAYOUTS.values(), ids=LAYOUTS)


@each_layout
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_the_integers_are_the_oracles(cell: Variant, scheme: Scheme, target: str, tmp_path: Path) -> None:
    for seed in range(4):
        model = random_model(seed, cell, scheme, head=HEADS[seed % 3], layers=1 + seed % 2, saturating=seed % 2 == 1)
        x = random_input(model, 8, seed)
        found = HostFirmware(model, tmp_path / str(seed), target).run(x)
        assert np.array_equal(found, oracle.run(model, x)), f"seed {seed}"


@each_layout
@pytest.mark.parametrize("head", HEADS)
def test_bidirectional_models_run_whole_sequences(head: str, target: str, tmp_path: Path) -> None:
    for seed, (cell, both) in enumerate(zip(VARIANTS, ([1], [1, 1, 1], [0, 1], [1, 0]), strict=True)):
        scheme = SCHEMES[seed % 2]
        model = random_model(seed, cell, scheme, head=head, layers=len(both), bidirectional=True)  # type: ignore[arg-type]
        model = with_directions(model, [bool(flag) for flag in both])
        firmware = HostFirmware(model, tmp_path / str(seed), target)
        for steps in (1, 2, 11):
            x = random_input(model, steps, seed)
            firmware.state[:] = 77  # it starts anew by itself
            assert np.array_equal(firmware.run(x), run(model, x)[0]), f"seed {seed}, {steps} steps"


@each_layout
@pytest.mark.parametrize("scheme", SCHEMES)
def test_sanitizers_find_nothing(scheme: Scheme, target: str, tmp_path: Path) -> None:
    """Odd sizes, saturation and both ways of requantizing; the state is as small as the header says."""
    cases = [
        random_model(
            seed, cell, scheme, layers=2, head=HEADS[seed % 3], saturating=seed % 2 == 0, bidirectional=seed == 3
        )
        for seed, cell in enumerate(VARIANTS)
    ]
    cases.append(narrow(random_model(9, "lstm", scheme, input_size=1, hidden_size=1)))
    for number, model in enumerate(cases):
        folder = tmp_path / str(number)
        x = random_input(model, 5, number)
        write_c(model, folder, target, x, run(model, x)[0])
        compile_c(folder / f"{NAME}.c", folder / f"{NAME}_test.c", "-o", folder / "test", flags=SANITIZED)
        result = subprocess.run([folder / "test"], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, ""), f"case {number}"


def narrow(model: QuantizedModel) -> QuantizedModel:
    """With multipliers of every size, beside each other in one map."""

    def spread(affine: Affine, limit: int) -> Affine:
        exponents = np.linspace(-31, 6, affine.rows)
        scale = 2.0**exponents * affine.output_scale / affine.input_scale
        weight = np.sign(affine.weight)
        weight[exponents > 0] *= np.int8(3)
        return dataclasses.replace(affine, weight=weight, weight_scale=scale.astype(np.float32), bias=affine.bias >> 20)

    return changed(model, spread)


def emptied(model: QuantizedModel) -> QuantizedModel:
    """With every third row empty, some of them with scales and biases far from the others'."""

    def pruned(affine: Affine, limit: int) -> Affine:
        weight, scale = affine.weight.copy(), np.full(affine.rows, 0.3 / 3072 / affine.input_scale, np.float32)
        weight[::3] = 0
        scale[::3] = np.float32(2.0**-30 * affine.output_scale / affine.input_scale)
        bias = affine.bias >> 8
        bias[3::6] = 2**30
        return dataclasses.replace(affine, weight=weight, weight_scale=scale, bias=bias)

    return changed(model, pruned)


@each_layout
def test_multipliers_of_any_size(target: str, tmp_path: Path) -> None:
    for seed, cell in enumerate(VARIANTS):
        model = narrow(random_model(seed, cell, SCHEMES[seed % 2], hidden_size=8, head=None))
        x = random_input(model, 6, seed)
        assert np.array_equal(HostFirmware(model, tmp_path / cell, target).run(x), oracle.run(model, x)), cell


@each_layout
def test_rows_that_pruning_emptied_are_constants(target: str, tmp_path: Path) -> None:
    """Their scales may be anything, and must not make the other rows slow: all maps keep a left shift."""
    for seed, cell in enumerate(VARIANTS):
        model = emptied(random_model(seed, cell, hidden_size=9, head=None))
        x = random_input(model, 6, seed)
        firmware = HostFirmware(model, tmp_path / cell, target)
        assert np.array_equal(firmware.run(x), oracle.run(model, x)), cell
        source = (tmp_path / cell / f"{NAME}.c").read_text()
        layers = re.findall(r"static const ern_layer \w+ = \{(.*?)\};", source, re.S)
        assert layers
        assert not any("ERN_GENERAL" in layer for layer in layers)


@each_layout
def test_step_by_step_and_in_pieces(target: str, tmp_path: Path) -> None:
    """As `Stream` has it, whatever the head; steps without output; run goes on from the state."""
    for seed, head in enumerate(HEADS):
        model = random_model(seed, VARIANTS[seed], layers=2, head=head)
        x = random_input(model, 9, seed)
        firmware, stream = HostFirmware(model, tmp_path / str(seed), target), Stream(model)
        firmware.reset()
        for t in range(4):
            y = np.zeros(model.output_size, model.output_dtype)
            firmware.step(x[t], y)
            assert np.array_equal(y, stream.step(x[t]))
        firmware.step(x[4], None)
        firmware.skip(x[5:7])
        whole = run(model, x)[0]
        assert np.array_equal(firmware.run(x[7:]), whole[7:] if model.every_step else whole)


def test_the_state_is_where_the_header_says(tmp_path: Path) -> None:
    """h_0, c_0, .. are the first fields, in the order of model.states: another engine's state can be written there."""
    model = random_model(3, "lstm", layers=2, hidden_size=6, head="last")
    x = random_input(model, 9, 3)
    _, state = run(model, x[:5])
    firmware = HostFirmware(model, tmp_path, "cortex-m4")
    firmware.reset()
    spans = firmware.state.view(np.int16)[: 8 * len(model.states)].reshape(len(model.states), 8)
    for row, name in zip(spans, model.states, strict=True):
        row[:6] = state[name]
    assert np.array_equal(firmware.run(x[5:]), run(model, x)[0])
    assert np.array_equal(spans[0, :6], run(model, x)[1]["h_0"])


def test_the_self_test_counts_wrong_integers(tmp_path: Path) -> None:
    model = random_model(1, "gru", head="steps", output_size=4)
    x = random_input(model, 6, 1)
    y = run(model, x)[0]
    y[2, 1] ^= 1
    y[5, 3] ^= 1
    write_c(model, tmp_path, "generic", x, y)
    (tmp_path / "main.c").write_text(f"int {NAME}_test(void);\nint main(void) {{ return {NAME}_test(); }}\n")
    compile_c(*tmp_path.glob("*.c"), "-o", tmp_path / "test", flags=("-DEDGERNN_NO_MAIN",))
    assert subprocess.run([tmp_path / "test"]).returncode == 2


def test_the_header_tells_what_the_model_is(tmp_path: Path) -> None:
    model = dataclasses.replace(random_model(2, "gru", input_size=5, output_size=2), labels=('a "b"', "ü?\\"))
    text = to_c(model, "Wave1", "cortex-m33")["Wave1.h"]
    program = r"""
    #include <stdio.h>
    #include "Wave1.h"
    int main(void) {
      static const char *const labels[] = WAVE1_LABELS;
      static const float mean[] = WAVE1_INPUT_MEAN, std[] = WAVE1_INPUT_STD;
      printf("%s|%s|%d|%d|%.9g|%d|%.9g|%d|%d|%d|%s|%s|%.9g|%.9g\n", WAVE1_MODEL_HASH, WAVE1_TARGET, WAVE1_INPUT_SIZE,
             WAVE1_OUTPUT_SIZE, (double)WAVE1_INPUT_SCALE, WAVE1_INPUT_ZERO_POINT, (double)WAVE1_OUTPUT_SCALE,
             WAVE1_EVERY_STEP, WAVE1_MACS_PER_STEP, WAVE1_STATE_BYTES == (int)sizeof(Wave1_state_t), labels[0],
             labels[1], (double)mean[4], (double)std[4]);
      return 0;
    }"""
    (tmp_path / "Wave1.h").write_text(text)
    (tmp_path / "main.c").write_text(program)
    compile_c(tmp_path / "main.c", "-o", tmp_path / "main")
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.rstrip().split("|")
    hidden = model.layers[0].hidden_size
    macs = 3 * hidden * (5 + hidden)
    assert printed[:4] == [model.fingerprint, "cortex-m33", "5", "2"]
    assert np.float32(printed[4]) == np.float32(model.input_scale)
    assert printed[5] == str(model.input_zero_point)
    assert np.float32(printed[6]) == np.float32(model.output_scale)
    assert printed[7:12] == ["0", str(macs), "1", *model.labels]
    assert np.array_equal(np.array(printed[12:], np.float32), [model.input_mean[4], model.input_std[4]])


def test_slow_parts_are_named() -> None:
    model = random_model(2, "gru", hidden_size=8, per_tensor=True)
    assert [slow_parts(model, target) for target in TARGETS] == [[]] * len(TARGETS)
    assert slow_parts(narrow(model), "cortex-m4") == slow_parts(narrow(model), "generic") == ["layer_0"]


def test_two_models_in_one_program(tmp_path: Path) -> None:
    """No symbol but those that begin with the name is visible from outside."""
    for name, cell in (("one", "gru"), ("two", "lstm")):
        for file, text in to_c(random_model(1, cell), name, "cortex-m4").items():  # type: ignore[arg-type]
            (tmp_path / file).write_text(text)
        compile_c("-c", tmp_path / f"{name}.c", "-o", tmp_path / f"{name}.o")
    listed = subprocess.run(["nm", *tmp_path.glob("*.o")], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listed.splitlines() if len(line.split()) >= 2]
    assert {name for kind, name in symbols if kind in "TDBR"} == {
        f"{name}_{verb}" for name in ("one", "two") for verb in ("reset", "step", "run")
    }
    assert {name for kind, name in symbols if kind == "U"} <= {"_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "1st"}, "'1st' is no C identifier"),
        ({"name": "my-model"}, "'my-model' is no C identifier"),
        ({"name": "naïve"}, "is no C identifier"),
        ({"name": ""}, "is no C identifier"),
        ({"name": "n" * 41}, "40 at most"),
        ({"name": "switch"}, "meaning of its own"),
        ({"name": "ern_x"}, "meaning of its own"),
        ({"name": "Ern"}, "meaning of its own"),
        ({"name": "arm_mve"}, "meaning of its own"),
        ({"name": "con"}, "meaning of its own"),
        ({"name": "String"}, "meaning of its own"),
        ({"target": "cortex-m99"}, "unknown target 'cortex-m99'; known are generic, cortex-m0"),
        ({"vectors": (np.zeros((3, 4), np.int8), np.zeros(2, np.int8))}, "vectors' outputs are int8 (2,)"),
        ({"vectors": (np.zeros((3, 4), np.int16), np.zeros(3, np.int8))}, "dtype int16"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        to_c(random_model(0, input_size=4), **arguments)  # type: ignore[arg-type]
