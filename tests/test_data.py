"""Data sets: what each source must yield, and one clear ValueError for everything that is wrong with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgernn.data import (
    Dataset,
    Split,
    load,
    make_battery,
    make_ecg,
    normalisation,
    split_validation,
)
from edgernn.data.battery import CAPACITY_AH, STEP_S, Cells, open_circuit_voltage, resistances, simulate_cells
from edgernn.data.ecg import rr_intervals
from edgernn.data.vowels import convert_vowels


def make_split(classes: list[int] | None = None, steps: int = 4, channels: int = 2, seed: int = 0) -> Split:
    """One sequence for every class number, of random lengths."""
    rng = np.random.default_rng(seed)
    y = np.array(classes or [0, 1, 0, 1, 2], np.int64)
    lengths = rng.integers(1, steps + 1, len(y))
    x = rng.normal(0, 1, (len(y), steps, channels)).astype(np.float32)
    x[np.arange(steps) >= lengths[:, None]] = 0
    return Split(x, lengths, y)


def make_dataset(split: Split | None = None) -> Dataset:
    part = split or make_split()
    return Dataset("test", "classification", "last", part, part, ("a", "b", "c"), ("first", "second"), "made up")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def same(a: Split, b: Split) -> bool:
    return np.array_equal(a.x, b.x) and np.array_equal(a.lengths, b.lengths) and np.array_equal(a.y, b.y)


# ---- Split and Dataset -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"x": s.x.astype(np.float64)}, "x must be a 3-d array of float32, not float64"),
        (lambda s: {"x": s.x[0]}, "x must be a 3-d array"),
        (lambda s: {"x": s.x.tolist()}, "not list"),
        (lambda s: {"x": s.x[:, :, :0]}, "needs at least one sequence, one step"),
        (lambda s: {"x": s.x[:3]}, "3 sequences in x, but 5 lengths"),
        (lambda s: {"y": s.y[:4]}, "4 targets"),
        (lambda s: {"y": s.y.tolist()}, "y must be an array of int64"),
        (lambda s: {"y": s.y.astype(np.float64)}, "y must be an array of int64"),
        (lambda s: {"y": np.array(1)}, "y must be an array of int64"),
        (lambda s: {"lengths": s.lengths.astype(np.int32)}, "lengths must be a 1-d array of int64"),
        (lambda s: {"lengths": np.array([4, 4, 0, 4, 4])}, r"lengths\[2\] is 0; lengths must be 1 .. 4"),
        (lambda s: {"lengths": np.array([4, 5, 4, 4, 4])}, r"lengths\[1\] is 5"),
        (lambda s: {"x": np.where(np.arange(5)[:, None, None] == 3, np.float32(np.nan), s.x)}, "x of sequence 3"),
        (lambda s: {"y": np.array([0, np.inf, 0, 0, 0], np.float32)}, "y of sequence 1"),
        (lambda s: {"x": s.x + np.float32(1)}, "zero after the end"),
    ],
)
def test_split_refuses(change: Callable[[Split], dict[str, Any]], message: str) -> None:
    split = make_split()
    with pytest.raises(ValueError, match=message):
        replace(split, **change(split))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ranking"}, "unknown task 'ranking'; known are classification, regression"),
        ({"head": "mean"}, "unknown head 'mean'; known are last, steps"),
        ({"labels": ("a",)}, "at least 2 labels"),
        ({"labels": ("a", "b", "a")}, "labels must differ"),
        ({"labels": ("a", "b")}, r"train.y: class numbers must be 0 .. 1, found 0 .. 2"),
        ({"channels": ("first",)}, "train.x has 2 channels, but 1 are named"),
        ({"head": "steps"}, "train.y: class numbers must be a 2-d array of int64"),
        ({"task": "regression"}, "regression has no labels"),
        ({"task": "regression", "labels": ()}, "train.y: targets must be a 2-d array of float32"),
        ({"test": make_split([0, -1])}, "test.y: class numbers must be 0 .. 2, found -1 .. 0"),
        ({"test": make_split(channels=3)}, "test.x has 3 channels"),
    ],
)
def test_dataset_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make_dataset(), **change)


def test_labels_of_steps_are_minus_one_after_the_end_and_only_there() -> None:
    base = make_split([0, 0], steps=3)
    split = replace(base, lengths=np.array([3, 1]), x=np.zeros((2, 3, 2), np.float32))
    for y, message in (
        ([[0, 1, 2], [0, -1, -1]], None),
        ([[0, 1, 2], [0, 0, -1]], "-1 after the end"),
        ([[0, -1, 2], [0, -1, -1]], "found -1 .. 2"),
        ([[0, 1], [0, -1]], "2 steps of targets for 3 steps"),
    ):
        steps = replace(split, y=np.array(y))
        if message is None:
            assert replace(make_dataset(), head="steps", train=steps, test=steps).output_size == 3
        else:
            with pytest.raises(ValueError, match=message):
                replace(make_dataset(), head="steps", train=steps, test=steps)


def test_targets_of_both_parts_have_one_size() -> None:
    split = make_split()
    one, two = (replace(split, y=np.zeros((5, size), np.float32)) for size in (1, 2))
    good = replace(make_dataset(), task="regression", labels=(), train=two, test=two)
    assert (good.input_size, good.output_size) == (2, 2)
    wide, narrow = (replace(split, y=np.zeros((5, 4, size), np.float32)) for size in (2, 1))
    for train, test, head in ((two, one, "last"), (wide, narrow, "steps")):
        with pytest.raises(ValueError, match="do not fit together"):
            Dataset("test", "regression", head, train, test, (), ("first", "second"), "made up")  # type: ignore[arg-type]


def test_normalisation_uses_valid_steps_alone_and_leaves_constant_channels() -> None:
    split = make_split(list(range(3)) * 20, channels=3, seed=5)
    x = split.x * np.float32(7) + np.float32(1000)
    x[:, :, 1] = 0.1
    x[~split.valid] = 0
    mean, std = normalisation(replace(split, x=x))
    steps = [step for sequence, length in zip(x, split.lengths, strict=True) for step in sequence[:length].tolist()]
    columns = list(zip(*steps, strict=True))
    expected = [sum(column) / len(column) for column in columns]
    spread = [
        (sum((v - m) ** 2 for v in column) / len(column)) ** 0.5 for column, m in zip(columns, expected, strict=True)
    ]
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], [spread[0], spread[2]], rtol=1e-5)
    assert std[1] == 1


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_validation_takes_its_share_of_every_class(fraction: float) -> None:
    counts = np.array([40, 10, 25, 1])
    split = make_split(np.repeat(np.arange(4), counts).tolist(), seed=3)
    train, validation = split_validation(split, fraction, seed=1)
    assert len(validation) == min(max(round(fraction * 76), 1), 75)
    assert len(train) + len(validation) == 76
    chosen = np.bincount(validation.y.astype(np.int64), minlength=4)
    assert (np.abs(chosen - fraction * counts) <= 1).all()
    rows = {row.tobytes() for part in (train, validation) for row in part.x}
    assert rows == {row.tobytes() for row in split.x}
    again, other = split_validation(split, fraction, seed=1), split_validation(split, fraction, seed=2)
    assert same(again[0], train)
    assert same(again[1], validation)
    assert not same(other[1], validation)


def test_validation_of_regression_and_its_errors() -> None:
    split = replace(make_split(), y=np.zeros((5, 1), np.float32))
    train, validation = split_validation(split, 0.4)
    assert (len(train), len(validation)) == (3, 2)
    for fraction in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_validation(split, fraction)
    with pytest.raises(ValueError, match="one sequence cannot be split"):
        split_validation(split.take([0]), 0.5)


# ---- the shipped and the simulated data sets -------------------------------------------------------------------------


def test_vowels_are_the_official_split() -> None:
    data = load("vowels")
    assert (data.name, data.task, data.head) == ("vowels", "classification", "last")
    assert (len(data.train), len(data.test), data.input_size, data.output_size) == (270, 370, 12, 9)
    assert np.bincount(data.train.y.astype(np.int64)).tolist() == [30] * 9
    assert np.bincount(data.test.y.astype(np.int64)).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([data.train.lengths, data.test.lengths])
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, 9961)
    assert data.train.lengths[:5].tolist() == [20, 26, 22, 20, 21]
    assert "CC BY 4.0" in data.source
    assert "Kudo" in data.source


@pytest.mark.parametrize(
    ("part", "sequence", "step", "channel", "printed"),
    [
        ("train", 0, 0, 0, "1.860936"),
        ("train", 0, 19, 0, "1.261441"),
        ("train", 0, 0, 1, "-0.207383"),
        ("train", 0, 3, 7, "-0.009643"),
        ("test", 369, 0, 11, "0.101818"),
        ("test", 369, 10, 11, "0.224688"),
        ("test", 369, 10, 10, "-0.016634"),
    ],
)
def test_vowels_hold_the_archive_values_to_four_decimals(
    part: str, sequence: int, step: int, channel: int, printed: str
) -> None:
    value = getattr(load("vowels"), part).x[sequence, step, channel]
    assert value == np.float32(round(float(printed), 4))


def test_vowels_can_be_made_anew_from_ts_files(tmp_path: Path) -> None:
    for part, label in (("TRAIN", "9"), ("TEST", "1")):
        channels = ":".join(f"{channel}.12345678,-0.00005001" for channel in range(-1, 2))
        write(tmp_path / f"JapaneseVowels_{part}.ts", f"@classLabel true 1 9\n@data\n{channels}:{label}\n")
    convert_vowels(tmp_path, tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz", allow_pickle=False) as made:
        assert made["train"].tolist() == [[-11235, 1235, 11235], [-1, -1, -1]]
        assert (made["train_lengths"].tolist(), made["train_y"].tolist(), made["test_y"].tolist()) == ([2], [1], [0])
        assert "CC BY 4.0" in str(made["source"])


@pytest.mark.parametrize("make", [make_battery, make_ecg])
def test_simulations_follow_their_seed(make: Callable[..., Dataset]) -> None:
    first, again, other = (make(n_train=6, n_test=4, steps=50, seed=seed) for seed in (7, 7, 8))
    for part in ("train", "test"):
        assert same(getattr(first, part), getattr(again, part))
        assert not same(getattr(first, part), getattr(other, part))
    assert first.train.x.shape[:2] == (6, 50)
    assert first.test.x.shape[:2] == (4, 50)
    assert not np.array_equal(first.train.x[:4], first.test.x)
    assert "seed 7" in first.source
    for size in ("n_train", "n_test", "steps"):
        with pytest.raises(ValueError, match="must be at least 1"):
            make(**{size: 0})


@pytest.mark.parametrize("make", [make_battery, make_ecg])
def test_simulations_can_be_one_step_long(make: Callable[..., Dataset]) -> None:
    assert make(n_train=1, n_test=1, steps=1).train.x.shape[:2] == (1, 1)


@pytest.mark.parametrize("name", ["battery", "ecg"])
def test_load_passes_the_seed_on(name: str) -> None:
    assert not np.array_equal(load(name, seed=0).train.x, load(name, seed=1).train.x)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
@pytest.mark.parametrize("name", ["vowels", "ecg"])
def test_load_refuses_seeds_out_of_range(name: str, seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed must be a whole number in 0 \.\. 2\*\*63 - 1"):
        load(name, seed)


def test_class_names_are_compared_in_their_order() -> None:
    data = make_dataset()
    data.check_labels(("a", "b", "c"))
    data.check_labels(())
    for labels in (("a", "c", "b"), ("a", "b"), ("x", "y", "z")):
        with pytest.raises(
            ValueError, match=rf"data test \(a, b, c\) are not those of the model \({', '.join(labels)}\)"
        ):
            data.check_labels(labels)


def cells(charge: float, resistance: float = 1.0, ambient: float = 25.0) -> Cells:
    return Cells(*(np.array([value]) for value in (CAPACITY_AH, resistance, charge, ambient)))


def test_battery_cell_charge_falls_by_the_current_drawn() -> None:
    current = np.random.default_rng(0).uniform(-0.4, 1.2, (1, 300))
    _, charge, _ = simulate_cells(current, cells(0.9))
    left = 0.9
    for t, amperes in enumerate(current[0].tolist()):
        assert charge[0, t] == pytest.approx(left, abs=1e-12)
        left -= amperes * 10 / 3600 / 0.85


def test_battery_cell_at_rest_keeps_its_open_circuit_voltage() -> None:
    voltage, charge, temperature = simulate_cells(np.zeros((1, 50)), cells(0.5, ambient=10.0))
    expected = -1.031 * np.exp(-17.5) + 3.685 + 0.1078 - 0.02945 + 0.0400125
    assert (charge == 0.5).all()
    assert (temperature == 10).all()
    np.testing.assert_allclose(voltage, expected, rtol=1e-12)


def test_battery_cell_drops_at_once_by_its_series_resistance_and_recovers_with_its_time_constants() -> None:
    current = np.zeros((1, 500))
    current[0, 100:200] = 0.85
    voltage, charge, _ = simulate_cells(current, cells(0.9))
    gap = open_circuit_voltage(charge) - voltage
    series, short, long = (float(r[0, 100]) for r in resistances(charge))
    assert gap[0, 99] == 0
    assert gap[0, 100] == pytest.approx(0.85 * series, rel=1e-9)
    assert gap[0, 199] == pytest.approx(0.85 * (series + short + long), rel=0.06)  # 1000 s: the branches are full; warm
    assert (np.diff(gap[0, 200:]) < 0).all()
    late = gap[0, 300:400]  # the short branch (33 s) is empty: the long one decays alone
    np.testing.assert_allclose(late[1:] / late[:-1], np.exp(-10 / 223), rtol=1e-3)


def test_battery_cell_warms_under_load_and_is_stiffer_when_cold() -> None:
    load_current = np.full((1, 300), 0.6)
    voltage, charge, temperature = simulate_cells(load_current, cells(0.95, ambient=20.0))
    lost = (open_circuit_voltage(charge) - voltage)[0, -1] * 0.6
    assert (np.diff(temperature[0]) > 0).all()
    assert temperature[0, -1] == pytest.approx(20 + 20 * lost, rel=0.02)  # 20 K/W, after seven time constants
    cold, _, _ = simulate_cells(load_current, cells(0.95, ambient=5.0))
    weak, _, _ = simulate_cells(load_current, cells(0.95, resistance=1.5, ambient=20.0))
    assert (cold[0] < voltage[0]).all()
    assert (weak[0] < voltage[0]).all()


def test_battery_targets_agree_with_the_measured_current() -> None:
    """Charge counted from the current channel explains the target, but for the sensor's offset and noise."""
    data = make_battery(n_train=60, n_test=1, steps=360, seed=4)
    time = np.arange(360) * STEP_S / 3600
    assert data.train.y.min() >= 0.05
    assert data.train.y.max() <= 0.97
    for x, y in zip(data.train.x.astype(np.float64), data.train.y[:, :, 0].astype(np.float64), strict=True):
        counted = np.concatenate([[0], np.cumsum(x[:-1, 1])]) * STEP_S / 3600
        (inverse_capacity, drift), *_ = np.linalg.lstsq(np.stack([counted, time], axis=1), y[0] - y, rcond=None)
        explained = inverse_capacity * counted + drift * time
        assert np.abs(y[0] - y - explained).max() < 0.003
        assert abs(drift) < 0.04
        if np.ptp(y) > 0.3:
            assert 0.8 * CAPACITY_AH < 1 / inverse_capacity < 1.1 * CAPACITY_AH
    voltage, current, temperature = (data.train.x[:, :, channel] for channel in range(3))
    assert 2.5 < voltage.min() < voltage.max() < 4.3
    assert -0.5 * CAPACITY_AH - 0.05 < current.min() < 0 < current.max() < 1.5 * CAPACITY_AH + 0.05
    assert 5 < temperature.min() < temperature.max() < 50


