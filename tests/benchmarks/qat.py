"""How fast training in integers is: forward and backward of edgernn, of torch's float modules and of other tools.

    python -m tests.benchmarks.qat [--quick] [--only table threads growth vowels] [--hidden H ..]

12 inputs, 100 steps, batches of 64, a Linear on the last step, cross entropy. CPU time on one thread, but for the two
threads' (wall time). Three to four minutes; no other load should run beside it.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch

from edgernn.nn import GRU, LSTM, RNN, SequenceModel
from edgernn.quantize import QuantConfig, calibrate, prepare
from edgernn.quantize.fused import explicit

from .machine import describe, restart_with_threads, thread_variables
from .report import QUICK_ROUNDS, Options, Target, options, show, show_targets
from .timing import ROUNDS, Call, Timing, measure
from .train_peers import OUTPUTS, float_classifier, peers, training_step

INPUTS: Final = 12
STEPS: Final = 100
BATCH: Final = 64
Config = QuantConfig | str
PARTS: Final = ("table", "threads", "growth", "vowels")
_TRIM_THRESHOLD: Final = -1  # of malloc.h
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 << 20  # that glibc takes as the latter
LIMITS: Final = {("lstm", 32): 0.55, ("lstm", 128): 0.55, ("gru", 32): 0.20, ("gru", 128): 0.42}


class Data(NamedTuple):
    """x [batch, steps, inputs] for edgernn, time_major [steps, batch, inputs] for the peers, y [batch]."""

    x: torch.Tensor
    time_major: torch.Tensor
    y: torch.Tensor


def data(steps: int = STEPS, batch: int = BATCH) -> Data:
    x = torch.randn(batch, steps, INPUTS)
    return Data(x, x.transpose(0, 1).contiguous(), torch.randint(0, OUTPUTS, (batch,)))


def ours(cell: str, hidden_size: int, x: torch.Tensor, config: Config = "w8a8", layers: int = 1) -> SequenceModel:
    """A prepared and calibrated model; `gru_before` is the GRU of Cho et al."""
    kinds: dict[str, Callable[..., LSTM | GRU | RNN]] = {
        "lstm": LSTM,
        "gru": GRU,
        "gru_before": lambda *sizes, **options: GRU(*sizes, reset_after=False, **options),
        "rnn": RNN,
    }
    rnn = kinds[cell](INPUTS, hidden_size, num_layers=layers, batch_first=True)
    return calibrate(prepare(SequenceModel(rnn, OUTPUTS), config), x)


# ---- forward and backward --------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of the table: what is compared with `reference`, the same cell's float module. None: not installed."""

    name: str
    reference: str
    call: Call | None


def rows(hidden_size: int, with_peers: bool) -> Iterator[Row]:
    """Every way to train one cell, and two layers of it; the float modules stand first."""
    given = data()

    def float_row(cell: str, layers: int = 1) -> Row:
        name = f"float nn.{cell.upper()}{', 2 layers' if layers == 2 else ''}"
        model = float_classifier(cell, INPUTS, hidden_size, layers)
        return Row(name, name, training_step(model, given.time_major, given.y))

    def our_row(name: str, reference: str, cell: str, config: Config = "w8a8", layers: int = 1) -> Row:
        model = ours(cell, hidden_size, given.x, config, layers)
        return Row(f"edgernn {name}", f"float nn.{reference}", training_step(model, given.x, given.y))

    for cell in ("lstm", "gru", "rnn"):
        yield float_row(cell)
    for cell in ("lstm", "gru"):
        yield float_row(cell, layers=2)
    for cell in ("lstm", "gru", "rnn"):
        yield our_row(f"{cell.upper()} w8a8", cell.upper(), cell)
        yield our_row(f"{cell.upper()} w8a16", cell.upper(), cell, "w8a16")
    yield our_row("LSTM tflite-lstm", "LSTM", "lstm", QuantConfig(profile="tflite-lstm"))
    yield our_row("GRU reset before w8a8", "GRU", "gru_before")
    for cell in ("lstm", "gru"):
        yield our_row(f"{cell.upper()} w8a8, 2 layers", f"{cell.upper()}, 2 layers", cell, layers=2)
    if with_peers:
        yield from (explicitly(our_row(f"{cell.upper()} w8a8", cell.upper(), cell)) for cell in ("lstm", "gru"))
        for name, cell, model in peers(INPUTS, hidden_size, given.time_major):
            call = None if model is None else training_step(model, given.time_major, given.y)
            yield Row(name, f"float nn.{cell.upper()}", call)


def explicitly(row: Row) -> Row:
    """The same by torch's operations, step by step, as on other devices."""

    def call() -> None:
        assert row.call is not None
        with explicit():
            row.call()

    return Row(f"{row.name}, explicit", row.reference, call)


def table_part(hidden_size: int, chosen: Options, memory: str = "", *, with_peers: bool = False) -> Iterator[Target]:
    """Print the table of one hidden size; what must be reached in it. memory: what is special about it, for titles."""
    torch.manual_seed(0)
    made = list(rows(hidden_size, with_peers))
    calls = {row.name: row.call for row in made if row.call is not None}
    times = measure(calls, rounds=QUICK_ROUNDS if chosen.quick else ROUNDS)
    lines = [
        (
            row.name,
            f"{1e3 * times[row.name].seconds:.2f}",
            f"{times[row.name].over(times['float nn.LSTM']):.2f}",
            f"{times[row.name].over(times[row.reference]):.2f}",
        )
        if row.call is not None
        else (f"{row.name}: not installed", None, None, None)
        for row in made
    ]
    title = f"Forward and backward, hidden size {hidden_size}, one thread, CPU time{memory}"
    show(title, ("", "ms", "/ float nn.LSTM", "/ same cell in float"), lines)
    for cell in ("lstm", "gru"):
        for suffix in ("", ", 2 layers"):
            limit = LIMITS.get((cell, hidden_size))
            if limit is not None:
                found = times[f"edgernn {cell.upper()} w8a8{suffix}"].over(times[f"float nn.{cell.upper()}{suffix}"])
                yield Target(f"QAT {cell.upper()}-{hidden_size}{suffix} / float{memory}", found, limit)


