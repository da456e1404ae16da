"""Which form of the instructions the processor has that Numba compiles for."""

import os
import platform
from functools import cache
from typing import Any, Final

import llvmlite.binding as llvm
import numba
from numba.core.registry import cpu_target

from ._arm import Neon, NeonDot, has_dot_products
from ._form import Form
from ._x86 import Avx2, Avx512, Avx512Vbmi

VARIABLE: Final = "EDGERNN_SIMD"

_NEEDS: Final[dict[type[Form], tuple[str, set[str]]]] = {  # of the best first: the machine, and its features
    Avx512Vbmi: ("x86", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512vbmi"}),
    Avx512: ("x86", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"}),
    Avx2: ("x86", {"avx2", "fma"}),
    NeonDot: ("aarch64", {"dotprod"}),
    Neon: ("aarch64", set()),
}


@cache
def host_form() -> Form | None:
    """The best form for this processor, or the one that the environment variable EDGERNN_SIMD names.

    None, where there is no form for the processor or the variable says "off": then the readable kernels run. Raises
    ValueError for a form that is unknown or that the processor has not.
    """
    names = [form.name for form in _NEEDS]
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "off":
        return None
    if wanted and wanted not in names:
        raise ValueError(f"unknown {VARIABLE}={wanted}; known are off, {', '.join(names)}")
    for form, (machine, features) in _NEEDS.items():
        if wanted in ("", form.name) and machine in _machine() and features <= target_features():
            return form()
    if wanted:
        raise ValueError(f"{VARIABLE}={wanted}: this processor has no such instructions; try {VARIABLE}=off")
    return None


@cache
def target_features() -> frozenset[str]:
    """The processor's features as LLVM calls them, less those that Numba is told not to use."""
    if _machine() == "aarch64":
        return frozenset({"dotprod"} if has_dot_products(*cpu_target.target_context.codegen().magic_tuple()) else ())
    config: Any = numba.config
    if config.CPU_FEATURES is not None:
        given = str(config.CPU_FEATURES).split(",")
        return frozenset(name[1:] for name in given if name.startswith("+"))
    if config.CPU_NAME == "generic":
        return frozenset()
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def _machine() -> str:
    name = platform.machine().lower()
    return {"amd64": "x86", "x86_64": "x86", "arm64": "aarch64"}.get(name, name)