def test_ecg_interval_spectrum_has_the_two_waves() -> None:
    rng = np.random.default_rng(1)
    mean, deviation = np.array([0.8, 1.1]), np.array([0.02, 0.05])
    intervals = rr_intervals(rng, mean, deviation, 2**14, 10.0)
    np.testing.assert_allclose(intervals.mean(axis=1), mean, rtol=1e-6)
    np.testing.assert_allclose(intervals.std(axis=1), deviation, rtol=1e-6)
    power = np.abs(np.fft.rfft(intervals - mean[:, None], axis=1)) ** 2
    frequency = np.fft.rfftfreq(2**14, 0.1)
    low, high = (power[:, np.abs(frequency - middle) < 0.05].sum(axis=1) for middle in (0.1, 0.25))
    np.testing.assert_allclose(low / high, 0.5, rtol=0.02)
    np.testing.assert_allclose(low + high, power.sum(axis=1), rtol=1e-3)


def test_ecg_labels_follow_the_peaks_by_80_ms() -> None:
    data = make_ecg(n_train=40, n_test=1, steps=1000, seed=2)
    assert data.train.x.shape == (40, 1000, 2)
    for x, y in zip(data.train.x, data.train.y, strict=True):
        assert set(np.unique(y)) == {0, 1}
        edges = np.diff(y)
        starts, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
        whole = [(start, end) for start in starts if (end := min(ends[ends > start], default=0))]
        assert all(end - start == 5 for start, end in whole)
        peaks = [start + 2 - 10 for start, _ in whole if start >= 20]
        assert len(peaks) >= 5
        intervals = np.diff(peaks) / 125
        assert 0.4 < intervals.min() <= intervals.max() < 1.7
        assert intervals.std() / intervals.mean() < 0.12
        for peak in peaks:
            around = x[peak - 6 : peak + 7, 0]
            assert abs(int(around.argmax()) - 6) <= 2
            assert 0.3 < around.max() - around.min() < 5
        others = np.delete(x[:, 0], [peak + offset for peak in peaks for offset in range(-8, 9)])
        assert np.median(x[peaks, 0]) > np.percentile(others, 99)
        np.testing.assert_allclose(x[1:, 1], np.diff(x[:, 0]), atol=1e-6)
