"""Data from files: sequences and the user's folders, and one clear ValueError for everything wrong in them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgernn.data import NAMES, iter_rows, load, read_sequence
from edgernn.data.folders import HAR_SIGNALS
from edgernn.data.ts import load_ts, read_ts

from .test_data import same, write

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


# ---- one sequence ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=FINITE), st.booleans())
def test_csv_round_trip(
    tmp_path_factory: pytest.TempPathFactory, values: npt.NDArray[np.float32], header: bool
) -> None:
    path = tmp_path_factory.mktemp("csv") / "sequence.CSV"
    rows = [",".join(map(repr, row)) for row in values.tolist()]
    names = [",".join(f"channel {index}" for index in range(values.shape[1]))] if header else []
    write(path, "\ufeff" + "\r\n\n".join([*names, *rows]))
    read = read_sequence(path)
    assert read.dtype == np.float32
    assert np.array_equal(read, values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, ">f4"])
def test_npy_round_trip(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    values = np.arange(6).reshape(3, 2).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    read = read_sequence(tmp_path / "a.npy")
    assert read.dtype == np.float32
    assert np.array_equal(read, [[0, 1], [2, 3], [4, 5]])
    read[0] = 7  # it is the caller's own array, not a view of the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows of numbers"),
        ("\n \n", "holds no rows of numbers"),
        ("x,y\n", "holds no rows of numbers"),
        ("1,2\n3\n", "line 2: 1 fields, the lines before have 2"),
        ("x,y\n1,2,3\n", "line 2: 3 fields"),
        ("1,2\n\n3,abc\n", "line 3: 'abc' is not a number"),
        ("1,x\n", "line 1: 'x' is not a number"),
        ("x,y\nz,w\n", "line 2: 'z' is not a number"),
        ("1,2\n3,\n", "line 2: '' is not a number"),
        ("1;2\n3;4\n", "line 1: fields are separated by ';': use commas"),
        ("a;b\n3;4\n", "line 1: fields are separated by ';': use commas"),
        ("1\t2\n", "line 1: fields are separated by tabs: use commas"),
        ("heart rate\n1 2\n", "line 2: fields are separated by blanks: use commas"),
        ("1,5;2,5\n", "line 1: fields are separated by ';' and decimals are marked by ',': use commas and decimal"),
        ("x;y\n1,5;2,5\n", "line 1: fields are separated by ';': use commas"),
        ("1,2\n1,5;2\n", "line 2: fields are separated by ';' and decimals"),
        ("n/a,n/a\n1,2\n", "line 1: 'n/a' is a missing value, neither a number nor a channel's name"),
        ("NA,x\n1,2\n", "line 1: 'NA' is a missing value"),
        ("x,\n1,2\n", "line 1: '' is a missing value"),
        ("nan,nan\n1,2\n", "line 1: 'nan' is not a finite float32 value"),
        ("1_000,2\n", "line 1: '1_000' is not a number"),
        ("1_000,2_000\n1,2\n", "line 1: '1_000' is not a number"),
        ("1,2\n3,nan\n", "line 2: 'nan' is not a finite float32 value"),
        ("1,-inf\n", "line 1: '-inf' is not a finite"),
        ("1,1e39\n", "line 1: '1e39' is not a finite"),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=message) as caught:
        read_sequence(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_sequences(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe1,2")
    (tmp_path / "folder.csv").mkdir()
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "complex.npy", np.zeros((2, 2), complex))
    np.save(tmp_path / "object.npy", np.array([[{}]], object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.array([[0.0], [np.nan]]))
    np.save(tmp_path / "large.npy", np.array([[1e300]]))
    np.savez(tmp_path / "archive", a=np.zeros((2, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, message in {
        "missing.csv": "no such file",
        "missing.npy": "no such file",
        "a.wav": "a sequence is a .csv or .npy file",
        "binary.csv": "cannot be read as text",
        "folder.csv": "no such file",
        "flat.npy": r"shape \[steps, channels\], not float64 \(3,\)",
        "none.npy": "not a .npy file|steps, channels",
        "text.npy": "must hold numbers",
        "complex.npy": "must hold numbers",
        "object.npy": "not a .npy file of numbers",
        "nan.npy": "row 2: NaN",
        "large.npy": "row 1: NaN or infinite",
        "archive.npy": "must hold numbers|not a .npy file",
        "empty.npy": "not a .npy file of numbers, or cut short",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_sequence(tmp_path / name)


def test_damaged_npy_files_raise_value_error_or_still_hold_a_matrix(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((4, 3), np.float32))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(0, 128)] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged[: rng.integers(0, len(whole))] if trial % 4 == 0 else damaged))
        try:
            read = read_sequence(path)
        except ValueError:
            continue
        assert read.ndim == 2
        assert np.isfinite(read).all()


def test_rows_come_one_by_one() -> None:
    def lines() -> "list[str]":
        return ["a,b\n", "1,2\n", "\n", "3,4\n", "5\n"]

    rows = iter_rows(iter(lines()), "standard input")
    assert [next(rows).tolist(), next(rows).tolist()] == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="standard input, line 5: 1 fields"):
        next(rows)


def test_a_byte_order_mark_is_no_part_of_the_first_number() -> None:
    assert [row.tolist() for row in iter_rows(["\ufeff1,2\n", "3,4\n"], "stdin")] == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="stdin, line 2"):
        list(iter_rows(["1,2\n", "\ufeff3,4\n"], "stdin"))


# ---- the user's folders ----------------------------------------------------------------------------------------------


def class_folders(root: Path, files: int = 4, header: str = "ax,ay\n") -> Path:
    """Two classes of `files` sequences; file n has n + 1 rows (10 * class + n, row)."""
    for number, name in enumerate(("run", "walk")):
        for file in range(files):
            rows = "".join(f"{10 * number + file},{row}\n" for row in range(file + 1))
            write(root / name / f"{file}.csv", header + rows)
    return root


def test_class_folders_with_train_and_test(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 3)
    class_folders(tmp_path / "test", 2)
    write(tmp_path / "train" / "walk" / "notes.txt", "ignored")
    data = load(tmp_path)
    assert (data.name, data.labels, data.channels) == (tmp_path.name, ("run", "walk"), ("ax", "ay"))
    assert data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.lengths.tolist() == [1, 2, 3, 1, 2, 3]
    assert data.train.x[4].tolist() == [[11, 0], [11, 1], [0, 0]]
    assert data.test.y.tolist() == [0, 0, 1, 1]


def test_class_folders_without_a_split_are_split_by_the_seed(tmp_path: Path) -> None:
    class_folders(tmp_path, 8, header="")
    np.save(tmp_path / "run" / "more.npy", np.array([[99, 0]]))
    write(tmp_path / ".hidden" / "x.csv", "not a class")
    data, again, other = load(str(tmp_path)), load(tmp_path), load(tmp_path, seed=1)
    assert (len(data.train), len(data.test)) == (13, 4)
    assert data.channels == ("channel 0", "channel 1")
    assert set(data.train.y.tolist()) == set(data.test.y.tolist()) == {0, 1}
    assert same(data.test, again.test)
    assert not same(data.test, other.test)
    numbers = sorted(split.x[row, 0, 0] for split in (data.train, data.test) for row in range(len(split)))
    assert numbers == [*range(8), *range(10, 18), 99]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "found 0 class folders"),
        ({"a/1.csv": "1\n"}, "found 1 class folders"),
        ({"a/1.csv": "1\n", "b/1.txt": "1\n"}, "b: holds no .csv or .npy files"),
        ({"a/1.csv": "1\n", "a/2.csv": "1\n", "b/1.csv": "1\n"}, "b: one file cannot be split"),
        ({"a/1.csv": "1\n", "b/1.csv": "1,2\n"}, "1.csv: 2 columns"),
        ({"a/1.csv": "x,y\n1,2\n", "b/1.csv": "y,x\n1,2\n"}, "('y', 'x')"),
        ({"a/1.csv": "1\n", "b/1.csv": ""}, "1.csv: holds no rows"),
        ({"a/1.csv": "1,2\n3\n", "b/1.csv": ""}, "1.csv, line 2: 1 fields"),
        ({"train/a/1.csv": "1\n", "train/b/1.csv": "1\n"}, "has train/ but not its counterpart"),
        ({"train/a/1.csv": "1\n", "train/b/1.csv": "1\n", "test/c/1.csv": "1\n"}, "class 'c' has no training folder"),
        ({"train/a/1.csv": "1\n", "train/b/1.csv": "1\n", "test/1.csv": "1\n"}, "test: holds no class folders"),
        ({"train/a/1.csv": "1\n", "train/b/1.csv": "1\n", "test/a/1.csv": "1,2\n"}, "differ in their channels"),
    ],
)
def test_class_folder_errors(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


TS = """#comment
@problemName tiny
@timeStamps false
@missing false
@dimensions 2
@equalLength false
@classLabel true left right

