"""python -m tests.arm: published wheels and the native engine, on emulated cores, against the oracle."""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from ..cases import Case
from .debian import Unavailable
from .runs import Run, run_part
from .suite import PARTS, cases, write
from .userland import BITS_32, BITS_64


def main() -> int:
    started = time.monotonic()
    try:
        for system in (BITS_64, BITS_32):
            system.prepare()
    except Unavailable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    suite = cases()
    print(f"{len(suite)} models: their files, and the oracle's integers", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgernn-arm-") as name:
        for case in suite:
            write(case, Path(name) / f"{case.seed:03}")
        processors = sorted({part.processor for part in PARTS})
        with ThreadPoolExecutor(2) as pool:  # of each processor the parts run one after the other
            runs = list(chain.from_iterable(pool.map(lambda processor: _runs(processor, suite, name), processors)))
    failures = [failure for run in runs for failure in run.failures()]
    integers = sum(run.integers for run in runs)
    print(*failures, sep="\n", end="\n" if failures else "")
    print(f"{integers:,} integers, {len(failures)} failures, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


def _runs(processor: str, suite: list[Case], folder: str) -> list[Run]:
    runs = []
    for part in PARTS:
        if part.processor == processor:
            models = {Path(folder) / f"{case.seed:03}": (str(case), case.model) for case in part.cases(suite)}
            runs.append(run_part(part, models))
            print(runs[-1].line(), flush=True)
    return runs


if __name__ == "__main__":
    raise SystemExit(main())
