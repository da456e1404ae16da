"""edgernn: train, prune and quantise recurrent networks in PyTorch, and know to the bit what the device computes.

Names are loaded when they are first used, so that `import edgernn` imports neither torch nor numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._predictor import Predictor as Predictor
    from .floatmodel import FloatModel as FloatModel
    from .nn import GRU as GRU
    from .nn import LSTM as LSTM
    from .nn import RNN as RNN
    from .nn import SequenceModel as SequenceModel
    from .prune import PruneSchedule as PruneSchedule
    from .prune import prune_ as prune_
    from .qmodel import QuantizedModel as QuantizedModel
    from .quantize import QuantConfig as QuantConfig
    from .quantize import calibrate as calibrate
    from .quantize import convert as convert
    from .quantize import prepare as prepare
    from .train import TrainConfig as TrainConfig
    from .train import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "FloatModel": "floatmodel",
    "GRU": "nn",
    "LSTM": "nn",
    "RNN": "nn",
    "SequenceModel": "nn",
    "Predictor": "_predictor",
    "PruneSchedule": "prune",
    "prune_": "prune",
    "QuantizedModel": "qmodel",
    "QuantConfig": "quantize",
    "calibrate": "quantize",
    "convert": "quantize",
    "prepare": "quantize",
    "TrainConfig": "train",
    "fit": "train",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