@data
1,2,3:4,5,6:left
7:8:right
"""


def ts_pair(folder: Path, train: str = TS, test: str = TS, name: str = "Tiny") -> Path:
    write(folder / f"{name}_TEST.ts", test)
    return write(folder / f"{name}_TRAIN.ts", train)


def test_ts_pair(tmp_path: Path) -> None:
    path = ts_pair(tmp_path)
    for data in (load(path), load(tmp_path)):
        assert (data.name, data.labels, data.input_size) == ("Tiny", ("left", "right"), 2)
        assert data.train.x.tolist() == [[[1, 4], [2, 5], [3, 6]], [[7, 8], [0, 0], [0, 0]]]
        assert data.train.lengths.tolist() == [3, 1]
        assert data.train.y.tolist() == [0, 1]
        assert same(data.train, data.test)


def test_a_folder_of_several_ts_pairs_means_the_one_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Tiny"
    ts_pair(folder, name="Tiny_eq")
    ts_pair(folder)
    assert load(folder).name == "Tiny"
    with pytest.raises(ValueError, match="several data sets; name one: .*Tiny_TRAIN.ts, .*Tiny_eq_TRAIN.ts"):
        load(folder.rename(tmp_path / "Other"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7:8", "7:?", r"Tiny_TRAIN.ts, line 11: missing value \('\?'\) in channel 1"),
        ("7:8", "7:NaN", "line 11: 'NaN' is not a finite"),
        ("7:8", "7:8,9", r"line 11: channels of different lengths \(\[1, 2\]\)"),
        ("7:8", "7", "line 11: 1 channels, the lines before have 2"),
        ("7:8:right", "7", "line 11: no ':' between values and class"),
        ("7:8", "7:x", "line 11: 'x' is not a number"),
        ("8:right", "8:up", "line 11: class 'up' is not one of the header's left, right"),
        ("@timeStamps false", "@timestamps TRUE", "line 3: values with time stamps"),
        ("@classLabel true left right", "@targetLabel true", "names no classes"),
        ("@data", "@dat", "no @data line"),
        ("1,2,3:4,5,6:left\n7:8:right\n", "", "no sequences after @data"),
        ("left right", "right left", "are not those of its test file"),
        ("1,2,3:4,5,6:left\n7:8:right", "1:left", "1 channels, but its test file has 2"),
    ],
)
def test_ts_errors(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TS
    with pytest.raises(ValueError, match=message):
        load(ts_pair(tmp_path, TS.replace(old, new)))


def test_ts_partner_and_name(tmp_path: Path) -> None:
    path = write(tmp_path / "Tiny_TRAIN.ts", TS)
    with pytest.raises(ValueError, match="Tiny_TEST.ts: no such file"):
        load(path)
    with pytest.raises(ValueError, match="Tiny_TEST.ts: this is the test part; .* beside it, Tiny_TRAIN.ts"):
        load(write(tmp_path / "other" / "Tiny_TEST.ts", TS))
    with pytest.raises(ValueError, match="not a folder"):
        load(path.rename(tmp_path / "Tiny.ts"))
    with pytest.raises(ValueError, match="give the file whose name ends in _TRAIN.ts"):
        load_ts(tmp_path / "Tiny.ts")
    sequences, classes, labels = read_ts(tmp_path / "Tiny.ts")
    assert (len(sequences), classes, labels) == (2, [0, 1], ("left", "right"))


def har_folder(root: Path) -> Path:
    """Three training and two test windows of four steps; a value is 100 * signal + 10 * window + step."""
    write(root / "activity_labels.txt", "1 WALKING\n2 WALKING_UPSTAIRS\n5 STANDING\n")
    for part, activities in (("train", [5, 1, 2]), ("test", [2, 2])):
        write(root / part / f"y_{part}.txt", "".join(f"{activity}\n" for activity in activities))
        for number, name in enumerate(HAR_SIGNALS):
            rows = [
                [f"{100 * number + 10 * window + step:.7e}" for step in range(4)] for window in range(len(activities))
            ]
            text = "".join("  " + "  ".join(row) + "\n" for row in rows)
            write(root / part / "Inertial Signals" / f"{name}_{part}.txt", text)
    return root


def test_har(tmp_path: Path) -> None:
    data = load(har_folder(tmp_path / "UCI HAR Dataset"))
    assert data.labels == ("WALKING", "WALKING_UPSTAIRS", "STANDING")
    assert data.channels[:4] == ("body_acc_x", "body_acc_y", "body_acc_z", "body_gyro_x")
    assert data.train.x.shape == (3, 4, 9)
    assert data.train.x[2, 3].tolist() == [100 * signal + 23 for signal in range(9)]
    assert data.train.y.tolist() == [2, 0, 1]
    assert data.test.y.tolist() == [1, 1]
    assert data.test.lengths.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("activity_labels.txt", None, "activity_labels.txt: no such file; give the unpacked folder"),
        ("activity_labels.txt", "WALKING\n", "'WALKING' is not a number and a name"),
        ("activity_labels.txt", "1 WALKING\n2 UP\n", r"y_train.txt: holds activities other than \[1, 2\]"),
        ("test/Inertial Signals/body_gyro_y_test.txt", None, "body_gyro_y_test.txt: no such file"),
        ("test/Inertial Signals/body_gyro_y_test.txt", "", "body_gyro_y_test.txt: the file is empty"),
        ("test/Inertial Signals/body_gyro_y_test.txt", "1 2 3 4\n1 2 3\n", "body_gyro_y_test.txt: .*row"),
        ("test/Inertial Signals/body_gyro_y_test.txt", "1 2 3 4\n1 2 x 4\n", "body_gyro_y_test.txt: .*x"),
        ("test/Inertial Signals/body_gyro_y_test.txt", "1 2 3 4\n1 2 nan 4\n", "body_gyro_y_test.txt, row 2: NaN"),
        ("test/Inertial Signals/body_gyro_y_test.txt", "1 2 3 4\n", "the files' shapes disagree"),
        ("test/y_test.txt", "2\n", "the files' shapes disagree"),
        ("test/y_test.txt", "2\n2.5\n", "holds activities other than"),
    ],
)
def test_har_errors(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    har_folder(tmp_path)
    (tmp_path / file).unlink()
    if text is not None:
        write(tmp_path / file, text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_unknown_names_list_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known are vowels, battery, ecg") as caught:
        load("vowel")
    assert "UCI HAR" in str(caught.value)
    assert NAMES == ("vowels", "battery", "ecg")
    with pytest.raises(ValueError, match="not a folder; a data folder is one of"):
        load(write(tmp_path / "data.csv", "1,2\n"))
