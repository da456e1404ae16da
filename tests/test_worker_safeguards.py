"""A worker between threads, forks and interrupts, and under a runtime that prints: no answer is lost or another's."""

import contextlib
import gc
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgernn.engines._remote import SCRIPT, Worker
from edgernn.qmodel import IntArray

from . import oracle
from .models import random_input
from .workers import ENGINE, MODEL, START, executable, new_worker, pid_of, run_python

# ---- threads ---------------------------------------------------------------------------------------------------------


def start_threads(*jobs: Callable[[], None]) -> list[threading.Thread]:
    """Daemons: what hangs must not hang the tests."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"


def test_threads_get_their_own_answers() -> None:
    graph = new_worker().load(ENGINE.export(MODEL, "sequence"), "AUTO")
    inputs = [random_input(MODEL, 4, seed=seed) for seed in (2, 3)]
    outputs = [oracle.run(MODEL, x) for x in inputs]
    assert (outputs[0] != outputs[1]).any()
    right = []

    def job(x: IntArray, y: IntArray) -> None:
        right.append(sum(np.array_equal(graph({"x": x[None]})["y"][0], y) for _ in range(200)))

    join(start_threads(*(partial(job, x, y) for x, y in zip(inputs, outputs, strict=True))))
    assert right == [200, 200]


def test_threads_start_one_worker() -> None:
    worker, content = new_worker(), ENGINE.export(MODEL, "sequence")
    together, graphs = threading.Barrier(4), []

    def job() -> None:
        together.wait()
        graphs.append(worker.load(content, "AUTO"))

    join(start_threads(job, job, job, job))
    assert len(graphs) == 4
    assert len({graph._process for graph in graphs}) == 1


def test_a_thread_that_waits_learns_that_the_worker_died() -> None:
    worker = new_worker()
    graph = worker.load(ENGINE.export(MODEL, "sequence"), "AUTO")
    x, errors = random_input(MODEL, 4, seed=2), []

    def job() -> None:
        try:
            graph({"x": x[None]})
        except RuntimeError as error:
            errors.append(str(error))

    os.kill(pid_of(worker), signal.SIGSTOP)
    threads = start_threads(job, job)
    time.sleep(0.3)  # one of them asks, the other one waits
    os.kill(pid_of(worker), signal.SIGKILL)
    join(threads)
    waited, asked = sorted(errors, key=lambda text: "SIGKILL" in text)
    assert asked == "the runtime: its process was ended by SIGKILL"
    assert waited == "the runtime: the process that held this model has ended; open the model again"


# ---- interrupts and forks --------------------------------------------------------------------------------------------


def test_after_an_interrupt_no_answer_is_taken_for_another() -> None:
    worker, content = new_worker(), ENGINE.export(MODEL, "sequence")
    first, second = (random_input(MODEL, 4, seed=seed) for seed in (2, 3))
    graph = worker.load(content, "AUTO")
    pid = pid_of(worker)
    os.kill(pid, signal.SIGSTOP)  # it answers when it goes on
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            graph({"x": first[None]})
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, handler)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    y = worker.load(content, "AUTO")({"x": second[None]})["y"][0]
    assert np.array_equal(y, oracle.run(MODEL, second))


def test_a_fork_starts_a_worker_of_its_own() -> None:
    fork = """
if os.fork() == 0:
    worker.version
    print(worker._process._child.pid != pid, flush=True)
    sys.exit(0)
_, status = os.wait()
worker.version
print(status == 0, worker._process._child.pid == pid)
"""
    result = run_python(START + fork)
    assert result.stdout.split()[1:] == ["True"] * 3, result.stderr
    assert result.stderr == ""


def test_a_fork_in_the_middle_of_a_request_leaves_it_alone() -> None:
    """The request is larger than a pipe holds: the thread that sends it holds the lock of its buffer."""
    fork = """
