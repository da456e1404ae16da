"""Training: one call from a float model to a pruned, quantisation-aware trained one, repeatable and resumable."""

from .config import TrainConfig as TrainConfig
from .loop import fit as fit
from .metrics import evaluate as evaluate
from .state import History as History
