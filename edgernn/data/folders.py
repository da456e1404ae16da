"""Data sets from the user's own folders: one sub-folder a class, a UEA archive pair, or UCI HAR."""

from pathlib import Path

import numpy as np

from .dataset import Dataset, FloatArray, Split, pad, split_validation
from .sequences import SUFFIXES, read_lines, read_named_sequence
from .ts import TEST_SUFFIX, TRAIN_SUFFIX, load_ts

TEST_FRACTION = 0.25

LAYOUTS = f"""a data folder is one of
  a sub-folder a class of {" or ".join(SUFFIXES)} files (rows are steps), or train/ and test/ with such sub-folders;
  a UEA archive pair NAME{TRAIN_SUFFIX} and NAME{TEST_SUFFIX};
  UCI HAR ("UCI HAR Dataset", with train/Inertial Signals)"""

HAR_SIGNALS = tuple(f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")


def load_path(path: str | Path, seed: int = 0) -> Dataset:
    """The data set in a folder (or of a `NAME_TRAIN.ts` file), whichever known layout it has; see LAYOUTS.

    Raises ValueError when it has none of them, or for anything wrong in the files.
    """
    path = Path(path)
    if path.is_file() and path.name.endswith(TRAIN_SUFFIX):
        return load_ts(path)
    if path.is_file() and path.name.endswith(TEST_SUFFIX):
        train = path.name.removesuffix(TEST_SUFFIX) + TRAIN_SUFFIX
        raise ValueError(f"{path}: this is the test part; name the training part beside it, {train}")
    if not path.is_dir():
        raise ValueError(f"{path}: not a folder; {LAYOUTS}")
    if (path / "train" / "Inertial Signals").is_dir():
        return load_har(path)
    pairs = sorted(path.glob(f"*{TRAIN_SUFFIX}"))
    if pairs:
        own = path / f"{path.name}{TRAIN_SUFFIX}"
        if len(pairs) > 1 and own not in pairs:
            raise ValueError(f"{path}: holds several data sets; name one: {', '.join(map(str, pairs))}")
        return load_ts(own if own in pairs else pairs[0])
    return load_class_folders(path, seed)


def load_class_folders(path: str | Path, seed: int = 0) -> Dataset:
    """One sub-folder a class, one file a sequence, in path/train and path/test or in path itself.

    Without train and test folders a quarter of every class is set aside for the test part, chosen by `seed`.
    Raises ValueError for missing or empty folders, files that disagree in their channels, and unreadable files.
    """
    path = Path(path)
    parts = [part for part in ("train", "test") if (path / part).is_dir()]
    if len(parts) == 1:
        raise ValueError(f"{path}: has {parts[0]}/ but not its counterpart; give both train/ and test/, or neither")
    labels = tuple(folder.name for folder in _class_folders(path / "train" if parts else path))
    if len(labels) < 2:
        raise ValueError(f"{path}: found {len(labels)} class folders, at least 2 are needed; {LAYOUTS}")
    if parts:
        train, header = _read_classes(path / "train", labels)
        test, test_header = _read_classes(path / "test", labels)
        if train.x.shape[2] != test.x.shape[2] or header != test_header:
            raise ValueError(f"{path}: train/ and test/ differ in their channels")
    else:
        everything, header = _read_classes(path, labels)
        scarce = np.bincount(everything.y.astype(np.int64)) < 2
        if scarce.any():
            raise ValueError(f"{path / labels[int(np.argmax(scarce))]}: one file cannot be split into train and test")
        train, test = split_validation(everything, TEST_FRACTION, seed)
    return Dataset(
        name=path.resolve().name,
        task="classification",
        head="last",
        train=train,
        test=test,
        labels=labels,
        channels=header or tuple(f"channel {index}" for index in range(train.x.shape[2])),
        source=str(path),
    )


def load_har(path: str | Path) -> Dataset:
    """The unpacked "UCI HAR Dataset": 6 activities, 128 steps at 50 Hz of 9 accelerometer and gyroscope channels.

    D. Anguita, A. Ghio, L. Oneto, X. Parra, J. L. Reyes-Ortiz, "A public domain dataset for human activity recognition
    using smartphones", ESANN 2013 (UCI repository 240). Raises ValueError for missing or damaged files.
    """
    path = Path(path)
    names: dict[int, str] = {}
    for row in _har_lines(path / "activity_labels.txt"):
        number, _, name = row.partition(" ")
        if not (number.isdigit() and name):
            raise ValueError(f"{path / 'activity_labels.txt'}: {row!r} is not a number and a name")
        names[int(number)] = name.strip()
    numbers = sorted(names)
    return Dataset(
        name="har",
        task="classification",
        head="last",
        train=_read_har(path, "train", numbers),
        test=_read_har(path, "test", numbers),
        labels=tuple(names[number] for number in numbers),
        channels=HAR_SIGNALS,
        source=f"{path} (UCI HAR; Anguita et al., ESANN 2013)",
    )


def _class_folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "__")))


def _read_classes(path: Path, labels: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    """(sequences of all classes, channel names from the header rows)."""
    sequences: list[FloatArray] = []
    classes: list[int] = []
    header: tuple[str, ...] = ()
    for folder in _class_folders(path):
        if folder.name not in labels:
            raise ValueError(f"{folder}: class {folder.name!r} has no training folder; known: {', '.join(labels)}")
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{folder}: holds no {' or '.join(SUFFIXES)} files")
        for file in files:
            sequence, names = read_named_sequence(file)
            if sequences and (sequence.shape[1] != sequences[0].shape[1] or names != header):
                columns = f"{sequence.shape[1]} columns {names or 'without names'}"
                raise ValueError(f"{file}: {columns}; the files before have {sequences[0].shape[1]} {header}")
            header = names
            sequences.append(sequence)
            classes.append(labels.index(folder.name))
    if not sequences:
        raise ValueError(f"{path}: holds no class folders")
    return Split(*pad(sequences), np.array(classes, np.int64)), header


def _read_har(path: Path, part: str, numbers: list[int]) -> Split:
    signals = [_har_matrix(path / part / "Inertial Signals" / f"{name}_{part}.txt") for name in HAR_SIGNALS]
    file = path / part / f"y_{part}.txt"
    activities = _har_matrix(file)
    shapes = sorted({signal.shape for signal in signals})
    if len(shapes) > 1 or activities.shape != (shapes[0][0], 1):
        raise ValueError(f"{path / part}: the files' shapes disagree: signals {shapes}, activities {activities.shape}")
    if not np.isin(activities, numbers).all():
        raise ValueError(f"{file}: holds activities other than {numbers} of activity_labels.txt")
    x = np.stack(signals, axis=2)
    return Split(x, np.full(len(x), x.shape[1], np.int64), np.searchsorted(numbers, activities[:, 0]).astype(np.int64))


def _har_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the unpacked folder 'UCI HAR Dataset'")
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    return lines


def _har_matrix(path: Path) -> FloatArray:
    """float32 [rows, columns] of numbers parted by blanks."""
    try:
        matrix = np.loadtxt(_har_lines(path), np.float32, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not np.isfinite(matrix).all():
        row = int(np.nonzero(~np.isfinite(matrix))[0][0])
        raise ValueError(f"{path}, row {row + 1}: NaN or infinite values")
    return matrix