import threading, time
os.kill(pid, signal.SIGSTOP)
refusals = []
def job():
    try:
        worker.load(b"no model" * 50_000, "AUTO")
    except ValueError as error:
        refusals.append(str(error))
thread = threading.Thread(target=job)
thread.start()
while not worker._process._lock.locked():
    time.sleep(0.01)
time.sleep(0.3)
child = os.fork()
if child == 0:
    sys.exit(0)
deadline = time.monotonic() + 20
ended = 0
while not ended and time.monotonic() < deadline:
    ended, status = os.waitpid(child, os.WNOHANG)
    time.sleep(0.01)
if not ended:
    os.kill(child, signal.SIGKILL)
os.kill(pid, signal.SIGCONT)
thread.join()
print(bool(ended), refusals[0].startswith("w refuses the file"), worker._process._child.pid == pid)
try:
    worker.load(b"no model", "AUTO")
except ValueError:
    print(worker._process._child.pid == pid)
"""
    result = run_python(START + fork)
    assert result.stdout.split()[1:] == ["True"] * 4, result.stderr


# ---- what a runtime does ---------------------------------------------------------------------------------------------


def test_a_refused_request_keeps_what_is_to_be_forgotten() -> None:
    worker = new_worker()
    content, x = ENGINE.export(MODEL, "sequence"), random_input(MODEL, 4, seed=1)
    dropped, graph = worker.load(content, "AUTO"), worker.load(content, "AUTO")
    number, process = dropped._number, dropped._process
    ask = {"op": "run", "graph": number}
    del dropped
    gc.collect()
    with pytest.raises(ValueError, match="can be sent"):
        graph({"x": np.zeros(2, np.complex64)})
    assert np.array_equal(graph({"x": x[None]})["y"][0], oracle.run(MODEL, x))
    assert process.ask(ask, {"x": x[None]})[0] == {"error": f"{number}"}  # the KeyError's text: it has it no more


STUB = """
import os
print("a banner", flush=True)

class OpResolverType:
    def __class_getitem__(cls, name): return name

class Interpreter:
    def __init__(self, **options): pass
    def allocate_tensors(self): pass
    def get_signature_list(self): return {}
    def get_input_details(self): return [self.entry("x")]
    def get_output_details(self): return [self.entry("y")]
    def entry(self, name):
        return {"name": name, "index": 0, "dtype": "int8", "shape": [3], "shape_signature": [3]}
    def set_tensor(self, index, value): self.value = value
    def invoke(self): os.write(1, b"a warning")
    def get_tensor(self, index): return self.value if self.value.all() else self.value.astype(object)
"""


@pytest.fixture
def talkative(tmp_path: Path) -> Worker:
    """A runtime that prints, gives back what it is given, and at a zero something that cannot be sent."""
    for name, text in {
        "stub_runtime/interpreter.py": STUB,
        "stub_runtime-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: stub-runtime\nVersion: 1.5\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    program = f'cd {shlex.quote(str(tmp_path))} && PYTHONPATH=. exec {shlex.quote(sys.executable)} "$@"'
    return Worker("the runtime", [executable(tmp_path / "python", program), str(SCRIPT), "stub_runtime"])


def test_what_a_runtime_prints_is_no_reply(talkative: Worker) -> None:
    assert talkative.version == "1.5"
    graph, x = talkative.load(b"", "AUTO"), np.array([1, 2, 3], np.int8)
    for _ in range(2):
        assert np.array_equal(graph({"x": x})["y"], x)


def test_a_reply_that_cannot_be_sent_is_an_error_and_the_worker_goes_on(talkative: Worker) -> None:
    graph, x = talkative.load(b"", "AUTO"), np.array([1, 2, 3], np.int8)
    with pytest.raises(RuntimeError, match="^the runtime stopped: no array that can be sent"):
        graph({"x": np.zeros(3, np.int8)})
    assert np.array_equal(graph({"x": x})["y"], x)
