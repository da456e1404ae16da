"""Compilation of the kernels: at their first call, and the machine code is kept for the next process."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
from numba.extending import register_jitable

from .. import fixedpoint
from ._cache import KernelCache, cache_folder

_F = TypeVar("_F", bound=Callable[..., Any])

_PRIMITIVES: Final[tuple[Callable[..., Any], ...]] = (
    fixedpoint.sat16,
    fixedpoint.sat8,
    fixedpoint.round_half_away_shift,
    fixedpoint.round_shift,
    fixedpoint.requantize,
    fixedpoint.rescale,
    fixedpoint.interpolated_sigmoid,
    fixedpoint.interpolated_tanh,
    fixedpoint.sigmoid,
    fixedpoint.tanh,
)
for _primitive in _PRIMITIVES:  # here, so that the arithmetic itself does without Numba
    register_jitable(_primitive)


def inlined(function: _F) -> _F:
    """Let kernels call `function`: it is compiled into the caller."""
    result: _F = register_jitable(forceinline=True)(function)
    return result


def kernel(function: _F) -> _F:
    """Compile `function` when it is first called. It runs without the GIL and must not index below zero."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    folder = cache_folder()
    if folder is not None:
        compiled._cache = KernelCache(function, folder)
    return cast(_F, compiled)


def machine_code(function: Callable[..., None], *types: Any) -> Callable[..., None]:
    """A kernel for arguments of these Numba types, which are not looked at again: a call takes 2 us less."""
    dispatcher: Any = function
    result: Callable[..., None] = dispatcher.compile(types)
    return result
