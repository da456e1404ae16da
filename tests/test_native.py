"""Libraries compiled for this computer: the integers, states that go on elsewhere, files that must not be loaded."""

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.engines import built_library
from edgernn.export import to_c
from edgernn.firmware_sim import Stream, native, run
from edgernn.firmware_sim.native._build import _GLUE
from edgernn.firmware_sim.native._record import write_record
from edgernn.qmodel import IntArray, QuantizedModel, Scheme

from . import oracle
from .models import HEADS, SCHEMES, VARIANTS, Variant, random_input, random_model, with_directions
from .test_export_c_neon import ran

CROSS = "aarch64-linux-gnu-gcc"


def library(model: QuantizedModel) -> native.Library:
    return native.Library(built_library(model))


# ---- the integers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_sequences_and_batches(cell: Variant, scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, head in zip(("1", "3", ""), HEADS, strict=True):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        seed = len(threads) + 10 * VARIANTS.index(cell)
        model = random_model(seed, cell, scheme, layers=2, head=head, saturating=threads == "3")
        x, lengths = random_input(model, 7, seed, (5,)), np.array([7, 1, 3, 7, 6])
        found = library(model)
        assert np.array_equal(found.run(x[0]), oracle.run(model, x[0])), f"seed {seed}"
        for batch, valid in ((x, lengths), (x[::-1, :4], None)):
            y = found.run_batch(batch, valid)
            assert np.array_equal(y, oracle.run_batch(model, batch, np.full(5, 4) if valid is None else valid))
            assert y.dtype == model.output_dtype


@pytest.mark.parametrize("head", HEADS)
def test_both_directions(head: Any) -> None:
    for seed, both in enumerate(([True], [False, True], [True, False])):
        model = random_model(seed, VARIANTS[seed], SCHEMES[seed % 2], head=head, layers=len(both), bidirectional=True)
        model = with_directions(model, both)
        x, lengths = random_input(model, 6, seed, (3,)), np.array([2, 6, 1])
        found = library(model)
        assert np.array_equal(found.run(x[1]), oracle.run(model, x[1])), f"seed {seed}"
        assert np.array_equal(found.run_batch(x, lengths), oracle.run_batch(model, x, lengths)), f"seed {seed}"
        with pytest.raises(ValueError, match="a bidirectional model reads whole sequences"):
            found.stream()


@pytest.mark.parametrize("cell", VARIANTS)
def test_a_state_goes_on_in_the_kernel_and_back(cell: Variant) -> None:
    scheme = SCHEMES[VARIANTS.index(cell) % 2]
    model = random_model(3, cell, scheme, layers=2, hidden_size=5, head="steps")
    x = random_input(model, 9, 3)
    expected = oracle.run(model, x)
    compiled, kernel = library(model).stream(), Stream(model)
    found = [compiled.step(row) for row in x[:2]]
    kernel.state = compiled.state
    found += [kernel.step(row) for row in x[2:4]]
    compiled.state = kernel.state
    found += [*compiled.run(x[4:7]), compiled.step(x[7]), *compiled.run(x[8:])]
    assert np.array_equal(found, expected)
    compiled.reset()
    assert all((values == 0).all() for values in compiled.state.values())
    assert np.array_equal(compiled.run(x), expected)


def test_a_stream_of_a_head_of_the_last_step_answers_every_step() -> None:
    model = random_model(4, "gru", head="last")
    x = random_input(model, 5, 4)
    stream = library(model).stream()
    assert all(np.array_equal(stream.step(row), oracle.run(model, x[: step + 1])) for step, row in enumerate(x))
    stream.reset()
    assert np.array_equal(stream.run(x[:3]), oracle.run(model, x[:3]))
    assert np.array_equal(stream.run(x[3:]), oracle.run(model, x))


def test_what_does_not_fit_is_refused() -> None:
    model = random_model(5, "lstm", input_size=3, hidden_size=4)
    found = library(model)
    stream = found.stream()
    x = random_input(model, 4, 5)
    for wrong, message in (
        (x.astype(np.int16), "dtype int16"),
        (x[:, :2], "shape"),
        (x[0], "shape"),
        (x[:0], "at least"),
    ):
        with pytest.raises(ValueError, match=message):
            found.run(wrong)
        with pytest.raises(ValueError, match=message):
            stream.run(wrong)
    with pytest.raises(ValueError, match="lengths"):
        found.run_batch(x[None], np.array([5]))
    for state in ({}, {"h_0": np.zeros(4, np.int16)}, dict.fromkeys(("h_0", "c_0"), np.zeros(5, np.int16))):
        with pytest.raises(ValueError, match="the state"):
            stream.state = state