def keep_freed_memory() -> bool:
    """Whether the C library's allocator can be told so, as allocators made for training do of themselves.

    glibc's gives large arrays back to the system, and fresh ones cost a page fault every 4 KB: up to a third of a float
    module's step, and next to nothing of edgernn's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, 1 << 30) and mallopt(_MMAP_THRESHOLD, _LARGEST))


# ---- two threads -----------------------------------------------------------------------------------------------------


def threads_part(chosen: Options) -> Iterator[Target]:
    """What threads.py finds, in a process that has two."""
    command = [sys.executable, "-m", "tests.benchmarks.threads", *map(str, chosen.hidden_sizes)]
    environment = os.environ | thread_variables(2)
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        print("\ntwo threads: failed, see above", flush=True)
        return
    *shown, last = result.stdout.splitlines()
    print("\n".join(shown), flush=True)
    yield from (Target(*fields) for fields in json.loads(last))


# ---- growth ----------------------------------------------------------------------------------------------------------

GROWTH: Final[dict[str, tuple[int, ...]]] = {
    "steps": (10, 25, 100, 400),
    "hidden size": (16, 32, 64, 128, 256),
    "batch": (1, 4, 8, 16, 64, 256),
}


def growth_part(quick: bool) -> None:
    """How the cost grows with steps, hidden size and batch, each with the others at 100, 64 and 64."""
    for what, values in GROWTH.items():
        lines = []
        for value in values:
            sizes = {"steps": STEPS, "hidden size": 64, "batch": BATCH} | {what: value}
            found = grown(sizes["steps"], sizes["hidden size"], sizes["batch"], 2 if quick else 5)
            unit = 1e9 / (sizes["steps"] * sizes["batch"])
            lines.append((value, *found, *(f"{unit * float(ms) / 1e3:.0f}" for ms in (found[1], found[4]))))
        headers = (
            what,
            "nn.LSTM, ms",
            "edgernn",
            "ratio",
            "nn.GRU, ms",
            "edgernn",
            "ratio",
            "edgernn LSTM, ns/step",
            "GRU",
        )
        show(f"Growth with {what}, w8a8, one thread, CPU time", headers, lines)


def grown(steps: int, hidden_size: int, batch: int, rounds: int) -> list[str]:
    """For LSTM and GRU: milliseconds of the float module, of edgernn, and their ratio."""
    given, calls = data(steps, batch), {}
    for cell in ("lstm", "gru"):
        calls[f"float {cell}"] = training_step(float_classifier(cell, INPUTS, hidden_size), given.time_major, given.y)
        calls[f"ours {cell}"] = training_step(ours(cell, hidden_size, given.x), given.x, given.y)
    times = measure(calls, rounds=rounds)
    found = []
    for cell in ("lstm", "gru"):
        pair: tuple[Timing, Timing] = times[f"float {cell}"], times[f"ours {cell}"]
        found += [f"{1e3 * one.seconds:.2f}" for one in pair] + [f"{pair[1].over(pair[0]):.2f}"]
    return found


# ---- a whole training ------------------------------------------------------------------------------------------------


def vowels_part() -> Iterator[Target]:
    """`edgernn train --data vowels --cell gru --hidden 32 --noise 0.5 --qat w8a8`: 60 epochs, after 5 to warm up."""
    trained(5)
    wall, cpu, accuracy = trained(60)
    print(f"\nGRU-32 on vowels, 60 epochs: {wall:.2f} s ({cpu:.2f} s of CPU), {100 * accuracy:.2f} % in integers")
    yield Target("GRU-32 on vowels, 60 epochs", wall, 6, "s")


def trained(epochs: int) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, accuracy in integers) of a training with its checkpoints."""
    from edgernn.data import load, normalisation
    from edgernn.train import TrainConfig, fit

    torch.manual_seed(0)
    dataset = load("vowels", 0)
    mean, std = normalisation(dataset.train)
    rnn = GRU(dataset.input_size, 32, batch_first=True)
    model = SequenceModel(
        rnn,
        dataset.output_size,
        dataset.head,
        labels=dataset.labels,
        task=dataset.task,
        input_mean=mean,
        input_std=std,
    )
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        history = fit(model, dataset, TrainConfig(epochs, input_noise=0.5, qat="w8a8"), folder, progress=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, history.metrics["test"]["integer"]["accuracy"]


def main() -> None:
    chosen = options("tests.benchmarks.qat", "The speed of training in integers.", PARTS, (32, 128))
    restart_with_threads(1)
    print(describe(), flush=True)
    targets: list[Target] = []
    if "table" in chosen.parts:
        for hidden_size in chosen.hidden_sizes:
            targets += table_part(hidden_size, chosen)
        if not chosen.quick:
            memory = ", freed memory kept" if keep_freed_memory() else ""
            for hidden_size in chosen.hidden_sizes:
                targets += table_part(hidden_size, chosen, memory, with_peers=True)
    if "growth" in chosen.parts:
        growth_part(chosen.quick)
    if "vowels" in chosen.parts:
        targets += vowels_part()
    if "threads" in chosen.parts:
        targets += threads_part(chosen)
    show_targets(targets)


if __name__ == "__main__":
    main()
