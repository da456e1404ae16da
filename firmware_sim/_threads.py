"""Work over all cores."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from ._inference import available_threads

_T = TypeVar("_T")
_R = TypeVar("_R")

_AHEAD: Final = 2  # items for each thread that are taken before their turn


def in_order(work: Callable[[_T], _R], items: Iterable[_T]) -> Generator[_R, None, None]:
    """work(item) of every item, in their order, on `available_threads`; kernels release the GIL.

    Only so many items are taken and results kept as keep the threads busy. The first item is done by the caller's own
    thread: it may have to compile the kernels, and Ctrl-C interrupts no other thread.
    """
    waiting = iter(items)
    yield from map(work, islice(waiting, 1))
    threads = available_threads()
    if threads == 1:
        yield from map(work, waiting)
        return
    pool = ThreadPoolExecutor(threads)  # a call's own: one that is kept would be dead in a forked process
    try:
        ahead: deque[Future[_R]] = deque()
        for item in waiting:
            ahead.append(pool.submit(work, item))
            if len(ahead) > _AHEAD * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
