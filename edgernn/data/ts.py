"""The UEA / UCR archive's .ts text files: one sequence a line, channels parted by ':', values by ',', the class last.

A. Bagnall et al., "The UEA multivariate time series classification archive, 2018", arXiv:1811.00075.
"""

from pathlib import Path

import numpy as np

from .dataset import Dataset, FloatArray, Split, pad
from .sequences import parse_numbers, read_lines

TRAIN_SUFFIX, TEST_SUFFIX = "_TRAIN.ts", "_TEST.ts"


def load_ts(train: str | Path) -> Dataset:
    """The data set of `NAME_TRAIN.ts` and the `NAME_TEST.ts` beside it: one class a sequence, lengths may differ.

    Raises ValueError, naming file and line, for a missing partner, missing values ('?'), time stamps, and anything
    that is not a number or a known class.
    """
    train = Path(train)
    if not train.name.endswith(TRAIN_SUFFIX):
        raise ValueError(f"{train}: give the file whose name ends in {TRAIN_SUFFIX}")
    name = train.name.removesuffix(TRAIN_SUFFIX)
    sequences, classes, labels = read_ts(train)
    test_sequences, test_classes, test_labels = read_ts(train.with_name(name + TEST_SUFFIX))
    if test_labels != labels:
        raise ValueError(f"{train}: its classes {labels} are not those of its test file, {test_labels}")
    channels = sequences[0].shape[1]
    if test_sequences[0].shape[1] != channels:
        raise ValueError(f"{train}: {channels} channels, but its test file has {test_sequences[0].shape[1]}")
    return Dataset(
        name=name,
        task="classification",
        head="last",
        train=Split(*pad(sequences), np.array(classes, np.int64)),
        test=Split(*pad(test_sequences), np.array(test_classes, np.int64)),
        labels=labels,
        channels=tuple(f"channel {index}" for index in range(channels)),
        source=str(train),
    )


def read_ts(path: str | Path) -> tuple[list[FloatArray], list[int], tuple[str, ...]]:
    """(sequences [length, I], class numbers, class names) of one .ts file. Raises ValueError."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    lines = read_lines(path)
    start, labels = _read_header(path, lines)
    sequences: list[FloatArray] = []
    classes: list[int] = []
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        *fields, label = line.strip().split(":")
        sequence = _parse_sequence(fields, place)
        if sequences and sequence.shape[1] != sequences[0].shape[1]:
            raise ValueError(f"{place}: {sequence.shape[1]} channels, the lines before have {sequences[0].shape[1]}")
        if label.strip() not in labels:
            raise ValueError(f"{place}: class {label.strip()!r} is not one of the header's {', '.join(labels)}")
        sequences.append(sequence)
        classes.append(labels.index(label.strip()))
    if not sequences:
        raise ValueError(f"{path}: no sequences after @data")
    return sequences, classes, labels


def _read_header(path: Path, lines: list[str]) -> tuple[int, tuple[str, ...]]:
    """(number of lines up to @data, class names)."""
    labels: tuple[str, ...] = ()
    for number, line in enumerate(lines, 1):
        words = line.split()
        match [word.lower() for word in words[:2]]:
            case ["@data"]:
                if not labels:
                    raise ValueError(f"{path}: the header names no classes (@classLabel true ...)")
                return number, labels
            case ["@timestamps", "true"]:
                raise ValueError(f"{path}, line {number}: values with time stamps are not read; resample them first")
            case ["@classlabel", "true"]:
                labels = tuple(words[2:])
    raise ValueError(f"{path}: no @data line; not a .ts file, or cut short")


def _parse_sequence(fields: list[str], place: str) -> FloatArray:
    if not fields:
        raise ValueError(f"{place}: no ':' between values and class")
    for channel, field in enumerate(fields):
        if "?" in field:
            raise ValueError(f"{place}: missing value ('?') in channel {channel}; fill or remove it")
    values = [parse_numbers(field.split(","), place) for field in fields]
    lengths = {len(channel) for channel in values}
    if len(lengths) > 1:
        raise ValueError(f"{place}: channels of different lengths ({sorted(lengths)})")
    return np.stack(values, axis=1)
