"""python -m tests.arm.install: what `pip install edgernn` brings onto a 64-bit Raspberry Pi, and how large it is.

The wheel of this tree and the published aarch64 wheels, for the Python of each system; no emulator takes part.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final, NamedTuple

from .debian import Unavailable, succeed
from .userland import wheels_for
from .wheel import build_wheel

LIMIT: Final = 400.0  # MB that edgernn[run] may take
_CURE: Final = "check the network and pip's index, then run again"


class System(NamedTuple):
    """An operating system of the Raspberry Pi: its own Python, and the minor version of its glibc 2."""

    name: str
    python: str
    glibc: int


SYSTEMS: Final = (
    System("Raspberry Pi OS bookworm", "3.11", 36),
    System("Ubuntu 24.04", "3.12", 39),
    System("Raspberry Pi OS trixie", "3.13", 41),
)
EXTRAS: Final = ("", "run", "run,export")


@dataclass(frozen=True)
class Install:
    """What pip installs for edgernn with these extras: the size of each package in MB, byte code included."""

    system: System
    extras: str
    packages: dict[str, float]

    @property
    def name(self) -> str:
        return f"edgernn[{self.extras}]" if self.extras else "edgernn"

    @property
    def megabytes(self) -> float:
        return sum(self.packages.values())

    def failures(self) -> list[str]:
        """In words."""
        where = f"{self.name} on {self.system.name}"
        found = [f"{where}: brings torch"] if "torch" in self.packages else []
        if self.extras == "run" and self.megabytes >= LIMIT:
            found.append(f"{where}: {self.megabytes:.0f} MB, and {LIMIT:.0f} MB are the limit")
        return found

    def line(self) -> str:
        largest = sorted(self.packages.items(), key=lambda package: -package[1])[:5]
        parts = ", ".join(f"{name} {size:.0f}" for name, size in largest)
        return f"{self.system.python}  {self.name:<20}{len(self.packages):>3}  {self.megabytes:>5.0f}  {parts}, .."


def main() -> int:
    print("Python, what is installed, packages, MB with byte code, the largest of them", flush=True)
    failures = []
    try:
        with tempfile.TemporaryDirectory(prefix="edgernn-wheel-") as name:
            wheel = build_wheel(Path(name))
            for system in SYSTEMS:
                for install in installs(system, wheel):
                    print(install.line(), flush=True)
                    failures += install.failures()
    except Unavailable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


def installs(system: System, wheel: Path) -> Iterator[Install]:
    """One for each of EXTRAS. Raises Unavailable."""
    with tempfile.TemporaryDirectory(prefix="edgernn-install-") as name:
        options = [*wheels_for(system.python, system.glibc), "--target", name]
        _pip(options, f"{wheel}[{EXTRAS[-1]}]")
        sizes = _sizes(Path(name))
        for extras in EXTRAS:
            chosen = _pip(["--dry-run", "--ignore-installed", *options], f"{wheel}[{extras}]" if extras else str(wheel))
            yield Install(system, extras, {package: sizes[package] for package in chosen})


def _pip(options: list[str], requirement: str) -> list[str]:
    """The packages that pip installs, or would install."""
    with tempfile.NamedTemporaryFile(prefix="edgernn-report-") as report:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--report", report.name]
        succeed([*install, *options, requirement], _CURE)
        return [_normal(entry["metadata"]["name"]) for entry in json.load(report)["install"]]


def _sizes(folder: Path) -> dict[str, float]:
    """MB of each package, which are 10^6 bytes."""
    found = {}
    for package in distributions(path=[str(folder)]):
        files = [folder / str(file) for file in package.files or []]
        found[_normal(package.name)] = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    raise SystemExit(main())
