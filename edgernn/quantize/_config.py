"""QuantConfig: which numbers a network is quantised to."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from ..qmodel import PROFILE_SCALES, Profile, Scheme


@dataclass(frozen=True)
class QuantConfig:
    """Bits of weights and of activations, and where their scales come from.

    weights: 8. activations: 8 or 16, the bits of the input and of the hidden state as matrix products read it (the
    state itself is 16-bit in the profile portable). per_channel: one weight scale a row, or one a matrix. learn_scales:
    train the scales of weights, input and output with the weights (as in LSQ, Esser et al. 2020, arXiv 1902.08153);
    otherwise activation scales stay as calibrated and weight scales follow the largest weight of their row or matrix.

    profile: "portable", edgernn's own arithmetic, or "tflite-lstm", that of TensorFlow Lite's LSTM operator. It has
    8-bit activations, and one weight scale for each gate's matrix; per_channel then speaks of the head alone.
    """

    weights: int = 8
    activations: int = 8
    per_channel: bool = True
    learn_scales: bool = False
    profile: Profile = "portable"

    def __post_init__(self) -> None:
        if self.weights != 8 or self.activations not in (8, 16):
            raise ValueError(f"unknown scheme w{self.weights}a{self.activations}; known are w8a8, w8a16")
        if not (isinstance(self.per_channel, bool) and isinstance(self.learn_scales, bool)):
            found = f"{self.per_channel!r}, {self.learn_scales!r}"
            raise ValueError(f"per_channel and learn_scales must be True or False, not {found}")
        if self.profile not in tuple(PROFILE_SCALES):
            raise ValueError(f"unknown profile {self.profile!r}; known are {', '.join(PROFILE_SCALES)}")
        if self.profile != "portable" and self.scheme != "w8a8":
            raise ValueError(f"the profile {self.profile} has the scheme w8a8, not {self.scheme}")

    @classmethod
    def parse(
        cls, scheme: str, per_channel: bool = True, learn_scales: bool = False, profile: Profile = "portable"
    ) -> "QuantConfig":
        """The config of a scheme's name: w8a8, w8a16. Raises ValueError for others."""
        match = re.fullmatch(r"w(\d{1,2})a(\d{1,2})", scheme) if isinstance(scheme, str) else None
        if match is None:
            raise ValueError(f"unknown scheme {scheme!r}; known are w8a8, w8a16")
        return cls(int(match[1]), int(match[2]), per_channel, learn_scales, profile)

    @property
    def scheme(self) -> Scheme:
        return "w8a8" if self.activations == 8 else "w8a16"

    def check_cell(self, cell: str) -> None:
        """Raise ValueError for a cell that the profile does not have."""
        if self.profile == "tflite-lstm" and cell != "lstm":
            raise ValueError(f"the profile tflite-lstm is one of LSTMs, the cell is {cell}; use the profile portable")

    def as_dict(self) -> dict[str, Any]:
        """As files hold it, which are silent about the profile portable."""
        options = asdict(self)
        if self.profile == "portable":
            del options["profile"]
        return options
