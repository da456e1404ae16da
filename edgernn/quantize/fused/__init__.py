"""The integer forward pass and its gradients as fused operations on the CPU: what _cells.py defines, much faster."""

from ._network import available as available
from ._network import explicit as explicit
from ._network import run as run

__all__ = ["available", "explicit", "run"]
