"""C for firmware: a model as one header and one source file, for a core."""

from typing import Final

from ...qmodel import QuantizedModel
from .header import header
from .layouts import LAYOUTS
from .network import parts
from .source import source

TARGETS: Final = {
    "generic": "generic",
    "cortex-m0": "generic",
    "cortex-m0plus": "generic",
    "cortex-m3": "generic",
    "cortex-m4": "dsp",
    "cortex-m7": "dsp",
    "cortex-m33": "dsp",
    "cortex-m55": "dsp",
    "rv32imc": "generic",
    "raspberry-pi": "generic",
}


def to_c(model: QuantizedModel, name: str = "model", target: str = "generic") -> dict[str, str]:
    layout = LAYOUTS[TARGETS[target]]
    made = parts(model, layout)
    return {f"{name}.h": header(model, name, target, layout, made), f"{name}.c": source(model, name, layout, made)}