def test_arrays_of_any_strides() -> None:
    model = random_model(6, "rnn", input_size=3, head="steps")
    x = random_input(model, 8, 6)
    turned = np.asfortranarray(x[::-1])
    found = library(model)
    assert np.array_equal(found.run(turned), oracle.run(model, turned))
    assert np.array_equal(found.stream().run(turned), oracle.run(model, turned))


def test_a_library_says_what_it_is(tmp_path: Path) -> None:
    """From its file, without loading it; and of labels and scales what the model says."""
    model = dataclasses.replace(random_model(7, "gru", output_size=2), labels=('"', "ü\n"))
    record = native.read_record(built_library(model).read_bytes(), "it")
    assert record.interface.to_json() == model.interface.to_json()
    assert record.states == {name: (spec.size, "int16") for name, spec in model.states.items()}
    assert library(model).interface.labels == model.labels


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> tuple[QuantizedModel, bytes]:
    model = random_model(8, "gru", input_size=3, hidden_size=4)
    return model, built_library(model).read_bytes()


def refused(folder: Path, content: bytes) -> str:
    (folder / "model.so").write_bytes(content)
    with pytest.raises(ValueError, match=r"^model\.so") as caught:
        native.Library(folder / "model.so")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_damaged_files(built: tuple[QuantizedModel, bytes], tmp_path: Path) -> None:
    content = built[1]
    rng = np.random.default_rng(1)
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        assert "not a library that edgernn built" in refused(tmp_path, content[:size]), size
    for place in rng.integers(0, len(content) - 8, 20).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 + place % 255
        assert "damaged" in refused(tmp_path, bytes(damaged)), place
    with pytest.raises(ValueError, match="no such file"):
        native.Library(tmp_path / "none.so")


def test_foreign_files(built: tuple[QuantizedModel, bytes], tmp_path: Path) -> None:
    content = built[1]
    record = native.read_record(content, "it")
    body = content[: content.rindex(b'{"abi"')]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"machine": "vax"}, "was built for vax with"),
        ({"system": "plan9"}, "with plan9"),
        ({"features": ("avx1024",)}, "needs a processor with avx1024, which this one has not; build it here"),
        ({"abi": 99}, "calls of another kind"),
        ({"states": {"h_0": [-4, "int16"]}}, "damaged"),
        ({"states": {"h_0": [4, "int16"], "h_1": "x"}}, "damaged"),
        ({"states": {"h_0": [4, "float64"]}}, "damaged"),
    ]
    for change, message in changes:
        assert message in refused(tmp_path, write_record(body, dataclasses.replace(record, **change))), change
    assert "cannot be loaded" in refused(tmp_path, write_record(b"no machine code at all" * 9, record))
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", empty, "-o", tmp_path / "empty.so"], check=True)
    assert "cannot be loaded" in refused(tmp_path, write_record((tmp_path / "empty.so").read_bytes(), record))
    assert "not a library that edgernn built" in refused(tmp_path, (tmp_path / "empty.so").read_bytes())


# ---- compilers -------------------------------------------------------------------------------------------------------


def test_a_cross_compiler_chooses_its_own_machine(tmp_path: Path) -> None:
    compiler = native.find_compiler(f"{CROSS} -mcpu=cortex-a76")
    assert (compiler.machine, compiler.target, compiler.instructions) == (
        "aarch64",
        "raspberry-pi",
        "NEON with dot products",
    )
    assert native.find_compiler(CROSS).instructions == "NEON"
    model = random_model(9, "rnn")
    content = built_library(model, f"{CROSS} -mcpu=cortex-a76").read_bytes()
    assert content[18] == 183  # e_machine of the ELF header: AArch64
    assert "was built for aarch64 with linux, this is" in refused(tmp_path, content)


def test_compilers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, message in (
        ("no-such-cc -O2", "the compiler no-such-cc is not installed here"),
        ("cc 'x", "cannot be read"),
        ("true", "true is no C compiler"),
        ("cc --no-such-option", "cc is no C compiler"),
    ):
        with pytest.raises(ValueError, match=message):
            native.find_compiler(named)
    monkeypatch.setenv("CC", "no-such-cc")
    assert (
        native.missing()
        == "the compiler no-such-cc, which CC names, is not installed here: apt install gcc, or name another"
    )
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    assert native.missing() == "no C compiler is here: apt install gcc, or name another by CC"


