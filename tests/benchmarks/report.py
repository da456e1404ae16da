"""What the benchmarks of speed share: their options, and the lines of what must be reached."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edgernn.cli._output import table

QUICK_ROUNDS: Final = 4


class Target(NamedTuple):
    """A figure that has to lie below a bound, or above it."""

    what: str
    found: float
    bound: float
    unit: str = "x"
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.found >= self.bound if self.at_least else self.found <= self.bound


class Options(NamedTuple):
    """quick: few rounds and no slow peers. parts: what to run."""

    quick: bool
    parts: tuple[str, ...]
    hidden_sizes: tuple[int, ...]


def options(module: str, about: str, parts: Sequence[str], hidden_sizes: Sequence[int]) -> Options:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--quick", action="store_true", help="few rounds and no slow peers, while tuning")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--hidden", nargs="+", type=int, default=hidden_sizes, metavar="H", help="hidden sizes")
    args = parser.parse_args()
    return Options(args.quick, tuple(args.only), tuple(args.hidden))


def show(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n{title}\n\n{table(headers, rows)}", flush=True)


def show_targets(targets: Sequence[Target]) -> None:
    if not targets:
        return
    rows = [
        (
            target.what,
            f"{target.found:.2f} {target.unit}",
            f"{'at least' if target.at_least else 'at most'} {target.bound:g} {target.unit}",
            "ok" if target.met else "SHORT",
        )
        for target in targets
    ]
    show("Must reach", ("", "found", "must be", ""), rows)
