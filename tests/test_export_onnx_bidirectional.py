"""Exact ONNX files of bidirectional layers equal the oracle's integers, however a runtime runs them."""

from typing import Any

import numpy as np
import pytest

from edgernn.export.onnx import to_onnx
from edgernn.qmodel import HeadKind, Scheme

from . import oracle
from .models import HEADS, SCHEMES, VARIANTS, Variant, random_input, random_model, with_directions
from .test_export_onnx import (
    Runtime,
    check,
    check_sequences,
    run_ort,
    run_reference,
    run_unoptimised,
    session,
)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_sequences_equal_the_oracle(cell: Variant, scheme: Scheme, head: HeadKind | None) -> None:
    sizes: dict[str, Any] = {"input_size": 3, "hidden_size": 4}
    for seed, pattern in ((201, [True, True]), (202, [False, True, False])):
        model = random_model(seed, cell, scheme, head=head, layers=len(pattern), bidirectional=True, **sizes)
        check_sequences(with_directions(model, pattern), seed, run_ort, steps=6)


@pytest.mark.parametrize("run", [run_unoptimised, run_reference])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_other_runtimes_equal_the_oracle(cell: Variant, scheme: Scheme, run: Runtime) -> None:
    sizes: dict[str, Any] = {"input_size": 3, "hidden_size": 4, "saturating": True}
    heads: dict[int, HeadKind | None] = {211: "last", 212: None}
    for seed, head in heads.items():
        model = random_model(seed, cell, scheme, head=head, layers=2, bidirectional=True, **sizes)
        check_sequences(with_directions(model, [True, seed % 2 == 0]), seed, run, steps=4)


@pytest.mark.parametrize("run", [run_ort, run_reference])
@pytest.mark.parametrize("cell", VARIANTS)
def test_one_step_and_one_unit(cell: Variant, run: Runtime) -> None:
    model = random_model(221, cell, input_size=1, hidden_size=1, output_size=1, layers=2, bidirectional=True)
    check_sequences(model, 221, run, steps=1)


def test_several_threads_give_the_integers_of_one() -> None:
    """Large enough for the runtime to share its products and its element-wise loops out."""
    model = random_model(231, "lstm", "w8a16", input_size=24, hidden_size=96, head=None, bidirectional=True)
    x = random_input(model, 6, 231, (64,))
    lengths = np.random.default_rng(231).integers(1, 7, 64).astype(np.int32)
    content = to_onnx(model)
    one, four = (run_ort(content, {"x": x, "lengths": lengths}, threads=threads)["y"] for threads in (1, 4))
    assert np.array_equal(one, four), "seed 231"
    assert np.array_equal(one[:1], oracle.run_batch(model, x[:1], lengths[:1].tolist())), "seed 231"


# ---- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", VARIANTS)
def test_checker_and_shapes(cell: Variant, head: HeadKind | None, weights_only: bool) -> None:
    model = with_directions(random_model(251, cell, head=head, layers=2, bidirectional=True), [False, True])
    proto = check(to_onnx(model, weights_only=weights_only))
    loaded = session(proto.SerializeToString())
    assert {i.name: i.shape for i in loaded.get_inputs()} == {"x": ["N", "T", model.input_size], "lengths": ["N"]}
    columns = 3 if head else 2 * model.layers[1].hidden_size
    assert [(o.name, o.shape) for o in loaded.get_outputs()] == [
        ("y", ["N", "T", columns] if model.every_step else ["N", columns])
    ]


@pytest.mark.parametrize("weights_only", [False, True])
def test_single_steps_are_refused(weights_only: bool) -> None:
    model = with_directions(random_model(252, layers=2, bidirectional=True), [True, False])
    with pytest.raises(ValueError, match="a bidirectional model reads whole sequences"):
        to_onnx(model, "step", weights_only)
