"""Ranges of a batch on several threads, which live as long as the process; a forked one starts its own."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from ._floats import ROWS

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process and number of threads


def threads_for(batch: int) -> int:
    """How many threads share a batch's blocks of sequences: those that torch uses."""
    return max(1, min(torch.get_num_threads(), -(-batch // ROWS)))


def over_ranges(batch: int, threads: int, work: Callable[[int, slice], None]) -> None:
    """work(thread, rows) of ranges of whole blocks that are about as long; the first one on the caller's thread."""
    if threads == 1:
        work(0, slice(0, batch))
        return
    blocks = -(-batch // ROWS)
    edges = [thread * blocks // threads * ROWS for thread in range(threads)] + [batch]
    ranges = [slice(*pair) for pair in zip(edges, edges[1:], strict=False)]
    pool = _pool(threads - 1)
    others = [pool.submit(work, thread, rows) for thread, rows in enumerate(ranges[1:], 1)]
    try:
        work(0, ranges[0])
    finally:
        for other in others:
            other.result()


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool has no threads before it has work: one made in vain by two callers at once costs nothing."""
    key = os.getpid(), threads
    pool = _pools.get(key)
    return pool if pool is not None else _pools.setdefault(key, ThreadPoolExecutor(threads, "edgernn"))
