"""The Numba kernel: the oracle's integers for every kind of model, in every form of inference."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from edgernn.firmware_sim import Stream, count_saturation, run, run_batch
from edgernn.firmware_sim._inference import STEPS_AT_ONCE
from edgernn.firmware_sim._layer import TIME_BLOCK
from edgernn.qmodel import IntArray, QuantizedModel
from tests import oracle, vectorised
from tests.models import HEADS, SCHEMES, VARIANTS, Variant, random_input, random_model

every_cell = pytest.mark.parametrize("cell", VARIANTS)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


@every_scheme
@every_cell
def test_equals_the_oracle(cell: Variant, scheme: Any) -> None:
    for seed in range(12):
        model = random_model(
            seed, cell, scheme, layers=1 + seed % 3, head=HEADS[seed // 3 % 3], saturating=seed % 4 == 0
        )
        x = random_input(model, 8, seed)
        wanted = oracle.run(model, x)
        y, _ = run(model, x)
        assert y.dtype == model.output_dtype
        assert np.array_equal(y, wanted), f"seed {seed}"


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("inputs", "hidden", "steps"), [(1, 1, 1), (1, 1, 3), (3, 33, 2), (8, 8, 1), (17, 64, 2)])
def test_sizes_around_the_blocks_of_the_kernel(inputs: int, hidden: int, steps: int, directions: int) -> None:
    for seed, (cell, scheme) in enumerate(product(VARIANTS, SCHEMES)):
        model = random_model(
            seed,
            cell,
            scheme,
            input_size=inputs,
            hidden_size=hidden // directions or 1,
            layers=directions,
            bidirectional=directions == 2,
            head="steps",
            output_size=1,
        )
        x = random_input(model, steps, seed)
        assert np.array_equal(run(model, x)[0], oracle.run(model, x)), f"{cell} {scheme}"


def test_more_steps_than_a_time_block() -> None:
    for seed, (cell, bidirectional) in enumerate(product(VARIANTS, (False, True))):
        kind: dict[str, Any] = {"head": HEADS[seed % 3], "bidirectional": bidirectional}
        model = random_model(seed, cell, input_size=2, hidden_size=2, **kind)
        x = random_input(model, 2 * TIME_BLOCK + 5, seed)
        assert np.array_equal(run(model, x)[0], oracle.run(model, x)), f"{cell} {kind}"


LARGE: list[tuple[Variant, Any, int, int, int, dict[str, Any]]] = [
    ("rnn", "w8a16", 512, 512, 2000, {"head": None}),
    ("lstm", "w8a8", 512, 512, 12, {"layers": 2}),
    ("lstm", "w8a16", 512, 64, 400, {"bidirectional": True}),
    ("gru", "w8a8", 512, 256, 20, {"bidirectional": True, "layers": 2}),
    ("gru", "w8a16", 1, 512, 12, {"head": "steps", "per_tensor": True}),
    ("gru_before", "w8a16", 512, 512, 6, {"head": "steps", "layers": 2}),
    ("gru_before", "w8a8", 512, 1, 2000, {"head": None, "input_zero_point": 127}),
    ("lstm", "w8a8", 1, 1, 2000, {"head": "steps", "bidirectional": True, "input_zero_point": -128}),
]


@pytest.mark.parametrize(("cell", "scheme", "inputs", "hidden", "steps", "kind"), LARGE)
def test_large_sizes(cell: Variant, scheme: Any, inputs: int, hidden: int, steps: int, kind: dict[str, Any]) -> None:
    model = random_model(0, cell, scheme, input_size=inputs, hidden_size=hidden, **kind)
    x = random_input(model, steps, 0)
    y = run(model, x)[0]
    assert np.array_equal(y, vectorised.run(model, x))
    assert np.array_equal(run_batch(model, x[np.newaxis])[0], y)


def test_the_vectorised_reference_equals_the_oracle() -> None:
    for seed, (cell, scheme, bidirectional) in enumerate(product(VARIANTS, SCHEMES, (False, True))):
        kind: dict[str, Any] = {"layers": 1 + seed % 2, "head": HEADS[seed % 3], "bidirectional": bidirectional}
        model = random_model(seed, cell, scheme, hidden_size=6, **kind)
        x = random_input(model, 5, seed)
        assert np.array_equal(vectorised.run(model, x), oracle.run(model, x)), f"seed {seed} {kind}"


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_zero_points_at_the_ends_and_one_scale_a_matrix(zero_point: int) -> None:
    for seed, cell in enumerate(VARIANTS):
        model = random_model(seed, cell, per_tensor=True, input_zero_point=zero_point, layers=2)
        x = random_input(model, 5, seed)
        assert np.array_equal(run(model, x)[0], oracle.run(model, x)), f"seed {seed}"


# ---- both directions -------------------------------------------------------------------------------------------------


@every_scheme
@every_cell
def test_both_directions_equal_the_oracle(cell: Variant, scheme: Any) -> None:
    for seed in range(9):
        rng = np.random.default_rng(seed)
        model = random_model(
            seed,
            cell,
            scheme,
            hidden_size=int(rng.integers(1, 14)),
            layers=1 + seed % 3,
            head=HEADS[seed // 3],
            saturating=seed % 4 == 0,
            bidirectional=True,
        )
        steps = int(rng.integers(1, 8))
        x, lengths = random_input(model, steps, seed, (2,)), [steps, int(rng.integers(1, steps + 1))]
        assert_batch_equals_the_oracle(model, x, lengths, f"seed {seed}")


@pytest.mark.parametrize("backward", [(True, False), (False, True), (True, False, True), (False, True, False)])
def test_layers_of_one_and_of_both_directions_mix(backward: tuple[bool, ...]) -> None:
    for seed, (cell, head) in enumerate(product(VARIANTS, HEADS)):
        kind: dict[str, Any] = {"scheme": SCHEMES[seed % 2], "input_size": 3, "layers": len(backward), "head": head}
        one = random_model(seed, cell, hidden_size=10, **kind)
        both = random_model(seed, cell, hidden_size=5, bidirectional=True, **kind)
        layers = tuple((both if flag else one).layers[index] for index, flag in enumerate(backward))
        model = replace(both if backward[0] else one, layers=layers)
        assert model.bidirectional
        x = random_input(model, 3, seed, (2,))
        assert_batch_equals_the_oracle(model, x, [2, 3], f"seed {seed}")


def assert_batch_equals_the_oracle(model: QuantizedModel, x: IntArray, lengths: list[int], case: str) -> None:
    y, wanted = run_batch(model, x, lengths), oracle.run_batch(model, x, lengths)
    assert y.dtype == wanted.dtype
    assert np.array_equal(y, wanted), f"{case}, lengths {lengths}"
    for row, length in enumerate(lengths):
        alone = run(model, x[row, :length])[0]
        assert np.array_equal(alone, wanted[row, :length] if model.every_step else wanted[row]), case


# ---- batches ---------------------------------------------------------------------------------------------------------


@every_scheme
@every_cell
def test_batch_equals_single_sequences_and_padding_never_matters(cell: Variant, scheme: Any) -> None:
    lengths = [7, 1, 4, 6, 7]
    for seed, (head, bidirectional) in enumerate(product(HEADS, (False, True))):
        model = random_model(seed, cell, scheme, layers=2, head=head, bidirectional=bidirectional)
        x = random_input(model, 7, seed, (5,))
        y = run_batch(model, x, lengths)
        for row, length in enumerate(lengths):
            alone, _ = run(model, x[row, :length])
            assert np.array_equal(y[row, :length] if model.every_step else y[row], alone), f"{head} {row}"
            assert not (model.every_step and y[row, length:].any())
            x[row, length:] = random_input(model, 7 - length + 1, 99)[1:]
        assert np.array_equal(run_batch(model, x, np.array(lengths, np.uint8)), y)
        assert np.array_equal(run_batch(model, x), run_batch(model, x, [7] * 5))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_batch_of_every_length(bidirectional: bool) -> None:
    lengths = range(1, 2 * TIME_BLOCK + 3)
    for seed, (cell, head) in enumerate(zip(VARIANTS, (*HEADS, "last"), strict=True)):
        model = random_model(seed, cell, layers=2, hidden_size=9, head=head, bidirectional=bidirectional)
        x = random_input(model, lengths[-1], seed, (len(lengths),))
        y = run_batch(model, x, lengths)
        for row, length in enumerate(lengths):
            alone = run(model, x[row, :length])[0]
            assert np.array_equal(y[row, :length] if model.every_step else y[row], alone), f"{cell}, length {length}"
            assert not (model.every_step and y[row, length:].any())


def test_a_batch_in_many_threads_equals_single_sequences() -> None:
    model = random_model(3, "lstm", head="last")
    x = random_input(model, 64, 3, (3 * STEPS_AT_ONCE // 64 + 1,))
    assert np.array_equal(run_batch(model, x), [run(model, sequence)[0] for sequence in x])
    single_steps = random_input(model, STEPS_AT_ONCE + 1, 4, (2,))
    assert np.array_equal(run_batch(model, single_steps), [run(model, sequence)[0] for sequence in single_steps])


def _run_and_send(pipe: Any, model: QuantizedModel, x: IntArray) -> None:
    pipe.send(run_batch(model, x))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_can_run_batches_after_its_parent_did() -> None:
    model = random_model(3, "gru")
    x = random_input(model, 64, 3, (3 * STEPS_AT_ONCE // 64,))
    wanted = run_batch(model, x)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run_and_send, args=(sender, model, x))
    child.start()
    assert receiver.poll(60)
    assert np.array_equal(receiver.recv(), wanted)
    child.join(60)
    assert child.exitcode == 0


# ---- saturation ------------------------------------------------------------------------------------------------------


def oracle_saturation(model: QuantizedModel, sequences: list[IntArray]) -> dict[str, int]:
    """The counts of a model of one LSTM or GRU layer, from sums that are not clamped."""
    (layer,) = model.layers
    size = layer.hidden_size
    counts = dict.fromkeys((*layer.gates, "hidden", *(["cell"] if layer.cell == "lstm" else [])), 0)
    for x in sequences:
        h, c = [0] * size, [0] * size
        for vector in x.tolist():
            px, ph = oracle.affine(layer.input, vector), oracle.affine(layer.recurrent, oracle.view(h, model.scheme))
            if layer.cell == "gru":
                r = [oracle.sigmoid(oracle.clamp(px[u] + ph[u], 16)) for u in range(size)]
                ph[2 * size :] = [
                    oracle.clamp(oracle.round_shift(r[u] * ph[2 * size + u], 15), 16) for u in range(size)
                ]
            for row, (p, q) in enumerate(zip(px, ph, strict=True)):
                counts[layer.gates[row // size]] += not -32768 < p + q < 32767
            h, c = oracle.step(layer, model.scheme, vector, h, c)
            counts["hidden"] += sum(v in (-32768, 32767) for v in h)
            if layer.cell == "lstm":
                counts["cell"] += sum(v in (-32768, 32767) for v in c)
    return counts


@pytest.mark.parametrize(("cell", "scheme"), [("lstm", "w8a8"), ("gru", "w8a16")])
def test_saturation_counts_equal_the_oracle(cell: Variant, scheme: Any) -> None:
    lengths = [9, 2, 5]
    met: dict[str, int] = {}
    for seed in range(6):
        model = random_model(seed, cell, scheme, saturating=seed > 0, head=HEADS[seed % 3])
        if cell == "lstm":  # the finest cell state, which reaches its limits soonest
            model = replace(model, layers=(replace(model.layers[0], cell_exponent=15),))
        x = random_input(model, 9, seed, (3,))
        sequences = [sequence[:length] for sequence, length in zip(x, lengths, strict=True)]
        found = count_saturation(model, x, lengths)
        wanted = oracle_saturation(model, sequences)
        assert found.layers == (wanted,), f"seed {seed}"
        limits = np.iinfo(model.input_dtype)
        assert found.input == sum(int(np.isin(part, (limits.min, limits.max)).sum()) for part in sequences)
        assert found.steps == 16
        met = {name: met.get(name, 0) + count for name, count in wanted.items()}
    unreachable = {"hidden"} if cell == "lstm" else set()  # o * tanh(c) rounds to 32766 at most
    assert {name for name, count in met.items() if count == 0} == unreachable


def test_saturation_is_counted_in_every_layer() -> None:
    model = random_model(1, "lstm", layers=3, saturating=True)
    x = random_input(model, 9, 1, (2,))
    for depth in (1, 2, 3):
        assert count_saturation(model.without_head(depth), x).layers == count_saturation(model, x).layers[:depth]


@pytest.mark.parametrize(("cell", "scheme"), [("lstm", "w8a8"), ("gru", "w8a16")])
def test_saturation_counts_both_directions(cell: Variant, scheme: Any) -> None:
    model = random_model(4, cell, scheme, saturating=True, bidirectional=True, head=None)
    lengths = [9, 2, 5]
    x = random_input(model, 9, 4, (3,))
    (layer,) = model.layers
    assert layer.backward is not None
    turned = x.copy()
    for row, length in enumerate(lengths):
        turned[row, :length] = x[row, :length][::-1]
    forward, backward = (
        count_saturation(replace(model, layers=(one,)), sequences, lengths).layers[0]
        for one, sequences in ((replace(layer, backward=None), x), (layer.backward, turned))
    )
    wanted = {name: forward[name] + backward[name] for name in forward}
    assert count_saturation(model, x, lengths).layers == (wanted,)
    assert forward != backward
    assert sum(wanted.values()) > 0


# ---- what comes from outside -----------------------------------------------------------------------------------------


def bad_calls() -> list[tuple[str, Callable[[QuantizedModel, IntArray], Any]]]:
    """(what the message says, a call that must say it), with x [batch 2, time 3, input_size]."""
    return [
        ("float32, the model takes arrays of int8: use quantize_input", lambda m, x: run(m, x[0].astype("f4"))),
        ("int16, the model takes arrays of int8", lambda m, x: run_batch(m, x.astype(np.int16))),
        ("type list", lambda m, x: run(m, x[0].tolist())),
        (r"must be \[time, input_size\]", lambda m, x: run(m, x)),
        (r"must be \[batch, time, input_size\]", lambda m, x: run_batch(m, x[0])),
        (r"must be \[input_size\]", lambda m, x: Stream(m).step(x[0])),
        ("with input_size 4", lambda m, x: run(m, x[0, :, :3])),
        ("at least one sequence and one step", lambda m, x: run(m, x[0, :0])),
        ("at least one sequence and one step", lambda m, x: run_batch(m, x[:0])),
        ("lengths must be 2 integers", lambda m, x: run_batch(m, x, [3])),
        ("lengths must be 2 integers", lambda m, x: run_batch(m, x, [1.0, 2.0])),
        (r"lengths\[1\] is 0, it must be 1 .. 3", lambda m, x: run_batch(m, x, [3, 0])),
        (r"lengths\[0\] is 4, it must be 1 .. 3", lambda m, x: count_saturation(m, x, [4, 1])),
    ]


@pytest.mark.parametrize(("message", "call"), bad_calls())
def test_bad_input_is_refused(message: str, call: Callable[[QuantizedModel, IntArray], Any]) -> None:
    model = random_model(0, "gru", input_size=4, hidden_size=5)
    with pytest.raises(ValueError, match=message):
        call(model, random_input(model, 3, 0, (2,)))


def test_input_of_any_memory_layout() -> None:
    model = random_model(4, "rnn", head="steps")
    x = random_input(model, 10, 4)
    reversed_twice = np.asfortranarray(x)[::-1].copy(order="F")[::-1]
    assert np.array_equal(run(model, reversed_twice)[0], run(model, x)[0])
