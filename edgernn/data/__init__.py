"""Data sets: one shipped, two simulated, and the user's own folders. NumPy only, no network, no pickle."""

from pathlib import Path

from .battery import make_battery
from .dataset import Dataset, Split, normalisation, split_validation
from .ecg import make_ecg
from .folders import LAYOUTS, load_path
from .sequences import iter_rows, read_sequence
from .vowels import load_vowels

__all__ = [
    "NAMES",
    "Dataset",
    "Split",
    "iter_rows",
    "load",
    "make_battery",
    "make_ecg",
    "normalisation",
    "read_sequence",
    "split_validation",
]

NAMES = ("vowels", "battery", "ecg")


def load(name: str | Path, seed: int = 0) -> Dataset:
    """The data set called `name` ("vowels", "battery", "ecg"), or the one in the folder `name`.

    `seed` decides what is random: the simulated cells and hearts, and the split of a folder without train/ and test/.
    Raises ValueError for an unknown name, a folder of no known layout, anything wrong in its files, and a seed outside
    0 .. 2**63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number in 0 .. 2**63 - 1, not {seed!r}")
    if name == "vowels":
        return load_vowels()
    if name == "battery":
        return make_battery(seed=seed)
    if name == "ecg":
        return make_ecg(seed=seed)
    if not Path(name).exists():
        raise ValueError(f"{name}: no data set and no folder of this name; known are {', '.join(NAMES)}, and {LAYOUTS}")
    return load_path(name, seed)
