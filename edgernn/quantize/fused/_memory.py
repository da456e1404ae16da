"""Large arrays that are used again and again: memory fresh from the system costs a page fault every 4 KB."""

import math
import weakref
from collections import deque
from typing import Any, Final

import numpy as np

from ...firmware_sim.simd._pack import ALIGNMENT, Array

_KEPT: Final = 12  # buffers at most that wait to be used again
_free: deque[Array] = deque(maxlen=_KEPT)


def borrow(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array with unknown content that begins at a cache line.

    When this array is gone, its memory is used again: hold it (or torch.from_numpy of it), not a view, while it counts.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = _find(size)
    array: Array = buffer[:size].view(dtype).reshape(shape)
    weakref.finalize(array, _free.append, buffer).atexit = False
    return array


def _find(size: int) -> Array:
    """A free buffer of that size or little more, or a new one."""
    for _ in range(len(_free)):
        try:
            buffer = _free.popleft()
        except IndexError:  # another thread took it
            break
        if size <= len(buffer) <= 2 * size + 65536:
            return buffer
        _free.append(buffer)
    fresh = np.empty(size + size // 4 + ALIGNMENT, np.uint8)
    return fresh[-fresh.ctypes.data % ALIGNMENT :]


def for_valid_steps(lengths: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array [batch, time, ..] whose valid steps will be written; 0 at the others."""
    return np.empty(shape, dtype) if lengths.min() == shape[1] else np.zeros(shape, dtype)
