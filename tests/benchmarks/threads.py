"""Training on two threads against one, in turns and in wall time; `tests.benchmarks.qat` runs it in its own process.

Prints a table, and in the last line what must be reached as JSON.
"""

import json
import sys
import time

import torch

from .qat import INPUTS, data, ours
from .report import Target, show
from .timing import Call, Timing, measure
from .train_peers import float_classifier, training_step


def on(threads: int, call: Call) -> Call:
    def run() -> None:
        torch.set_num_threads(threads)
        call()

    return run


def times_of(cell: str, hidden_size: int) -> dict[str, Timing]:
    """edgernn before float, not in turns with it: threads of OpenMP go on spinning after their work, in its way."""
    given = data()
    models = {
        "edgernn": training_step(ours(cell, hidden_size, given.x), given.x, given.y),
        "float": training_step(float_classifier(cell, INPUTS, hidden_size), given.time_major, given.y),
    }
    times: dict[str, Timing] = {}
    for name, call in models.items():
        times |= measure({f"{name} {threads}": on(threads, call) for threads in (1, 2)}, time.perf_counter)
    return times


def main() -> None:
    lines, targets = [], []
    for hidden_size in map(int, sys.argv[1:]):
        for cell in ("lstm", "gru"):
            times, label = times_of(cell, hidden_size), f"{cell.upper()}-{hidden_size}"
            gains = [times[f"{name} 1"].over(times[f"{name} 2"]) for name in ("edgernn", "float")]
            fastest = times["edgernn 1"].fastest / times["edgernn 2"].fastest
            seconds = (f"{1e3 * one.seconds:.2f}" for one in times.values())
            lines.append((label, *seconds, *(f"{gain:.2f}" for gain in (gains[0], fastest, gains[1]))))
            targets.append(Target(f"QAT {label}, two threads", gains[0], 1.6, "times one", at_least=True))
    headers = (
        "w8a8",
        "edgernn, 1 (ms)",
        "edgernn, 2",
        "float, 1",
        "float, 2",
        "edgernn gains",
        "at best",
        "float gains",
    )
    show("Two threads against one, wall time", headers, lines)
    print(json.dumps(targets))


if __name__ == "__main__":
    main()
