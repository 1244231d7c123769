"""Doing the next thing while the current one is worked on, in a thread; errors come where the result is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

_END: Any = object()

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[tuple[T, Future[R]]]:
    """Yield each item with the future of its result, in order, computing the results of the next ones meanwhile.

    Args:
        threads: how many items are worked on ahead; 0 computes each in this thread when its turn comes.

    When the iteration is given up, what runs is waited for and the rest never starts.
    """
    if not threads:
        for item in items:
            yield item, done(function, item)
        return
    remaining = iter(items)
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        waiting.extend((item, pool.submit(function, item)) for item in islice(remaining, threads))
        while waiting:
            item, future = waiting.popleft()
            future.exception()  # wait here, so that only `threads` results exist beside the one yielded
            waiting.extend((nxt, pool.submit(function, nxt)) for nxt in islice(remaining, 1))
            yield item, future
    finally:
        pool.shutdown(cancel_futures=True)


def done(function: Callable[[T], R], item: T) -> Future[R]:
    """The future of a call that is made at once."""
    future: Future[R] = Future()
    try:
        future.set_result(function(item))
    except Exception as error:
        future.set_exception(error)
    return future


def made_ahead(make: Callable[[T], R], items: Iterator[T]) -> Generator[R, None, None]:
    """Yield what is made of each item, in order; a thread takes the next item and works on it meanwhile.

    To be closed when it is given up, which waits for what the thread is at; the items may be ended only then.
    """

    def following() -> Any:
        item = next(items, _END)
        return _END if item is _END else make(item)

    with ThreadPoolExecutor(1, thread_name_prefix="made-ahead") as pool:
        future = pool.submit(following)
        while (made := future.result()) is not _END:
            future = pool.submit(following)
            yield made
