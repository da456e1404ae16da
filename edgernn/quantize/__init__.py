"""Quantisation in training (QAT) and after it (PTQ): prepare, calibrate, train, convert."""

from ._calibrate import calibrate as calibrate
from ._config import QuantConfig as QuantConfig
from ._convert import convert as convert
from ._quantizer import ModelQuantizer as ModelQuantizer
from ._quantizer import is_prepared as is_prepared
from ._quantizer import prepare as prepare
from .fused import explicit as explicit

__all__ = ["ModelQuantizer", "QuantConfig", "calibrate", "convert", "explicit", "is_prepared", "prepare"]
