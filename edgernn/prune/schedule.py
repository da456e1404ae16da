"""How sparsity grows while a model trains."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from .magnitude import check_targets, gate_targets, prune_, recurrent


@dataclass(frozen=True)
class PruneSchedule:
    """Sparsity over the progress of training (0 .. 1): none before `start`, all of it from `end` on.

    Between them it follows the cubic ramp s_t = s (1 - (1 - t)^3) of Zhu and Gupta (2017), "To prune, or not to prune",
    arXiv 1710.01878: fast while many weights are superfluous, slow near the target. Shares in `gates` follow it too.
    Raises ValueError for shares and blocks that `prune_` refuses, and unless 0 <= start <= end <= 1.
    """

    sparsity: float
    block: str = "unit"
    gates: Mapping[str, float] | None = None
    start: float = 0.2
    end: float = 0.6

    def __post_init__(self) -> None:
        check_targets(self.sparsity, self.block, self.gates)
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"start and end must satisfy 0 <= start <= end <= 1, not {self.start} and {self.end}")

    def check(self, model: nn.Module) -> None:
        """Raise ValueError for what `apply_` would refuse in this model: an unknown gate, tiles that straddle gates."""
        gate_targets(recurrent(model), self.sparsity, self.block, self.gates)

    def factor(self, progress: float) -> float:
        """The share of the final sparsity that is due at `progress`, from 0 to 1."""
        if progress >= self.end:
            return 1.0
        if progress <= self.start:
            return 0.0
        return 1.0 - (1.0 - (progress - self.start) / (self.end - self.start)) ** 3

    def apply_(self, model: nn.Module, progress: float) -> None:
        """Prune `model` in place to the sparsity due at `progress`. Before `start` nothing happens."""
        factor = self.factor(progress)
        if factor > 0:
            gates = self.gates and {name: share * factor for name, share in self.gates.items()}
            prune_(model, self.sparsity * factor, self.block, gates)
