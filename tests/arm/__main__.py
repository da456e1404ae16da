"""make test-arm: the published aarch64 wheels, on emulated cores, against the oracle, integer for integer."""

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from edgernn.engines import ENGINES

from ..cases import Case
from .device import Check, ways
from .suite import PARTS, Part, cases, write
from .userland import CACHE, Unavailable, command, prepare


@dataclass(frozen=True)
class Run:
    """One engine over the suite: what was to be checked, what was, and how it ended."""

    engine: str
    processor: str
    expected: list[str]
    checks: list[Check]
    versions: str
    exit_code: int
    last_words: str
    seconds: float
    simd: str = ""  # the form of vector instructions that the kernels were to choose

    @property
    def name(self) -> str:
        return f"{self.engine}{self.simd and f', {self.simd},'} on {self.processor}"

    def failures(self) -> list[str]:
        """In words: what differs, what an engine refused, and an end before the end."""
        found = []
        if self.checks and not self.versions.endswith(self.simd):
            found.append(f"{self.name}: {self.versions}: not with {self.simd}")
        for place, check in zip(self.expected, self.checks, strict=False):
            if check.problem or check.differences:
                problem = check.problem or f"{check.differences} of {check.integers} integers differ"
                found.append(f"{self.name}: {place}: {problem}")
        ahead = self.expected[len(self.checks) :]
        if ahead or self.exit_code:
            place = f"before {ahead[0]}" if ahead else "after the last check"
            end = f"exit code {self.exit_code}: {self.last_words}"
            found.append(f"{self.name}: stopped {place} ({end}); if it stays so, remove {CACHE} and run again")
        return found

    @property
    def integers(self) -> int:
        return sum(check.integers for check in self.checks)

    def counts(self) -> str:
        models, differences = len({check.seed for check in self.checks}), sum(one.differences for one in self.checks)
        counts = (
            f"{models:>4} models {len(self.checks):>4} forms {self.integers:>8,} integers {differences:>3} differences"
        )
        return f"{counts} {self.seconds:>4.0f} s  {self.versions}"


def main() -> int:
    started = time.monotonic()
    try:
        prepare()
    except Unavailable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    suite = cases()
    print(f"{len(suite)} models: their files, and the oracle's integers", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgernn-arm-") as name:
        for case in suite:
            write(case, Path(name) / f"{case.seed:03}")
        processors = sorted({part.processor for part in PARTS})
        with ThreadPoolExecutor(len(processors)) as pool:  # each runs its parts one after the other
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
            runs.append(_run(part, part.cases(suite), folder))
            print(f"{part.engine:<27}{processor:<11}{runs[-1].counts()}", flush=True)
    return runs


def _run(part: Part, suite: list[Case], folder: str) -> Run:
    started = time.monotonic()
    engine = ENGINES[part.engine]
    expected = [f"{case}, {way}" for case in suite for way in ways(engine, case.model)]
    python = ["-m", "tests.arm.device", part.engine, *(f"{folder}/{case.seed:03}" for case in suite)]
    older = part.engine.startswith("tflite-runtime")
    arguments = command(python, part.processor, tflite_runtime=older, simd=part.simd != "off")
    result = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    last_words = ["no message", *result.stderr.strip().splitlines()][-1]
    versions, *lines = result.stdout.splitlines() or [""]
    checks = [Check(**json.loads(line)) for line in lines]
    seconds = time.monotonic() - started
    return Run(
        part.engine, part.processor, expected, checks, versions, result.returncode, last_words, seconds, part.simd
    )


if __name__ == "__main__":
    raise SystemExit(main())
