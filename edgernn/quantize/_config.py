"""QuantConfig: which numbers a network is quantised to."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from ..qmodel import Scheme


@dataclass(frozen=True)
class QuantConfig:
    """Bits of weights and of activations, and where their scales come from.

    weights: 8. activations: 8 or 16, the bits of the input and of the hidden state as matrix products read it (the
    state itself is always 16-bit). per_channel: one weight scale a row, or one a matrix. learn_scales: train the scales
    of weights, input and output with the weights (as in LSQ, Esser et al. 2020, arXiv 1902.08153); otherwise activation
    scales stay as calibrated and weight scales follow the largest weight of their row or matrix.
    """

    weights: int = 8
    activations: int = 8
    per_channel: bool = True
    learn_scales: bool = False

    def __post_init__(self) -> None:
        if self.weights != 8 or self.activations not in (8, 16):
            raise ValueError(f"unknown scheme w{self.weights}a{self.activations}; known are w8a8, w8a16")
        if not (isinstance(self.per_channel, bool) and isinstance(self.learn_scales, bool)):
            found = f"{self.per_channel!r}, {self.learn_scales!r}"
            raise ValueError(f"per_channel and learn_scales must be True or False, not {found}")

    @classmethod
    def parse(cls, scheme: str, per_channel: bool = True, learn_scales: bool = False) -> "QuantConfig":
        """The config of a scheme's name: w8a8, w8a16. Raises ValueError for others."""
        match = re.fullmatch(r"w(\d{1,2})a(\d{1,2})", scheme) if isinstance(scheme, str) else None
        if match is None:
            raise ValueError(f"unknown scheme {scheme!r}; known are w8a8, w8a16")
        return cls(int(match[1]), int(match[2]), per_channel, learn_scales)

    @property
    def scheme(self) -> Scheme:
        return "w8a8" if self.activations == 8 else "w8a16"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
