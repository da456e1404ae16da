"""The soak counts every model once, survives a runtime that does not, and writes only tables that are true."""

import sys
from pathlib import Path

import pytest

from . import soak
from .tally import CELLS, Tally

# In place of a comparison: counts a model a seed; from seed 150 on one of `CELLS` is wrong, seed 42 crashes.
SCRIPT = """
import os, sys
from tests.tally import CELLS, Tally
tally = Tally()
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    if seed == 42:
        os.abort()
    tally.cases += 1
    wrong = int(seed >= 150)
    tally.count("numba", "step", CELLS[seed % 4], 10, wrong)
    if wrong:
        tally.failures.append(f"seed {seed}: 1 of 10 integers differ")
print(tally.json())
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(soak, "_COMMAND", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(soak, "ORDER", ("numba",))
    monkeypatch.setattr(soak, "_SEEDS", 20)
    monkeypatch.setattr(sys, "argv", ["soak", "--jobs", "2", *arguments])
    return soak.main()


def test_all_equal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{soak.BEGIN}\nold\n{soak.END}\nafter\n")
    assert run(monkeypatch, "--seed", "50", "--models", "100", "--write", str(page)) == 0
    assert "100 models, 1,000 integers compared, 0 differences" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `numba` | – | – | – | – | ✓ 100 | – | – |" in text
    assert f"| `numba` | step | {' | '.join(['✓ 25'] * len(CELLS))} |" in text


def test_a_crash_costs_one_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{soak.BEGIN}\n{soak.END}\n")
    assert run(monkeypatch, "--seed", "38", "--models", "10", "--write", str(page)) == 1
    out = capsys.readouterr().out
    assert "10 models, 90 integers compared, 0 differences" in out
    assert "FAILURE seed 42: the process ended with -6" in out
    assert page.read_text() == f"{soak.BEGIN}\n{soak.END}\n"


def test_a_difference_is_counted_and_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--seed", "149", "--models", "2") == 1
    out = capsys.readouterr().out
    assert "2 models, 20 integers compared, 1 differences" in out
    assert "FAILURE seed 150: 1 of 10 integers differ" in out


def test_a_tick_needs_every_cell() -> None:
    tally = Tally()
    for cell in CELLS[:3]:
        tally.count("numba", "step", cell, 1, 0)
    assert "| – | – | – | – | 3 of some cells | – | – |" in tally.table(["numba"])
    tally.count("numba", "step", CELLS[3], 1, 1)
    assert "| – | – | – | – | 1 differ | – | – |" in tally.table(["numba"])
