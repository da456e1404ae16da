"""States between steps: streams, chunks, files, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.firmware_sim import Stream, run
from edgernn.qmodel import IntArray, QuantizedModel, State
from tests import oracle
from tests.models import HEADS, SCHEMES, VARIANTS, Variant, random_input, random_model

every_cell = pytest.mark.parametrize("cell", VARIANTS)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def assert_equal_states(a: State, b: State) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype == np.int16
        assert np.array_equal(a[name], b[name]), name


def random_state(model: QuantizedModel, seed: int) -> State:
    """Any integers, with both limits of int16 among them."""
    rng = np.random.default_rng(seed)
    state = {name: rng.integers(-32768, 32768, spec.size).astype(np.int16) for name, spec in model.states.items()}
    for array in state.values():
        array[: len(array) // 4] = rng.choice([-32768, 32767], len(array) // 4)
    return state


# ---- going on --------------------------------------------------------------------------------------------------------


@every_scheme
@every_cell
def test_steps_and_chunks_of_any_length_equal_the_whole_sequence(cell: Variant, scheme: Any) -> None:
    for seed in range(9):
        model = random_model(seed, cell, scheme, layers=1 + seed % 3, head=HEADS[seed // 3], saturating=seed % 4 == 1)
        rng = np.random.default_rng(seed)
        steps = int(rng.integers(2, 150))
        x = random_input(model, steps, seed)
        whole, end = run(model, x)
        stream = Stream(model)
        outputs = np.array([stream.step(row) for row in x])
        assert np.array_equal(outputs if model.every_step else outputs[-1], whole), f"seed {seed}"
        assert_equal_states(stream.state, end)
        cuts = np.sort(rng.choice(np.arange(1, steps), rng.integers(1, min(steps, 12)), replace=False))
        cuts = np.unique([*cuts, 1, steps - 1])  # a first and a last chunk of one step
        state: State | None = None
        pieces = []
        for chunk in np.split(x, cuts):
            y, state = run(model, chunk, state)
            pieces.append(y)
        assert np.array_equal(np.concatenate(pieces) if model.every_step else pieces[-1], whole), f"seed {seed}: {cuts}"
        assert state is not None
        assert_equal_states(state, end)


@every_cell
def test_any_state_equals_the_oracle(cell: Variant) -> None:
    for seed, scheme in enumerate(SCHEMES):
        model = random_model(seed, cell, scheme, layers=2, head=None)
        x, state = random_input(model, 4, seed), random_state(model, seed)
        pairs = [(state[f"h_{i}"].tolist(), state.get(f"c_{i}", np.zeros(0, np.int16)).tolist()) for i in range(2)]
        wanted = oracle.run(model, x, pairs)
        assert np.array_equal(run(model, x, state)[0], wanted), scheme
        stream = Stream(model)
        stream.state = state
        assert np.array_equal([stream.step(row) for row in x], wanted), scheme


def test_a_reset_stream_starts_again_from_the_zero_state() -> None:
    model = random_model(2, "lstm", "w8a16", layers=2, head=None)
    x = random_input(model, 6, 2)
    stream = Stream(model)
    assert_equal_states(stream.state, model.zero_state())
    first = [stream.step(row) for row in x]
    stream.reset()
    assert_equal_states(stream.state, model.zero_state())
    assert np.array_equal([stream.step(row) for row in x], first)
    assert np.array_equal(run(model, x, model.zero_state())[0], first)


def test_a_state_is_a_copy() -> None:
    model = random_model(2, "lstm", layers=2, head=None)
    x, given = random_input(model, 6, 2), random_state(model, 2)
    stream = Stream(model)
    stream.state = given
    kept = stream.state
    assert_equal_states(kept, given)
    for array in given.values():
        array[:] = 99
    steps = [stream.step(row) for row in x]
    assert np.array_equal(steps, run(model, x, kept)[0])
    for array in stream.state.values():
        array[:] = 99
    _, end = run(model, x, kept)
    assert_equal_states(stream.state, end)
    stream.state = kept
    assert np.array_equal([stream.step(row) for row in x], steps)


def test_a_state_of_any_memory_layout() -> None:
    model = random_model(5, "gru", head=None)
    x, state = random_input(model, 3, 5), random_state(model, 5)
    wanted = run(model, x, state)[0]
    strided = {name: np.repeat(array, 2)[::2] for name, array in state.items()}
    for array in strided.values():
        array.flags.writeable = False
    assert np.array_equal(run(model, x, strided)[0], wanted)


# ---- files -----------------------------------------------------------------------------------------------------------


@every_scheme
@every_cell
def test_a_stream_goes_on_from_files(cell: Variant, scheme: Any, tmp_path: Path) -> None:
    model = random_model(3, cell, scheme, layers=2, head="steps")
    x = random_input(model, 20, 3)
    whole = run(model, x)[0]
    stream = Stream(model)
    for row in x[:9]:
        stream.step(row)
    model.save(tmp_path / "model.ernn")
    model.save_state(tmp_path / "state", stream.state)

    loaded = QuantizedModel.load(tmp_path / "model.ernn")
    state = loaded.load_state(tmp_path / "state")
    assert_equal_states(state, stream.state)
    later = Stream(loaded)
    later.state = state
    assert np.array_equal([later.step(row) for row in x[9:]], whole[9:])
    assert np.array_equal(run(loaded, x[9:], state)[0], whole[9:])


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    model = random_model(1, "gru", hidden_size=6, layers=2)
    path = tmp_path / "state"
    model.save_state(path, model.zero_state())
    others = [
        random_model(2, "gru", hidden_size=6, layers=2),
        random_model(1, "gru", "w8a16", hidden_size=6, layers=2),
        random_model(1, "gru_before", hidden_size=6, layers=2),
        model.without_head(),
    ]
    for other in others:
        assert other.states.keys() == model.states.keys()
        with pytest.raises(ValueError, match=r"state: a state of another network; start from zero_state\(\)"):
            other.load_state(path)


def test_damaged_foreign_and_missing_state_files_are_refused(tmp_path: Path) -> None:
    model = random_model(1, "lstm", hidden_size=6)
    path = tmp_path / "state"
    with pytest.raises(ValueError, match="state"):
        model.load_state(path)
    model.save(path)
    with pytest.raises(ValueError, match=r"a saved state is needed"):
        model.load_state(path)
    state = random_state(model, 1)
    model.save_state(path, state)
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ValueError, match="state"):
            model.load_state(path)
        path.write_bytes(good[:at])
        with pytest.raises(ValueError, match="state"):
            model.load_state(path)
    path.write_bytes(good)
    assert_equal_states(model.load_state(path), state)


# ---- what is refused -------------------------------------------------------------------------------------------------


def bad_states() -> list[tuple[str, Callable[[dict[str, IntArray]], Any]]]:
    """(what the message says, what makes a good state of an LSTM of size 6 a bad one)."""
    return [
        ("must hold h_0, c_0, not h_0; see zero_state", lambda s: {"h_0": s["h_0"]}),
        ("must hold h_0, c_0, not h_0, c_0, h_1", lambda s: s | {"h_1": s["h_0"]}),
        ("must hold h_0, c_0, not h, c", lambda s: {"h": s["h_0"], "c": s["c_0"]}),
        ("must hold h_0, c_0, not ;", lambda s: {}),
        ("must hold h_0, c_0, not tuple", lambda s: (s["h_0"], s["c_0"])),
        ("c_0 must be a 1-d array of int16, not int8 \\(6,\\)", lambda s: s | {"c_0": s["c_0"].astype(np.int8)}),
        ("h_0 must be a 1-d array of int16, not float64", lambda s: s | {"h_0": s["h_0"] / 2}),
        ("h_0 must be a 1-d array of int16, not >i2", lambda s: s | {"h_0": s["h_0"].astype(">i2")}),
        ("h_0 must be a 1-d array of int16, not int16 \\(1, 6\\)", lambda s: s | {"h_0": s["h_0"][None]}),
        ("c_0 must be a 1-d array of int16, not list", lambda s: s | {"c_0": [0] * 6}),
        ("h_0 has 5 values, the model's 6", lambda s: s | {"h_0": s["h_0"][:5]}),
        ("c_0 has 1 values, the model's 6", lambda s: s | {"c_0": s["c_0"][:1]}),
    ]


@pytest.mark.parametrize(("message", "change"), bad_states())
def test_bad_states_are_refused(message: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    model = random_model(0, "lstm", hidden_size=6)
    good = random_state(model, 0)
    bad, stream = change(dict(good)), Stream(model)
    stream.state = good
    with pytest.raises(ValueError, match=message):
        stream.state = bad
    assert_equal_states(stream.state, good)
    with pytest.raises(ValueError, match=message):
        run(model, random_input(model, 2, 0), bad)
    with pytest.raises(ValueError, match=message):
        model.save_state(tmp_path / "state", bad)
    assert not (tmp_path / "state").exists()


@every_cell
def test_a_bidirectional_model_has_no_state_to_go_on_from(cell: Variant, tmp_path: Path) -> None:
    model = random_model(0, cell, layers=2, bidirectional=True)
    x = random_input(model, 3, 0)
    _, state = run(model, x)
    assert state == {}
    calls: list[Callable[[], object]] = [
        lambda: run(model, x, state),
        lambda: run(model, x, model.zero_state()),
        lambda: Stream(model),
        lambda: model.save_state(tmp_path / "state", model.zero_state()),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="a bidirectional model reads whole sequences"):
            call()
