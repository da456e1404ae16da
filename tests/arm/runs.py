"""One engine on one emulated processor, over folders of models."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgernn.engines import ENGINES
from edgernn.qmodel import QuantizedModel

from .device import Check, ways
from .suite import Part
from .userland import CACHE, ROOT, command


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

    def line(self) -> str:
        """Of a table."""
        models, differences = len({check.seed for check in self.checks}), sum(one.differences for one in self.checks)
        counts = (
            f"{models:>4} models {len(self.checks):>4} forms {self.integers:>8,} integers {differences:>3} differences"
        )
        return f"{self.engine:<27}{self.processor:<11}{counts} {self.seconds:>4.0f} s  {self.versions}"


def run_part(part: Part, models: Mapping[Path, tuple[str, QuantizedModel]], path: Path = ROOT) -> Run:
    """The checks of `device` over these folders, of which each has a name and a model; `path` is where Python finds
    `tests` and, unless the installed one is meant, `edgernn`."""
    started = time.monotonic()
    engine = ENGINES[part.engine]
    expected = [f"{name}, {way}" for name, model in models.values() for way in ways(engine, model)]
    python = ["-m", "tests.arm.device", part.engine, *map(str, models)]
    arguments = command(python, part.processor, simd=part.simd != "off", path=path)
    result = subprocess.run(arguments, cwd=path, capture_output=True, text=True, check=False)
    last_words = ["no message", *result.stderr.strip().splitlines()][-1]
    versions, *lines = result.stdout.splitlines() or [""]
    checks = [Check(**json.loads(line)) for line in lines]
    seconds = time.monotonic() - started
    return Run(
        part.engine, part.processor, expected, checks, versions, result.returncode, last_words, seconds, part.simd
    )
