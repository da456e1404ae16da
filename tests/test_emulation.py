"""Firmware in the emulator, on sources written by hand: outputs, states, exact counts, and what goes wrong."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgernn.export.c import to_c
from edgernn.firmware_sim import run
from edgernn.firmware_sim.emulation import CORES, Firmware, Session, build, cores, count, counts, missing, version
from edgernn.qmodel import IntArray

from . import handwritten
from .command_line import ROOT
from .handwritten import SOURCES, expected, inputs
from .models import random_input, random_model

FOUR = ("cortex-m0", "cortex-m4", "cortex-m55", "rv32imc")


@pytest.fixture(scope="module", params=CORES)
def firmware(request: pytest.FixtureRequest) -> Firmware:
    return build(request.param, SOURCES)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'tool (package 1.0) 12.3.4'", "12.3.4"),
        ("echo no number", "unknown"),
        ("exec sleep 100", "unknown"),
        ("read line; echo 1.2", "1.2"),
    ],
)
def test_the_version_of_a_program(script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not end, or that waits for input, holds nobody up."""
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert cores._PATIENCE <= 5
    monkeypatch.setattr(cores, "_PATIENCE", 0.5 if "sleep" in script else 5.0)
    assert version("tool") == said


def test_everything_is_here() -> None:
    """The tests below are worth nothing for a core that cannot be emulated."""
    assert {core: missing(core) for core in CORES} == dict.fromkeys(CORES)


