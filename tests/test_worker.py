"""The process in which tflite-runtime lives: its messages, its deaths, and where it is looked for."""

import io
import json
import os
import shlex
import signal
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgernn._artifacts import read_tflite
from edgernn.engines import ENGINES, select
from edgernn.engines._remote import SCRIPT, Worker
from edgernn.engines._worker import ARRAYS_MAX, DTYPES, JSON_MAX, pack, read
from edgernn.qmodel import IntArray

from . import oracle
from .models import random_input, random_model
from .workers import ENGINE, MODEL, PYTHON, START, executable, new_worker, pid_of, run_python, wait_until_gone

# ---- messages --------------------------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_sent() -> None:
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        arrays = {
            f"{shape}": rng.integers(0, 100, shape).astype(dtype) for shape in ((), (0,), (3,), (2, 0, 4), (2, 3, 4))
        }
        arrays["turned"] = arrays["(2, 3, 4)"].T
        stream = io.BytesIO(b"".join(pack({"op": "run", "graph": 7}, arrays) + pack({}, {})))
        fields, found = read(stream)
        assert fields == {"op": "run", "graph": 7}
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert np.array_equal(found[name], array)
            assert found[name].dtype == array.dtype
        assert read(stream) == ({}, {})
        with pytest.raises(EOFError):
            read(stream)


def raw(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(text) if length is None else length) + text


def heads(*heads: object) -> bytes:
    return raw(json.dumps({"arrays": heads}).encode())


