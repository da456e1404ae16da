"""Attack everything that reads files: damaged and forged files by the hundred thousand, each from its seed.

    python -m tests.soak_files --files 100000 --seed 0
    python -m tests.soak_files --seed 4711 --files 1      what became of one file, again

A reader may refuse a file with a ValueError; or take it, if it gives the very model that was damaged, or another one
whose checksum was computed anew and that is kept entire and runs. It must not crash, take long, or take memory. The
readers run in a process of their own, with a limit on its address space and a watch beside it.
"""

import argparse
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

ADDRESS_SPACE: Final = 512 * 2**20  # bytes, beyond what the process has when everything is loaded
GROWTH: Final = 64 * 2**20  # bytes of memory in use, by one file of at most a megabyte
SECONDS: Final = 20.0  # a file; milliseconds are usual
START_SECONDS: Final = 600.0  # to load torch and compile the kernels on a busy machine

GOOD: Final = ("refused", "same", "another valid")
BAD: Final = ("crash", "hang", "large allocation", "wrong error", "silent acceptance", "broken model")


@dataclass(frozen=True)
class Outcome:
    """What became of the file of a seed: `result` is one of GOOD or BAD."""

    seed: int
    reader: str
    mutation: str
    result: str
    detail: str = ""

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.reader}, {self.mutation}: {self.result} {self.detail}"


@dataclass
class Tally:
    """How many files, by reader and by mutation, became what; and the files that did harm."""

    readers: Counter[tuple[str, str]] = field(default_factory=Counter)
    mutations: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.readers[outcome.reader, outcome.result] += 1
        self.mutations[outcome.mutation, outcome.result] += 1
        if outcome.result in BAD:
            self.failures.append(outcome)

    def count(self, result: str) -> int:
        return sum(count for (_, found), count in self.readers.items() if found == result)

    def __str__(self) -> str:
        lines = [line for counts in (self.readers, self.mutations) for line in _table(counts)]
        lines.append(f"{self.readers.total()} files: " + ", ".join(f"{self.count(name)} {name}" for name in GOOD))
        return "\n".join([*lines, ", ".join(f"{self.count(name)} {name}" for name in BAD)])


def _table(counts: Counter[tuple[str, str]]) -> list[str]:
    lines = [f"{'':32}{'files':>8}" + "".join(f"{name:>15}" for name in GOOD)]
    for name in sorted({name for name, _ in counts}):
        files = sum(counts[name, result] for result in (*GOOD, *BAD))
        lines.append(f"{name:32}{files:8}" + "".join(f"{counts[name, result]:15}" for result in GOOD))
    return [*lines, ""]


# ---- in the process under attack -------------------------------------------------------------------------------------


class Attack:
    """The readers with their good samples, and the folder that the damaged ones are written to."""

    def __init__(self, folder: Path) -> None:
        from .readers import READERS, parts

        self.folder, self.readers, self.parts = folder, READERS, parts
        self.shares = [reader.share for reader in READERS.values()]
        self.samples = {name: reader.contents() for name, reader in READERS.items()}
        self.expected: dict[str, list[Any]] = {name: [] for name in READERS}
        for name, contents in self.samples.items():
            for content in contents:
                path = self._write(name, content)
                value = READERS[name].read(path)
                READERS[name].use(path, value)
                self.expected[name].append(parts(value))

    def __call__(self, seed: int) -> Outcome:
        """Make, read and judge the file of a seed."""
        from .mutations import mutate

        rng = np.random.default_rng(seed)
        name = list(self.readers)[int(rng.choice(len(self.shares), p=self.shares))]
        index, other = (int(number) for number in rng.integers(len(self.samples[name]), size=2))
        damaged = mutate(self.samples[name][index], self.samples[name][other], rng, self.readers[name].container)
        path = self._write(name, damaged.content)
        before = _memory()
        result, detail = self._judge(name, self.expected[name][index], path, damaged.forged)
        grown = _memory() - before
        if result in GOOD and grown > GROWTH:
            result, detail = "large allocation", f"{grown >> 20} MiB for {len(damaged.content)} bytes"
        return Outcome(seed, name, damaged.mutation, result, detail)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / self.readers[name].name
        path.write_bytes(content)
        return path

    def _judge(self, name: str, expected: Any, path: Path, forged: bool) -> tuple[str, str]:
        reader = self.readers[name]
        try:
            value = reader.read(path)
        except Exception as error:
            if _out_of_memory(error):
                return "large allocation", repr(error)
            return ("refused", str(error)) if isinstance(error, ValueError) else ("wrong error", _trace(error))
        if self.parts(value) == expected:
            return "same", ""
        if reader.container and not forged:
            return "silent acceptance", "of another model"
        try:
            reader.use(path, value)
        except Exception as error:
            return "broken model", _trace(error)
        return "another valid", ""


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _memory() -> int:
    """The most memory that this process has had in use, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed somewhere below, caught or not: torch's error has no type of its own."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = Path("/proc/self/statm")
    if used.exists():
        limit = int(used.read_text().split()[0]) * resource.getpagesize() + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _work(seeds: range, connection: Connection) -> None:
    """Attack with the file of every seed, and say what became of it."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(Path(folder))
        _limit_memory()
        connection.send("ready")
        for seed in seeds:
            connection.send(attack(seed))


# ---- beside it -------------------------------------------------------------------------------------------------------


def outcomes(seeds: range) -> Iterator[Outcome]:
    """What became of each file. Where the process dies or stands still, the file did it; another process goes on."""
    while seeds:
        for outcome in _outcomes_of_one_process(seeds):
            yield outcome
            seeds = seeds[1:]


def _outcomes_of_one_process(seeds: range) -> Iterator[Outcome]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(seeds, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(START_SECONDS) or receiver.recv() != "ready":
            raise EOFError
    except EOFError:
        process.kill()
        raise RuntimeError("the readers do not read their samples") from None
    for seed in seeds:
        try:
            if not receiver.poll(SECONDS):
                process.kill()
                yield Outcome(seed, "", "", "hang")
                break
            yield receiver.recv()
        except EOFError:
            process.join()
            yield Outcome(seed, "", "", "crash", f"exit code {process.exitcode}")
            break
    process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first file")
    args = parser.parse_args()
    tally, started = Tally(), time.monotonic()
    for outcome in outcomes(range(args.seed, args.seed + args.files)):
        tally.add(outcome)
        if outcome.result in BAD or args.files == 1:
            print(outcome, flush=True)
    print(tally)
    print(f"seeds {args.seed} to {args.seed + args.files - 1}, {time.monotonic() - started:.0f} s")
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