def test_outputs_and_states(firmware: Firmware) -> None:
    """Also of a sequence that no RAM holds."""
    x = inputs(50)
    with Session(firmware) as session:
        assert np.array_equal(session.run(x), expected(x))
        assert np.array_equal(session.run(x[:7]), expected(x[:7]))  # from zero again
        assert np.array_equal(session.run(x[7:], from_zero=False), expected(x)[7:])
        session.reset()
        assert not session.state["h_0"].any()
        assert np.array_equal(np.concatenate([session.step(x[:1]), session.step(x[1:])]), expected(x))
        assert np.array_equal(session.state["h_0"], expected(x)[-1])
        session.state = {"h_0": np.array([-300, 7], np.int16)}
        assert np.array_equal(session.step(x), expected(x, np.array([-300, 7])))
        long = np.tile(x, (CORES["cortex-m0"].ram.size // 100, 1))
        assert np.array_equal(session.run(long), expected(long))


def test_what_is_no_input_or_state_is_refused(firmware: Firmware) -> None:
    x = inputs(4)
    with Session(firmware) as session:
        for wrong in (x[:0], x[0], x[:, :2], x.astype(np.int16)):
            with pytest.raises(ValueError, match=r"the firmware takes int8 \[T, 3\]"):
                session.run(wrong)
        for state in ({}, {"c_0": np.zeros(2, np.int16)}, {"h_0": np.zeros(3, np.int16)}):
            with pytest.raises(ValueError, match=r"the firmware's states are h_0 \[2\]"):
                session.state = state
        with pytest.raises(ValueError, match="the sources have no model_test.c"):
            session.self_test()
        assert np.array_equal(session.run(x), expected(x))


def test_the_sources_own_test_is_run() -> None:
    test = (
        '#include "model.h"\nint model_test(void) { return 17; }\n#ifndef EDGERNN_NO_MAIN\nint main(void) {}\n#endif\n'
    )
    for core in FOUR:
        with Session(build(core, SOURCES | {"model_test.c": test})) as session:
            assert session.self_test() == 17


def test_a_model_may_be_called_like_a_file_of_the_driver() -> None:
    for name in ("harness", "memory", "startup_arm"):
        sources = {file.replace("model", name): text.replace("model", name) for file, text in SOURCES.items()}
        sources = {file: text.replace("MODEL", name.upper()) for file, text in sources.items()}
        image = build("cortex-m4", sources, name)
        assert image.sizes == build("cortex-m4", SOURCES).sizes
        with Session(image) as session:
            assert np.array_equal(session.run(inputs(3)), expected(inputs(3)))


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_counts_are_exact_and_the_same_twice(firmware: Firmware) -> None:
    x = inputs(6)
    found = count(firmware, x)
    assert found.parts == ("other", "layer_0", "head")
    assert np.array_equal(found.outputs, expected(x))
    head = firmware.elf.symbols["model_head"]
    inside = (found.address >= head.address) & (found.address < head.address + head.size)
    assert found.executed[inside].tolist() == [6, 60, 60, 6]
    assert found.taken[inside].tolist() == [0, 0, 54, 6]
    assert {found.parts[number] for number in found.part[inside]} == {"head"}
    entry = found.address == firmware.elf.symbols["model_layer_0"].address
    assert found.executed[entry].tolist() == [6]
    assert sum(found.by_part().values()) == found.total == found.executed.sum()
    text = firmware.elf.sections[".text"]
    assert ((found.address >= text.address) & (found.address < text.address + text.size)).all()
    again = count(firmware, x)
    for name in ("part", "address", "executed", "taken"):
        assert np.array_equal(getattr(found, name), getattr(again, name)), name
    assert found.stack == again.stack
    assert 0 < found.stack < 200


def test_counts_of_twice_the_steps_differ_by_these_steps(firmware: Firmware) -> None:
    """What comes before and after them is counted once, and of single steps there is nothing else."""
    one, two, four = (count(firmware, np.tile(inputs(1), (steps, 1))).total for steps in (1, 2, 4))
    assert four - two == 2 * (two - one)
    alone = [count(firmware, np.tile(inputs(1), (steps, 1)), stepwise=True).total for steps in (1, 3)]
    assert alone[1] == 3 * alone[0]


def test_the_parts_of_a_network_are_told_apart() -> None:
    """Of a real export: every part runs once a step (the head, of the last step, once)."""
    model = random_model(3, "gru", layers=2, head="last", bidirectional=True)
    x = random_input(model, 5, seed=1)
    for core in FOUR:
        image = build(core, to_c(model, "net", core), "net")
        found = count(image, x)
        names = ["layer_0", "layer_0_reverse", "layer_1", "layer_1_reverse", "head"]
        assert list(found.parts) == ["other", *names]
        executed = dict(zip(zip(found.part.tolist(), found.address.tolist(), strict=True), found.executed, strict=True))
        entered = {name: executed[number, image.parts[name]] for number, name in enumerate(names, 1)}
        assert entered == {name: 1 if name == "head" else 5 for name in names}
        assert np.array_equal(found.outputs, run(model, x)[0])


def test_the_plugin_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts._plugin.cache_clear()
    image = build("cortex-m4", SOURCES)
    total = count(image, inputs(2)).total
    (made,) = (tmp_path / "edgernn").iterdir()
    age = made.stat().st_mtime_ns
    counts._plugin.cache_clear()
    assert count(image, inputs(2)).total == total
    assert made.stat().st_mtime_ns == age
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # no folder can be made there
    counts._plugin.cache_clear()
    assert count(image, inputs(2)).total == total
    counts._plugin.cache_clear()


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_sizes_are_the_models_alone(firmware: Firmware) -> None:
    more = SOURCES | {
        "model.c": SOURCES["model.c"]
        .replace(
            "static const int8_t weight[6]",
            "static int32_t kept[5] = {1}, zeros[9];\nextern const uint8_t table[100];\nstatic const int8_t weight[6]",
        )
        .replace("PLACE;", "kept[x[0] & 3] += table[x[1] & 63]; zeros[x[0] & 7]++;"),
        "table.c": "#include <stdint.h>\nconst uint8_t table[100] = {1};\n",
    }
    plain, larger = firmware.sizes, build(firmware.core.name, more).sizes
    assert plain.state == 16
    assert (plain.data, plain.zeros) == (0, 0)
    assert 50 < plain.code < 400
    assert plain.flash == plain.code + plain.tables + plain.data
    assert larger.tables - plain.tables == pytest.approx(100, abs=8)
    assert (larger.data, larger.zeros) == (24, 36)  # 20 bytes of data up to a multiple of 8


def test_the_elf_reader_finds_what_nm_finds(tmp_path: Path) -> None:
    for core in ("cortex-m4", "rv32imc"):
        image = build(core, SOURCES)
        (tmp_path / "image").write_bytes(image.content)
        nm = image.core.compiler.replace("gcc", "nm")
        lines = subprocess.run([nm, tmp_path / "image"], capture_output=True, text=True, check=True).stdout.splitlines()
        for address, kind, name in (line.split() for line in lines):
            if name.startswith(("model_", "harness_", "stack_", "edgernn_")):
                assert image.elf.symbols[name].address == int(address, 16) & ~(kind in "tT" and core != "rv32imc"), name


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown core 'cortex-m4f'; known are cortex-m0, "):
        build("cortex-m4f", SOURCES)
    with pytest.raises(ValueError, match=r"the sources must hold net.h and net.c, not model.h, model.c"):
        build("cortex-m4", SOURCES, "net")
    with pytest.raises(ValueError, match="must be the name of a file, without a folder"):
        build("cortex-m4", SOURCES | {"../model_test.c": ""})
    with pytest.raises(ValueError, match=r"arm-none-eabi-gcc refuses the sources: model.c:\d+:\d+: error: .*nonsense"):
        build("cortex-m4", SOURCES | {"model.c": SOURCES["model.c"] + "nonsense nonsense;"})
    with pytest.raises(ValueError, match="refuses the sources: .*undefined reference to `absent'"):
        build(
            "rv32imc",
            SOURCES | {"model.c": SOURCES["model.c"].replace("PLACE;", "extern void absent(void); absent();")},
        )


def test_a_model_too_large_says_by_how_much() -> None:
    table = "__attribute__((used)) static const uint8_t weight_0[%d] = {1};\nstatic const int8_t weight[6]"
    use = "state->h_0[0] += weight_0[x[0] & 127];"

    def sources(size: int) -> dict[str, str]:
        text = SOURCES["model.c"].replace("static const int8_t weight[6]", table % size).replace("PLACE;", use)
        return SOURCES | {"model.c": text}

    with pytest.raises(
        ValueError, match=r"too large for cortex-m0: it exceeds 262,144 bytes of ROM by [\d,]+ bytes"
    ) as one:
        build("cortex-m0", sources(300_000))
    with pytest.raises(MemoryError) as other:
        build("cortex-m0", sources(300_512))
    by = [int(str(error.value).split(" by ")[1].split()[0].replace(",", "")) for error in (one, other)]
    assert by[1] - by[0] == 512
    build("cortex-m4", sources(300_000))
    state = SOURCES | {"model.h": SOURCES["model.h"].replace("scratch[3]", "scratch[5000]")}
    with pytest.raises(ValueError, match=r"it exceeds 16,384 bytes of RAM by [\d,]+ bytes"):
        build("cortex-m0", state)


@pytest.mark.parametrize("core", FOUR)
def test_a_missing_program_is_named_with_its_command(
    core: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = build(core, SOURCES)
    compiler, emulator = image.core.tools
    packages = (
        ("gcc-riscv64-unknown-elf", "qemu-system-misc")
        if core == "rv32imc"
        else ("gcc-arm-none-eabi", "qemu-system-arm")
    )
    where = {tool: shutil.which(tool) for tool in (compiler, emulator)}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing(core) == f"apt install {' '.join(packages)}"
    with pytest.raises(ValueError, match=f"^compiling for {core} needs {compiler}: apt install {packages[0]}$"):
        build(core, SOURCES)
    with pytest.raises(ValueError, match=f"^emulating {core} needs {emulator}: apt install {packages[1]}$"):
        Session(image)
    (tmp_path / emulator).symlink_to(where[emulator] or "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts._plugin.cache_clear()
    with pytest.raises(ValueError, match="^counting instructions needs gcc: apt install gcc$"):
        count(image, inputs(2))


@pytest.fixture(scope="module", params=FOUR)
def misbehaving(request: pytest.FixtureRequest) -> Firmware:
    return build(request.param, handwritten.misbehaving())


def message(firmware: Firmware, cause: int, limit: float | None = None) -> str:
    """What is said when the third of four steps goes wrong."""
    x = inputs(4)
    session = Session(firmware, limit)
    assert np.array_equal(session.run(x), expected(x))
    x[2, 0] = cause
    with pytest.raises(RuntimeError, match=f"^{firmware.core.name}: ") as error:
        session.run(x)
    with pytest.raises(RuntimeError, match="the emulator has ended; open the model again"):
        session.run(x)
    return str(error.value)


def test_a_fault_gives_the_registers(misbehaving: Firmware) -> None:
    text = message(misbehaving, handwritten.UNDEFINED)
    what = "a hard fault" if misbehaving.core.name == "cortex-m0" else "an undefined instruction"
    place = misbehaving.elf.symbols["model_layer_0"]
    assert f"the firmware was stopped by {what}, in model_layer_0+0x" in text
    counter = "mepc" if misbehaving.core.name == "rv32imc" else "pc"
    (address,) = (int(item.split()[1], 16) for item in text.replace("\n", ",").split(",") if item.split()[0] == counter)
    assert place.address <= address < place.address + place.size


def test_a_stack_that_overflows_is_a_fault(misbehaving: Firmware) -> None:
    size = f"{misbehaving.core.stack:,}"
    assert f"stopped by an overflow of its stack of {size} bytes" in message(misbehaving, handwritten.RECURSION)


@pytest.mark.parametrize(("core", "register"), [("cortex-m4", "R13="), ("rv32imc", "x2/sp")])
def test_a_hang_gives_the_registers(core: str, register: str) -> None:
    text = message(build(core, handwritten.misbehaving()), handwritten.HANG, limit=1.5)
    assert "no answer within 1.5 s, in model_layer_0+0x" in text
    assert register in text


def test_an_unexpected_end_is_told(misbehaving: Firmware) -> None:
    assert "ended with 0 and no answer" in message(misbehaving, handwritten.EXIT)


def test_no_counts_of_a_run_that_failed(misbehaving: Firmware) -> None:
    x: IntArray = np.full((2, 3), handwritten.UNDEFINED, np.int8)
    with pytest.raises(RuntimeError, match="the firmware was stopped by"):
        count(misbehaving, x)


# ---- processes -------------------------------------------------------------------------------------------------------


def ended(pid: int) -> bool:
    """Whether there is no such process any more, or will not be in a moment."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_no_process_is_left_behind() -> None:
    image = build("cortex-m0", SOURCES)
    session, other = Session(image), Session(image)
    pids = [one._machine._child.pid for one in (session, other)]
    session.close()
    assert ended(pids[0])
    assert np.array_equal(other.run(inputs(3)), expected(inputs(3)))
    del other
    assert ended(pids[1])


@pytest.mark.parametrize(
    "end", ["sys.exit()", "raise KeyError", "os._exit(1)", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)"]
)
def test_the_emulator_ends_with_python(end: str, tmp_path: Path) -> None:
    """And leaves no file."""
    code = f"""
import os, sys
from edgernn.firmware_sim.emulation import Session, build
from tests.handwritten import SOURCES
session = Session(build("cortex-m0", SOURCES))
print(session._machine._child.pid, flush=True)
{end}
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended(int(done.stdout))
    assert list(tmp_path.iterdir()) == []


def test_a_fork_leaves_the_emulator_to_its_owner() -> None:
    session = Session(build("cortex-m0", SOURCES))
    pid = os.fork()
    if pid == 0:
        try:
            session.run(inputs(3))
        except RuntimeError:
            session.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert np.array_equal(session.run(inputs(3)), expected(inputs(3)))
