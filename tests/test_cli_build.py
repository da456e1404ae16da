"""edgernn build, what verify makes of a library beside a model, and the command line without Numba."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgernn.data import load
from edgernn.engines import ENGINES, kernel
from edgernn.firmware_sim import native
from edgernn.firmware_sim.native._record import write_record
from edgernn.qmodel import QuantizedModel

from .command_line import fail, succeed, succeed_json
from .models import random_model
from .test_without_torch import without

SUFFIX = ENGINES["native"].suffix
CROSS = "aarch64-linux-gnu-gcc -mcpu=cortex-a72"


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.ernn").write_bytes((trained / "model.ernn").read_bytes())
    return tmp_path


def test_build_tells_what_it_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = succeed(capsys, "build", folder / "model.ernn")
    compiler = native.find_compiler()
    size = (folder / f"model{SUFFIX}").stat().st_size
    assert out.startswith(f"{folder / f'model{SUFFIX}'}: {size:,} bytes for {compiler.machine} ({compiler.system})")
    assert f"{compiler.instructions}, by {compiler.name} ({' '.join(compiler.command)})" in out
    x = load("vowels").test.x[0, :4]
    model, built = QuantizedModel.load(folder / "model.ernn"), native.Library(folder / f"model{SUFFIX}")
    assert np.array_equal(built.run(built.interface.quantize_input(x)), kernel().run(model, model.quantize_input(x)))


def test_build_for_another_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed_json(capsys, "build", folder / "model.ernn", "--cc", CROSS, "-o", folder / "pi" / "net.so")
    assert found == {
        "path": str(folder / "pi" / "net.so"),
        "bytes": (folder / "pi" / "net.so").stat().st_size,
        "compiler": native.find_compiler(CROSS).name,
        "command": CROSS,
        "machine": "aarch64",
        "system": "linux",
        "instructions": "NEON",
    }


def test_what_build_refuses(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "model.ernn"
    (folder / "a file").write_text("")
    for message, *options in (
        ("the compiler no-such-cc is not installed here", model, "--cc", "no-such-cc"),
        ("is no C compiler", model, "--cc", "true"),
        ("is a folder: name a file in it", model, "-o", folder),
        ("is the model itself", model, "-o", model),
        ("cannot write into", model, "-o", folder / "a file" / "model.so"),
        ("not an edgernn file", folder / "a file"),
        ("no such file", folder / "none.ernn"),
    ):
        fail(capsys, message, "build", *options)
    monkeypatch.setenv("CC", "cc -include no-such-header.h")
    fail(capsys, "is no C compiler", "build", model)
    monkeypatch.setenv("CC", "cc -Dmodel_reset=3")
    fail(capsys, "cc cannot compile the model:", "build", model)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    fail(capsys, "apt install gcc", "build", model)
    fail(
        capsys,
        "the engine native is not installed here: no C compiler is here: apt install gcc",
        "verify",
        model,
        "--engines",
        "native",
    )
    assert sorted(path.name for path in folder.iterdir()) == ["a file", "model.ernn"]


def rows(
    capsys: pytest.CaptureFixture[str], folder: Path, code: int, engines: str = "native,tflm"
) -> tuple[list[str | None], str]:
    """The files that were compared, and what verify says beside the table."""
    from edgernn.cli import main

    argv = ["verify", str(folder / "model.ernn"), "--engines", engines, "--sequences", "1", "--json"]
    assert main(argv) == code
    out = capsys.readouterr().out
    results = json.loads(out)["results"]
    told = [row["problem"] or row["skipped"] for row in results if row["problem"] or row["skipped"]]
    return [row["file"] for row in results if row["engine"] == "native" and row["integers"]], " ".join(told)


def test_verify_runs_what_was_built_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys, folder, 0) == ([None] * 5, "")
    succeed(capsys, "build", folder / "model.ernn")
    assert rows(capsys, folder, 0) == ([f"model{SUFFIX}", None, f"model{SUFFIX}", None, None], "")


def test_verify_loads_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not what was altered, is of another model, or was built in another way: that is told in place of it."""
    path = folder / f"model{SUFFIX}"
    succeed(capsys, "build", folder / "model.ernn")
    content = path.read_bytes()
    record = native.read_record(content, "it")
    body = bytearray(content[: content.rindex(b'{"abi"')])
    body[len(body) // 2] ^= 1
    path.write_bytes(write_record(bytes(body), record))
    files, told = rows(capsys, folder, 1)
    assert f"model{SUFFIX} was altered" in told
    assert f"model{SUFFIX}" not in files
    path.write_bytes(content[:-1])
    assert "not a library that edgernn built" in rows(capsys, folder, 1)[1]
    random_model(1, "rnn").save(folder / "other.ernn")
    succeed(capsys, "build", folder / "other.ernn", "-o", path)
    assert f"model{SUFFIX} is of another model; build it anew" in rows(capsys, folder, 1)[1]
    succeed(capsys, "build", folder / "model.ernn", "--cc", CROSS, "-o", path)
    files, told = rows(capsys, folder, 1)  # 1, since the engine was asked for by its name
    assert "was built for aarch64 by gcc" in told
    assert "not as here: it is not run" in told
    assert set(files) == {None}


# ---- without Numba ---------------------------------------------------------------------------------------------------


def test_native_takes_the_place_of_numba(trained: Path, folder: Path) -> None:
    hidden = ("torch", "numba", "llvmlite", "onnx", "onnxruntime", "ai_edge_litert")
    model = folder / "model.ernn"
    found = without(hidden, "eval", model, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    expected = json.loads((trained / "metrics.json").read_text())["test"]["integer"]
    assert json.loads(found.stdout)["models"]["integers"] == expected
    np.save(folder / "rows.npy", load("vowels").test.x[0, :3])
    found = without(hidden, "run", model, folder / "rows.npy", "--engine", "native")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("speaker ") == 3
    found = without(hidden, "verify", model, "--engines", "tflm", "--sequences", "2")
    assert found.returncode == 0, found.stderr
    assert "compared with the engine native (Numba is not installed)" in found.stdout
    found = without(hidden, "verify", model, "--engines", "native")
    assert found.returncode == 2
    assert "nothing to compare with: native is the reference itself" in found.stderr
    found = without(hidden, "inspect", model, "--data", "vowels")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "edgernn inspect: this needs numba, which is not installed: pip install edgernn\n"
