"""Ranges of a batch on the threads that torch's own operations use.

A pool beside torch's would fight with it for the cores: OpenMP's threads go on spinning for milliseconds after their
work, and a thread that wakes meanwhile waits for a core. So the ranges run on OpenMP's threads.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import torch

from ._floats import ROWS

_CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_process: Final = os.getpid()  # a fork has none of its threads, and OpenMP would wait for them for ever


class _OpenMP(NamedTuple):
    parallel: Any  # GOMP_parallel(function, data, threads, flags)
    thread: Any  # omp_get_thread_num()
    team: Any  # omp_get_num_threads()


@cache
def _openmp() -> _OpenMP | None:
    """The library that torch is linked to, by the entry that GCC's and LLVM's both have; None where there is none."""
    path: str = torch._C.__file__  # whose symbols are those of all that it is linked to
    try:
        releasing, holding = ctypes.CDLL(path), ctypes.PyDLL(path)  # of Python's lock
        parallel = releasing.GOMP_parallel
        thread, team = holding.omp_get_thread_num, holding.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    parallel.restype, parallel.argtypes = None, [_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    return _OpenMP(parallel, thread, team)


def threads_for(batch: int) -> int:
    """How many threads share a batch's blocks of sequences: those that torch uses."""
    if torch.get_num_threads() == 1 or os.getpid() != _process or _openmp() is None:
        return 1
    return max(1, min(torch.get_num_threads(), -(-batch // ROWS)))


def over_ranges(batch: int, threads: int, work: Callable[[int, slice], None]) -> None:
    """work(thread, rows) of ranges of whole blocks that are about as long."""
    openmp = _openmp() if threads > 1 else None
    if openmp is None:
        work(0, slice(0, batch))
        return
    blocks = -(-batch // ROWS)
    edges = [thread * blocks // threads * ROWS for thread in range(threads)] + [batch]
    errors, done = list[BaseException](), set[int]()

    def run(_: Any) -> None:
        try:
            for thread in range(openmp.thread(), threads, openmp.team()):  # a team may be smaller than asked for
                work(thread, slice(edges[thread], edges[thread + 1]))
                done.add(thread)
        except BaseException as error:  # raised by the caller's thread below
            errors.append(error)

    openmp.parallel(_CALLBACK(run), None, threads, 0)
    if errors:
        raise errors[0]
    if len(done) < threads:  # Ctrl-C came before `run` could catch it: nothing else ends it silently
        raise KeyboardInterrupt
