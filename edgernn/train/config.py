"""How to train: the options of `fit`, and which phase of training each epoch belongs to."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ..prune import PruneSchedule
from ..qmodel import Profile
from ..quantize import QuantConfig

Phase = Literal["float", "prune", "sparse", "qat"]

# Shares of the epochs, chosen by experiment on the vowels data: the dense float model settles, then blocks fall along
# the cubic ramp, then training goes on with what is left (in the device's integers when `qat` is given).
PRUNE_START: Final = 0.2
PRUNE_END: Final = 0.6

INPUT_NOISE_MAX: Final = 10.0  # standard deviations: more leaves nothing of the signal


@dataclass(frozen=True)
class TrainConfig:
    """Options of `fit`; they are stored in its checkpoints and metrics.

    learning_rate falls along a cosine to final_learning_rate. clip_norm bounds the norm of all gradients together.
    weight_decay is AdamW's (decoupled; on matrices only). ema_decay is that of the running average of the weights,
    which is what is evaluated and kept (0: the weights themselves). input_noise adds Gaussian noise to the training
    inputs, in standard deviations of each channel: it keeps small data sets from being learned by heart. validation is
    the share of the training sequences held back to choose the best epoch (0: none, the last epoch is kept). qat names
    a scheme ("w8a8", "w8a16"), None trains in float; per_channel, learn_scales and profile go with it, see
    QuantConfig.
    sparsity, block and gates are those of `prune_`.

    The phases are fixed: float up to PRUNE_START of the epochs, the ramp up to PRUNE_END, then qat (or sparse, when qat
    is None). Without pruning the float phase lasts up to PRUNE_END, or to the end when there is no qat either.

    Raises ValueError for values of a wrong type or out of range, for options of qat without qat, and for fewer epochs
    than phases.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 0.01
    final_learning_rate: float = 0.0005
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    ema_decay: float = 0.98
    input_noise: float = 0.0
    validation: float = 0.15
    seed: int = 0
    qat: str | None = None
    per_channel: bool = True
    learn_scales: bool = False
    profile: Profile = "portable"
    sparsity: float = 0.0
    block: str = "unit"
    gates: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        for name in ("per_channel", "learn_scales"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if not isinstance(self.qat, str | None):
            raise ValueError(f"qat must be None or the name of a scheme such as 'w8a8', not {self.qat!r}")
        if not isinstance(self.gates, Mapping | None):
            raise ValueError(f"gates must be None or shares by gate such as {{'r': 0.5}}, not {self.gates!r}")
        self.schedule  # noqa: B018 (checks sparsity, block and gates)
        if self.epochs < len(self.phases_used):
            phases = ", ".join(self.phases_used)
            raise ValueError(f"epochs={self.epochs} is too few: the phases {phases} take at least one epoch each")
        self.quantization  # noqa: B018 (checks qat)
        if self.qat is None and (self.learn_scales or not self.per_channel):
            raise ValueError("per_channel=False and learn_scales go with qat; give qat='w8a8' too, or leave them out")
        if self.qat is None and self.profile != "portable":
            raise ValueError(f"profile={self.profile!r} goes with qat; give qat='w8a8' too, or leave it out")

    def _check_numbers(self) -> None:
        for name, lowest in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, not {value!r}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, not {self.seed}")
        for name in ("learning_rate", "final_learning_rate", "clip_norm"):
            if not 0 < _real(getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {getattr(self, name)!r}")
        if not 0 <= _real(self.weight_decay) < math.inf:
            raise ValueError(f"weight_decay must be finite and not negative, not {self.weight_decay!r}")
        if not 0 <= _real(self.input_noise) <= INPUT_NOISE_MAX:
            raise ValueError(f"input_noise must be 0 .. {INPUT_NOISE_MAX:g}, not {self.input_noise!r}")
        for name in ("validation", "ema_decay"):
            if not 0 <= _real(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be a share in [0, 1), not {getattr(self, name)!r}")

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        return asdict(self) | {"gates": None if self.gates is None else dict(self.gates)}

    @property
    def quantization(self) -> QuantConfig | None:
        """What qat, per_channel, learn_scales and profile mean; None without qat."""
        if self.qat is None:
            return None
        return QuantConfig.parse(self.qat, self.per_channel, self.learn_scales, self.profile)

    @property
    def prunes(self) -> bool:
        return self.sparsity > 0 or any(share > 0 for share in (self.gates or {}).values())

    @property
    def phases_used(self) -> tuple[Phase, ...]:
        """The phases in their order: float, prune (the ramp), and qat or sparse for the rest."""
        last: tuple[Phase, ...] = ("qat",) if self.qat is not None else ("sparse",) if self.prunes else ()
        return ("float", *(("prune",) if self.prunes else ()), *last)

    @property
    def ramp(self) -> tuple[int, int]:
        """The first epoch of the ramp and the first one after it. Every phase has at least one epoch."""
        end = min(max(round(PRUNE_END * self.epochs), len(self.phases_used) - 1), self.epochs - 1)
        return min(max(round(PRUNE_START * self.epochs), 1), max(end - 1, 0)), end

    def phase(self, epoch: int) -> Phase:
        """The phase that epoch number `epoch` (from 0) belongs to."""
        start, end = self.ramp
        if len(self.phases_used) > 1 and epoch >= end:
            return self.phases_used[-1]
        return "prune" if self.prunes and epoch >= start else "float"

    @property
    def schedule(self) -> PruneSchedule:
        """The ramp over the share of epochs done; the last epoch of the prune phase has the full sparsity."""
        start, end = self.ramp
        return PruneSchedule(self.sparsity, self.block, self.gates, start / self.epochs, end / self.epochs)

    def learning_rate_at(self, progress: float) -> float:
        """The cosine from learning_rate (progress 0) to final_learning_rate (progress 1)."""
        span = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def _real(value: Any) -> float:
    """The value, or NaN (which lies in no range) when it is not a real number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
