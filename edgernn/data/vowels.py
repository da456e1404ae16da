"""Japanese vowels: nine speakers told apart by one spoken /ae/. The archive `vowels.npz` beside this file holds it.

Source: UCI Machine Learning Repository 128, https://doi.org/10.24432/C5NS47, licence CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification
using passing-through regions", Pattern Recognition Letters 20 (11-13), 1999, pages 1103-1111.
Changed here: the values are rounded from 6 to 4 decimals and stored as integers of 0.0001.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Split
from .ts import TEST_SUFFIX, TRAIN_SUFFIX, read_ts

Integers = npt.NDArray[np.integer[Any]]

DECIMALS: Final = 4
SOURCE: Final = (
    "Japanese Vowels, M. Kudo, J. Toyama, M. Shimbo (1999), UCI Machine Learning Repository 128, "
    f"https://doi.org/10.24432/C5NS47, CC BY 4.0; values rounded to {DECIMALS} decimals"
)
_FILE: Final = Path(__file__).with_name("vowels.npz")
_PARTS: Final = {"train": TRAIN_SUFFIX, "test": TEST_SUFFIX}


def load_vowels() -> Dataset:
    """270 training and 370 test utterances (the official split) of 7 to 29 steps, 12 channels, 9 classes.

    A step is 6.4 ms; its channels are 12 LPC cepstrum coefficients. The test part was spoken on other occasions.
    """
    with np.load(_FILE, allow_pickle=False) as archive:
        train, test = (_split(archive[part], archive[f"{part}_lengths"], archive[f"{part}_y"]) for part in _PARTS)
    return Dataset(
        name="vowels",
        task="classification",
        head="last",
        train=train,
        test=test,
        labels=tuple(f"speaker {number}" for number in range(1, 10)),
        channels=tuple(f"lpc cepstrum {number}" for number in range(1, 13)),
        source=SOURCE,
    )


def convert_vowels(folder: str | Path, archive: str | Path = _FILE) -> None:
    """Make `vowels.npz` from the UEA archive's JapaneseVowels_TRAIN.ts and _TEST.ts in `folder`."""
    arrays = {"source": np.array(SOURCE)}
    for part, suffix in _PARTS.items():
        sequences, classes, _ = read_ts(Path(folder) / f"JapaneseVowels{suffix}")
        steps = np.concatenate(sequences).astype(np.float64)
        arrays[part] = np.rint(steps * 10**DECIMALS).astype(np.int16)
        arrays[f"{part}_lengths"] = np.array([len(sequence) for sequence in sequences], np.int8)
        arrays[f"{part}_y"] = np.array(classes, np.int8)
    np.savez_compressed(archive, allow_pickle=False, **arrays)


def _split(steps: Integers, stored_lengths: Integers, y: Integers) -> Split:
    """The stored form: all utterances' steps one below the other, int16 [sum of lengths, 12]."""
    lengths = stored_lengths.astype(np.int64)
    x = np.zeros((len(lengths), int(lengths.max()), steps.shape[1]), np.float32)
    x[np.arange(x.shape[1]) < lengths[:, None]] = steps / np.float64(10**DECIMALS)
    return Split(x, lengths, y.astype(np.int64))
