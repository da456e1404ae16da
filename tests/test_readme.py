"""What the README and the examples show works as it stands there."""

import itertools
import re
import runpy
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgernn.data
import edgernn.train
from edgernn.cli import _parser
from edgernn.data import Dataset, Split

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)
ALL_EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
EXAMPLES = [name for name in ALL_EXAMPLES if name != "ecg_live.py"]  # which takes a model: see test_ecg_live.py


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three epochs on a tenth of the data: what is shown must run here, not learn."""
    fit, load = edgernn.train.fit, edgernn.data.load

    def short_fit(model: Any, data: Dataset, config: Any, **options: Any) -> Any:
        return fit(model, data, replace(config, epochs=3), progress=False, **options)

    monkeypatch.setattr(edgernn.train, "fit", short_fit)
    monkeypatch.setattr(edgernn.data, "load", lambda name: _tenth(load(name)))
    monkeypatch.chdir(tmp_path)


def _tenth(data: Dataset) -> Dataset:
    def part(split: Split) -> Split:
        return split.take(range(0, len(split), 10))

    return replace(data, train=part(data.train), test=part(data.test))


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("edgernn ")])
def test_commands_have_the_right_options(line: str) -> None:
    words = itertools.takewhile(lambda word: word not in ("|", "<", ">"), shlex.split(line, comments=True))
    _parser().parse_args([*words][1:])


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_make_has_the_targets(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_python_snippet_runs(snippet: str, short_training: None, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert re.fullmatch(r"[01]\.\d*\n", capsys.readouterr().out.splitlines(keepends=True)[-1])
    assert Path("runs/vowels/model.ernn").is_file()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, short_training: None, capfd: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    printed = capfd.readouterr().out
    shown: dict[str, Callable[[str], bool]] = {
        "battery_soc.py": lambda text: text.count("mean absolute error") == 2,
        "classify_vowels.py": lambda text: "between kernel and LiteRT: 0 of" in text,
        "ecg_rpeaks.py": lambda text: "beats found" in text,
    }
    assert shown[name](printed), printed


def test_examples_are_short() -> None:
    assert all(len((ROOT / "examples" / name).read_text().splitlines()) < 80 for name in ALL_EXAMPLES)
