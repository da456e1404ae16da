"""Pruning: block-sparse recurrent weights by magnitude, at once or along a cubic ramp."""

from .magnitude import prune_ as prune_
from .magnitude import sparsity as sparsity
from .schedule import PruneSchedule as PruneSchedule
