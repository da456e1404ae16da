"""C for firmware: a model as one header and one source file, in C99 without library, allocation or float.

The integers are those of every other engine. A target chooses how the weights lie in memory, and with that the
hand-written kernels (`kernels/`) that are fast on it; every layout has a plain C form too, so that each export compiles
and computes the same anywhere, on the host for instance.
"""

import re
from typing import Final

import numpy as np

from ...qmodel import IntArray, QuantizedModel
from .header import header
from .layouts import GENERAL, LAYOUTS
from .network import Network
from .source import source
from .vectors import self_test

TARGETS: Final = {
    "generic": "generic",
    "cortex-m0": "v6m",
    "cortex-m0plus": "v6m",
    "cortex-m3": "generic",
    "cortex-m4": "dsp",
    "cortex-m7": "dsp",
    "cortex-m33": "dsp",
    "cortex-m55": "mve",
    "rv32imc": "generic",
    "raspberry-pi": "neon",
    "x86-64": "x86",
}

_KEYWORDS: Final = (
    "auto bool break case catch char class const continue default delete do double else enum extern false float for "
    "friend goto if inline int long main namespace new operator private protected public register restrict return "
    "short signed sizeof static struct switch template this throw true try typedef union unsigned using virtual void "
    "volatile while"
)
_HEADERS: Final = (  # of C's library and of compilers, which NAME.h must not be taken for
    "arm_acle arm_mve arm_neon assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal "
    "stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar "
    "wctype"
)
_DEVICES: Final = "aux con nul prn com1 com2 com3 com4 lpt1 lpt2 lpt3"  # no file on Windows may have these names
_TAKEN: Final = f"{_KEYWORDS} {_HEADERS} {_DEVICES}"
_LONGEST_NAME: Final = 40

__all__ = ["TARGETS", "check_name", "check_target", "slow_parts", "to_c"]


def to_c(
    model: QuantizedModel,
    name: str = "model",
    target: str = "generic",
    vectors: tuple[IntArray, IntArray] | None = None,
) -> dict[str, str]:
    """The texts of NAME.h and NAME.c by their file names, and of NAME_test.c for `vectors`.

    vectors: input integers [T, input_size] of a sequence, and the outputs that the model has of them, as
    `firmware_sim.run` gives both (in its flavour cmsis). Raises ValueError for a name that is no C identifier, an
    unknown target, one without kernels for the model's profile, or vectors that are not the model's.
    """
    check_name(name)
    network = _network(model, name, target)
    made = {f"{name}.h": header(network, target), f"{name}.c": source(network)}
    if vectors is not None:
        made[f"{name}_test.c"] = self_test(network, *_checked(model, *vectors))
    return made


def slow_parts(model: QuantizedModel, target: str = "generic") -> list[str]:
    """The parts (layer_0, layer_0_reverse, .., head) whose rows' scales are too far apart for the fast multiplication.

    They take more instructions, and give the same integers. Raises ValueError for an unknown target.
    """
    return [part.name for part in _network(model, "model", target).parts if GENERAL in part.lefts]


def _network(model: QuantizedModel, name: str, target: str) -> Network:
    check_target(target)
    if not has_kernels(model, target):
        raise ValueError(f"there are no kernels for {target} of the profile {model.profile}: use the target generic")
    return Network(model, name, LAYOUTS[TARGETS[target]])


def has_kernels(model: QuantizedModel, target: str) -> bool:
    """Whether there are kernels for this target of the model's profile."""
    return model.profile == "portable" or bool(LAYOUTS[TARGETS[target]].operator)


def check_target(target: str) -> None:
    """Raise ValueError for an unknown target."""
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; known are {', '.join(TARGETS)}")


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can begin the names of C functions and types."""
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"the name {name!r} is no C identifier (a letter, then letters, digits and _, {_LONGEST_NAME} at most); "
            "choose another"
        )
    if name.lower() in (*_TAKEN.split(), "ern") or name.lower().startswith("ern_"):
        raise ValueError(
            f"the name {name!r} has a meaning of its own in C, its library, the kernels or Windows; choose another"
        )


def _checked(model: QuantizedModel, x: IntArray, y: IntArray) -> tuple[IntArray, IntArray]:
    x = model.check_input(x, ("time", "input_size"))
    shape = (len(x), model.output_size) if model.every_step else (model.output_size,)
    if y.shape != shape or y.dtype != np.dtype(model.output_dtype):
        found, needed = f"{y.dtype} {y.shape}", f"{np.dtype(model.output_dtype)} {shape}"
        raise ValueError(f"the vectors' outputs are {found}, the model gives {needed}")
    return x, y
