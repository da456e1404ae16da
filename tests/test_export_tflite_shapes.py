"""The .tflite files of bidirectional networks, of stacks that mix directions, and of batches."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType  # type: ignore[import-untyped]

from edgernn._artifacts import Artifact, read_tflite
from edgernn.cli import main
from edgernn.export.tflite import to_tflite
from edgernn.qmodel import IntArray, QuantizedModel
from tests import oracle
from tests.models import HEADS, SCHEMES, VARIANTS, random_input, random_model, with_directions
from tests.tflite_runtimes import (
    KINDS,
    RESOLVERS,
    assert_same,
    interpreter,
    litert_sequences,
    litert_step,
    litert_stream,
    micro,
    micro_sequences,
    micro_step,
    micro_stream,
    run_steps,
)

MIXED = ("ub", "bu", "ubu", "bub", "uub", "buu")  # u: one direction, b: both


def check(model: QuantizedModel, x: IntArray, lengths: IntArray, seed: int) -> None:
    """x [N, T, input_size] as a batch, and its first sequence alone, in all interpreters."""
    expected, alone = oracle.run_batch(model, x, lengths), oracle.run(model, x[0])[None]
    steps = x.shape[1]
    any_length, any_length_batch = to_tflite(model), to_tflite(model, batch=len(x))
    for resolver in RESOLVERS:
        where = f"seed {seed}, {resolver}"
        assert_same(litert_sequences(any_length, resolver)(x[:1]), alone, f"{where}, any T")
        assert_same(litert_sequences(any_length_batch, resolver)(x, lengths), expected, f"{where}, batch, any T")
    fixed, fixed_batch = to_tflite(model, steps=steps), to_tflite(model, steps=steps, batch=len(x))
    assert_same(litert_sequences(fixed, OpResolverType.AUTO)(x[:1]), alone, f"seed {seed}, fixed T")
    assert_same(
        litert_sequences(fixed_batch, OpResolverType.AUTO)(x, lengths), expected, f"seed {seed}, batch, fixed T"
    )
    assert_same(micro_sequences(fixed)(x[:1]), alone, f"seed {seed}, TFLM")
    assert_same(micro_sequences(fixed_batch)(x, lengths), expected, f"seed {seed}, TFLM, batch")


# ---- what runtimes compute -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "scheme", "head", "layers"), KINDS)
def test_bidirectional_networks(cell: Any, scheme: Any, head: Any, layers: int) -> None:
    seed = KINDS.index((cell, scheme, head, layers))
    rng = np.random.default_rng(seed)
    model = random_model(
        seed,
        cell,
        scheme,
        input_size=int(rng.integers(1, 6)),
        hidden_size=int(rng.integers(1, 8)),
        layers=layers,
        head=head,
        bidirectional=True,
        saturating=bool(rng.integers(2)),
        per_tensor=bool(rng.integers(2)),
        input_zero_point=int(rng.choice([-128, 127, 5])),
    )
    batch, steps = 1 + seed % 3, 1 + seed % 5
    check(model, random_input(model, steps, seed, (batch,)), rng.integers(1, steps + 1, batch), seed)


@pytest.mark.parametrize(("directions", "head"), list(itertools.product(MIXED, HEADS)))
def test_stacks_that_mix_directions(directions: str, head: Any) -> None:
    seed = 100 + MIXED.index(directions) * len(HEADS) + HEADS.index(head)
    cell, scheme = VARIANTS[seed % 4], SCHEMES[seed // 4 % 2]
    sizes = {"input_size": 3, "hidden_size": 1 + seed % 5, "layers": len(directions)}
    both = random_model(seed, cell, scheme, head=head, bidirectional=True, **sizes)  # type: ignore[arg-type]
    model = with_directions(both, [letter == "b" for letter in directions])
    check(model, random_input(model, 4, seed, (2,)), np.array([4, 1 + seed % 4]), seed)


@pytest.mark.parametrize(("cell", "scheme", "head"), list(itertools.product(VARIANTS, SCHEMES, HEADS)))
def test_batches_of_one_direction(cell: Any, scheme: Any, head: Any) -> None:
    seed = 200 + KINDS.index((cell, scheme, head, 1))
    model = random_model(seed, cell, scheme, input_size=2, hidden_size=1 + seed % 6, layers=1 + seed % 2, head=head)
    batch, steps = 1 + seed % 4, 1 + seed % 6
    lengths = np.random.default_rng(seed).integers(1, steps + 1, batch)
    check(model, random_input(model, steps, seed, (batch,)), lengths, seed)


@pytest.mark.parametrize("head", HEADS)
def test_one_value_in_one_sequence(head: Any) -> None:
    model = random_model(5, "gru", input_size=1, hidden_size=1, output_size=1, head=head)
    check(model, random_input(model, 3, 5, (1,)), np.array([2]), 5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_the_batch_before_leave_no_trace(head: Any, bidirectional: bool) -> None:
    """One interpreter, batch after batch, any T; the padding is noise."""
    model = random_model(6, "lstm", input_size=3, hidden_size=4, head=head, bidirectional=bidirectional)
    engines = [litert_sequences(to_tflite(model, batch=3), resolver) for resolver in RESOLVERS]
    rng = np.random.default_rng(6)
    for steps, lengths in ((5, (5, 2, 1)), (1, (1, 1, 1)), (7, (3, 7, 6)), (5, (1, 1, 4))):
        x = random_input(model, steps, steps, (3,))
        valid = np.arange(steps)[:, None] < np.array(lengths)[:, None, None]
        noisy = np.where(valid, x, rng.integers(-128, 128, x.shape)).astype(np.int8)
        expected = oracle.run_batch(model, x, np.array(lengths))
        for engine in [*engines, micro_sequences(to_tflite(model, steps=steps, batch=3))]:
            for given in (x, noisy):
                assert_same(engine(given, np.array(lengths)), expected, f"T={steps}, lengths {lengths}")


@pytest.mark.parametrize(("cell", "scheme"), list(itertools.product(VARIANTS, SCHEMES)))
def test_step_and_stream_take_batches(cell: Any, scheme: Any) -> None:
    model = random_model(7, cell, scheme, input_size=2, hidden_size=5, layers=2, head="steps")
    x = random_input(model, 4, 7, (3,))
    expected = np.stack([oracle.run(model, sequence) for sequence in x])
    step, stream = (to_tflite(model, form, batch=3) for form in ("step", "stream"))
    for resolver in RESOLVERS:
        assert_same(run_steps(litert_step(step, resolver), model, x), expected, f"{resolver}, step")
        assert_same(litert_stream(stream, resolver)(x), expected, f"{resolver}, stream")
    assert_same(run_steps(micro_step(step, model), model, x), expected, "TFLM, step")
    assert_same(micro_stream(micro(stream))(x), expected, "TFLM, stream")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_long_sequence(bidirectional: bool) -> None:
    model = random_model(8, "rnn", input_size=1, hidden_size=2, head="steps", bidirectional=bidirectional)
    x = random_input(model, 700, 8, (1,))
    expected, content = oracle.run(model, x[0])[None], to_tflite(model)
    for resolver in RESOLVERS:
        assert_same(litert_sequences(content, resolver)(x), expected, f"T=700, {resolver}")


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("head", HEADS)
def test_no_steps_crash_no_interpreter(head: Any, resolver: OpResolverType) -> None:
    model = random_model(9, "gru", input_size=2, hidden_size=3, head=head, bidirectional=True)
    y = litert_sequences(to_tflite(model), resolver)(np.zeros((1, 0, 2), np.int8))
    assert y.shape == ((1, 0, model.output_size) if model.every_step else (1, model.output_size))


# ---- what stands in the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("head", HEADS)
def test_shapes_of_a_batch(head: Any, steps: int | None) -> None:
    model = random_model(10, "gru", input_size=3, hidden_size=4, head=head, bidirectional=True)
    engine = interpreter(to_tflite(model, steps=steps, batch=6), OpResolverType.AUTO)
    found = {entry["name"]: entry for entry in engine.get_input_details() + engine.get_output_details()}
    time = -1 if steps is None else steps
    shapes = {name: entry["shape_signature"].tolist() for name, entry in found.items()}
    y = [6, time, model.output_size] if model.every_step else [6, model.output_size]
    assert shapes == {"x": [6, time, 3], "lengths": [6], "y": y}
    assert found["lengths"]["dtype"] == np.int32
    assert engine.get_signature_list() == {"serving_default": {"inputs": ["lengths", "x"], "outputs": ["y"]}}


def test_metadata_hold_the_batch() -> None:
    model = random_model(11, "gru")
    assert [read_tflite(to_tflite(model, batch=batch)).metadata.get("batch") for batch in (4, None)] == [4, None]


@pytest.mark.parametrize(
    ("directions", "loops"), [("u", 1), ("uu", 1), ("b", 2), ("bb", 4), ("uub", 3), ("ubu", 4), ("buu", 3)]
)
def test_neighbours_of_one_direction_share_a_loop(directions: str, loops: int) -> None:
    sizes = {"input_size": 3, "hidden_size": 4, "layers": len(directions)}
    both = random_model(12, "lstm", bidirectional=True, **sizes)  # type: ignore[arg-type]
    model = with_directions(both, [letter == "b" for letter in directions])
    artifact = read_tflite(to_tflite(model, batch=2))
    assert artifact.operators["WHILE"] == loops
    assert all(name.isupper() for name in artifact.operators), "an operator that the reader does not know"
    matrices = Counter(weight.shape for weight in int8_weights(artifact))
    affines = [affine for layer in model.layers for one in layer.directions for affine in (one.input, one.recurrent)]
    assert model.head is not None
    assert matrices == Counter((a.rows, 1, 1, a.columns) for a in (*affines, model.head.dense))


def int8_weights(artifact: Artifact) -> list[IntArray]:
    return [artifact.constants[name] for name in artifact.weights]


def test_a_gru_of_32_stays_small() -> None:
    sizes = {"input_size": 12, "hidden_size": 32, "output_size": 9}
    one, both = (random_model(19, "gru", bidirectional=both, **sizes) for both in (False, True))  # type: ignore[arg-type]
    for steps in (None, 100):
        assert len(to_tflite(one, steps=steps, batch=8)) < 16_384
        assert len(to_tflite(both, steps=steps)) < 24_576


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"batch": -2, "form": "step"}, "batch must be a whole number of at least 1, not -2"),
        ({"batch": 2.0}, "batch must be a whole number of at least 1, not 2.0"),
        ({"batch": True}, "batch must be a whole number of at least 1, not True"),
        ({"batch": "3"}, "batch must be a whole number of at least 1, not '3'"),
        ({"batch": 2**30}, "2 GiB; use fewer steps or a smaller batch"),
        ({"batch": 2**16, "steps": 2**15}, "2 GiB; use fewer steps or a smaller batch"),
        ({"form": "step"}, "a bidirectional model reads whole sequences"),
        ({"form": "stream", "batch": 2}, "a bidirectional model reads whole sequences"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_tflite(random_model(13, "rnn", bidirectional=True), **arguments)


def test_the_sequence_between_bidirectional_layers_must_fit_too() -> None:
    """Hidden states of 64 units in two directions: 256 bytes a step, where the input takes 2 and the output nothing."""
    one, both = (random_model(15, "rnn", input_size=1, hidden_size=64, bidirectional=flag) for flag in (False, True))
    for model, steps in ((one, 2**23), (both, 2**22)):
        assert to_tflite(model, steps=steps)
    for steps, batch in ((2**23, 1), (2**20, 8)):
        with pytest.raises(ValueError, match="2 GiB; use fewer steps or a smaller batch"):
            to_tflite(both, steps=steps, batch=batch)


def test_the_command_line_names_files_by_steps_and_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model(14, "gru", bidirectional=True)
    model.save(tmp_path / "model.ernn")
    for options in ([], ["--batch", "3"], ["--batch", "3", "--steps", "7"], ["--steps", "7"]):
        assert main(["export", str(tmp_path / "model.ernn"), "--format", "tflite", "--json", *options]) == 0
    written = [Path(json.loads(line)["files"][0]["path"]) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [
        "model.tflite",
        "model_B3.tflite",
        "model_T7_B3.tflite",
        "model_T7.tflite",
    ]
    assert written[2].read_bytes() == to_tflite(model, steps=7, batch=3)
    for options in (["--form", "step"], ["--form", "step", "--batch", "2"], ["--format", "onnx", "--batch", "2"]):
        assert main(["export", str(tmp_path / "model.ernn"), *options]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert ["bidirectional" in errors[0], *("--batch makes TFLite batches" in line for line in errors[1:])] == [
        True
    ] * 3
