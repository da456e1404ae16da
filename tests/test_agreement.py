"""The promise: on random and adversarial models of every shape, every engine gives the kernel's integers."""

import re
from pathlib import Path

import pytest

from edgernn.engines import ENGINES

from .agreement import compare, forms_of
from .cases import draw
from .tally import CELLS, FORMS

MODELS, AT_ONCE = 300, 10
_REFERENCES = {"oracle": "sequence", "torch": "batch"}  # beside the engines
README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.parametrize("seed", range(0, MODELS, AT_ONCE))
def test_all_engines_give_the_same_integers(seed: int) -> None:
    tally = compare(range(seed, seed + AT_ONCE))
    assert not tally.failures, "\n".join(tally.failures)
    assert {"oracle", *(name for name, engine in ENGINES.items() if not engine.compiled)} <= set(tally.engines)


def test_the_cases_cover_every_shape() -> None:
    cases = [draw(seed) for seed in range(MODELS)]
    models = [case.model for case in cases]
    kinds = {
        (m.layers[0].cell, m.layers[0].reset_after, m.scheme, m.bidirectional, m.head and m.head.kind) for m in models
    }
    assert len(kinds) == 4 * 2 * 2 * 3
    assert {len(m.layers) for m in models} == {1, 2, 3}
    assert any(m.layers[0].backward is None and m.bidirectional for m in models)
    for low, high, values in (
        (1, 512, [m.layers[0].hidden_size for m in models]),
        (1, 512, [m.input_size for m in models]),
        (1, 300, [case.x.shape[1] for case in cases]),
        (-128, 127, [m.input_zero_point for m in models]),
    ):
        assert min(values) == low
        assert max(values) >= high


def test_the_readme_has_the_tables_of_a_run() -> None:
    """Every form of every engine stands there with a tick, and nothing else does."""
    text = README.read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \| (.*) \|$", text, re.M)
    found = {(engine, form): cells.split(" | ") for engine, form, cells in rows if form in FORMS}
    models = [draw(seed).model for seed in range(40)]
    expected = {
        (engine.name, f"{form}, bidirectional" if model.bidirectional else form)
        for engine in ENGINES.values()
        for model in models
        for form in forms_of(engine, model)
    }
    expected |= {(name, form + way) for name, form in _REFERENCES.items() for way in ("", ", bidirectional")}
    assert set(found) == expected
    for place, cells in found.items():
        assert len(cells) == len(CELLS), place
        assert all(re.fullmatch(r"✓ [\d,]+", cell) for cell in cells), place


def test_the_readme_has_the_profile_tflite_lstm() -> None:
    """In a table of its own: every form of every engine that needs no compiler for each model, and 0 for none."""
    _, _, after = README.read_text().partition("The profile tflite-lstm, which is among them:")
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", after.partition("<details>")[0], re.M)
    found = {
        (engine, form)
        for engine, cells in rows
        for form, cell in zip(FORMS, cells.split(" | "), strict=True)
        if "✓" in cell
    }
    assert all(re.fullmatch(r"✓ [\d,]+|–", cell) for _, cells in rows for cell in cells.split(" | "))
    models = [case.model for case in map(draw, range(0, 400, 8)) if case.model.profile == "tflite-lstm"]
    expected = {
        (engine.name, f"{form}, bidirectional" if model.bidirectional else form)
        for engine in ENGINES.values()
        for model in models
        for form in forms_of(engine, model)
        if not engine.compiled
    }
    expected |= {(name, form + way) for name, form in _REFERENCES.items() for way in ("", ", bidirectional")}
    assert expected <= found
