"""The Numba kernel: the oracle's integers for every kind of model, in every form of inference."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.firmware_sim import State, Stream, count_saturation, run, run_batch
from edgernn.firmware_sim._inference import STEPS_AT_ONCE
from edgernn.qmodel import HeadKind, IntArray, QuantizedModel
from tests import oracle
from tests.models import SCHEMES, VARIANTS, Variant, random_input, random_model

HEADS: tuple[HeadKind | None, ...] = ("last", "steps", None)
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


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("inputs", "hidden", "steps"), [(1, 1, 1), (1, 1, 3), (3, 33, 2), (8, 8, 1), (17, 64, 2)])
def test_sizes_around_the_blocks_of_the_kernel(scheme: Any, inputs: int, hidden: int, steps: int) -> None:
    for cell in VARIANTS:
        model = random_model(5, cell, scheme, input_size=inputs, hidden_size=hidden, head="steps", output_size=1)
        x = random_input(model, steps, 5)
        assert np.array_equal(run(model, x)[0], oracle.run(model, x)), cell


def test_more_steps_than_a_time_block() -> None:
    model = random_model(1, "gru", hidden_size=3, head=None)
    x = random_input(model, 150, 1)
    assert np.array_equal(run(model, x)[0], oracle.run(model, x))


@every_scheme
@every_cell
def test_batch_equals_single_sequences_and_padding_never_matters(cell: Variant, scheme: Any) -> None:
    lengths = [7, 1, 4, 6, 7]
    for seed, head in enumerate(HEADS):
        model = random_model(seed, cell, scheme, layers=2, head=head)
        x = random_input(model, 7, seed, (5,))
        y = run_batch(model, x, lengths)
        for row, length in enumerate(lengths):
            alone, _ = run(model, x[row, :length])
            assert np.array_equal(y[row, :length] if model.every_step else y[row], alone), f"{head} {row}"
            assert not (model.every_step and y[row, length:].any())
            x[row, length:] = random_input(model, 7 - length + 1, 99)[1:]
        assert np.array_equal(run_batch(model, x, np.array(lengths, np.uint8)), y)
        assert np.array_equal(run_batch(model, x), run_batch(model, x, [7] * 5))


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


# ---- state -----------------------------------------------------------------------------------------------------------


@every_scheme
@every_cell
def test_stream_and_chunks_equal_the_whole_sequence(cell: Variant, scheme: Any) -> None:
    for seed, head in enumerate(HEADS):
        model = random_model(seed, cell, scheme, layers=2, head=head, saturating=seed == 1)
        x = random_input(model, 11, seed)
        whole, end = run(model, x)
        stream = Stream(model)
        steps = np.array([stream.step(row) for row in x])
        assert np.array_equal(steps if model.every_step else steps[-1], whole)
        assert_equal_states(stream.state, end)
        state, pieces = None, []
        for start, stop in ((0, 1), (1, 6), (6, 11)):
            y, state = run(model, x[start:stop], state)
            pieces.append(y)
        assert np.array_equal(np.concatenate(pieces) if model.every_step else pieces[-1], whole)
        assert state is not None
        assert_equal_states(state, end)


def test_a_stream_gives_its_state_away_and_takes_it_back() -> None:
    model = random_model(2, "lstm", "w8a16", layers=2, head=None)
    x = random_input(model, 6, 2)
    stream = Stream(model)
    first = [stream.step(row) for row in x]
    stream.reset()
    assert_equal_states(stream.state, State.zeros(model))
    stream.step(x[0])
    stream.step(x[1])
    kept = stream.state
    assert np.array_equal([stream.step(row) for row in x[2:]], first[2:])
    other = Stream(model)
    other.state = kept
    assert np.array_equal([other.step(row) for row in x[2:]], first[2:])
    assert np.array_equal(run(model, x[2:], kept)[0], first[2:])
    stream.state = kept
    assert np.array_equal([stream.step(row) for row in x[2:]], first[2:])


def test_a_state_is_a_read_only_copy() -> None:
    h, c = np.array([1, 2], np.int16), np.zeros(0, np.int16)
    state = State((h,), (c,))
    h[0] = 9
    assert state.h[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        state.h[0][0] = 3


def test_any_state_equals_the_oracle() -> None:
    for cell in VARIANTS:
        model = random_model(8, cell, layers=2, head=None)
        x, rng = random_input(model, 4, 8), np.random.default_rng(8)
        sizes = [len(h) for h in State.zeros(model).h], [len(c) for c in State.zeros(model).c]
        h, c = (tuple(rng.integers(-32768, 32768, n).astype(np.int16) for n in part) for part in sizes)
        for extreme in (h[0], c[-1]):
            extreme[:1] = -32768
        wanted = oracle.run(model, x, [(a.tolist(), b.tolist()) for a, b in zip(h, c, strict=True)])
        assert np.array_equal(run(model, x, State(h, c))[0], wanted), cell


def assert_equal_states(a: State, b: State) -> None:
    for left, right in zip(a.h + a.c, b.h + b.c, strict=True):
        assert np.array_equal(left, right)


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


# ---- what comes from outside -----------------------------------------------------------------------------------------


def bad_calls() -> list[tuple[str, Callable[[QuantizedModel, IntArray], Any]]]:
    """(what the message says, a call that must say it), with x [batch 2, time 3, input_size]."""
    return [
        ("float32, the model takes arrays of int8: use model.quantize_input", lambda m, x: run(m, x[0].astype("f4"))),
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
        ("the state's h has the sizes", lambda m, x: run(m, x[0], State.zeros(random_model(1, hidden_size=9)))),
        ("the state's c has the sizes", lambda m, x: run(m, x[0], State(State.zeros(m).h, State.zeros(m).h))),
        (r"h\[0\] must be a 1-d array of int16", lambda m, x: State((np.zeros(3),), ())),  # type: ignore[arg-type]
        (r"c\[0\] must be a 1-d array of int16", lambda m, x: State((), ([1],))),  # type: ignore[arg-type]
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


# ---- machine code kept between processes -----------------------------------------------------------------------------

PROBE = """
import sys
import numpy as np
from edgernn.firmware_sim import _layer, run
from edgernn.qmodel import QuantizedModel
assert not _layer.run_layer.signatures, "compiled at import"
assert "torch" not in sys.modules
y, _ = run(QuantizedModel.load("model.ernn"), np.load("x.npy"))
print(sum(_layer.run_layer.stats.cache_hits.values()), *y.ravel())
"""


def copy_package(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "nn", "train", "data", "cli", "prune", "quantize", "export")
    shutil.copytree(Path(__file__).parent.parent / "edgernn", folder / "edgernn", ignore=ignored)


def run_python(code: str, folder: Path, **environment: str) -> str:
    """What `code` prints in a new process that imports the package from this folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_cached_code_is_found_again_but_never_stale(tmp_path: Path) -> None:
    copy_package(tmp_path)
    model = random_model(0, "rnn", hidden_size=4, head=None)
    model.save(tmp_path / "model.ernn")
    x = random_input(model, 3, 0)
    np.save(tmp_path / "x.npy", x)

    def probe() -> tuple[int, list[int]]:
        hits, *y = (int(v) for v in run_python(PROBE, tmp_path, NUMBA_OPT="0").split())
        return hits, y

    wanted = oracle.run(model, x).ravel().tolist()
    assert probe() == (0, wanted)
    assert probe() == (1, wanted)
    source = tmp_path / "edgernn" / "fixedpoint.py"
    original = source.read_text()
    source.write_text(original.replace("(1 << (shift - 1))) >> shift)", "(1 << (shift - 1))) >> shift << 1)"))
    assert source.read_text() != original
    hits, changed = probe()
    assert hits == 0
    assert changed != wanted


def test_cache_goes_where_it_can_be_written(tmp_path: Path) -> None:
    copy_package(tmp_path)
    code = (
        "from edgernn.firmware_sim import _jit, _layer; print(_jit._cache_folder(), _layer.run_layer._cache.cache_path)"
    )
    package = tmp_path / "edgernn" / "firmware_sim"
    (package / "__pycache__").touch()  # a file, so that no folder can be made there, not even by root
    user = str(tmp_path / "user")
    folder, used = run_python(code, tmp_path, XDG_CACHE_HOME=user, LOCALAPPDATA=user).split()
    assert Path(folder).parent == Path(user) / "edgernn"
    assert Path(used).parent == Path(folder)
    nowhere = str(package / "__pycache__")
    assert run_python(code, tmp_path, XDG_CACHE_HOME=nowhere, LOCALAPPDATA=nowhere).split() == ["None", "None"]
    configured = tmp_path / "configured"
    folder, used = run_python(code, tmp_path, NUMBA_CACHE_DIR=str(configured)).split()
    assert Path(folder).parent == configured
    assert Path(used).parent == Path(folder)
