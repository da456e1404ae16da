"""Simulation of the firmware: the int8 kernels that compute exactly what the device will."""

from ._inference import Stream as Stream
from ._inference import batch_pieces as batch_pieces
from ._inference import run as run
from ._inference import run_batch as run_batch
from ._saturation import Saturation as Saturation
from ._saturation import count_saturation as count_saturation
from ._threads import in_order as in_order

__all__ = ["Saturation", "Stream", "batch_pieces", "count_saturation", "in_order", "run", "run_batch"]
