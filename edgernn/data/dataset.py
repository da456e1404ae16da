"""What a data set is: padded sequences with their lengths and targets, in two parts, checked when they are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Task = Literal["classification", "regression"]
HeadKind = Literal["last", "steps"]
FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]

PADDING_LABEL = -1


@dataclass(frozen=True, eq=False)
class Split:
    """N sequences of up to T steps with I channels.

    x: float32 [N, T, I] in the sensor's units, zero after each sequence's end. lengths: int64 [N] in 1 .. T.
    y: class numbers int64 [N] or, one a step, [N, T] with -1 after the end; or real targets float32 [N, O], [N, T, O].
    Raises ValueError for wrong types, shapes that do not agree, NaN or infinite values, padding that is not zero.
    """

    x: FloatArray
    lengths: LabelArray
    y: LabelArray | FloatArray

    def __post_init__(self) -> None:
        _check_array("x", self.x, np.float32, 3)
        _check_array("lengths", self.lengths, np.int64, 1)
        if not isinstance(self.y, np.ndarray) or self.y.dtype not in (np.int64, np.float32) or self.y.ndim == 0:
            raise ValueError("y must be an array of int64 (class numbers) or float32 (real targets)")
        sequences, steps, _ = self.x.shape
        if 0 in self.x.shape:
            raise ValueError(
                f"x has the shape {self.x.shape}; it needs at least one sequence, one step and one channel"
            )
        if len(self.lengths) != sequences or len(self.y) != sequences:
            raise ValueError(f"{sequences} sequences in x, but {len(self.lengths)} lengths and {len(self.y)} targets")
        if self.lengths.min() < 1 or self.lengths.max() > steps:
            bad = int(np.argmax((self.lengths < 1) | (self.lengths > steps)))
            raise ValueError(f"lengths[{bad}] is {self.lengths[bad]}; lengths must be 1 .. {steps}")
        for name, array in (("x", self.x), ("y", self.y)):
            if not np.isfinite(array).all():
                where = int(np.nonzero(~np.isfinite(array))[0][0])
                raise ValueError(f"{name} of sequence {where} contains NaN or infinite values; remove or fill them")
        if self.x[~self.valid].any():
            raise ValueError("x must be zero after the end of each sequence")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """[N, T]: whether a step belongs to its sequence (and is not padding)."""
        mask: npt.NDArray[np.bool_] = np.arange(self.x.shape[1]) < self.lengths[:, None]
        return mask

    def take(self, indices: npt.ArrayLike) -> "Split":
        """The sequences with these numbers, in this order."""
        chosen = np.asarray(indices, np.int64)
        return Split(self.x[chosen], self.lengths[chosen], self.y[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test part, and what their numbers mean.

    head: one target a sequence ("last") or one a step ("steps"). labels: class names (none for regression).
    channels: names of the inputs. source: where the data come from, with licence and attribution.
    Raises ValueError when the parts, labels and channels do not fit together.
    """

    name: str
    task: Task
    head: HeadKind
    train: Split
    test: Split
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.task not in ("classification", "regression"):
            raise ValueError(f"unknown task {self.task!r}; known are classification, regression")
        if self.head not in ("last", "steps"):
            raise ValueError(f"unknown head {self.head!r}; known are last, steps")
        if self.task == "classification" and len(self.labels) < 2:
            raise ValueError(f"classification needs at least 2 labels, not {len(self.labels)}")
        if self.task == "regression" and self.labels:
            raise ValueError("regression has no labels; leave them empty")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must differ from each other, not {self.labels}")
        for part, split in (("train", self.train), ("test", self.test)):
            if split.x.shape[2] != len(self.channels):
                raise ValueError(f"{part}.x has {split.x.shape[2]} channels, but {len(self.channels)} are named")
            try:
                self._check_targets(split)
            except ValueError as error:
                raise ValueError(f"{part}.y: {error}") from None
        sizes = {self.train.y.shape[-1], self.test.y.shape[-1]}
        if self.task == "regression" and (len(sizes) > 1 or 0 in sizes):
            raise ValueError(f"targets of train {self.train.y.shape} and test {self.test.y.shape} do not fit together")

    @property
    def input_size(self) -> int:
        return len(self.channels)

    @property
    def output_size(self) -> int:
        """The number of classes, or of real targets."""
        return len(self.labels) or int(self.train.y.shape[-1])

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise ValueError when a model's classes have other names, or the same names in another order.

        A model without labels fits: it has no names to compare.
        """
        if self.labels and labels and tuple(labels) != self.labels:
            raise ValueError(
                f"the classes of the data {self.name} ({', '.join(self.labels)}) are not those of the model "
                f"({', '.join(labels)}), in this order"
            )

    def _check_targets(self, split: Split) -> None:
        per_step = self.head == "steps"
        if self.task == "regression":
            _check_array("targets", split.y, np.float32, 3 if per_step else 2)
        else:
            _check_array("class numbers", split.y, np.int64, 2 if per_step else 1)
        if per_step and split.y.shape[1] != split.x.shape[1]:
            raise ValueError(f"{split.y.shape[1]} steps of targets for {split.x.shape[1]} steps of x")
        if self.task == "classification":
            classes = split.y[split.valid] if per_step else split.y
            if classes.min() < 0 or classes.max() >= len(self.labels):
                found = f"{classes.min()} .. {classes.max()}"
                raise ValueError(f"class numbers must be 0 .. {len(self.labels) - 1}, found {found}")
            if per_step and (split.y[~split.valid] != PADDING_LABEL).any():
                raise ValueError(f"class numbers must be {PADDING_LABEL} after the end of each sequence")


def normalisation(split: Split) -> tuple[FloatArray, FloatArray]:
    """(mean, std), float32 [I], of every channel over the valid steps; the std of a constant channel is 1."""
    values = split.x[split.valid].astype(np.float64)
    mean = values.mean(axis=0).astype(np.float32)
    std = values.std(axis=0).astype(np.float32)
    varies = (values.max(axis=0) > values.min(axis=0)) & (std > 0)
    return mean, np.where(varies, std, np.float32(1))


def split_validation(split: Split, fraction: float = 0.2, seed: int = 0) -> tuple[Split, Split]:
    """(training, validation): round(fraction * N) sequences, at least one each side, set aside at random.

    Every class gives its share when each sequence has one class. Raises ValueError unless 0 < fraction < 1 and there
    are two sequences.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction to set aside must lie between 0 and 1, not {fraction}")
    if len(split) < 2:
        raise ValueError("one sequence cannot be split in two; give more sequences")
    one_class = split.y.dtype == np.int64 and split.y.ndim == 1
    groups = split.y if one_class else np.zeros(len(split), np.int64)
    order = np.random.default_rng(seed).permutation(len(split))
    # A sequence's place within its own class, in (0, 1): the lowest places of all classes make the validation part.
    place = np.empty(len(split))
    for group in np.unique(groups):
        members = order[groups[order] == group]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    count = min(max(round(fraction * len(split)), 1), len(split) - 1)
    ranked = order[np.argsort(place[order], kind="stable")]
    return split.take(np.sort(ranked[count:])), split.take(np.sort(ranked[:count]))


def pad(sequences: list[FloatArray]) -> tuple[FloatArray, LabelArray]:
    """(x [N, T, I], lengths [N]) of sequences [length, I] with one I, zero-padded to the longest."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    x = np.zeros((len(sequences), int(lengths.max()), sequences[0].shape[1]), np.float32)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    return x, lengths


def _check_array(name: str, array: Any, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} must be a {ndim}-d array of {np.dtype(dtype)}, not {found}")
