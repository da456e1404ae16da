"""What a model costs: counted against analytic, sums, boards, and the command line."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn import export
from edgernn.cli import main
from edgernn.cli.simulate import _joules
from edgernn.firmware_sim.cycles import CORES, Part, cycles, disassemble, find_board, instructions
from edgernn.firmware_sim.cycles.fitted import fitted, fitted_head, kind_of, table, variant
from edgernn.firmware_sim.emulation import build, count
from edgernn.qmodel import QuantizedModel, Scheme
from edgernn.simulate import Level, Simulation, missing, named_board, simulate

from .command_line import fail, subprocess_of, succeed, succeed_json
from .models import SCHEMES, VARIANTS, Variant, changed, random_input, random_model

SEED = 7
LEVELS: tuple[Level, Level] = ("analytic", "counted")


def total(found: Simulation, which: Callable[[Part], float], once: bool) -> float:
    return sum(which(part) for part in found.parts if part.once == once)


# ---- counted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55", "rv32imc"])
def test_a_run_is_counted_whole(core: str) -> None:
    """Parts, and prices of their instructions, against the sums over the whole run."""
    model = random_model(SEED, "gru", layers=2, hidden_size=6, head="last")
    x = random_input(model, 5, SEED)
    found = simulate(model, core, steps=5, x=x)
    assert found.level == "counted", f"apt install: {missing(core)}"
    assert found.equals_kernel is True
    assert [part.name for part in found.parts] == ["other", "layer_0", "layer_1", "head"]
    assert [part.once for part in found.parts] == [True, False, False, True]

    firmware = build(core, export.to_c(model, target=core))
    counts = count(firmware, x)
    assert round(found.inference.instructions, 6) == counts.total
    assert found.instruction_error == 0
    listing = disassemble(firmware.content, core)
    executed, taken = (
        {int(a): int(of[counts.address == a].sum()) for a in np.unique(counts.address)}
        for of in (counts.executed, counts.taken)
    )
    whole = cycles(core, instructions(listing, executed, taken))
    assert found.inference.core_cycles == pytest.approx(whole, rel=0.02)  # parts break pairs between neighbours
    assert 0 < found.memory.stack < 2048
    assert found.memory.flash == firmware.sizes.flash


def test_an_inference_is_its_steps_and_one_answer() -> None:
    model = random_model(SEED, "lstm", hidden_size=8, head="last")
    board = find_board("nucleo-l4r5zi")
    found = simulate(model, "cortex-m4", board=board, steps=40)
    assert found.step.macs == model.layers[0].input.weight.size + model.layers[0].recurrent.weight.size
    assert model.head is not None
    assert found.inference.macs == 40 * found.step.macs + model.head.dense.weight.size
    once = total(found, lambda part: part.cycles, once=True)
    assert found.inference.core_cycles == pytest.approx(40 * found.step.core_cycles + once)
    assert found.step.core_cycles == total(found, lambda part: part.cycles, once=False)
    streamed = found.step.macs + 8 * 4 * 8 * 2  # 4 gates of 8 units in two maps: a bias and a multiplier a row
    assert found.step.flash_cycles == 5 / 8 * streamed
    assert found.step.seconds == pytest.approx(found.step.cycles / 120e6)
    assert found.step.joules == pytest.approx(100e-12 * found.step.cycles * 3.0)


def test_a_head_at_every_step_is_part_of_a_step() -> None:
    found = simulate(random_model(SEED, head="steps", hidden_size=8), "cortex-m4", steps=3)
    head = next(part for part in found.parts if part.name == "head")
    assert not head.once
    assert found.step.instructions == total(found, lambda part: part.instructions, once=False)


def test_both_directions_are_counted() -> None:
    model = random_model(SEED, hidden_size=8, layers=2, bidirectional=True)
    found = simulate(model, "cortex-m4", steps=6)
    assert found.equals_kernel is True
    names = ["other", "layer_0", "layer_0_reverse", "layer_1", "layer_1_reverse", "head"]
    assert [part.name for part in found.parts] == names
    assert found.inference.macs == sum(part.macs * (1 if part.once else 6) for part in found.parts)


def test_parts_stand_in_the_order_of_the_layers() -> None:
    model = random_model(SEED, "rnn", hidden_size=4, layers=12)
    names = [part.name for part in simulate(model, "cortex-m4", steps=2).parts]
    assert names == ["other", *(f"layer_{index}" for index in range(12)), "head"]


def test_the_clock_and_the_board_change_time_alone() -> None:
    model = random_model(SEED, hidden_size=8)
    slow, fast = (simulate(model, "cortex-m4", board=find_board("stm32f446"), clock=mhz * 1e6) for mhz in (30, 180))
    bare = simulate(model, "cortex-m4", clock=30e6)
    assert slow.step.core_cycles == fast.step.core_cycles == bare.step.core_cycles
    assert (slow.step.flash_cycles, bare.step.flash_cycles) == (0, 0)
    assert fast.step.flash_cycles > 0
    assert slow.step.seconds == bare.step.seconds
    assert simulate(model, "cortex-m4").step.seconds is None
    assert bare.step.joules is None


def test_wrong_firmware_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exporter that writes other weights: exit 1, and said in words."""
    model = random_model(SEED, "rnn", hidden_size=8, head="steps", output_size=4)
    model.save(tmp_path / "model.ernn")
    honest = export.to_c

    def flawed(one: QuantizedModel, *args: Any, **options: Any) -> dict[str, str]:
        mirrored = changed(one, lambda affine, _: dataclasses.replace(affine, weight=-affine.weight))
        return honest(mirrored, *args, **options)

    monkeypatch.setattr(export, "to_c", flawed)
    assert simulate(model, "cortex-m4", steps=4).equals_kernel is False
    assert main(["simulate", str(tmp_path / "model.ernn"), "--core", "cortex-m4"]) == 1
    assert "the emulated outputs DIFFER from the kernel's" in capsys.readouterr().out
    assert main(["simulate", str(tmp_path / "model.ernn"), "--core", "cortex-m4", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["equals_kernel"] is False


# ---- analytic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "cell", "kind"),
    [
        ("cortex-m0", "lstm", "w8a8"),
        ("cortex-m3", "gru", "w8a16"),
        ("cortex-m4", "gru", "w8a8"),
        ("cortex-m4", "rnn", "w8a16"),
        ("cortex-m33", "gru_before", "w8a8"),
        ("cortex-m55", "gru", "w8a8"),
        ("cortex-m55", "lstm", "w8a16"),
        ("rv32imc", "lstm", "w8a8"),
        ("cortex-m4", "lstm", "tflite-lstm"),
        ("cortex-m55", "lstm", "tflite-lstm"),
    ],
)
def test_the_formulas_hold_on_a_layer_of_another_shape(core: str, cell: Variant, kind: Any) -> None:
    shape: dict[str, Any] = {"input_size": 20, "hidden_size": 36, "head": "last", "output_size": 7}
    shape |= {"profile": kind} if kind == "tflite-lstm" else {"scheme": kind}
    model = random_model(SEED, cell, **shape)
    found, counted = simulate(model, core, steps=8, level="analytic"), simulate(model, core, steps=8)
    assert found.equals_kernel is None
    assert counted.equals_kernel is True
    relative = found.step.instructions / counted.step.instructions - 1
    assert abs(relative) < 1.5 * found.instruction_error + 0.01, (
        f"{core} {cell} {kind}: {relative:+.2%}; kernels changed? python -m tests.benchmarks.firmware_fit"
    )
    assert found.cycle_error > CORES[core].error
    assert found.inference.macs == counted.inference.macs
    assert found.memory.state == counted.memory.state
    assert found.memory.tables == counted.memory.tables
    assert found.memory.flash == pytest.approx(counted.memory.flash, rel=0.25)


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m3", "cortex-m55", "rv32imc"])
@pytest.mark.parametrize("saturating", [False, True])
def test_small_and_saturating_models_stay_within_the_errors(core: str, saturating: bool) -> None:
    size = 24 if saturating else 3
    cases: tuple[tuple[Variant, Scheme], ...] = (("lstm", "w8a8"), ("gru", "w8a16"))
    for cell, scheme in cases:
        model = random_model(
            SEED, cell, scheme, input_size=size, hidden_size=size + 8, saturating=saturating, head=None
        )
        found, counted = (simulate(model, core, steps=8, level=level) for level in LEVELS)
        relative = found.step.instructions / counted.step.instructions - 1
        assert abs(relative) < 1.5 * found.instruction_error + 0.01, f"{core} {cell} {scheme}: {relative:+.2%}"


@pytest.mark.parametrize("core", CORES)
def test_tables_are_those_of_the_image_and_the_stack_is_no_deeper_than_said(core: str) -> None:
    for index, (cell, scheme) in enumerate(itertools.product(VARIANTS, SCHEMES)):
        model = random_model(
            SEED + index,
            cell,
            scheme,
            hidden_size=11 + index,
            layers=1 + index % 2,
            bidirectional=index % 3 == 2,
            head="steps" if index % 2 else "last",
            output_size=9,
        )
        found, counted = (simulate(model, core, steps=4, level=level).memory for level in LEVELS)
        assert found.tables == counted.tables, f"{core} {cell} {scheme}"
        assert (found.state, found.work) == (counted.state, counted.work)
        assert found.stack >= counted.stack, f"{core} {cell} {scheme}"


def test_a_bidirectional_model_needs_memory_for_every_step() -> None:
    """Two layers without a head keep the first one's outputs, int16 on a core with int16 operands, int8 on another."""
    model = random_model(SEED, "gru", "w8a8", hidden_size=8, input_size=5, layers=2, bidirectional=True, head=None)
    for core, width in {"cortex-m4": 2, "rv32imc": 1}.items():
        for level in LEVELS:
            found = simulate(model, core, steps=50, level=level)
            assert found.memory.work == 50 * 2 * 8 * width
            assert found.memory.ram == found.memory.state + found.memory.stack + found.memory.work
            assert any("the whole input in memory: 250 bytes" in note for note in found.notes)
    board = find_board("microbit")
    simulate(model, "cortex-m0", board=board, steps=300, level="analytic")
    with pytest.raises(ValueError, match="of RAM, BBC micro:bit .* bytes too many"):
        simulate(model, "cortex-m0", board=board, steps=600, level="analytic")


def test_every_core_cell_and_kind_is_fitted() -> None:
    assert sorted(table()) == sorted(CORES)
    models: list[tuple[str, str, QuantizedModel]]
    models = [(cell, scheme, random_model(0, cell, scheme)) for cell in VARIANTS for scheme in SCHEMES]
    models.append(("lstm", "tflite-lstm", random_model(0, "lstm", profile="tflite-lstm")))
    for core in CORES:
        for cell, kind, model in models:
            assert 0 < fitted_head(core, model.scheme).error < 0.25
            assert (variant(model.layers[0]), kind_of(model)) == (cell, kind)
            entry = fitted(core, cell, kind)
            assert 0 < entry.layer.error <= entry.layer.small_error, f"{core} {cell} {kind}"
            assert entry.layer.error < 0.15, f"{core} {cell} {kind}"


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulate") / "model.ernn"
    random_model(SEED, "gru", input_size=12, hidden_size=16, head="last", output_size=4).save(path)
    return path


def test_one_core(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = succeed(capsys, "simulate", model_file, "--core", "cortex-m4", "--steps", "9")
    first, *lines = text.splitlines()
    assert first == "NUCLEO-L4R5ZI, Arm Cortex-M4 at 120 MHz, counted; cycles within 16% (doubtful)"
    assert text.count("doubtful") == 1
    assert max(len(line) for line in lines) <= 120
    assert any(line.split()[:2] == ["layer", "0"] and "#" in line for line in lines)
    for said in ("inference (9 steps)", "the emulated outputs equal the kernel's", "RAM", "flash", "uA/MHz", "exact"):
        assert said in text
    assert "unverified figures of NUCLEO-L4R5ZI" in text
    assert "50% (indicative)" in succeed(capsys, "simulate", model_file, "--core", "cortex-m55")
    assert succeed(capsys, "simulate", model_file, "--core", "cortex-m4", "--level", "analytic", "-q") == ""


def test_all_cores(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed_json(capsys, "simulate", model_file, "--level", "analytic", "--clock", "64e6", "--steps", "50")
    assert [entry["core"] for entry in found["cores"]] == list(CORES)
    assert {entry["clock"] for entry in found["cores"]} == {64e6}
    for entry in found["cores"]:
        assert entry["source"]
        assert 0 < entry["error"]["instructions"] < entry["error"]["cycles"]
        assert entry["inference"]["seconds"] == pytest.approx(entry["inference"]["cycles"] / 64e6)
    text = succeed(capsys, "simulate", model_file, "--level", "analytic")
    assert "indicative" in next(line for line in text.splitlines() if line.startswith("cortex-m55 "))
    assert "-: not known" in text
    assert max(len(line) for line in text.splitlines()[len(CORES) + 1 :]) <= 120


def test_a_clock_beyond_a_board_leaves_the_board_out_and_says_so(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = succeed(capsys, "simulate", model_file, "--level", "analytic", "--clock", "130e6")
    assert "cortex-m4: nucleo-l4r5zi runs at up to 120 MHz: no board\n" in text
    assert "rp2040 runs" not in text


def test_the_seed_draws_the_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a saturating model, whose activations branch."""
    random_model(SEED, "lstm", hidden_size=8, saturating=True).save(tmp_path / "model.ernn")
    command = ("simulate", tmp_path / "model.ernn", "--core", "cortex-m0", "--steps", "8", "--seed")
    counts = [succeed_json(capsys, *command, seed)["step"]["instructions"] for seed in ("1", "2", "1")]
    assert counts[0] == counts[2] != counts[1]


def test_a_program_in_ram_says_what_it_takes(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = succeed(capsys, "simulate", model_file, "--board", "rp2040", "--level", "analytic")
    assert "run there" in text
    assert "of its 270,336 bytes, the flash's content included" in text


@pytest.mark.parametrize(("joules", "shown"), [(2.5, "2.5 J"), (2.5e-3, "2.5 mJ"), (2.5e-6, "2.5 uJ"), (None, None)])
def test_energy_has_its_unit(joules: float | None, shown: str | None) -> None:
    assert _joules(joules) == shown


def test_the_data_set_gives_steps_and_inputs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed_json(capsys, "simulate", trained / "model.ernn", "--board", "nrf52840")
    assert (found["core"], found["board"], found["clock"]) == ("cortex-m4", "nrf52840", 64e6)
    assert found["steps"] == 15  # the median length of the vowels' test part
    assert found["equals_kernel"] is True
    assert found["unverified"]


def test_without_a_compiler_it_is_analytic_and_says_so(model_file: Path) -> None:
    hidden = "import os; os.environ['PATH'] = '/nonexistent'"
    done = subprocess_of("simulate", model_file, "--core", "cortex-m4", code=hidden)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NUCLEO-L4R5ZI, Arm Cortex-M4 at 120 MHz, analytic; cycles" in done.stdout
    assert "not counted: apt install gcc-arm-none-eabi qemu-system-arm gcc" in done.stdout
    asked = subprocess_of("simulate", model_file, "--core", "cortex-m4", "--level", "counted", code=hidden)
    assert asked.returncode == 2
    assert asked.stderr.count("\n") == 1
    assert "apt install gcc-arm-none-eabi qemu-system-arm gcc" in asked.stderr
    every = subprocess_of("simulate", model_file, "--level", "counted", code=hidden)
    assert (every.returncode, every.stdout) == (2, "")
    assert every.stderr.count("\n") == 1
    for package in ("gcc-arm-none-eabi", "qemu-system-arm", "gcc-riscv64-unknown-elf", "qemu-system-misc", "gcc"):
        assert every.stderr.split().count(package) == 1


WRONG = {
    "unknown core 'cortex-a53'; known are cortex-m0": ("--core", "cortex-a53"),
    "unknown board 'pico'; known are nucleo-l4r5zi": ("--board", "pico"),
    "NUCLEO-L4R5ZI runs at up to 120 MHz, not 168 MHz": ("--core", "cortex-m4", "--clock", "168e6"),
    "RP2040 has the core cortex-m0plus, not cortex-m4; boards with that: nucleo-l4r5zi": (
        "--core",
        "cortex-m4",
        "--board",
        "rp2040",
    ),
    "--core all and --board rp2040": ("--core", "all", "--board", "rp2040"),
    "the clock must be 1e3 to 1e10 Hz, not 80: in Hz, as 80e6": ("--clock", "80"),
    "the clock must be 1e3 to 1e10 Hz, not -1": ("--core", "cortex-m4", "--clock", "-1"),
    "the clock must be 1e3 to 1e10 Hz, not 1e-300": ("--core", "cortex-m4", "--clock", "1e-300"),
    "the clock must be 1e3 to 1e10 Hz, not inf": ("--clock", "inf"),
    "the clock must be 1e3 to 1e10 Hz, not nan": ("--clock", "nan"),
    "steps must be 1 to 2^32 - 1, not 4294967296": ("--core", "cortex-m4", "--steps", "4294967296"),
    "--steps: must be at least 1": ("--steps", "0"),
    "invalid choice: 'guess'": ("--level", "guess"),
    "the data": ("--data", "ecg"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_usage_is_one_line(message: str, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fail(capsys, message, "simulate", model_file, *WRONG[message])


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "model.ernn"
    random_model(SEED, "rnn", input_size=16, hidden_size=500, head="last").save(path)
    return path


def test_what_is_too_large_says_by_how_much(large_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """500 x 516 weights: more than the micro:bit's 256 KB of flash, less than the STM32G0B1's 512."""
    fail(capsys, "bytes too many", "simulate", large_file, "--core", "cortex-m0")
    fail(capsys, "exceeds 262,144 bytes of ROM by", "simulate", large_file, "--board", "none", "--core", "cortex-m0")
    text = succeed(capsys, "simulate", large_file, "--board", "stm32g0b1")
    assert "analytic" in text.splitlines()[0]
    assert "not counted: the model is too large for cortex-m0plus" in text


def test_one_core_too_small_leaves_the_others(large_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed_json(capsys, "simulate", large_file, "--level", "analytic")
    problems = {entry["core"]: entry["problem"] for entry in found["cores"] if "problem" in entry}
    assert list(problems) == ["cortex-m0"]
    assert "BBC micro:bit (nRF51822) has 262,144" in problems["cortex-m0"]


def test_boards_stand_for_their_cores() -> None:
    for core in CORES:
        board = named_board(None, core)
        assert board is None or board.core == core
    assert named_board("none", "cortex-m4") is None
    assert named_board("rp2040", "cortex-m0plus") is find_board("rp2040")


def test_parameters_are_checked() -> None:
    model = random_model(SEED, hidden_size=4)
    with pytest.raises(ValueError, match="steps must be 1 to 2.32 - 1, not 0"):
        simulate(model, "cortex-m4", steps=0)
    with pytest.raises(ValueError, match="the clock must be 1e3 to 1e10 Hz, not 0"):
        simulate(model, "cortex-m4", clock=0.0)