def test_an_error_of_the_compiler_is_one_line() -> None:
    model = random_model(10, "rnn")
    broken = native.Source("broken", lambda: {"model.h": "", "model.c": "#error it is broken\n"})
    with pytest.raises(ValueError, match=r"^cc cannot compile the model: .*model\.c:1:2: error: #error it is broken$"):
        native.build(broken, model.interface, {"h_0": (4, "int16")}, native.find_compiler())


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty folder for libraries, and the folders in which something is compiled from now on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders: list[str] = []
    run = native.Compiler.run

    def counted(self: native.Compiler, arguments: list[str], folder: str) -> None:
        folders.append(folder)
        run(self, arguments, folder)

    monkeypatch.setattr(native.Compiler, "run", counted)
    return folders


def test_a_library_is_kept_but_never_stale(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(11, "rnn")
    x = random_input(model, 3, 11)
    first = built_library(model)
    assert built_library(model) == first
    assert len(compilations) == 1
    for other in (dataclasses.replace(model, labels=("a", "b", "c")[: model.output_size]), random_model(12, "rnn")):
        assert built_library(other) != first
    assert built_library(model, "cc -march=x86-64" if os.uname().machine == "x86_64" else "cc -mcpu=generic") != first
    assert len(compilations) == 4
    first.write_bytes(first.read_bytes()[:-100])
    assert np.array_equal(native.Library(built_library(model)).run(x), oracle.run(model, x))
    assert len(compilations) == 5
    assert not any(Path(folder).exists() for folder in compilations)
    monkeypatch.setattr("edgernn.firmware_sim.native._build._KEPT", 2)
    built_library(random_model(13, "rnn"))
    assert len(list(first.parent.iterdir())) == 2


def test_what_was_built_here_is_known_again(compilations: list[str]) -> None:
    """To the last byte; what another built is not, whatever it says of itself."""
    content = built_library(random_model(16, "rnn")).read_bytes()
    record = native.read_record(content, "it")
    body = content[: content.rindex(b'{"abi"')]
    assert native.built_here(content)
    assert not native.built_here(write_record(body + b"\0", record))
    assert not native.built_here(write_record(body, dataclasses.replace(record, key="0" * 16)))
    with pytest.raises(ValueError, match="damaged"):
        native.built_here(write_record(body, dataclasses.replace(record, key="../../etc/passwd")))


def test_a_folder_that_cannot_be_written(compilations: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, so that no folder can be made there, not even by root")
    model = random_model(14, "rnn")
    x = random_input(model, 3, 14)
    assert np.array_equal(library(model).run(x), oracle.run(model, x))
    assert len(compilations) == 1


# ---- on the cores of a Raspberry Pi ----------------------------------------------------------------------------------

MAIN = """
#include "glue.c"
static const model_input_t inputs[] = {%s};
static const model_output_t expected[] = {%s};
static model_output_t outputs[sizeof expected / sizeof *expected];
static const int64_t lengths[] = {5, 2, 4};
int main(void) {
  unsigned n, wrong = 0;
  edgernn_run_batch(inputs, lengths, 3, 5, outputs, 0);
  for (n = 0; n < sizeof expected / sizeof *expected; n++) wrong += outputs[n] != expected[n];
  return wrong != 0 || edgernn_sizes[0] != sizeof(model_state_t) || edgernn_sizes[3] != 0;
}
"""


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76"])
def test_the_calls_on_the_core(core: str, tmp_path: Path) -> None:
    model = random_model(15, "lstm", head="steps")
    x, lengths = random_input(model, 5, 15, (3,)), np.array([5, 2, 4])
    (tmp_path / "glue.c").write_text(_GLUE.read_text())
    for file, text in to_c(model, "model", "raspberry-pi").items():
        (tmp_path / file).write_text(text)
    wanted = oracle.run_batch(model, x, lengths)
    (tmp_path / "main.c").write_text(MAIN % (numbers(x), numbers(wanted)))
    result = ran(tmp_path, core, "main.c", "-DMODEL_STATES=STATE(h_0),STATE(c_0)")
    assert result.returncode == 0, result
    assert np.array_equal(wanted[0], run(model, x[0])[0])


def numbers(values: IntArray) -> str:
    return ", ".join(map(str, values.ravel().tolist()))
