"""Simulation of the firmware: the int8 kernels that compute exactly what the device will.

Names are loaded when they are first used: the rooms in here (native, emulation, cycles) do without Numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._inference import Stream as Stream
    from ._inference import batch_pieces as batch_pieces
    from ._inference import run as run
    from ._inference import run_batch as run_batch
    from ._saturation import Saturation as Saturation
    from ._saturation import count_saturation as count_saturation
    from ._threads import in_order as in_order

_HOMES = {
    "Saturation": "_saturation",
    "Stream": "_inference",
    "batch_pieces": "_inference",
    "count_saturation": "_saturation",
    "in_order": "_threads",
    "run": "_inference",
    "run_batch": "_inference",
}

__all__ = ["Saturation", "Stream", "batch_pieces", "count_saturation", "in_order", "run", "run_batch"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