@pytest.mark.parametrize(
    "content",
    [
        raw(b"{}", JSON_MAX + 1),
        raw(b"", 0),
        raw(b"[1]"),
        raw(b"{}"),
        raw(b'{"arrays": 3}'),
        raw(b"\xff\xfe"),
        heads("x"),
        heads(["x", "int8"]),
        heads([3, "int8", [1]]),
        heads(["x", "object", [1]]),
        heads(["x", "int64", [1]]),
        heads(["x", ["int8"], [1]]),
        heads(["x", "int8", 3]),
        heads(["x", "int8", [-1]]),
        heads(["x", "int8", [1.0]]),
        heads(["x", "int8", [True]]),
        heads(["x", "int8", [1] * 9]),
        heads(["x", "int8", [ARRAYS_MAX + 1]]),
        heads(["x", "int16", [2**62, 4]]),
        heads(*[["x", "int8", [ARRAYS_MAX // 2]]] * 3),
    ],
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    """Before any memory is set aside for what it announces."""
    with pytest.raises((ValueError, TypeError)):
        read(io.BytesIO(content))


def test_a_message_that_is_cut_off_is_an_end() -> None:
    content = b"".join(pack({"op": "run"}, {"x": np.arange(5, dtype=np.int16)}))
    for length in range(len(content)):
        with pytest.raises(EOFError):
            read(io.BytesIO(content[:length]))


def test_what_cannot_be_sent_is_refused_and_the_worker_goes_on() -> None:
    worker = new_worker()
    graph = worker.load(ENGINE.export(MODEL, "sequence"), "AUTO")
    before = pid_of(worker)
    huge = np.broadcast_to(np.int8(0), (ARRAYS_MAX + 1,))
    for feeds in ({"x": huge}, {"x": np.zeros(2, np.complex64)}, {"x" * JSON_MAX: np.zeros(1, np.int8)}):
        with pytest.raises(ValueError, match="too large|cannot|can be sent|too long"):
            graph(feeds)
    with pytest.raises(RuntimeError, match="the runtime stopped: .*"):
        graph({"unknown": np.zeros(1, np.int8)})
    x = random_input(MODEL, 4, seed=1)
    assert np.array_equal(graph({"x": x[None]})["y"][0], oracle.run(MODEL, x))
    assert pid_of(worker) == before


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_one_error_and_then_a_new_worker() -> None:
    worker = new_worker()
    content, x = ENGINE.export(MODEL, "sequence"), random_input(MODEL, 4, seed=2)
    graph = worker.load(content, "AUTO")
    first = pid_of(worker)
    os.kill(first, signal.SIGKILL)
    wait_until_gone(first)
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match="^the runtime: the process that held this model was ended by SIGKILL; open the model again",
        ):
            graph({"x": x[None]})
    again = worker.load(content, "AUTO")
    assert pid_of(worker) != first
    assert np.array_equal(again({"x": x[None]})["y"][0], oracle.run(MODEL, x))
    with pytest.raises(RuntimeError, match="open the model again"):  # never the new process's graph of that number
        graph({"x": x[None]})


def test_a_worker_killed_at_work_is_an_error() -> None:
    worker = new_worker()
    graph = worker.load(ENGINE.export(MODEL, "sequence"), "AUTO")
    os.kill(pid_of(worker), signal.SIGSTOP)  # it will not answer
    killer = threading.Timer(0.3, os.kill, (pid_of(worker), signal.SIGKILL))
    killer.start()
    with pytest.raises(RuntimeError, match="^the runtime: its process was ended by SIGKILL"):
        graph({"x": random_input(MODEL, 4, seed=2)[None]})
    killer.join()


def test_a_file_that_crashes_the_runtime_ends_the_worker_alone() -> None:
    content = ENGINE.export(random_model(3, "lstm", hidden_size=4, input_size=3), "step")
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    scale = read_tflite(content).constants["main/2:c_0.scale"].__array_interface__["data"][0] - start
    worker = new_worker()
    with pytest.raises(RuntimeError, match="^the runtime: its process was ended by SIGABRT"):
        worker.load(content[:scale] + struct.pack("<f", float("nan")) + content[scale + 4 :], "AUTO")
    with pytest.raises(ValueError, match="^the runtime refuses the file"):
        worker.load(b"no model", "AUTO")
    with pytest.raises(ValueError, match="^the runtime refuses the file"):
        worker.load(content, "NO_SUCH_RESOLVER")
    assert worker.load(content, "BUILTIN_REF").outputs[0] == "y"


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_worker_ends_with_its_process(end: str) -> None:
    result = run_python(START + end)
    assert result.stderr == ""
    wait_until_gone(int(result.stdout))


# ---- where it is looked for ------------------------------------------------------------------------------------------


def test_the_environment_variable_names_the_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ENGINE.missing() is None
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", str(tmp_path / "python"))
    names = [name for name, engine in ENGINES.items() if engine.missing() is not None]
    assert names == ["tflite-runtime", "tflite-runtime-no-delegate", "tflite-runtime-reference"]
    assert ENGINE.missing() == f"EDGERNN_TFLITE_RUNTIME names {tmp_path / 'python'}, which is not there"
    with pytest.raises(ValueError, match="tflite-runtime is not installed here: EDGERNN_TFLITE_RUNTIME names"):
        select(["tflite-runtime"])
    (tmp_path / "python").symlink_to(PYTHON)
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", str(PYTHON))
    x = random_input(MODEL, 3, seed=4)
    assert np.array_equal(ENGINE.run(MODEL, x), oracle.run(MODEL, x))


def test_without_its_environment_the_command_makes_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prefix = tmp_path / "my venv"
    monkeypatch.setattr(sys, "prefix", str(prefix))
    command = ENGINE.missing()
    assert command is not None
    environment = str(prefix / "tflite-runtime")
    words = shlex.split(command)
    assert words[:4] == ["python3.11", "-m", "venv", environment]
    assert words[4:] == ["&&", f"{environment}/bin/pip", "install", "tflite-runtime==2.14.0", "numpy<2"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["exit 7"], "its process ended with exit code 7"),
        (["echo no such module >&2", "exit 1"], "its process ended with exit code 1: no such module"),
        (["exec yes"], "its process answered what is no message"),
        (["echo", "echo", "echo"], "its process (answered what is no message|ended)"),
        (["kill -KILL $$"], "its process was ended by SIGKILL"),
    ],
)
def test_a_program_that_is_no_worker_is_named(tmp_path: Path, lines: list[str], why: str) -> None:
    worker = Worker("the runtime", [executable(tmp_path / "python", *lines), "-I", str(SCRIPT), "tflite_runtime"])
    with pytest.raises(RuntimeError, match=f"^the runtime: {why}"):
        worker.version  # noqa: B018


def test_a_python_without_the_runtime_is_missing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", sys.executable)
    command = ENGINE.missing()
    assert command is not None
    names = f"EDGERNN_TFLITE_RUNTIME names {sys.executable}, which is no Python with tflite-runtime==2.14.0 'numpy<2' ("
    assert command.startswith(names)
    assert "No module named 'tflite_runtime'" in command
    with pytest.raises(RuntimeError, match="cannot run /etc: Permission denied"):
        Worker("the runtime", ["/etc"]).version  # noqa: B018


def test_a_python_that_starts_no_worker_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    python = executable(tmp_path / "python", f"echo >> {shlex.quote(str(tries))}", "exit 7")
    monkeypatch.setenv("EDGERNN_TFLITE_RUNTIME", python)
    (cure,) = {engine.missing() for engine in ENGINES.values()} - {None}
    why = "tflite-runtime: its process ended with exit code 7"
    assert cure is not None
    assert f"names {python}, which is no Python with" in cure
    assert why in cure
    assert tries.read_text() == "\n"


def test_every_resolver_gives_the_same_integers() -> None:
    worker, x = new_worker(), random_input(MODEL, 6, seed=5)
    outputs: list[IntArray] = [
        worker.load(ENGINE.export(MODEL, "sequence"), resolver)({"x": x[None]})["y"][0]
        for resolver in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
    ]
    assert all(np.array_equal(y, oracle.run(MODEL, x)) for y in outputs)
    assert worker.version == "2.14.0"
