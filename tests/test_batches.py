"""Whole test sets: in pieces over all cores, in little memory, interrupted, in forked processes, with a bar."""

import argparse
import io
import multiprocessing
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from edgernn import firmware_sim, metrics
from edgernn._tflite_lstm import Flavour
from edgernn.cli import _output, main
from edgernn.data import Split
from edgernn.firmware_sim import batch_pieces, in_order, run_batch
from edgernn.qmodel import HeadKind, IntArray, QuantizedModel, Task

from . import oracle
from .models import random_model

SEED = 11
STEPS = 50


def some_model(task: Task = "classification", head: HeadKind = "last") -> QuantizedModel:
    model = random_model(SEED, "gru", input_size=3, hidden_size=4, head=head, output_size=5)
    return replace(model, task=task, labels=())


def some_split(count: int, task: Task = "classification", head: HeadKind = "last") -> Split:
    rng = np.random.default_rng(SEED)
    lengths = rng.integers(1, STEPS + 1, count)
    x = rng.normal(size=(count, STEPS, 3)).astype(np.float32)
    x[np.arange(STEPS) >= lengths[:, None]] = 0
    shape = (count, STEPS) if head == "steps" else (count,)
    if task == "classification":
        return Split(x, lengths, rng.integers(0, 5, shape))
    return Split(x, lengths, rng.normal(size=(*shape, 5)).astype(np.float32))


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", request.param)
    return int(request.param)


# ---- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["last", "steps"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_metrics_do_not_depend_on_pieces_or_threads(threads: int, task: Task, head: HeadKind) -> None:
    model, split = some_model(task, head), some_split(4000, task, head)
    assert len(batch_pieces(*split.x.shape[:2])) > 10
    whole = [model.dequantize_output(run_batch(model, model.quantize_input(split.x), split.lengths))]
    progress: list[tuple[int, int]] = []
    found = metrics.evaluate(model, split, lambda *numbers: progress.append(numbers))
    assert found == metrics.measure(whole, split, task, head), f"seed {SEED}"
    done = [done for done, _ in progress]
    assert done == sorted(set(done))
    assert progress[-1] == (4000, 4000)
    assert {total for _, total in progress} == {4000}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_sums_of_many_terms_do_not_depend_on_pieces(task: Task) -> None:
    split, rng = some_split(4000, task, "steps"), np.random.default_rng(SEED)
    outputs = rng.normal(size=(4000, STEPS, 5)).astype(np.float32)
    whole = metrics.measure([outputs], split, task, "steps")
    assert whole["count"] > 1 << 16
    for cuts in (range(1, 4000), [1, 700, 2000], [2000]):
        assert metrics.measure(np.split(outputs, cuts), split, task, "steps") == whole, f"seed {SEED}"
    keep = split.valid
    wide, truth = outputs[keep].astype(np.float64), split.y[keep]
    if task == "regression":
        loss = np.square(wide - truth).mean()
    else:
        loss = np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), truth])
    assert whole["loss"] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("head", ["last", "steps"])
def test_memory_does_not_grow_with_the_number_of_sequences(threads: int, head: HeadKind) -> None:
    model = some_model(head=head)

    def peak(count: int) -> int:
        split = some_split(count, head=head)
        tracemalloc.start()
        metrics.evaluate(model, split)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(500)  # imports and tables
    few, many = peak(1000), peak(8000)
    mask = 8000 * (STEPS if head == "steps" else 1)  # of the targets that count
    assert many < 1.5 * few + mask, f"{few:,} and {many:,} bytes"


# ---- work in order ---------------------------------------------------------------------------------------------------


def test_results_come_in_order_and_items_are_taken_as_they_are_needed(threads: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(200):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item

    for expected, result in enumerate(in_order(work, items())):
        assert result == expected
        assert len(taken) <= expected + 2 + 2 * threads
    assert len(taken) == 200
    assert list(in_order(work, [])) == []


def pool_threads() -> list[threading.Thread]:
    """Those that do not end within ten seconds: one that is just starting when it is interrupted ends by itself."""
    threads = [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
    for thread in threads:
        thread.join(10)
    return [thread for thread in threads if thread.is_alive()]


def test_the_first_error_ends_the_work(threads: int) -> None:
    done: list[int] = []

    def work(item: int) -> int:
        done.append(item)
        if item == 5:
            raise ValueError("the fifth")
        return item

    results = in_order(work, range(1000))
    with pytest.raises(ValueError, match="the fifth"):
        list(results)
    assert len(done) < 5 + 4 * threads + 2
    assert not pool_threads()


def test_the_command_line_is_interrupted_in_the_middle(
    threads: int, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a worker computes and the main thread waits: pieces that have not begun are left out."""
    calls: list[int] = []

    def interrupted(model: QuantizedModel, x: IntArray, lengths: IntArray, flavour: Flavour) -> IntArray:
        calls.append(len(x))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return run_batch(model, x, lengths, flavour)

    monkeypatch.setattr(firmware_sim, "run_batch", interrupted)
    monkeypatch.setattr(firmware_sim, "batch_pieces", lambda batch, time: [slice(n, n + 1) for n in range(batch)])
    assert main(["eval", str(trained / "model.ernn")]) == 130
    assert capsys.readouterr() == ("", "edgernn eval: interrupted\n")
    assert 3 <= len(calls) < 3 + 4 * threads
    assert not pool_threads()


# ---- other processes -------------------------------------------------------------------------------------------------


def run_in_child(model: QuantizedModel, x: IntArray, lengths: IntArray) -> IntArray:
    return run_batch(model, x, lengths)


def test_batches_run_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a DataLoader's workers; forked, where that can be, after the parent has run batches on threads."""
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    model = some_model(head="steps")
    split = some_split(400)
    x = model.quantize_input(split.x)
    y = run_batch(model, x, split.lengths)
    for row in range(0, 400, 99):
        length = split.lengths[row]
        assert np.array_equal(y[row, :length], oracle.run(model, x[row, :length])), f"seed {SEED}, row {row}"
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
    with context.Pool(2) as pool:
        found = pool.starmap(run_in_child, [(model, x, split.lengths)] * 2)
    for one in found:
        assert np.array_equal(one, y)


# ---- bars ------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "terminal", "patience", "shown"),
    [(False, True, 0.0, True), (False, True, 60.0, False), (False, False, 0.0, False), (True, True, 0.0, False)],
)
def test_long_work_shows_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool, patience: float, shown: bool
) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(_output, "PATIENCE", patience)
    with _output.progress(argparse.Namespace(quiet=quiet), "sequence") as report:
        for done in range(1, 5):
            time.sleep(0.11)  # the bar is drawn ten times a second
            report(done, 4)
    assert ("4/4" in stderr.getvalue()) == shown
    if not shown:
        assert stderr.getvalue() == ""
